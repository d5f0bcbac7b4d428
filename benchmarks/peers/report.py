"""Makes the block of docs/benchmarks.md of what was measured: tables, ratios, what fell out and why."""

from collections.abc import Iterator, Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict

from peers.contenders import CONTENDERS, OURS
from peers.end_to_end import CLIENT, IMAGE, STREAM, TRANSFORMS
from peers.models import KINDS, Kind
from peers.results import IN_PROCESS, Figure, FileTurn, Turn, best_of, figure, rates, ratio
from peers.wire import TITLES

FASTAPI: Final = ("fastapi-1", "fastapi-2")
PLOT: Final = "peers.png"
FILES_PLOT: Final = "peers-files.png"


class Setting(BaseModel):
    """Where and with what it was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    processor: str
    instructions: tuple[str, ...]
    cores: int
    memory_gib: float
    system: str
    load: float
    """Load average when the run began: other work."""
    python: str
    versions: dict[str, str]
    """Of the servers and of what they run on."""
    command: str
    date: str


class Race(BaseModel):
    """build/bench_peers.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    setting: Setting
    turns: tuple[Turn, ...]
    files: tuple[FileTurn, ...]


def block(race: Race) -> str:
    """Return the block, Markdown."""
    return "\n".join(_lines(race)) + "\n"


def _lines(race: Race) -> Iterator[str]:
    setting = race.setting
    rounds = max([*(turn.round for turn in race.turns), *(turn.round for turn in race.files)], default=0)
    windows = sorted({turn.window_s for turn in race.turns})
    spans = " and ".join(f"{window:g}" for window in windows)
    yield (
        f"`{setting.command}`, {setting.date}: {setting.cores} cores of {setting.processor} ({', '.join(setting.instructions)}), "
        f"{setting.memory_gib:g} GiB, {setting.system}, CPython {setting.python}; "
        f"{', '.join(f'{name} {version}' for name, version in setting.versions.items())}. "
        f"n = {rounds} rounds, windows of {spans} s. Load average before: {setting.load:.1f}."
    )
    yield ""
    if race.turns:
        yield f"![Requests/s of each server by model and concurrency, and ONNX Runtime in process as the limit]({PLOT})"
        yield ""
    for kind in KINDS.values():
        turns = [turn for turn in race.turns if turn.model == kind.name]
        if turns:
            yield from _table(kind, turns)
    yield from _ratios(race.turns)
    yield from _failures(race.turns)
    if race.files:
        yield from _files(race.files)


def _table(kind: Kind, turns: Sequence[Turn]) -> Iterator[str]:
    middle = 8
    heads = [f"{each}" for each in kind.concurrencies]
    yield f"**{kind.title}**, requests/s (± % between rounds) at concurrency {', '.join(heads)}:"
    yield ""
    more = [f"p50 · p99 ms at {middle}", f"CPU ms a request at {middle}", f"gRPC, perf_analyzer at {middle}"]
    yield f"| server | {' | '.join([*heads, *more, 'MiB: at rest, after', 'first answer after'])} |"
    yield f"|---|{'---|' * (len(heads) + 5)}"
    for name in [IN_PROCESS, *CONTENDERS]:
        its = [turn for turn in turns if turn.contender == name and not turn.failure]
        if not its:
            continue
        cells = [_with_spread(figure(rates(turns, kind.name, name, each).values())) for each in kind.concurrencies]
        at = [window for turn in its for window in turn.windows if window.concurrency == middle]
        if name == IN_PROCESS:
            shape = at[-1].shape if at else ""
            yield f"| *ONNX Runtime in process* ({shape} at {middle}) | {' | '.join(cells)} | | | | | |"
            continue
        p50, p99, cpu = (figure(values) for values in ([w.p50_ms for w in at], [w.p99_ms for w in at], [w.cpu_ms for w in at]))
        perf = figure(window.per_s for turn in its for window in turn.perf_analyzer)
        mib = [figure(values) for values in ([turn.rest_mib for turn in its], [turn.loaded_mib for turn in its])]
        start = figure(turn.startup_s for turn in its)
        title = f"**{CONTENDERS[name].title}**" if name == OURS else CONTENDERS[name].title
        shape = f" ({its[-1].shape})" if its[-1].shape else ""
        row = [
            f"{_number(p50)} · {_number(p99)}",
            _number(cpu),
            _with_spread(perf) if perf else "",
            ", ".join(_number(each, 0) for each in mib),
            f"{_number(start)} s",
        ]
        yield f"| {title}{shape} | {' | '.join([*cells, *row])} |"
    yield ""


