"""How fast `sightline score` is beside the loop that somebody writes in an afternoon (scripts/afternoon_loop.py), side by side in one run.

    python scripts/bench_clients.py [--rounds 5] [--data DATA] [--out build/bench_clients.json]        (make bench-clients)

Three jobs over folders of files, each a whole process from its start to its last row, in turns with the loop's four shapes (one image a
request, batches of 32, batches of 32 with four threads; each over the protocol on which `score` runs): small grey PNGs, photos of 12
megapixels decoded in full, and the same photos for a card that allows `decode: dct`. Then a slow network: how busy `score` keeps the
server beside perf_analyzer. Client and server share this machine, and a ratio is the median of the ratios of the rounds.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self
from urllib.request import urlopen

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sightline import Classifier, ModelCard, PreprocessV1, PreprocessV2
from sightline.bench import BenchSettings, bench
from sightline.console import messages, results, table
from sightline_export.candidate import ExportCandidate
from sightline_export.graph.calibration import calibration_from
from sightline_export.pipeline import export_candidate
from sightline_export.settings import ExportSettings
from sightline_export.sources.probe_images import images_below
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS

LOOP: Final = Path(__file__).parent / "afternoon_loop.py"
LOOPS: Final = {"one by one": (1, 1), "batches of 32": (32, 1), "batches of 32, 4 threads": (32, 4)}
"""Batch and threads of each loop."""
SCORE: Final = "sightline score"
PHOTO: Final = (4000, 3000)
"""Width and height: 12 megapixels."""


@dataclass(frozen=True)
class Turn:
    """One job, from the start of its process to its end."""

    job: str
    client: str
    images: int
    wall_s: float
    cpu_s: float
    """Of the client's process."""


class Small(nn.Module):
    """uint8 pixels [N, H, W, C] to probabilities float32 [N, 10]; `depth` convolutions of 3 × 3 beside the last layer."""

    def __init__(self, channels: int, side: int, depth: int) -> None:
        super().__init__()
        width = 48
        convolutions: list[nn.Module] = []
        for layer in range(depth):
            convolutions += [nn.Conv2d(channels if layer == 0 else width, width, 3, padding=1), nn.ReLU()]
        pool = max(1, side // 28)
        self.body = nn.Sequential(*convolutions, nn.AvgPool2d(pool), nn.Flatten())
        features = (width if depth else channels) * (side // pool) ** 2
        self.head = nn.Sequential(nn.Linear(features, 200), nn.ReLU(), nn.Linear(200, 10))

    def forward(self, pixels: Tensor) -> Tensor:
        """Answer a batch."""
        return torch.softmax(self.head(self.body(pixels.float().permute(0, 3, 1, 2) / 255 - 0.5)), dim=1)


def card(name: str, mode: str, side: int, *, decode: str = "") -> ModelCard:
    """A card whose preprocessing a loop can write down in a line: convert, resize."""
    fields = {
        "mode": mode,
        "size": (side, side),
        "fit": "stretch",
        "crop_fraction": 1.0,
        "resample": "bilinear",
        "background": (0,) * len(mode),
        "exif": "apply",
        "polarity": "as-is",
        "mean": (0.5,) * len(mode),
        "std": (0.5,) * len(mode),
    }
    more = {"version": 2, "alpha_background": (0,) * len(mode), "levels": "as-is", "frame": "as-is", "decode": decode}
    return ModelCard(
        name=name,
        description="For measuring clients; it knows nothing.",
        labels=tuple("0123456789"),
        preprocess=PreprocessV2(**fields, **more) if decode else PreprocessV1(**fields, version=1),  # type: ignore[arg-type]
        max_batch_size=64,
    )


CARDS: Final = {
    "small": (card("small", "L", 28), 0),
    "photo": (card("photo", "RGB", 224), 0),
    "photo-dct": (card("photo-dct", "RGB", 224, decode="dct"), 0),
    "slow": (card("slow", "L", 28), 5),
}
"""Model → its card, and how many convolutions its network has."""


@click.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--data", type=click.Path(path_type=Path), envvar="SIGHTLINE_DATA", help="MNIST's test images are taken from here.")
@click.option("--small", type=click.IntRange(100), default=10_000, show_default=True, help="Small PNGs.")
@click.option("--photos", type=click.IntRange(8), default=120, show_default=True, help="Photos of 12 megapixels.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write every turn as JSON.")
def measure(rounds: int, data: Path | None, small: int, photos: int, out: Path | None) -> None:
    """Measure clients on this machine."""
    say = messages().print
    with tempfile.TemporaryDirectory(prefix="sightline-bench-clients-") as scratch_name:
        scratch = Path(scratch_name)
        folders = {"small": scratch / "small", "photo": scratch / "photos"}
        say(f"writing {small:,} small PNGs and {photos} photos of 12 megapixels")
        write_small(folders["small"], small, data)
        write_photos(folders["photo"], photos)
        for name, (of, depth) in CARDS.items():
            say(f"publishing {name}")
            publish(of, depth, scratch / "models", folders["small" if of.preprocess.mode == "L" else "photo"])
        with start_server(scratch / "models", FREE_PORTS) as server:
            turns = []
            for job, folder in (("small", folders["small"]), ("photo", folders["photo"]), ("photo-dct", folders["photo"])):
                for number in range(rounds):
                    say(f"{job}: round {number + 1} of {rounds}")
                    turns += [run(job, client, folder, scratch / "out.csv", server) for client in in_turn([*LOOPS, SCORE], number)]
            busy = [business(server, folders["small"]) for _ in range(rounds)]
    report(turns, busy)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"turns": [asdict(turn) for turn in turns], "busy": busy}, indent=1) + "\n", encoding="utf-8")


