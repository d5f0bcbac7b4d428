"""Who reads and reformats the images of a stream: threads of this process, or processes of their own.

Pillow decodes and scales without Python's lock, which is where a photo's time goes: threads are enough for photos, and can share a process
with anything. Of a small image most of the time goes into Python itself, where threads only wait for one another; a batch job, which has
the process for itself, has it read by processes. What is read is the same in both: it is one function.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import synchronize
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Final, Protocol, Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from sightline.errors import ImageError, MachineError
from sightline.image import Admit
from sightline.image.blocks import MOST_BLOCKS, blocks_kept, keep_blocks

Pixels = npt.NDArray[np.uint8]

Image = TypeVar("Image")

SMALL_PIXELS: Final = 1_000_000
"""An image of fewer needs no turn."""
KILLED: Final = "a process that reads images was killed: was there not enough memory?"
PARENT_S: Final = 0.5
"""A reading process looks so often whether the process is still there that it reads for."""


Read: TypeAlias = Callable[[Image, Admit], Pixels | ImageError]
"""Gives an image's pixels, uint8 [H, W, C], or why there are none; its second argument is for `sightline.reformatting.reformat`."""


@dataclass(frozen=True)
class ReadGroup:
    """Images that were read one after the other."""

    pixels: Pixels | None
    """Of those that could be read, in their order: uint8 [n, H, W, C]; None if none could."""
    errors: dict[int, ImageError]
    """Position in the group → why that image could not be read."""
    count: int
    """Images, whether they could be read or not."""
    seconds: float


class Readers(Protocol):
    """Reads groups of images, several at the same time."""

    count: int
    """How many groups at the same time."""

    def submit(self, read: Read[Image], images: Sequence[Image]) -> "Future[ReadGroup]":
        """Begin to read a group as soon as a reader is free."""
        ...


Condition: TypeAlias = threading.Condition | synchronize.Condition
"""Of the threads of a process, or of several processes."""


class Count(Protocol):
    """A whole number that may be shared with other processes."""

    value: int


@dataclass
class _Number:
    value: int = 0


class Room:
    """Lets images be decoded at the same time that have room together: at most `most` pixels, or one larger image alone."""

    def __init__(self, most: int, changed: Condition | None = None, taken: Count | None = None) -> None:
        self._most = most
        self._changed: Condition = threading.Condition() if changed is None else changed
        self._taken: Count = _Number() if taken is None else taken

    def turn(self) -> "_Turn":
        """Return a turn, for a `with` block around reading one image; its `admit` waits until there is room for that image."""
        return _Turn(self)

    def take(self, pixels: int) -> None:
        """Wait until there is room for so many pixels, and take it."""
        with self._changed:
            while self._taken.value and self._taken.value + pixels > self._most:
                self._changed.wait()
            self._taken.value += pixels

    def give_back(self, pixels: int) -> None:
        """Give room back."""
        with self._changed:
            self._taken.value -= pixels
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


def _read(room: Room, read: Read[Image], images: Sequence[Image]) -> ReadGroup:
    started_s = time.perf_counter()
    readable, errors = [], {}
    for at, image in enumerate(images):
        with room.turn() as turn:
            outcome = read(image, turn.admit)
        if isinstance(outcome, ImageError):
            errors[at] = outcome
        else:
            readable.append(outcome)
    pixels = np.stack(readable) if readable else None
    return ReadGroup(pixels, errors, len(images), time.perf_counter() - started_s)


def read_group(read: Read[Image], images: Sequence[Image]) -> ReadGroup:
    """Read a group at once, in this thread."""
    return _read(Room(sys.maxsize), read, images)


class ThreadReaders:
    """Threads that read until they are ended, and decode at most `pixels` at the same time, of all images together. `Readers`."""

    def __init__(self, count: int, pixels: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="read")
        self._room = Room(pixels)

    def submit(self, read: Read[Image], images: Sequence[Image]) -> Future[ReadGroup]:
        """Begin to read a group as soon as a thread is free."""
        return self._pool.submit(_read, self._room, read, images)

    def end(self, *, wait: bool) -> None:
        """Drop what has not begun, and end each thread with the group that it is at; `wait` for that, or do not."""
        self._pool.shutdown(wait=wait, cancel_futures=True)


