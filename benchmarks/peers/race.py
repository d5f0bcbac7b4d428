"""The race: round by round every contender is started, held to the right answers, put under load and ended; the order turns."""

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from peers import in_process, results, wrk
from peers.contenders import CONTENDERS, Contender, own_python
from peers.environments import InstallError, python_of
from peers.models import IMAGES, Model
from peers.perf import perf_windows
from peers.process import Running, StartError, running
from peers.results import IN_PROCESS, Turn, Window
from peers.shapes import Shape, Tried, Tuned, read_tuned
from peers.wire import WrongAnswerError, requests
from peers.wrk import LoadError

HELD_THREADS: Final = 4
"""So many threads ask about different images at once before a server is measured: one that mixes answers up is found."""
WARM_S: Final = 1.0
HEAVY_IMAGES: Final = 2
"""About which a slow network is asked in each thread of a check."""
HEAVY_FACTOR: Final = 2.0
"""A window of a network that answers a few images/s is so much longer."""

FAILURES: Final = (WrongAnswerError, StartError, LoadError, InstallError, OSError, RuntimeError, subprocess.TimeoutExpired)
"""Of a server: they stand in the result, and the race goes on."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How long and how often."""

    rounds: int = 3
    window_s: float = 3.0
    perf_analyzer: bool = True

    def window_of(self, model: Model) -> float:
        """Seconds of a window for a model."""
        return self.window_s * (HEAVY_FACTOR if model.kind.heavy else 1.0)


@dataclass(frozen=True)
class Folders:
    """Where things lie."""

    build: Path

    @property
    def environments(self) -> Path:
        """A virtual environment for each peer."""
        return self.build / "venvs"

    @property
    def models(self) -> Path:
        """A repository for each model."""
        return self.build / "models"


def order(contenders: Sequence[str], number: int) -> list[str]:
    """Return the contenders in the order of a round: each round begins with another one."""
    return [contenders[(place + number) % len(contenders)] for place in range(len(contenders))] if contenders else []


def python_for(contender: Contender, folders: Folders, say: Say = lambda _: None) -> Path:
    """Return the interpreter of a contender. Raises InstallError."""
    if not contender.environment:
        return own_python()
    if not (folders.environments / contender.environment / "made-from").is_file():
        say(f"installing {contender.environment}")
    return python_of(contender.environment, folders.environments)


def turn_of(name: str, model: Model, number: int, tuned: Tuned, settings: Settings, folders: Folders) -> Turn:
    """Measure one contender once; what goes wrong stands in the turn."""
    window_s = settings.window_of(model)
    known: dict[str, object] = {"model": model.kind.name, "contender": name, "round": number, "window_s": window_s}
    try:
        if name == IN_PROCESS:
            return Turn.model_validate(known | {"windows": limit_windows(model, window_s)})
        contender = CONTENDERS[name]
        shape = tuned.best(model.kind.name, name, contender.candidates(model.kind))
        known["shape"] = "" if len(contender.candidates(model.kind)) == 1 else str(shape)
        with running(contender, python_for(contender, folders), model, shape) as server:
            server.check(HELD_THREADS, HEAVY_IMAGES if model.kind.heavy else IMAGES)
            rest_mib = server.memory_mib()
            windows = tuple(loaded_windows(server, window_s))
            known |= {"startup_s": server.startup_s, "rest_mib": rest_mib, "loaded_mib": server.memory_mib(), "windows": windows}
            if contender.speaks_v2 and settings.perf_analyzer and not (model.kind.heavy and number > 1):
                known |= perf_windows(server, window_s)
        return Turn.model_validate(known)
    except FAILURES as error:
        wrong = isinstance(error, WrongAnswerError)
        said = f"wrong answer: {error}" if wrong else str(error) or type(error).__name__
        return Turn.model_validate(known | {"windows": (), "failure": said, "wrong": wrong})


