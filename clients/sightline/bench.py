"""Measures a served model with NVIDIA's perf_analyzer, fed with real images that were reformatted as the model wants them.

perf_analyzer's own default is one random tensor, sent again and again; nobody's traffic looks like that, so it is never used.
"""

import base64
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline.card import ModelCard
from sightline.errors import MissingExtra, ModelError, ServerError, UsageError
from sightline.image import ImageInput
from sightline.reformat import reformat
from sightline.transport import parse_url

MOST_IMAGES: Final = 256
"""Enough that no cache remembers them all, and the file that perf_analyzer reads stays below 50 MB for 224 × 224 × 3."""

WINDOWS: Final = 3
"""perf_analyzer averages this many. Its own rule is to go on until three in a row agree within 10 %, and to give no figure at all if
they never do, as on a shared machine; we always take three and show how far they lay apart."""

PASS: Final = re.compile(r"Pass \[\d+\] throughput: ([0-9.]+) infer/sec")

COMMAND: Final = "perf_analyzer"


@dataclass(frozen=True)
class Measured:
    """One row: how a server did at one concurrency. Latencies in milliseconds, as perf_analyzer's clients saw them."""

    protocol: str
    concurrency: int
    batch: int
    images_per_s: float
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    queue_ms: float
    """Mean time that a request waited on the server for a batch to fill or an instance to be free."""
    compute_ms: float
    """Mean time in the model, with its copies in and out."""
    spread_percent: float
    """How far the windows' throughputs lie from their mean at most: on a noisy machine this is what a difference must exceed."""


def find_perf_analyzer() -> Path:
    """Find perf_analyzer beside this Python or on PATH. Raises MissingExtra that says how to get it."""
    beside = Path(sys.executable).parent / COMMAND
    found = str(beside) if beside.is_file() and os.access(beside, os.X_OK) else shutil.which(COMMAND)
    if found is None:
        raise MissingExtra(
            "`sightline bench` measures with NVIDIA's perf_analyzer, which is not installed: `make perf-analyzer` gets it, "
            "and the containers nvcr.io/nvidia/tritonserver:<release>-py3-sdk bring it"
        )
    return Path(found)


def bench(
    card: ModelCard,
    images: Iterable[ImageInput],
    urls: Sequence[str],
    *,
    version: str = "",
    concurrencies: Sequence[int] = (1, 4, 16),
    batch: int = 1,
    window_s: float = 2.0,
    progress: Callable[[str, int], None] = lambda _protocol, _concurrency: None,
) -> list[Measured]:
    """Measure the model of `card` at each of `urls` (gRPC or HTTP) with each concurrency.

    `images` are read and reformatted first; ImageError if one cannot be. Raises ServerError or ModelError with
    perf_analyzer's own words if a measurement fails, MissingExtra if there is no perf_analyzer.
    """
    program = find_perf_analyzer()
    if not 1 <= batch <= card.max_batch_size:
        raise UsageError(f"the batch must be between 1 and {card.max_batch_size}, the model's largest, not {batch}")
    pixels = [reformat(image, card.preprocess) for image, _ in zip(images, range(MOST_IMAGES), strict=False)]
    if not pixels:
        raise UsageError("there are no images to measure with")
    results = []
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as scratch:
        data = Path(scratch) / "images.json"
        data.write_text(_input_data(card, pixels), encoding="ascii")
        for url in urls:
            address = parse_url(url)
            if address.secure or address.path:
                raise UsageError(f"{url}: measurements are made without TLS and without a path: use grpc://host:port or http://host:port")
            for concurrency in concurrencies:
                progress(address.protocol, concurrency)
                report = Path(scratch) / "report.csv"
                report.unlink(missing_ok=True)
                command = [
                    *(str(program), "-m", card.name, "-u", f"{address.host}:{address.port}", "-i", address.protocol, "-b", str(batch)),
                    *("--concurrency-range", str(concurrency), "--input-data", str(data), "-f", str(report)),
                    *("--measurement-interval", str(int(window_s * 1000)), "--stability-percentage", "999", "-v"),
                    *(("-x", version) if version else ()),
                ]
                said, code = _run(command, timeout_s=window_s * WINDOWS * 4 + 60)
                results.append(_read(report, said, code, address.protocol, batch, url))
    return results


def _input_data(card: ModelCard, pixels: list[npt.NDArray[np.uint8]]) -> str:
    def tensor(one: npt.NDArray[np.uint8]) -> dict[str, object]:
        return {card.input: {"content": {"b64": base64.b64encode(one.tobytes()).decode()}, "shape": list(one.shape)}}

    return json.dumps({"data": [tensor(one) for one in pixels]})


def _run(command: list[str], timeout_s: float) -> tuple[str, int]:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise ServerError(f"perf_analyzer did not end within {timeout_s:.0f} s: is the server overloaded?") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        return said, process.returncode


def _read(report: Path, said: str, code: int, protocol: str, batch: int, url: str) -> Measured:
    rows = list(csv.DictReader(report.read_text(encoding="utf-8").splitlines())) if report.is_file() else []
    if not rows:
        words = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith(("***", "Successfully read"))]
        reason = " ".join(words[-4:])[:400] or f"exit code {code}"
        kind = ModelError if "model" in reason.lower() else ServerError
        raise kind(f"perf_analyzer could not measure {url}: {reason}")
    row = rows[-1]

    passes = [float(value) for value in PASS.findall(said)][-WINDOWS:]

    def ms(*columns: str) -> float:
        return sum(float(row.get(column) or 0) for column in columns) / 1000

    return Measured(
        protocol=protocol,
        concurrency=int(row["Concurrency"]),
        batch=batch,
        images_per_s=float(row["Inferences/Second"]),
        mean_ms=ms(
            "Client Send",
            "Network+Server Send/Recv",
            "Server Queue",
            "Server Compute Input",
            "Server Compute Infer",
            "Server Compute Output",
            "Client Recv",
        ),
        p50_ms=ms("p50 latency"),
        p95_ms=ms("p95 latency"),
        p99_ms=ms("p99 latency"),
        queue_ms=ms("Server Queue"),
        compute_ms=ms("Server Compute Input", "Server Compute Infer", "Server Compute Output"),
        spread_percent=max(abs(value / (sum(passes) / len(passes)) - 1) for value in passes) * 100 if passes else 0.0,
    )