@contextlib.contextmanager
def reading_threads(count: int, pixels: int) -> Iterator[Readers]:
    """Threads that end with the block and decode at most `pixels` at the same time, of all images together."""
    threads = ThreadReaders(count, pixels)
    with blocks_kept():
        try:
            yield threads
        finally:
            threads.end(wait=True)


class _Processes:
    """Processes, and a thread for each of them that hands it one group after the other.

    concurrent.futures has such a pool, whose queues, locks and threads of its own take three times the CPU of this for small groups.
    """

    def __init__(self, count: int, pixels: int) -> None:
        self.count = count
        self._pickled: tuple[object, bytes] = (None, b"")
        # A forked process is there within milliseconds, and has imported everything.
        context = multiprocessing.get_context("fork") if sys.platform == "linux" else multiprocessing.get_context("spawn")
        changed, taken = context.Condition(), context.Value("q", 0, lock=False)
        self._free: SimpleQueue[Connection] = SimpleQueue()
        self._processes = []
        with warnings.catch_warnings():
            # Python warns of every fork beside threads; what these processes call takes no lock that another thread may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            for _ in range(count):
                ours, theirs = context.Pipe()
                room = _SharedRoom(pixels, changed, taken)
                process = context.Process(target=_serve, args=(theirs, os.getpid(), room, max(3, MOST_BLOCKS // count)), daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
                self._free.put(ours)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="read")

    def submit(self, read: Read[Image], images: Sequence[Image]) -> Future[ReadGroup]:
        if self._pickled[0] is not read:
            self._pickled = read, pickle.dumps(read, protocol=5)
        return self._pool.submit(self._read, self._pickled[1], images)

    def _read(self, pickled: bytes, images: Sequence[object]) -> ReadGroup:
        connection = self._free.get()
        try:
            connection.send_bytes(pickle.dumps((pickled, images), protocol=5))
            # What this very program pickled.
            answer = pickle.loads(connection.recv_bytes())  # noqa: S301
        except (EOFError, OSError):
            raise MachineError(KILLED) from None
        finally:
            self._free.put(connection)
        if isinstance(answer, ReadGroup):
            return answer
        raise answer

    def end(self) -> None:
        """Drop what has not begun, and end each process with the group that it is at."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for _ in range(self.count):
            connection = self._free.get()
            with contextlib.suppress(OSError):
                connection.send_bytes(b"")
            connection.close()
        for process in self._processes:
            process.join()


@contextlib.contextmanager
def reading_processes(count: int, pixels: int) -> Iterator[Readers]:
    """Processes that end with the block, or when this process dies, and decode at most `pixels` at the same time, of all together.

    What reads, and the images, must be picklable: paths, bytes, arrays and Pillow images are. Begin them before other threads do.
    """
    processes = _Processes(count, pixels)
    try:
        yield processes
    finally:
        processes.end()


@dataclass(frozen=True)
class _SharedRoom:
    """What processes make the same `Room` of."""

    most: int
    changed: Condition
    taken: Count


def _serve(connection: Connection, parent: int, shared: _SharedRoom, blocks: int) -> None:
    """Read groups for another process, until it sends nothing or is gone."""
    room = Room(shared.most, shared.changed, shared.taken)
    # Ctrl-C goes to every process of the terminal, and is for the one that asks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    keep_blocks(blocks)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while order := connection.recv_bytes():
            connection.send_bytes(_answered(room, order))
    os._exit(0)


def _answered(room: Room, order: bytes) -> bytes:
    try:
        pickled, images = pickle.loads(order)  # noqa: S301
        return pickle.dumps(_read(room, _unpickled(pickled), images), protocol=5)
    except BaseException as error:  # noqa: BLE001 - raised where somebody waits for the answer
        try:
            return pickle.dumps(error, protocol=5)
        except Exception:  # noqa: BLE001 - an error may hold anything
            return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"), protocol=5)


def _leave_with(parent: int) -> None:
    """End this process when the other is gone, however it went: its brothers hold all pipes open that could tell."""
    while os.getppid() == parent:
        time.sleep(PARENT_S)
    os._exit(0)


@lru_cache(maxsize=4)
def _unpickled(pickled: bytes) -> Read[object]:
    # What this very program pickled a moment ago.
    read: Read[object] = pickle.loads(pickled)  # noqa: S301
    return read
