"""Many images through a model: read ahead in parallel, several requests in flight, outcomes in the order of the images, bounded memory.

Both ends are given as functions, so that the SDK's streams, batch jobs and comparisons share this one way of keeping a server busy.

Images are read by `sightline.readers`, in groups: to hand over one image costs some 30 µs, and to read a small one some 90.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from sightline.errors import ImageError, UsageError
from sightline.host.cpu import usable_cores
from sightline.readers import Read, Readers, ReadGroup, read_group, reading_threads

Image = TypeVar("Image")
Answer = TypeVar("Answer")

Pixels = npt.NDArray[np.uint8]

GROUP_S: Final = 0.02
"""A reader takes as many images at once as it reads in about that time."""
BYTES_IN_FLIGHT: Final = 64 * 1024 * 1024
"""Of pixels in all requests, unless two have more: each byte is copied two or three times on its way into the network."""


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


def flow(
    images: Iterable[Image],
    read: Read[Image],
    ask: Callable[[Pixels], Sequence[Answer]],
    batch_size: int,
    settings: FlowSettings = AHEAD,
    readers: Readers | None = None,
) -> Iterator[Answer | ImageError]:
    """Yield an answer, or the error that `read` returned, for each of `images`, in their order.

    Batches are cut by position: each request is for the readable ones among `batch_size` consecutive images, so that the same images
    make the same requests. `read` gives uint8 pixels [H, W, C] and is called by `readers`, or by threads; `ask` takes uint8 pixels
    [N, H, W, C] and is called in other threads. `images` is read as far ahead as settings.requests + 1 batches. What `read` or `ask`
    raises is raised here.
    """
    remaining = iter(images)
    beginning = list(islice(remaining, 2))
    full_size = batch_size if settings.full_batches else 0
    if len(beginning) < 2:  # one image is nothing that threads are worth
        groups = [read_group(read, beginning)]
        pixels = request_pixels(groups, full_size)
        yield from in_order(groups, () if pixels is None else ask(pixels))
        return
    remaining = chain(beginning, remaining)
    with ExitStack() as stack:
        if readers is None:
            readers = stack.enter_context(reading_threads(settings.readers or usable_cores(), settings.pixels))
        asking = stack.enter_context(_Pool(settings.requests, "ask"))
        sizes = GroupSizes(readers.count)

        def answered(reading: list[Future[ReadGroup]]) -> list[Answer | ImageError]:
            groups = [sizes.learn_from(future.result()) for future in reading]
            pixels = request_pixels(groups, full_size)
            return in_order(groups, () if pixels is None else ask(pixels))

        pending: deque[Future[list[Answer | ImageError]]] = deque()
        for batch in iter(lambda: list(islice(remaining, batch_size)), []):
            pending.append(asking.submit(answered, [readers.submit(read, group) for group in sizes.cut(batch)]))
            if len(pending) > settings.requests:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def request_pixels(groups: Sequence[ReadGroup], full_size: int) -> Pixels | None:
    """Return the pixels of one request: what could be read of a batch, filled up to `full_size` images; None if nothing could be."""
    parts = [group.pixels for group in groups if group.pixels is not None]
    if not parts:
        return None
    missing = full_size - sum(len(part) for part in parts)
    if missing > 0:
        parts.append(np.zeros((missing, *parts[0].shape[1:]), np.uint8))
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def in_order(groups: Sequence[ReadGroup], answers: Sequence[Answer]) -> list[Answer | ImageError]:
    """Return an outcome for each image of a batch: its error, or the next answer. Raises ValueError if there are too few answers."""
    outcomes: list[Answer | ImageError] = []
    used = 0
    for group in groups:
        readable = group.count - len(group.errors)
        theirs = answers[used : used + readable]
        if len(theirs) != readable:
            raise ValueError(f"{len(answers)} answers to more images than that")
        used += readable
        if group.errors:
            next_answer = iter(theirs)
            outcomes += [group.errors[at] if at in group.errors else next(next_answer) for at in range(group.count)]
        else:
            outcomes += theirs
    return outcomes


class GroupSizes:
    """Cuts batches into groups that take a reader about GROUP_S."""

    def __init__(self, readers: int) -> None:
        self._readers = readers
        self._size = 1

    def cut(self, batch: Sequence[Image]) -> Iterator[Sequence[Image]]:
        """Cut a batch so that every reader has some of it."""
        size = max(1, min(self._size, -(-len(batch) // self._readers)))
        return (batch[start : start + size] for start in range(0, len(batch), size))

    def learn_from(self, group: ReadGroup) -> ReadGroup:
        """Return the group, after learning from it how many images the next ones may have."""
        each_s = group.seconds / max(1, group.count)
        self._size = max(1, min(2 * self._size, int(GROUP_S / max(each_s, 1e-6))))
        return group


class _Pool(ThreadPoolExecutor):
    """A pool that, left early, drops what has not begun."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)

    def __exit__(self, *_: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)
