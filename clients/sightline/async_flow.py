"""`sightline.flow` for an event loop: images are read by threads, requests are tasks, outcomes come in order, and memory is bounded.

It cuts batches by the same rule, so that the same images make the same requests. Nothing goes on when the caller does not: at most
settings.requests + 1 batches are under way, and all of them are cancelled when the stream ends early.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sightline.errors import ImageError
from sightline.flow import FlowSettings, GroupSizes, in_order, request_pixels
from sightline.readers import Read, Readers

Image = TypeVar("Image")
Answer = TypeVar("Answer")

Pixels = npt.NDArray[np.uint8]


async def async_flow(
    images: AsyncIterable[Image] | Iterable[Image],
    read: Read[Image],
    ask: Callable[[Pixels], Awaitable[Sequence[Answer]]],
    batch_size: int,
    settings: FlowSettings,
    readers: Readers,
) -> AsyncGenerator[Answer | ImageError]:
    """Yield an answer, or the error that `read` returned, for each of `images`, in their order.

    `read` gives uint8 pixels [H, W, C] and is called by `readers`; `ask` takes uint8 pixels [N, H, W, C]. `images` that are no asynchronous
    iterable are iterated over in the event loop. What `read`, `ask` or `images` raise is raised here.
    """
    asking, sizes = asyncio.Semaphore(settings.requests), GroupSizes(readers.count)
    full_size = batch_size if settings.full_batches else 0

    async def answered(batch: Sequence[Image]) -> list[Answer | ImageError]:
        reading = (asyncio.wrap_future(readers.submit(read, group)) for group in sizes.cut(batch))
        groups = [sizes.learn_from(group) for group in await asyncio.gather(*reading)]
        pixels = request_pixels(groups, full_size)
        if pixels is None:
            return in_order(groups, ())
        async with asking:
            answers = await ask(pixels)
        return in_order(groups, answers)

    pending: deque[asyncio.Task[list[Answer | ImageError]]] = deque()
    try:
        async with aclosing(_batches(images, batch_size)) as batches:
            async for batch in batches:
                pending.append(asyncio.create_task(answered(batch)))
                if len(pending) > settings.requests:
                    for outcome in await pending.popleft():
                        yield outcome
        while pending:
            for outcome in await pending.popleft():
                yield outcome
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _batches(images: AsyncIterable[Image] | Iterable[Image], size: int) -> AsyncGenerator[list[Image]]:
    batch: list[Image] = []
    async for image in images if isinstance(images, AsyncIterable) else _each(images):
        batch.append(image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


async def _each(images: Iterable[Image]) -> AsyncGenerator[Image]:
    for image in images:
        yield image