def write_small(folder: Path, count: int, data: Path | None) -> None:
    """Write MNIST's test images as PNGs, or scikit-learn's digits made larger where MNIST is not."""
    folder.mkdir()
    if data is not None and (data / "mnist").is_dir():
        from sightline_training.datasets.mnist import open_mnist

        test = open_mnist(data)["test"]
        images = [np.asarray(test.open(index)) for index in range(min(count, len(test)))]
    else:
        from sklearn.datasets import load_digits

        images = [np.asarray(Image.fromarray((d * 15.9).astype(np.uint8)).resize((28, 28))) for d in load_digits().images]
    for index in range(count):
        Image.fromarray(images[index % len(images)]).save(folder / f"{index:06}.png")


def write_photos(folder: Path, count: int) -> None:
    """Write JPEGs of quality 88 that a camera might have taken: smooth shapes of every size, and the sensor's noise; some 2.5 MB each."""
    folder.mkdir()
    width, height = PHOTO
    for index in range(8):
        random = np.random.default_rng(index)
        scene = Image.new("RGB", PHOTO)
        for cells in (4, 16, 64, 256):
            layer = Image.fromarray(random.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8)).resize(
                PHOTO, Image.Resampling.BICUBIC
            )
            scene = Image.blend(scene, layer, 0.5)
        noise = random.normal(0, 4, (height, width, 1))
        pixels = np.clip(np.asarray(scene) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:04}.jpg", quality=88)
    for index in range(8, count):
        os.link(folder / f"{index % 8:04}.jpg", folder / f"{index:04}.jpg")


def publish(of: ModelCard, depth: int, repository: Path, images: Path) -> None:
    """Publish an untrained network under this card."""

    def network() -> nn.Module:
        torch.manual_seed(0)
        return Small(of.preprocess.channels, of.preprocess.size[0], depth).eval()

    candidate = ExportCandidate(
        card=of,
        network=network,
        images=lambda most: images_below(images, of, min(most, 64)),
        calibration=lambda card, settings: calibration_from(images, card, settings.count),
        provenance={"from": "scripts/bench_clients.py"},
    )
    for _ in export_candidate(candidate, repository, ExportSettings(precisions=("fp32",))):
        pass


def in_turn(clients: list[str], number: int) -> Iterator[str]:
    """The clients, each round beginning with another."""
    for place in range(len(clients)):
        yield clients[(place + number) % len(clients)]


