"""Runs NVIDIA's perf_analyzer and reads what it measured.

Its own default is one random tensor, sent again and again; nobody's traffic looks like that, so it is never used. The answers that it is
given as validation data it compares to the bit (`InferContext::ValidateOutputs` in triton-inference-server/perf_analyzer), and it ends at
the first that differs. Release 2.51 compares wrongly where a request has several images: it then says that all differ.
"""

import base64
import csv
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline.bench.settings import WINDOWS, BenchSettings, Load, Measurement
from sightline.card import ModelCard
from sightline.errors import MissingExtra, ModelError, ServerError, SightlineError
from sightline.transport import Address
from sightline.transport.headers import without_values

PASS: Final = re.compile(r"Pass \[\d+\] throughput: ([0-9.]+) infer/sec\. Avg latency: ([0-9.]+) usec")

REQUESTS: Final = re.compile(r"Request count: ([0-9]+)")

DIFFERS: Final = re.compile(r"Output (size )?doesn't match expected")
"""Release 2.51 says of several equal images in a request that the size is another."""

COMMAND: Final = "perf_analyzer"


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


def perf_analyzer_version(program: Path) -> str:
    """Return what perf_analyzer says of its version; "unknown" if it says nothing that is one."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace", check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    number = re.search(r"Version ([0-9A-Za-z.+-]+)", done.stdout + done.stderr)
    return number[1] if number else "unknown"


@dataclass(frozen=True)
class PerfAnalyzer:
    """perf_analyzer, set to ask one version of a model at one address; "" lets the server choose."""

    program: Path
    card: ModelCard
    version: str
    address: Address
    settings: BenchSettings
    model: str = ""
    """The name to ask, where it is not the card's: `<model>_image`."""

    def measure(self, load: Load, data: Path, report: Path) -> Measurement | None:
        """Measure with the images, and the answers expected for them, in the file `data`; None if an answer was another one, to the bit.

        `report` is a file to be written. Raises ServerError or ModelError with perf_analyzer's own words if it gives no figures.
        """
        report.unlink(missing_ok=True)
        output, exit_code = _run(self.command(load, data, report), timeout_s=self.settings.window_s * WINDOWS * 4 + 60)
        if DIFFERS.search(output):
            return None
        row = _last_row(report)
        if row is None:
            raise _failed(output, exit_code, self.address.url, self.settings.headers.values())
        return measurement(row, output, self.address.protocol, load.batch)

    def command(self, load: Load, data: Path, report: Path) -> list[str]:
        """Return the command line of a measurement."""
        address, settings = self.address, self.settings
        # Over HTTP it puts what follows in front of Triton's own paths, scheme and all.
        where = f"{address.host}:{address.port}" + (f"/{address.path}" if address.path else "")
        return [
            *(str(self.program), "-m", self.model or self.card.name, "-i", address.protocol),
            *(("-x", self.version) if self.version else ()),
            *("-u", f"https://{where}" if address.secure and address.protocol == "http" else where),
            *("-b", str(load.batch), "--concurrency-range", str(load.concurrency), "--input-data", str(data), "-f", str(report)),
            *("--measurement-interval", str(int(settings.window_s * 1000)), "--stability-percentage", "999", "-v"),
            *_tls_arguments(address, settings),
            *(part for name, value in settings.headers.items() for part in ("-H", f"{name}:{value}")),
        ]


def input_data(card: ModelCard, pixels: npt.NDArray[np.uint8], answers: npt.NDArray[np.float32] | None) -> str:
    """Return perf_analyzer's JSON of images, uint8 [N, H, W, C], and the answers to expect, float32 [N, classes], if any."""
    document = {"data": [_tensor(card.input, image) for image in pixels]}
    if answers is not None:
        document["validation_data"] = [_tensor(card.output, answer) for answer in answers]
    return json.dumps(document)


def encoded_data(name: str, images: Iterable[bytes]) -> str:
    """Return perf_analyzer's JSON of encoded images for an input `name` of BYTES [1]: before each its length, as Triton reads bytes."""
    framed = (len(image).to_bytes(4, "little") + image for image in images)
    tensors = [{name: {"content": {"b64": base64.b64encode(image).decode("ascii")}, "shape": [1]}} for image in framed]
    return json.dumps({"data": tensors})


def measurement(row: dict[str, str], output: str, protocol: str, batch: int) -> Measurement:
    """Read a row of perf_analyzer's report, and what it printed meanwhile."""
    passes = [(float(rate), float(latency_us)) for rate, latency_us in PASS.findall(output)][-WINDOWS:]

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
        spread_percent=spread_percent([rate for rate, _ in passes]),
        latency_spread_percent=spread_percent([latency_us for _, latency_us in passes]),
        checked=batch * sum(int(count) for count in REQUESTS.findall(output)[-1:]),
    )


def spread_percent(values: list[float]) -> float:
    """Return how far the values lie from their mean at most, in percent of it; 0 if there are none."""
    mean = sum(values) / len(values) if values else 0.0
    return max(abs(value / mean - 1) for value in values) * 100 if mean else 0.0


def _tensor(name: str, values: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> dict[str, object]:
    return {name: {"content": {"b64": base64.b64encode(values.tobytes()).decode("ascii")}, "shape": list(values.shape)}}


def _tls_arguments(address: Address, settings: BenchSettings) -> list[str]:
    if not address.secure:
        return []
    # perf_analyzer was built elsewhere, and does not know where this system keeps its authorities.
    ca = settings.tls.ca_file or ssl.get_default_verify_paths().cafile
    if address.protocol == "grpc":
        names = ("--ssl-grpc-root-certifications-file", "--ssl-grpc-certificate-chain-file", "--ssl-grpc-private-key-file")
        begin = ["--ssl-grpc-use-ssl", "true"]
    else:
        names = ("--ssl-https-ca-certificates-file", "--ssl-https-client-certificate-file", "--ssl-https-private-key-file")
        begin = []
    files = (ca, settings.tls.cert_file, settings.tls.key_file)
    return begin + [part for name, file in zip(names, files, strict=True) if file is not None for part in (name, str(file))]


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