def _ratios(turns: Sequence[Turn]) -> Iterator[str]:
    """Ours over the others, round by round."""
    rows = []
    for kind in KINDS.values():
        for concurrency in kind.concurrencies:
            by_name = {name: rates(turns, kind.name, name, concurrency) for name in (IN_PROCESS, *CONTENDERS)}
            ours = by_name.pop(OURS)
            limit = by_name.pop(IN_PROCESS)
            fast = best_of(*(by_name[name] for name in FASTAPI))
            medians = {name: middle.median for name, each in by_name.items() if (middle := figure(each.values()))}
            best = max(medians, key=lambda name: medians[name]) if medians else ""
            against_best = ratio(ours, by_name[best]) if best else None
            cells = [
                _ratio(ratio(ours, limit)),
                _ratio(ratio(ours, fast)),
                f"{_ratio(against_best)} ({CONTENDERS[best].title})" if best else "",
            ]
            if ours:
                rows.append(f"| {kind.title} | {concurrency} | {' | '.join(cells)} |")
    if rows:
        yield "Sightline over the others, the median of the rounds' ratios (lowest to highest):"
        yield ""
        yield "| model | concurrency | ONNX Runtime in process | FastAPI, its better number of workers | the best peer |"
        yield "|---|---|---|---|---|"
        yield from rows
        yield ""


def _failures(turns: Sequence[Turn]) -> Iterator[str]:
    seen: dict[tuple[str, str], list[str]] = {}
    for turn in turns:
        said = turn.failure or (f"perf_analyzer: {turn.perf_analyzer_failure}" if turn.perf_analyzer_failure else "")
        if said:
            seen.setdefault((turn.contender, said), []).append(turn.model)
    if seen:
        yield "Not measured:"
        yield ""
        for (name, said), models in seen.items():
            title = CONTENDERS[name].title if name in CONTENDERS else name
            yield f"- {title}, {', '.join(f'`{model}`' for model in dict.fromkeys(models))}: {_inline(said)}"
        yield ""


def _files(files: Sequence[FileTurn]) -> Iterator[str]:
    ways = [CLIENT, STREAM, IMAGE, *TRANSFORMS]
    concurrencies = sorted({turn.concurrency for turn in files if not turn.failure})
    yield f"![Images/s from JPEG files to answers]({FILES_PLOT})"
    yield ""
    yield (
        "**From JPEG files to answers**, MobileNetV2, images/s (± % between rounds), and over FastAPI with its better number of workers "
        "at the same concurrency:"
    )
    yield ""
    yield f"| files | way | {' | '.join(map(str, concurrencies))} | CPU ms an image | largest \\|Δp\\| |"
    yield f"|---|---|{'---|' * (len(concurrencies) + 2)}"
    for photos in dict.fromkeys(turn.photos for turn in files):
        for way in ways:
            its = [turn for turn in files if (turn.photos, turn.way) == (photos, way) and not turn.failure]
            if not its:
                continue
            cells = []
            for concurrency in concurrencies:
                ours = file_rates(files, photos, way, concurrency)
                theirs = best_of(*(file_rates(files, photos, each, concurrency) for each in TRANSFORMS))
                over = ratio(ours, theirs) if way not in TRANSFORMS else None
                cells.append(_with_spread(figure(ours.values())) + (f", **{over.median:.2f} ×**" if over else ""))
            cpu = figure(turn.cpu_ms for turn in its if turn.concurrency == max(turn.concurrency for turn in its))
            off = max(turn.largest_difference for turn in its)
            yield f"| {photos} | {way} | {' | '.join(cells)} | {_number(cpu)} | {off:.0e} |"
    yield ""
    for said in dict.fromkeys(f"{turn.photos}, {turn.way}: {_inline(turn.failure)}" for turn in files if turn.failure):
        yield f"- Not measured: {said}"


def file_rates(files: Sequence[FileTurn], photos: str, way: str, concurrency: int) -> dict[int, float]:
    """Return round → images/s."""
    return {
        turn.round: turn.images_per_s
        for turn in files
        if (turn.photos, turn.way, turn.concurrency) == (photos, way, concurrency) and not turn.failure
    }


def wires() -> str:
    """Return what travels, for each server: a sentence of the page."""
    return "; ".join(f"{contender.title}: {TITLES[contender.wire]}" for contender in CONTENDERS.values())


def _number(value: Figure | None, digits: int = 3) -> str:
    """About three digits, thousands with commas."""
    if value is None:
        return ""
    median = value.median
    if not digits or median >= 100:
        return f"{median:,.0f}"
    return f"{median:.1f}" if median >= 10 else f"{median:.2f}"


def _with_spread(value: Figure | None) -> str:
    return f"{_number(value)} ± {value.spread_percent:.0f}" if value else ""


def _ratio(value: Figure | None) -> str:
    return f"{value.median:.2f} ({value.lowest:.2f} to {value.highest:.2f})" if value else ""


def _inline(words: str) -> str:
    """One line that a table bears, and that names no folder of this machine."""
    clean = " ".join(words.replace("|", "/").replace("`", "'").split())
    return " ".join(word if "/" not in word or "//" in word else word.rsplit("/", 1)[-1] for word in clean.split(" "))[:300]