def limit_windows(model: Model, window_s: float) -> tuple[Window, ...]:
    """Measure ONNX Runtime in process, each shape for a third of a window."""
    with tempfile.TemporaryDirectory(prefix="sightline-race-") as folder:
        pixels = Path(folder) / "pixels.npy"
        np.save(pixels, model.pixels, allow_pickle=False)
        limits = in_process.measure(model.onnx, pixels, model.kind.concurrencies, model.kind.largest_batch, max(0.3, window_s / 3))
    return tuple(Window(concurrency=each, per_s=limit.images_per_s, shape=limit.shape) for each, limit in limits.items())


def loaded_windows(server: Running, window_s: float, concurrencies: Sequence[int] = ()) -> Iterator[Window]:
    """Warm a server up, then measure it at each concurrency; after each window it must still answer rightly."""
    asked = requests(server.contender.wire, server.model)
    concurrencies = concurrencies or server.model.kind.concurrencies
    images = HEAVY_IMAGES if server.model.kind.heavy else IMAGES
    wrk.load(server.port, asked, HEAVY_IMAGES if server.model.kind.heavy else concurrencies[-1], min(WARM_S, window_s))
    for concurrency in concurrencies:
        server.check(images=images)  # also waits until what the last window left under way is answered
        before = server.cpu_s()
        load = wrk.load(server.port, asked, concurrency, window_s)
        after = server.cpu_s()
        spent_s = sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())
        yield Window(
            concurrency=concurrency,
            per_s=load.per_s,
            p50_ms=load.p50_ms,
            p95_ms=load.p95_ms,
            p99_ms=load.p99_ms,
            cpu_ms=spent_s * 1000 / load.requests,
        )
    server.check(images=images)


def run(models: Sequence[Model], names: Sequence[str], settings: Settings, folders: Folders, file: Path, say: Say) -> None:
    """Measure what `file` does not hold yet, and add it there turn by turn."""
    tuned = read_tuned()
    done = {(turn.model, turn.contender, turn.round) for turn in results.read(file)[0]}
    todo = [
        (model, name, number)
        for model in models
        for number in range(1, settings.rounds + 1)
        for name in order([IN_PROCESS, *names], number - 1)
        if (model.kind.name, name, number) not in done
    ]
    for place, (model, name, number) in enumerate(todo, start=1):
        began_s = time.monotonic()
        turn = turn_of(name, model, number, tuned, settings, folders)
        results.append(file, turn)
        figures = turn.failure or " · ".join(f"{window.concurrency}: {window.per_s:,.1f}/s" for window in turn.windows)
        say(f"[{place}/{len(todo)}] {model.kind.name}, round {number}, {name}: {figures} ({time.monotonic() - began_s:.0f} s)")


def tune(model: Model, names: Sequence[str], window_s: float, folders: Folders, say: Say) -> Iterator[tuple[str, tuple[Tried, ...]]]:
    """Try every shape of each contender that has a choice; yield the contender and what was measured."""
    for name in names:
        contender = CONTENDERS[name]
        candidates = contender.candidates(model.kind)
        if len(candidates) > 1:
            tried = [_try(contender, model, shape, window_s, folders, say) for shape in candidates]
            yield name, tuple(each for each in tried if each is not None)


def _try(contender: Contender, model: Model, shape: Shape, window_s: float, folders: Folders, say: Say) -> Tried | None:
    """Measure one shape; None, and a word of why, if it cannot be."""
    try:
        with running(contender, python_for(contender, folders, say), model, shape) as server:
            rates = {window.concurrency: round(window.per_s, 2) for window in loaded_windows(server, window_s)}
    except FAILURES as error:
        say(f"{model.kind.name}, {contender.name}, {shape}: {error}")
        return None
    say(f"{model.kind.name}, {contender.name}, {shape}: {' · '.join(f'{each}: {rate:,.1f}/s' for each, rate in rates.items())}")
    return Tried(shape=shape, rates=rates)
