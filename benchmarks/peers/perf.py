"""NVIDIA's perf_analyzer over gRPC, for the servers that speak the V2 protocol: the images go as they are, without JSON."""

import base64
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from peers.process import Running
from peers.results import Window
from sightline.bench.perf_analyzer import find_perf_analyzer
from sightline.errors import MissingExtra

LINE: Final = re.compile(r"^Concurrency: (\d+), throughput: ([0-9.]+) infer/sec, latency ([0-9.]+) usec", re.MULTILINE)
SPREAD_PERCENT: Final = 50
"""Its windows are one figure each of a round, so that it need not wait for three that agree."""


CONCURRENCY: Final = 8
ASKS: Final = "failed to get model config"
NO_CONFIG: Final = "perf_analyzer asks for the model's configuration first, which only Triton's extension of the protocol has"
HEAVY_S: Final = 8.0


def perf_windows(server: Running, window_s: float) -> dict[str, object]:
    """Measure at CONCURRENCY; return the fields of the turn, with perf_analyzer's own words if it gives no figure."""
    model = server.model
    window_s = max(window_s, HEAVY_S) if model.kind.heavy else window_s
    with tempfile.TemporaryDirectory(prefix="sightline-race-") as folder:
        data = Path(folder) / "images.json"
        data.write_text(json.dumps({"data": [{model.input: _content(image.tobytes(), image.shape)} for image in model.pixels]}))
        try:
            command = [str(find_perf_analyzer()), "-m", model.kind.name, "-i", "grpc", "-u", f"127.0.0.1:{server.grpc_port}"]
        except MissingExtra as error:
            return {"perf_analyzer_failure": str(error)}
        command += ["--concurrency-range", str(CONCURRENCY), "--input-data", str(data), "-b", "1"]
        command += [
            "--measurement-interval",
            str(round(window_s * 1000)),
            "--stability-percentage",
            str(SPREAD_PERCENT),
            "--max-trials",
            "3",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=window_s * 12 + 60)
        except subprocess.TimeoutExpired:
            return {"perf_analyzer_failure": "perf_analyzer did not end"}
    window = read(done.stdout)
    if window is None:
        if ASKS in done.stdout + done.stderr:
            return {"perf_analyzer_failure": NO_CONFIG}
        return {"perf_analyzer_failure": " ".join((done.stderr or done.stdout).split())[-200:] or f"exit code {done.returncode}"}
    return {"perf_analyzer": (window,)}


def read(output: str) -> Window | None:
    """Read the figure that perf_analyzer printed at the end; None if there is none."""
    lines = LINE.findall(output)
    if not lines:
        return None
    concurrency, per_s, latency_us = lines[-1]
    return Window(concurrency=int(concurrency), per_s=float(per_s), p50_ms=float(latency_us) / 1000)


def _content(content: bytes, shape: tuple[int, ...]) -> dict[str, object]:
    return {"b64": base64.b64encode(content).decode("ascii"), "shape": list(shape)}