def run(job: str, client: str, folder: Path, out: Path, server: Server) -> Turn:
    """Let one client label the folder."""
    out.unlink(missing_ok=True)
    if client == SCORE:
        command = [str(Path(sys.executable).parent / "sightline"), "score", job, str(folder), "--out", str(out), "--url", server.grpc_url]
    else:
        spec, (batch, threads) = CARDS[job][0].preprocess, LOOPS[client]
        options = ["--mode", spec.mode, "--size", *map(str, spec.size), "--batch", str(batch), "--threads", str(threads)]
        address = server.grpc_url.removeprefix("grpc://")
        command = [sys.executable, str(LOOP), job, str(folder), str(out), *options, "--url", address]
    before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall_s, after = time.perf_counter() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = out.read_text(encoding="utf-8").count("\n") - (client == SCORE)
    if rows != sum(1 for _ in folder.iterdir()):
        raise click.ClickException(f"{client} wrote {rows} rows of {folder}")
    return Turn(job, client, rows, wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def business(server: Server, folder: Path) -> dict[str, float]:
    """How busy the slow network is, and its images/s, when a stream of files feeds it, and when perf_analyzer does with equal requests."""
    paths = sorted(folder.iterdir())[:4000]
    with Classifier("slow", server.grpc_url) as classifier:
        list(classifier.stream(paths[:256]))
        with Watched(server, "slow") as streamed:
            list(classifier.stream(paths))
        settings = BenchSettings(concurrencies=(4,), batches=(classifier.batch_size,), window_s=3.0)
        with Watched(server, "slow") as loaded:
            bench(classifier.card, paths[:256], [server.grpc_url], settings)
    return {
        "stream": streamed.images_per_s,
        "perf_analyzer": loaded.images_per_s,
        "stream_busy": streamed.busy,
        "perf_analyzer_busy": loaded.busy,
    }


class Watched:
    """Reads Triton's statistics of a model four times a second while a block runs; the middle half of the time it was asked counts."""

    def __init__(self, server: Server, model: str) -> None:
        self._url, self._ended = f"{server.http_url}/v2/models/{model}/stats", threading.Event()
        self._samples: list[tuple[float, int, int]] = []
        self._watching = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watching.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.25):
            with urlopen(self._url, timeout=5) as answer:  # noqa: S310 - of the server that was started here
                batches = [batch for model in json.load(answer)["model_stats"] for batch in model["batch_stats"]]
            images = sum(batch["batch_size"] * batch["compute_infer"]["count"] for batch in batches)
            self._samples.append((time.perf_counter(), sum(batch["compute_infer"]["ns"] for batch in batches), images))

    def _middle(self) -> tuple[tuple[float, int, int], tuple[float, int, int]]:
        neighbours = zip(self._samples, self._samples[1:], self._samples[2:], strict=False)
        at_work = [now for before, now, after in neighbours if before[2] < now[2] < after[2]]
        return at_work[len(at_work) // 4], at_work[-1 - len(at_work) // 4]

    @property
    def busy(self) -> float:
        """How many instances were computing, on average."""
        (began_s, began_ns, _), (ended_s, ended_ns, _) = self._middle()
        return (ended_ns - began_ns) * 1e-9 / (ended_s - began_s)

    @property
    def images_per_s(self) -> float:
        """How many images were computed."""
        (began_s, _, began), (ended_s, _, ended) = self._middle()
        return (ended - began) / (ended_s - began_s)


def report(turns: list[Turn], busy: list[dict[str, float]]) -> None:
    """Print what was measured."""
    rows = table("job", "client", "images/s", "CPU s", "score is faster by", "CPU s of score", left=2)
    for job in dict.fromkeys(turn.job for turn in turns):
        of = {client: [turn for turn in turns if (turn.job, turn.client) == (job, client)] for client in (*LOOPS, SCORE)}
        for client, theirs in of.items():
            ratio = median_of(lambda one, other: one.wall_s / other.wall_s, theirs, of[SCORE])
            cpu = median_of(lambda one, other: other.cpu_s / one.cpu_s, theirs, of[SCORE])
            rate = statistics.median(turn.images / turn.wall_s for turn in theirs)
            seconds = statistics.median(turn.cpu_s for turn in theirs)
            ours = client == SCORE
            rows.add_row(job, client, f"{rate:,.1f}", f"{seconds:.2f}", "" if ours else f"{ratio:.2f} ×", "" if ours else f"{cpu:.2f} ×")
    results().print(rows)
    ratio, speed = (statistics.median(one[f"stream{what}"] / one[f"perf_analyzer{what}"] for one in busy) for what in ("_busy", ""))
    rate = statistics.median(one["stream"] for one in busy)
    results().print(
        f"slow network, {rate:,.0f} images/s from files: {ratio:.1%} as busy as perf_analyzer makes it, {speed:.1%} of its images/s "
        f"(n = {len(busy)})"
    )


def median_of(ratio: Callable[[Turn, Turn], float], theirs: list[Turn], ours: list[Turn]) -> float:
    """The median of a ratio over the rounds."""
    return statistics.median(ratio(one, other) for one, other in zip(theirs, ours, strict=True))


if __name__ == "__main__":
    measure()
