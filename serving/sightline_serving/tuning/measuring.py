"""Measures candidates beside the present setting: their servers live at the same time, and short windows on them alternate.

A server that is not asked costs memory and nothing else. What the machine does besides falls on neighbouring windows alike, where it would
fall on one of two settings that are measured minutes apart.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

import psutil

from sightline.bench.perf_analyzer import PerfAnalyzer, find_perf_analyzer
from sightline.bench.settings import WINDOWS, BenchSettings, Load, Measurement
from sightline.errors import ServerError
from sightline.transport import connect, parse_url
from sightline_serving.process.memory import held, mib
from sightline_serving.server import Server
from sightline_serving.tuning.candidates import Candidate
from sightline_serving.tuning.race import Stage
from sightline_serving.tuning.result import Round, Trial
from sightline_serving.tuning.settings import TuneSettings
from sightline_serving.tuning.subject import Subject

BESIDE: Final = 3
"""Candidates whose servers live at the same time as the present setting's, if memory allows."""
BATCHES: Final = 16
"""A measurement lasts so long that each client gets so many answers: a batch more or less is then some percent of them."""
LONGEST_S: Final = 10.0
STARTED_S: Final = 0.3
"""perf_analyzer itself takes so long to start."""
STOPPED_S: Final = 0.3
"""And a server to end."""


@dataclass(frozen=True)
class Progress:
    """How far a search is."""

    measurements: int
    of: int
    """At most; a search may end sooner."""
    text: str


Report = Callable[[Progress], None]


