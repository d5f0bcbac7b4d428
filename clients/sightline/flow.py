"""Many images through a model: read ahead in parallel, several requests in flight, outcomes in the order of the images, bounded memory.

Both ends are given as functions, so that the SDK's streams, batch jobs and comparisons share this one way of keeping a server busy.

Readers are threads: Pillow decodes and scales without Python's lock, which is where a photo's time goes. Of a small image most of the
time goes where the lock is held, so these are read in groups, and one thread hands the next its turn once in some milliseconds only.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Final, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from sightline.errors import ImageError, UsageError
from sightline.host.cpu import usable_cores
from sightline.image.blocks import blocks_kept

Image = TypeVar("Image")
Answer = TypeVar("Answer")

Pixels = npt.NDArray[np.uint8]

GROUP_S: Final = 0.004
"""A reader takes as many images at once as it reads in about that time: handing over one costs some 30 µs, a small image 90."""
BYTES_IN_FLIGHT: Final = 64 * 1024 * 1024
"""Of pixels in all requests, unless two have more: each byte is copied two or three times on its way into the network."""
SMALL_PIXELS: Final = 1_000_000
"""An image of fewer needs no turn."""


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
    pixels: int = 64_000_000
    """Pixels that may be decoded at the same time, of all images together; they take four bytes each. A larger image is read alone."""

    def __post_init__(self) -> None:
        for name, count in (("readers", self.readers), ("requests", self.requests)):
            if count is not None and not 1 <= count <= 256:
                raise UsageError(f"{name} must be between 1 and 256, not {count}", settings=(name,))

    def within(self, request_bytes: int) -> "FlowSettings":
        """Return these settings, with fewer requests where those of `request_bytes` each would hold more than BYTES_IN_FLIGHT."""
        return replace(self, requests=min(self.requests, max(2, BYTES_IN_FLIGHT // max(1, request_bytes))))


AHEAD: Final = FlowSettings()
"""What suits most."""


class Room:
    """Lets threads decode at the same time what has room together: at most `most` pixels, or one larger image alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._changed = threading.Condition()

    def turn(self) -> "_Turn":
        """Return a turn, for a `with` block around reading one image; its `admit` is for `sightline.reformat.reformat`."""
        return _Turn(self)

    def take(self, pixels: int) -> None:
        """Wait until there is room for an image of that size, and take it."""
        with self._changed:
            while self._taken and self._taken + pixels > self._most:
                self._changed.wait()
            self._taken += pixels

    def give_back(self, pixels: int) -> None:
        """Give room back."""
        with self._changed:
            self._taken -= pixels
            self._changed.notify_all()


class _Turn:
    """One image's."""

    def __init__(self, room: Room) -> None:
        self._room, self._pixels = room, 0

    def admit(self, pixels: int) -> None:
        if pixels >= SMALL_PIXELS and not self._pixels:
            self._room.take(pixels)
            self._pixels = pixels

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pixels:
            self._room.give_back(self._pixels)


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
    full_size = batch_size if settings.full_batches else 0
    if len(first) <= 1:  # one image is nothing that threads are worth
        yield from _answered([read(image) for image in first], ask, full_size)
        return
    readers = settings.readers or usable_cores()
    groups = _Groups(read, readers)
    with blocks_kept(), _Pool(readers, "read") as reading, _Pool(settings.requests, "ask") as asking:

        def answered(futures: list[Future[list[Pixels | ImageError]]]) -> list[Answer | ImageError]:
            outcomes = [outcome for future in futures for outcome in future.result()]
            return _answered(outcomes, ask, full_size)

        pending: deque[Future[list[Answer | ImageError]]] = deque()
        for batch in chain([first], batches):
            pending.append(asking.submit(answered, [reading.submit(groups.read, group) for group in groups.cut(batch)]))
            if len(pending) > settings.requests:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _answered(
    outcomes: Sequence[Pixels | ImageError], ask: Callable[[Pixels], Sequence[Answer]], full_size: int
) -> list[Answer | ImageError]:
    """Ask about the readable ones in one request, of `full_size` images if that is more."""
    pixels = [outcome for outcome in outcomes if not isinstance(outcome, ImageError)]
    missing = full_size - len(pixels)
    answers = iter(ask(np.stack([*pixels, *[np.zeros_like(pixels[0])] * missing])) if pixels else ())
    return [outcome if isinstance(outcome, ImageError) else next(answers) for outcome in outcomes]


class _Groups(Generic[Image]):
    """Reads images by groups that take a reader about GROUP_S."""

    def __init__(self, read: Callable[[Image], Pixels | ImageError], readers: int) -> None:
        self._read, self._readers = read, readers
        self._size = 1

    def cut(self, batch: list[Image]) -> Iterator[list[Image]]:
        """Cut a batch into groups, so that every reader has some of it."""
        size = max(1, min(self._size, -(-len(batch) // self._readers)))
        return (batch[start : start + size] for start in range(0, len(batch), size))

    def read(self, group: list[Image]) -> list[Pixels | ImageError]:
        """Read a group, and learn from it how many images the next ones may have."""
        started_s = time.perf_counter()
        outcomes = [self._read(image) for image in group]
        each_s = (time.perf_counter() - started_s) / len(group)
        self._size = max(1, min(2 * self._size, int(GROUP_S / max(each_s, 1e-6))))
        return outcomes


class _Pool(ThreadPoolExecutor):
    """A pool that, left early, drops what has not begun."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)

    def __exit__(self, *_: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)
