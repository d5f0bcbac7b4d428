"""Serve labels to browsers and programs, with Starlette: PORT=8080 python examples/web_service.py

    curl --data-binary @a.jpg http://localhost:8080/classify      → {"label": "7", "probability": 0.9981, …}

One event loop serves many uploads at once, since nothing in it waits: `AsyncClassifier` decodes in threads and asks the server in the
background. The file is the request's body, as it is, which is read up to MAX_BYTES: the parts of a form would be written to the disk first,
however long they are. What is wrong comes back as {"error": sentence}: 422 for an image that cannot be read, 413 for one that is too
large, 503 while the server is away, 502 if it does not answer as it should.
"""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sightline import (
    AsyncClassifier,
    DeadlineExceeded,
    ImageError,
    ServerUnavailable,
    SightlineError,
)

MODEL = "mnist"
URL = os.environ.get("SIGHTLINE_URL", "grpc://localhost:8001")
MAX_BYTES = 20 * 1024 * 1024


class TooLarge(Exception):
    """A body of more than MAX_BYTES."""


async def body_of(request: Request) -> bytes:
    """Return the body, and stop reading where it gets too long: a length that a client announces is not trusted."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_BYTES:
            raise TooLarge
    return bytes(content)


def refusal(code: int, sentence: str) -> Response:
    """Answer with a sentence in place of a label."""
    return JSONResponse({"error": sentence}, status_code=code)


async def classify(request: Request) -> Response:
    """Answer with the label of the image in the body."""
    try:
        model = await request.app.state.model()
        (guess,) = await model.classify([await body_of(request)])
    except TooLarge:
        return refusal(413, f"an image may have {MAX_BYTES:,} bytes at most")
    except ClientDisconnect:
        return Response(status_code=400)
    except ImageError as error:
        return refusal(422, str(error))
    except (ServerUnavailable, DeadlineExceeded) as error:
        return refusal(503, str(error))
    except SightlineError as error:
        return refusal(502, str(error))
    return JSONResponse(
        {"label": guess.label, "probability": guess.probability, "version": guess.version, "remark": guess.remark},
    )


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Open the model when it is first asked for, so that the service starts, and says 503, while the server is away."""
    async with AsyncExitStack() as stack:
        opened: list[AsyncClassifier] = []

        async def model() -> AsyncClassifier:
            if not opened:
                fresh = await stack.enter_async_context(AsyncClassifier(MODEL, URL, timeout_s=5))
                opened.append(fresh)
            return opened[0]

        app.state.model = model
        yield


app = Starlette(routes=[Route("/classify", classify, methods=["POST"])], lifespan=lifespan)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")), log_level="info")
