"""BentoML: a service that takes bytes; with adaptive batching, as its documentation shows it, a second one that is asked for batches.

bentoml serve bentoml_server:Images
"""

from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import ContentType
from setup import MAX_BATCH, POOL, WORKERS, Network

Content = Annotated[bytes, ContentType("application/octet-stream")]
SETTINGS = {"workers": WORKERS, "threads": POOL or 1, "traffic": {"timeout": 60}, "metrics": {"enabled": False}}
LOGGING = {"access": {"enabled": False}}

if MAX_BATCH > 1:

    @bentoml.service(**SETTINGS, logging=LOGGING)
    class Batches:
        def __init__(self) -> None:
            self.network = Network()

        @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=60_000)
        def predict(self, images: np.ndarray) -> np.ndarray:
            return self.network(images)

    @bentoml.service(traffic={"timeout": 60}, metrics={"enabled": False}, logging=LOGGING)
    class Images:
        batches = bentoml.depends(Batches)

        def __init__(self) -> None:
            self.network = Network()  # knows the shape

        @bentoml.api
        async def predict(self, content: Content, /) -> Content:
            probabilities = await self.batches.to_async.predict(self.network.image(content)[None])
            return np.asarray(probabilities, np.float32).tobytes()

elif POOL:

    @bentoml.service(**SETTINGS, logging=LOGGING)
    class Images:
        def __init__(self) -> None:
            self.network = Network()

        @bentoml.api
        def predict(self, content: Content, /) -> Content:
            return self.network(self.network.image(content)[None]).tobytes()

else:

    @bentoml.service(**SETTINGS, logging=LOGGING)
    class Images:
        def __init__(self) -> None:
            self.network = Network()

        @bentoml.api
        async def predict(self, content: Content, /) -> Content:
            return self.network(self.network.image(content)[None]).tobytes()
