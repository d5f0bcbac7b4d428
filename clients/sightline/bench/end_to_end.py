"""Measures one image's way from its file to its answer, with our own client, and says in which part of the way the time went.

Each part is measured by itself: reading, decoding, reformatting and serialising by the clock of the thread that does it; queue and
computing by Triton's statistics, read before and after; the network is the call without the time that Triton says it had the request.
So their sum is no definition, and what is missing to the wall is told.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from sightline.bench.perf_analyzer import spread_percent
from sightline.bench.run import opened
from sightline.bench.settings import MOST_IMAGES, WINDOWS, BenchSettings, Load
from sightline.card import ModelCard
from sightline.errors import ImageError, UsageError
from sightline.host.files import read_bytes, reason_of
from sightline.host.text import printable
from sightline.image import MAX_BYTES
from sightline.preprocess import Preprocess
from sightline.reformatting import decode, reformat, reformat_decoded
from sightline.served_model import Request, ServedModel
from sightline.transport import ModelStatistics, ServerTransport, connect, parse_url

PARTS: Final = ("read", "decode", "reformat", "serialise", "network", "queue", "compute")

UNACCOUNTED_PERCENT: Final = 10.0
"""Of the wall: so much may lie in no part before the split is called into question."""


@dataclass(frozen=True)
class EndToEnd:
    """How images got from their files to their answers: means over the images of one protocol and concurrency, in milliseconds."""

    protocol: str
    concurrency: int
    """Threads, each with one image at a time in a request of its own."""
    images: int
    images_per_s: float
    spread_percent: float
    """How far the windows' throughputs lie from their mean at most."""
    wall_ms: float
    """From opening the file until the answer is there."""
    read_ms: float
    decode_ms: float
    reformat_ms: float
    serialise_ms: float
    """To write the request and read the answer; gRPC's own encoding is in `network_ms`."""
    network_ms: float
    """The call without the time that Triton had the request: both ways, and what stands between."""
    queue_ms: float
    """Waiting on the server for a batch to fill or an instance to be free."""
    compute_ms: float
    """In the model, with the copies in and out."""
    other_ms: float
    """The wall without the parts above; negative if they overlap."""
    requests_of_others: int = 0
    """That the model answered meanwhile: they are in the means of `queue_ms` and `compute_ms` too."""

    @property
    def unaccounted_percent(self) -> float:
        """Which share of the wall lies in no part, or in two."""
        return abs(self.other_ms) / self.wall_ms * 100 if self.wall_ms else 0.0

    def doubts(self) -> list[str]:
        """Return what makes the split doubtful, a sentence each."""
        where = f"{self.protocol}, {Load(self.concurrency, 1)}"
        sentences = []
        if self.unaccounted_percent > UNACCOUNTED_PERCENT:
            sentences.append(
                f"{where}: {self.unaccounted_percent:.0f} % of the time from file to answer lies in no part or in two, which is more than "
                f"{UNACCOUNTED_PERCENT:.0f} %: do not rely on the split"
            )
        if self.requests_of_others:
            sentences.append(
                f"{where}: the model answered {self.requests_of_others:,} requests of somebody else meanwhile, whose queue and compute "
                "are in the means too"
            )
        return sentences


@dataclass
class _Clock:
    """Seconds that one thread's images took."""

    images: int = 0
    wall: float = 0.0
    read: float = 0.0
    decode: float = 0.0
    reformat: float = 0.0
    serialise: float = 0.0
    call: float = 0.0

    def add(self, other: "_Clock") -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def end_to_end(
    card: ModelCard,
    files: Sequence[Path],
    urls: Sequence[str],
    settings: BenchSettings,
    concurrencies: Sequence[int] = (1, 4),
    progress: Callable[[str, Load], None] = lambda _protocol, _load: None,
) -> list[EndToEnd]:
    """Classify image files one by one at each of `urls`, in as many threads as each of `concurrencies` says, in WINDOWS windows.

    Raises ImageError for a file that cannot be read, and what a transport raises.
    """
    files = files[:MOST_IMAGES]
    if not files:
        raise UsageError("there are no image files to measure with")
    for file in files:
        reformat(file, card.preprocess)
    rows = []
    for url in urls:
        with connect(url, settings.timeout_s, settings.tls, settings.headers) as transport:
            served = opened(transport, card, settings.version)
            _classify(transport, served, files[0])  # connects
            for concurrency in concurrencies:
                progress(parse_url(url).protocol, Load(concurrency, 1))
                rows.append(_row(transport, served, files, concurrency, settings.window_s))
    return rows


