"""Ray Serve: a deployment with a replica for each core, dynamic batching where it pays, and its settings for high throughput."""

import threading

import numpy as np
import ray
from ray import serve
from setup import BATCH_WAIT_S, MAX_BATCH, PORT, WORKERS, Network
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Onnx:
    def __init__(self) -> None:
        self.network = Network()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT_S)
    async def batched(self, images: list[np.ndarray]) -> list[np.ndarray]:
        return list(self.network(np.stack(images)))

    async def __call__(self, request: Request) -> Response:
        image = self.network.image(await request.body())
        probabilities = await self.batched(image) if MAX_BATCH > 1 else self.network(image[None])
        return Response(probabilities.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(num_cpus=WORKERS + 2, include_dashboard=False, object_store_memory=100 * 1024 * 1024, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT}, logging_config={"enable_access_log": False, "log_level": "WARNING"})
    serve.run(Onnx.bind(), route_prefix="/predict")
    threading.Event().wait()
