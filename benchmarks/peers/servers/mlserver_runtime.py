"""MLServer: a custom runtime. Its HTTP speaks JSON alone, so an image comes as base64, the codec for binary data; over gRPC as it is.

mlserver start FOLDER, with the settings that peers/contenders.py writes.
"""

import asyncio

import numpy as np
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from setup import POOL, Network


class OnnxRuntime(MLModel):
    async def load(self) -> bool:
        self._network = Network()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = payload.inputs[0]
        if tensor.datatype == "BYTES":
            images = np.stack([self._network.image(content) for content in Base64Codec.decode_input(tensor)])
        else:
            images = NumpyCodec.decode_input(tensor)
        probabilities = await asyncio.to_thread(self._network, images) if POOL else self._network(images)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(self._network.output, probabilities)])