@dataclass
class Bench:
    """The present setting's server, and what is needed to measure others beside it."""

    subject: Subject
    settings: TuneSettings
    report: Report
    folder: Path
    program: Path
    present: Server
    started_s: float
    """The present setting's server took so long to be ready."""
    durations_s: dict[int, float] = field(default_factory=dict)
    """Concurrency → seconds of a measurement."""
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    done: int = 0
    planned: int = 0

    @classmethod
    @contextmanager
    def over(cls, subject: Subject, settings: TuneSettings, report: Report) -> Iterator[Self]:
        """Serve the present setting until the block ends, and find out how long measurements must last."""
        program = find_perf_analyzer()
        with tempfile.TemporaryDirectory(prefix="sightline-tune-") as scratch:
            folder = Path(scratch)
            (folder / "images.json").write_text(subject.data(), encoding="ascii")
            began_s = time.monotonic()
            with subject.served(subject.present) as server:
                bench = cls(subject, settings, report, folder, program, server, time.monotonic() - began_s)
                bench.durations_s = bench._durations_s()
                yield bench

    def seconds_for(self, plan: Sequence[Stage]) -> float:
        """Return how long so many measurements take, about; `planned` is set to their number."""
        side = self._beside()
        turns = starts = 0
        for stage in plan:
            groups = 1 if stage.final else -(-stage.candidates // side)
            turns += (stage.candidates + groups) * stage.rounds
            starts += (stage.candidates + 1) * stage.rounds if stage.final else stage.candidates
        self.planned = turns * len(self.durations_s)
        return turns * sum(seconds + STARTED_S for seconds in self.durations_s.values()) + starts * (self.started_s + STOPPED_S)

    def measure(self, candidates: Sequence[Candidate], rounds: int, final: bool) -> list[Trial]:
        """Return the present setting's trial of so many rounds, and one for each candidate.

        In the final rounds all live side by side, and every server is started anew for each round: one process may be some percent faster
        than the next of the very same setting, for as long as it lives. Before that, the present setting's luck is the same for all.
        """
        if final:
            sittings = [self._side_by_side(candidates, 1, f"final round {number + 1} of {rounds}") for number in range(rounds)]
        else:
            side = self._beside()
            groups = [candidates[at : at + side] for at in range(0, len(candidates), side)]
            sittings = [self._side_by_side(group, rounds, "") for group in groups]
        trials: dict[Candidate, list[Trial]] = {}
        for sitting in sittings:
            for trial in sitting:
                trials.setdefault(trial.candidate, []).append(trial)
        return [_joined(parts) for parts in trials.values()]

    def _side_by_side(self, group: Sequence[Candidate], rounds: int, final: str) -> list[Trial]:
        """The trial of the present setting, and one for each candidate of the group; `final` names the final round that it is."""
        now = self.subject.present
        with ExitStack() as stack:
            servers = {now: stack.enter_context(self.subject.served(now)) if final else self.present}
            for candidate in group:
                servers[candidate] = stack.enter_context(self.subject.served(candidate))
            rows: dict[Candidate, list[list[Measurement]]] = {candidate: [] for candidate in servers}
            for number in range(rounds):
                for measured in rows.values():
                    measured.append([])
                for concurrency in self.settings.concurrencies:
                    # By chance: whoever always came behind the same one would always meet the machine as that one left it.
                    for candidate in self.chance.sample(list(servers), len(servers)):
                        self._tell(f"{final or f'round {number + 1} of {rounds}'}, {concurrency} under way: {candidate}")
                        rows[candidate][number].append(self._measured(servers[candidate], concurrency))
            memory = {candidate: float(mib(held(server.pid))) for candidate, server in servers.items()}
        paired = {each: tuple(map(_round, rows[each], rows[now])) for each in servers}
        return [Trial(candidate, paired[candidate], bool(final), memory[candidate]) for candidate in servers]

    def _measured(self, server: Server, concurrency: int, seconds: float | None = None) -> Measurement:
        window_s = (seconds or self.durations_s[concurrency]) / WINDOWS
        analyzer = PerfAnalyzer(
            self.program,
            self.subject.model.card,
            "",
            parse_url(server.grpc_url),
            BenchSettings(window_s=window_s),
            model=self.subject.name,
        )
        row = analyzer.measure(Load(concurrency, 1), self.folder / "images.json", self.folder / "report.csv")
        assert row is not None  # without expected answers none can differ
        if not row.images_per_s > 0:
            raise ServerError(f"perf_analyzer saw no answer of {self.subject.name} with {concurrency} requests under way")
        return row

    def _durations_s(self) -> dict[int, float]:
        """How long a measurement lasts at each concurrency, by how fast the present setting is."""
        with connect(self.present.grpc_url) as transport:
            alone_s = statistics.median(self.subject.ask_once(transport) for _ in range(3))
        durations_s = {}
        for concurrency in self.settings.concurrencies:
            # A first look: three windows in each of which all that is under way is answered once, were it answered one by one.
            look_s = min(3 * LONGEST_S, max(self.settings.window_s, 1.5 * WINDOWS * concurrency * alone_s))
            rate = self._measured(self.present, concurrency, look_s).images_per_s
            durations_s[concurrency] = max(self.settings.window_s, min(LONGEST_S, BATCHES * concurrency / rate))
        return durations_s

    def _beside(self) -> int:
        """How many candidates' servers have room beside the present one, each with as many processes as there are cores."""
        each = max(1, sum(map(sum, held(self.present.pid).values()))) * max(
            1, self.subject.cores // self.subject.present.instances.instances
        )
        return max(1, min(BESIDE, psutil.virtual_memory().available // 2 // each))

    def _tell(self, text: str) -> None:
        self.report(Progress(self.done, max(self.planned, self.done + 1), text))
        self.done += 1


def _joined(parts: Sequence[Trial]) -> Trial:
    """One trial of all the rounds that a candidate had, with the median of what its servers held."""
    rounds = tuple(each for part in parts for each in part.rounds)
    return replace(parts[0], rounds=rounds, memory_mib=statistics.median(part.memory_mib for part in parts))


def _round(own: Sequence[Measurement], present: Sequence[Measurement]) -> Round:
    return Round(tuple(row.images_per_s for row in own), tuple(row.images_per_s for row in present), tuple(row.p99_ms for row in own))
