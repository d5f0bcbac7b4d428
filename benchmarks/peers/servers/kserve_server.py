"""KServe's Python server: a custom model behind the V2 protocol. An image comes as base64 over HTTP, as it is over gRPC."""

import asyncio
import base64

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from setup import GRPC_PORT, MODEL_NAME, POOL, PORT, WORKERS, Network


class OnnxModel(Model):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.load()

    def load(self) -> bool:
        self.network = Network()
        self.ready = True
        return self.ready

    def get_input_types(self):
        return [{"name": self.network.input, "datatype": "UINT8", "shape": [-1, *self.network.shape]}]

    def get_output_types(self):
        return [{"name": self.network.output, "datatype": "FP32", "shape": [-1, -1]}]

    async def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        tensor = payload.inputs[0]
        if tensor.datatype == "BYTES":
            images = np.stack([self.network.image(base64.b64decode(content)) for content in tensor.data])
        else:
            images = tensor.as_numpy()
        probabilities = await asyncio.to_thread(self.network, images) if POOL else self.network(images)
        answer = InferOutput(self.network.output, list(probabilities.shape), "FP32")
        binary = payload.use_binary_outputs or payload.from_grpc
        answer.set_data_from_numpy(probabilities, binary_data=bool(binary))
        return InferResponse(payload.id or "", self.name, [answer], use_binary_outputs=bool(binary))


if __name__ == "__main__":
    ModelServer(http_port=PORT, grpc_port=GRPC_PORT, workers=WORKERS, enable_latency_logging=False, access_log_format=None).start(
        [OnnxModel(MODEL_NAME)]
    )
