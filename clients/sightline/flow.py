"""Many images through a model: read ahead in parallel, several requests in flight, outcomes in the order of the images, bounded memory.

Both ends are given as functions, so that the SDK's streams, batch jobs and comparisons share this one way of keeping a server busy.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from sightline.errors import ImageError, UsageError
from sightline.host.cpu import usable_cores

Image = TypeVar("Image")
Answer = TypeVar("Answer")

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FlowSettings:
    """How far a stream goes ahead of its caller."""

    readers: int | None = None
    """Images that are read and reformatted at the same time; None: as many as there are cores."""
    requests: int = 4
    """Requests in flight at the same time."""
    full_batches: bool = False
    """Whether a request that lacks images is filled up with black ones, whose answers are dropped: then no server adds the images of
    others to it, and an answer does not depend on who else asks."""

    def __post_init__(self) -> None:
        for name, count in (("readers", self.readers), ("requests", self.requests)):
            if count is not None and not 1 <= count <= 256:
                raise UsageError(f"{name} must be between 1 and 256, not {count}", settings=(name,))


AHEAD: Final = FlowSettings()
"""What suits most."""


def flow(
    images: Iterable[Image],
    read: Callable[[Image], Pixels | ImageError],
    ask: Callable[[Pixels], Sequence[Answer]],
    batch_size: int,
    settings: FlowSettings = AHEAD,
) -> Iterator[Answer | ImageError]:
    """Yield an answer, or the error that `read` returned, for each of `images`, in their order.

    Batches are cut by position: each request is for the readable ones among `batch_size` consecutive images, so that the same images
    make the same requests. `read` gives uint8 pixels [H, W, C] and is called in several threads; `ask` takes uint8 pixels [N, H, W, C]
    and is called in others. `images` is read as far ahead as settings.requests + 1 batches. What `read` or `ask` raises is raised here.
    """
    remaining = iter(images)
    batches = iter(lambda: list(islice(remaining, batch_size)), [])
    first = next(batches, [])

    def answered(outcomes: Sequence[Pixels | ImageError]) -> list[Answer | ImageError]:
        pixels = [outcome for outcome in outcomes if not isinstance(outcome, ImageError)]
        missing = batch_size - len(pixels) if settings.full_batches else 0
        answers = iter(ask(np.stack([*pixels, *[np.zeros_like(pixels[0])] * missing])) if pixels else ())
        return [outcome if isinstance(outcome, ImageError) else next(answers) for outcome in outcomes]

    if len(first) <= 1:  # one image is nothing that threads are worth
        yield from answered([read(image) for image in first])
        return
    with _Pool(settings.readers or usable_cores(), "read") as reading, _Pool(settings.requests, "ask") as asking:
        pending: deque[Future[list[Answer | ImageError]]] = deque()
        for batch in chain([first], batches):
            futures = [reading.submit(read, image) for image in batch]
            pending.append(asking.submit(lambda waiting: answered([future.result() for future in waiting]), futures))
            if len(pending) > settings.requests:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


class _Pool(ThreadPoolExecutor):
    """A pool that, left early, drops what has not begun."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)

    def __exit__(self, *_: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)
