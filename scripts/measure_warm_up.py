"""What a model's warm-up saves its first caller: the first request after "ready", with the warm-up and without, in turns.

    python scripts/measure_warm_up.py MODEL [--repository model_repository] [--rounds 5]

Each turn starts a server of its own over a view of the repository that holds the model alone.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import click
import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sightline import Classifier
from sightline.console import results, table
from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS

LATER: Final = 20


@click.command()
@click.argument("model")
@click.option("--repository", type=click.Path(path_type=Path), default=Path("model_repository"), show_default=True)
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
def measure(model: str, repository: Path, rounds: int) -> None:
    """Measure MODEL with one image a request over gRPC."""
    turns = [(first_and_later(repository / model, warm=True), first_and_later(repository / model, warm=False)) for _ in range(rounds)]
    report = table("", "first request", "later ones (median)", "start until ready", left=1)
    for name, way in (("warmed up", 0), ("not warmed up", 1)):
        first, later, start = (statistics.median(turn[way][figure] for turn in turns) for figure in range(3))
        report.add_row(name, f"{first * 1e3:.2f} ms", f"{later * 1e3:.2f} ms", f"{start:.2f} s")
    results().print(report)


def first_and_later(model: Path, *, warm: bool) -> tuple[float, float, float]:
    """Seconds of the first request, of the later ones (median), and from the start until the server was ready."""
    with tempfile.TemporaryDirectory(prefix="sightline-warm-up-") as scratch:
        view = Path(scratch) / model.name
        view.mkdir()
        for path in model.resolve().iterdir():
            if path.name != "config.pbtxt":
                (view / path.name).symlink_to(path)
        config = text_format.Parse((model / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
        if not warm:
            del config.model_warmup[:]
        (view / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
        began = time.perf_counter()
        with start_server(scratch, FREE_PORTS) as server:
            start = time.perf_counter() - began
            with Classifier(model.name, server.grpc_url) as classifier:
                pixels = np.zeros((1, *classifier.card.preprocess.shape), np.uint8)
                seconds = []
                for _ in range(1 + LATER):
                    began = time.perf_counter()
                    classifier.probabilities_of_pixels(pixels)
                    seconds.append(time.perf_counter() - began)
    return seconds[0], statistics.median(seconds[1:]), start


if __name__ == "__main__":
    measure()
