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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline.card import ModelCard
from sightline.errors import MissingExtra, ModelError, ServerError, SightlineError, UsageError
from sightline.image import ImageInput
from sightline.reformatting import reformat
from sightline.transport import parse_url
from sightline.transport.headers import without_values

MOST_IMAGES: Final = 256
"""Enough that no cache remembers them all, and the file that perf_analyzer reads stays below 50 MB for 224 × 224 × 3."""

WINDOWS: Final = 3
"""perf_analyzer averages this many. Its own rule is to go on until three in a row agree within 10 %, and to give no figure at all if
they never do, as on a shared machine; we always take three and show how far they lay apart."""

PASS: Final = re.compile(r"Pass \[\d+\] throughput: ([0-9.]+) infer/sec")

COMMAND: Final = "perf_analyzer"


@dataclass(frozen=True)
class Measurement:
    """How a server did at one concurrency: one row. Latencies in milliseconds, as perf_analyzer's clients saw them."""

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


@dataclass(frozen=True)
class BenchSettings:
    """What is measured, and for how long."""

    version: str = ""
    """Of the model; "" lets the server choose."""
    concurrencies: tuple[int, ...] = (1, 4, 16)
    """Requests under way at a time, one measurement for each."""
    batch: int = 1
    """Images in each request."""
    window_s: float = 2.0
    """Of each of the WINDOWS windows of a measurement."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request. perf_analyzer takes them as arguments, which every user of this machine can read while it runs."""


def find_perf_analyzer() -> Path:
    """Find perf_analyzer beside this Python or on PATH. Raises MissingExtra that says how to get it."""
    beside = Path(sys.executable).parent / COMMAND
    program = str(beside) if beside.is_file() and os.access(beside, os.X_OK) else shutil.which(COMMAND)
    if program is None:
        raise MissingExtra(
            "`sightline bench` measures with NVIDIA's perf_analyzer, which is not installed: `make perf-analyzer` gets it, "
            "and the containers nvcr.io/nvidia/tritonserver:<release>-py3-sdk bring it"
        )
    return Path(program)


def bench(
    card: ModelCard,
    images: Iterable[ImageInput],
    urls: Sequence[str],
    settings: BenchSettings = BenchSettings(),
    progress: Callable[[str, int], None] = lambda _protocol, _concurrency: None,
) -> list[Measurement]:
    """Measure the model of `card` at each of `urls` (gRPC or HTTP) with each concurrency.

    `images` are read and reformatted first; ImageError if one cannot be. Raises ServerError or ModelError with
    perf_analyzer's own words if a measurement fails, MissingExtra if there is no perf_analyzer.
    """
    program = find_perf_analyzer()
    if not 1 <= settings.batch <= card.max_batch_size:
        raise UsageError(f"the batch must be between 1 and {card.max_batch_size}, the model's largest, not {settings.batch}")
    pixels = [reformat(image, card.preprocess) for image, _ in zip(images, range(MOST_IMAGES), strict=False)]
    if not pixels:
        raise UsageError("there are no images to measure with")
    measurements = []
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as scratch:
        data = Path(scratch) / "images.json"
        data.write_text(_input_data(card, pixels), encoding="ascii")
        for url in urls:
            address = parse_url(url)
            if address.secure or address.path:
                raise UsageError(f"{url}: measurements are made without TLS and without a path: use grpc://host:port or http://host:port")
            for concurrency in settings.concurrencies:
                progress(address.protocol, concurrency)
                report = Path(scratch) / "report.csv"
                report.unlink(missing_ok=True)
                command = [
                    *(str(program), "-m", card.name, "-u", f"{address.host}:{address.port}", "-i", address.protocol),
                    *("-b", str(settings.batch), "--concurrency-range", str(concurrency), "--input-data", str(data), "-f", str(report)),
                    *("--measurement-interval", str(int(settings.window_s * 1000)), "--stability-percentage", "999", "-v"),
                    *(("-x", settings.version) if settings.version else ()),
                    *(part for name, value in settings.headers.items() for part in ("-H", f"{name}:{value}")),
                ]
                output, exit_code = _run(command, timeout_s=settings.window_s * WINDOWS * 4 + 60)
                row = _last_row(report)
                if row is None:
                    raise _failed(output, exit_code, url, settings.headers.values())
                measurements.append(_measurement(row, output, address.protocol, settings.batch))
    return measurements


def _input_data(card: ModelCard, pixels: list[npt.NDArray[np.uint8]]) -> str:
    def tensor(image: npt.NDArray[np.uint8]) -> dict[str, object]:
        return {card.input: {"content": {"b64": base64.b64encode(image.tobytes()).decode()}, "shape": list(image.shape)}}

    return json.dumps({"data": [tensor(image) for image in pixels]})


def _run(command: list[str], timeout_s: float) -> tuple[str, int]:
    """Run perf_analyzer and whatever it starts; return its output and exit code."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise ServerError(f"perf_analyzer did not end within {timeout_s:.0f} s: is the server overloaded?") from None
        finally:
            if process.poll() is None and hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            elif process.poll() is None:
                process.kill()
        return output, process.returncode


def _last_row(report: Path) -> dict[str, str] | None:
    rows = list(csv.DictReader(report.read_text(encoding="utf-8").splitlines())) if report.is_file() else []
    return rows[-1] if rows else None


def _failed(output: str, exit_code: int, url: str, secrets: Iterable[str]) -> SightlineError:
    output = without_values(output, secrets)
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith(("***", "Successfully read"))]
    reason = " ".join(lines[-4:])[:400] or f"exit code {exit_code}"
    kind = ModelError if "model" in reason.lower() else ServerError
    return kind(f"perf_analyzer could not measure {url}: {reason}")


def _measurement(row: dict[str, str], output: str, protocol: str, batch: int) -> Measurement:
    passes = [float(value) for value in PASS.findall(output)][-WINDOWS:]

    def ms(*columns: str) -> float:
        return sum(float(row.get(column) or 0) for column in columns) / 1000

    return Measurement(
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