def _row(transport: ServerTransport, served: ServedModel, files: Sequence[Path], concurrency: int, window_s: float) -> EndToEnd:
    before = transport.statistics(served.name, served.version)
    total, rates = _Clock(), []
    with ThreadPoolExecutor(concurrency, thread_name_prefix="sightline-bench") as pool:
        for _ in range(WINDOWS):
            began_s = time.perf_counter()
            window = _window(pool, transport, served, files, (concurrency, began_s + window_s))
            rates.append(window.images / (time.perf_counter() - began_s))
            total.add(window)
    did = transport.statistics(served.name, served.version).since(before)
    return split(total, did, rates, parse_url(transport.url).protocol, concurrency)


def split(total: _Clock, did: ModelStatistics, rates: list[float], protocol: str, concurrency: int) -> EndToEnd:
    """Return the means of what the clocks and the server's statistics say."""
    ms, requests = 1000 / max(1, total.images), max(1, did.requests)
    server_ms, queue_ms, compute_ms = (1000 * seconds / requests for seconds in (did.server_s, did.queue_s, did.compute_s))
    parts_ms = {
        "read": total.read * ms,
        "decode": total.decode * ms,
        "reformat": total.reformat * ms,
        "serialise": total.serialise * ms,
        "network": max(0.0, total.call * ms - server_ms),
        "queue": queue_ms,
        "compute": compute_ms,
    }
    return EndToEnd(
        protocol=protocol,
        concurrency=concurrency,
        images=total.images,
        images_per_s=sum(rates) / len(rates),
        spread_percent=spread_percent(rates),
        wall_ms=total.wall * ms,
        other_ms=total.wall * ms - sum(parts_ms.values()),
        requests_of_others=max(0, did.requests - total.images),
        **{f"{part}_ms": value for part, value in parts_ms.items()},
    )


def _window(
    pool: ThreadPoolExecutor, transport: ServerTransport, served: ServedModel, files: Sequence[Path], until: tuple[int, float]
) -> _Clock:
    """Let so many threads classify until a moment, and add their clocks up."""
    threads, ends_s = until
    failed = threading.Event()

    def work(first: int) -> _Clock:
        clock, at = _Clock(), first
        try:
            while (clock.images == 0 or time.perf_counter() < ends_s) and not failed.is_set():
                clock.add(_classify(transport, served, files[at % len(files)]))
                at += threads
        except BaseException:
            failed.set()
            raise
        return clock

    window = _Clock()
    for done in [pool.submit(work, first) for first in range(threads)]:
        window.add(done.result())
    return window


def _classify(transport: ServerTransport, served: ServedModel, file: Path) -> _Clock:
    """Take one image from its file to its answer."""
    spec: Preprocess = served.card.preprocess
    began_s = time.perf_counter()
    try:
        content = read_bytes(file, MAX_BYTES)
    except OSError as error:
        raise ImageError(f"{printable(file)}: cannot be read: {reason_of(error)}", kind="unreadable-file") from None
    read_s = time.perf_counter()
    decoded = decode(content, spec)
    decoded_s = time.perf_counter()
    pixels = reformat_decoded(decoded, spec, file)
    reformatted_s = time.perf_counter()
    request = Request(served.name, served.version, served.card.input, pixels[None], served.card.output)
    answer = transport.infer_timed(*request.arguments())
    served.checked(answer.result, 1)
    return _Clock(
        images=1,
        read=read_s - began_s,
        decode=decoded_s - read_s,
        reformat=reformatted_s - decoded_s,
        serialise=answer.serialise_s,
        call=answer.call_s,
        wall=time.perf_counter() - began_s,
    )
