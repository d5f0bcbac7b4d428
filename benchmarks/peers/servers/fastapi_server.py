"""FastAPI: the bytes of an image in the body of a request, the bytes of its probabilities in the answer.

uvicorn fastapi_server:app --workers N
"""

import contextlib
from collections.abc import AsyncIterator

import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from setup import POOL, Network

network = Network()


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Let no more threads compute at once than are worth it."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = POOL or 40
    yield


app = FastAPI(lifespan=lifespan)


def classify(content: bytes) -> bytes:
    return network(network.image(content)[None]).tobytes()


@app.post("/predict")
async def predict(request: Request) -> Response:
    content = await request.body()
    probabilities = await run_in_threadpool(classify, content) if POOL else classify(content)
    return Response(probabilities, media_type="application/octet-stream")
