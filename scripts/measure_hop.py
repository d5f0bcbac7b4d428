"""Where the time of a lone request goes: HTTP alone, a Python model that gives back what it gets, the model, and ONNX Runtime in process.

    python scripts/measure_hop.py REPOSITORY MODEL [--rounds 5] [--seconds 1]

All are asked over one connection by the same loop, in turns, one request after the other: what a row takes more than the row above is
what it adds. The Python model that gives back what it gets is the floor of every model in a Python worker.
"""

import http.client
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from sightline.console import results, table
from sightline.repository.layout import ONNX_FILE
from sightline.repository.read import model_named
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS

ECHO: Final = "echo"
BATCHING_ECHO: Final = "echo_batching"
ECHO_MODEL: Final = """import triton_python_backend_utils as triton


class TritonPythonModel:
    def execute(self, requests):
        tensors = [triton.get_input_tensor_by_name(request, "pixels").as_numpy() for request in requests]
        return [triton.InferenceResponse([triton.Tensor("same", tensor)]) for tensor in tensors]
"""


@click.command()
@click.argument("repository", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("model")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Of each row in each round.")
def measure(repository: Path, model: str, rounds: int, seconds: float) -> None:
    """Measure a lone request to MODEL of REPOSITORY."""
    published = model_named(repository, model)
    file = next(version.folder for version in reversed(published.versions)) / ONNX_FILE
    card = published.card
    pixels = np.random.default_rng(0).integers(0, 256, (1, *card.preprocess.shape), dtype=np.uint8)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.enable_cpu_mem_arena = 1, False
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    with tempfile.TemporaryDirectory() as folder:
        served = Path(folder, "models")
        shutil.copytree(published.folder, served / model)
        publish_echo(served, ECHO, pixels.shape[1:], "")
        publish_echo(served, BATCHING_ECHO, pixels.shape[1:], "dynamic_batching {}\n")
        with start_server(served, replace(FREE_PORTS, allow_unreported=True)) as server:
            connection = http.client.HTTPConnection(urlsplit(server.http_url).netloc, timeout=30)
            rows: dict[str, Callable[[], None]] = {
                "ONNX Runtime in process, one thread": lambda: session.run(None, {card.input: pixels}) and None,
                "HTTP: GET /v2/health/live": lambda: asked(connection, "GET", "/v2/health/live"),
                "a Python model that gives back what it gets": lambda: infer(connection, ECHO, "pixels", pixels),
                "the same with dynamic batching": lambda: infer(connection, BATCHING_ECHO, "pixels", pixels),
                model: lambda: infer(connection, model, card.input, pixels),
            }
            times_us: dict[str, list[float]] = {name: [] for name in rows}
            for _ in range(rounds):
                for name, ask in rows.items():
                    times_us[name].append(median_us(ask, seconds))
            in_triton = triton_us(server, model)
    report = table("", "median µs", "from", "to", left=1)
    for name, medians in times_us.items():
        report.add_row(name, f"{statistics.median(medians):.0f}", f"{min(medians):.0f}", f"{max(medians):.0f}")
    results().print(report)
    results().print("in Triton, mean µs a request: " + ", ".join(f"{part} {value:.0f}" for part, value in in_triton.items()))


def publish_echo(repository: Path, name: str, shape: tuple[int, ...], more: str) -> None:
    """Publish the Python model that gives back what it gets, with `more` in its configuration."""
    (repository / name / "1").mkdir(parents=True)
    dims = ", ".join(map(str, shape))
    (repository / name / "1" / "model.py").write_text(ECHO_MODEL)
    (repository / name / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: 8\n'
        f'input {{ name: "pixels" data_type: TYPE_UINT8 dims: [{dims}] }}\noutput {{ name: "same" data_type: TYPE_UINT8 dims: [{dims}] }}\n'
        f"instance_group {{ count: 1 kind: KIND_CPU }}\n{more}"
    )


def infer(connection: http.client.HTTPConnection, model: str, tensor: str, pixels: npt.NDArray[np.uint8]) -> None:
    """Ask about one image, in the binary form of the protocol."""
    content = pixels.tobytes()
    described = {"name": tensor, "shape": pixels.shape, "datatype": "UINT8", "parameters": {"binary_data_size": len(content)}}
    head = json.dumps({"inputs": [described], "parameters": {"binary_data_output": True}}).encode()
    asked(connection, "POST", f"/v2/models/{model}/infer", head + content, {"Inference-Header-Content-Length": str(len(head))})


def asked(connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", headers: dict[str, str] = {}) -> None:  # noqa: B006 - read only
    """Send one request and read its answer. Raises SystemExit for one that is not 200."""
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    answer = response.read()
    if response.status != http.client.OK:
        raise SystemExit(f"{path}: {response.status} {answer[:200]!r}")


def median_us(ask: Callable[[], None], seconds: float) -> float:
    """Return the median time of a call over so many seconds."""
    times_s, until_s = [], time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        began_s = time.perf_counter()
        ask()
        times_s.append(time.perf_counter() - began_s)
    return 1e6 * statistics.median(times_s)


def triton_us(server: Server, model: str) -> dict[str, float]:
    """Return what Triton's statistics say of the parts of a request."""
    connection = http.client.HTTPConnection(urlsplit(server.http_url).netloc, timeout=30)
    connection.request("GET", f"/v2/models/{model}/stats")
    (stats,) = json.loads(connection.getresponse().read())["model_stats"]
    parts = ("queue", "compute_input", "compute_infer", "compute_output", "success")
    return {part: stats["inference_stats"][part]["ns"] / max(1, stats["inference_stats"][part]["count"]) / 1000 for part in parts}


if __name__ == "__main__":
    measure()
