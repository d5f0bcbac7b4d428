"""LitServe: an API with its four steps, batched where that pays, workers for the cores, and ZeroMQ between its processes (`fast_queue`)."""

from typing import Annotated

import litserve as ls
import numpy as np
from fastapi import Body, Response
from setup import BATCH_WAIT_S, MAX_BATCH, PORT, WORKERS, Network


class OnnxAPI(ls.LitAPI):
    def setup(self, device):
        self.network = Network()

    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]):
        return self.network.image(request)

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, x):
        return self.network(x if MAX_BATCH > 1 else x[None])

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    api = OnnxAPI(max_batch_size=MAX_BATCH, batch_timeout=BATCH_WAIT_S)
    server = ls.LitServer(api, accelerator="cpu", devices=1, workers_per_device=WORKERS, timeout=60, fast_queue=True)
    server.run(host="127.0.0.1", port=PORT, num_api_servers=WORKERS, generate_client_file=False, log_level="warning", access_log=False)
