"""Finds how a model is best spread over this machine: each shape is served by Triton and measured with perf_analyzer on real images.

Each server is a process of its own, over a view of the repository that holds nothing but the model; the repository itself changes once,
at the end, if somebody asks for it.
"""

import math
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sightline.bench import BenchSettings, Measurement, bench
from sightline.errors import ServerStartError
from sightline.image import ImageInput
from sightline.repository.config_text import config_text
from sightline.repository.edit import editable
from sightline.repository.instances import InstanceSettings, instances_of, with_instances
from sightline.repository.layout import CONFIG_FILE
from sightline.repository.read import model_named

ROUNDS: Final = 3
"""Each shape is measured in so many rounds, all shapes in turn: a machine's busy minute then falls on all of them."""

WORTH: Final = 1.05
"""A shape replaces the present one if it answers at least so many times as many images in every round: less is noise."""

DELAYS_US: Final = (100, 500)
"""Tried for the fastest shape: waiting for company costs a lone request that long, and fills batches."""

READY_S: Final = 120.0


@dataclass(frozen=True)
class Trial:
    """One shape and how it did: medians over the rounds."""

    shape: InstanceSettings
    images_per_s: float
    p99_ms: float
    """99th percentile of latency."""
    ratio: float
    """Of its images/s to those of the present shape in the same round."""
    least_ratio: float
    """The same in the round that was worst for it."""


@dataclass(frozen=True)
class Tuned:
    """All trials, the present shape first, and the one to keep."""

    trials: tuple[Trial, ...]
    best: Trial

    @property
    def present(self) -> Trial:
        """The shape that the model had."""
        return self.trials[0]


def tune(
    repository: Path,
    name: str,
    images: Sequence[ImageInput],
    *,
    concurrency: int = 16,
    window_s: float = 1.0,
    p99_ms: float | None = None,
    notify: Callable[[str], None] = lambda _sentence: None,
) -> Tuned:
    """Measure the model `name` of `repository` in several shapes, with `concurrency` requests of one image under way over gRPC.

    Each measurement takes three windows of `window_s` seconds, ROUNDS times. The best shape has the most images/s among those whose
    99th percentile is at most `p99_ms`; the present one stays, if it keeps to that, unless another is WORTH it. Raises RepositoryError (no
    such model), ServerStartError, MissingExtra (no perf_analyzer), and what `sightline.bench` raises.
    """
    model = model_named(repository, name)
    present = instances_of(editable(model))
    cores = len(os.sched_getaffinity(0))

    def measured(shapes: Sequence[InstanceSettings], reference: tuple[float, float] = (1.0, 1.0)) -> list[Trial]:
        """Compare `shapes` with the first of them, whose own ratios to the present shape are `reference`."""
        settings = BenchSettings(concurrencies=(concurrency,), window_s=window_s)
        rows: dict[InstanceSettings, list[Measurement]] = {shape: [] for shape in shapes}
        for number in range(1, ROUNDS + 1):
            for shape in shapes:
                notify(f"round {number} of {ROUNDS}: {shape}")
                with _served(repository.resolve() / name, shape) as url:
                    rows[shape] += bench(model.card, images, [url], settings)
        first = [row.images_per_s for row in rows[shapes[0]]]
        return [_trial(shape, found, first, reference) for shape, found in rows.items()]

    trials = measured(candidates(present, cores))
    best = _best(trials, p99_ms)
    if model.card.max_batch_size > 1:
        # The best shape once more, beside itself with other delays: what was measured minutes ago was another machine.
        shapes = [best.shape, *(replace(best.shape, queue_delay_us=delay) for delay in DELAYS_US if delay != best.shape.queue_delay_us)]
        again = measured(shapes, (best.ratio, best.least_ratio))[1:]
        trials += again
        best = _best([best, *again], p99_ms)
    return Tuned(tuple(trials), best)


def candidates(present: InstanceSettings, cores: int) -> list[InstanceSettings]:
    """The shapes to try on a machine of `cores` cores, the present one first: from one instance on one core to all cores in use."""
    counts = sorted({1, 2, max(1, cores // 2), cores})
    pairs = [(instances, threads) for instances in counts for threads in counts if instances * threads <= max(cores, 2)]
    tried = [InstanceSettings(instances, threads, 0) for instances, threads in pairs]
    # 0 threads is one for every core: the same as so many.
    same = (present.instances, present.threads or cores)
    return [present, *(shape for shape in tried if (shape.instances, shape.threads) != same or present.queue_delay_us != 0)]


def _trial(shape: InstanceSettings, rows: Sequence[Measurement], first: Sequence[float], reference: tuple[float, float]) -> Trial:
    ratios = [row.images_per_s / other if other else math.inf for row, other in zip(rows, first, strict=True)]
    rate, p99 = statistics.median(row.images_per_s for row in rows), statistics.median(row.p99_ms for row in rows)
    return Trial(shape, rate, p99, statistics.median(ratios) * reference[0], min(ratios) * reference[1])


def _best(trials: Sequence[Trial], p99_ms: float | None) -> Trial:
    """The first of `trials`, unless one that keeps to the limit is better; if none keeps to it, the one that comes nearest."""
    within = [trial for trial in trials if p99_ms is None or trial.p99_ms <= p99_ms]
    if not within:
        return min(trials, key=lambda trial: trial.p99_ms)
    fastest = max(within, key=lambda trial: trial.ratio)
    if trials[0] in within and fastest.least_ratio < WORTH * trials[0].least_ratio:
        return trials[0]
    return fastest


@contextmanager
def _served(model: Path, shape: InstanceSettings) -> Iterator[str]:
    """Serve the model in this shape, and nothing else, until the block ends. Gives the address for gRPC."""
    with tempfile.TemporaryDirectory(prefix="sightline-tune-") as scratch:
        view = Path(scratch) / model.name
        view.mkdir()
        for each in model.iterdir():
            if each.name != CONFIG_FILE:
                (view / each.name).symlink_to(each)
        config = with_instances(editable(model_named(model.parent, model.name)), shape)
        (view / CONFIG_FILE).write_text(config_text(config), encoding="utf-8")
        ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
        command = [sys.executable, "-m", "sightline.cli", "serve", "--repository", scratch, *ports]
        with (
            (Path(scratch) / "serve.log").open("w+b") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, start_new_session=True) as server,
        ):
            try:
                yield _address(server, log.name)
            finally:
                server.send_signal(signal.SIGTERM)
                try:
                    server.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(server.pid, signal.SIGKILL)


def _address(server: "subprocess.Popen[bytes]", log: str) -> str:
    assert server.stdout is not None
    deadline_s, said = time.monotonic() + READY_S, b""
    while time.monotonic() < deadline_s:
        readable, _, _ = select.select([server.stdout], [], [], 1.0)
        if not readable:
            continue
        more = os.read(server.stdout.fileno(), 4096)
        said += more
        for line in said.decode(errors="replace").splitlines(keepends=True):
            if line.startswith("grpc ") and line.endswith("\n"):
                return line.split()[1]
        if not more:
            break
    words = Path(log).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise ServerStartError(f"the server for a trial did not start: {words[-1] if words else 'it said nothing'}")
