"""The race against the peers, and the guard.

    python benchmarks/race.py run [--model mnist] [--peer fastapi-1] [--rounds 3] [--window 3]     (make bench-peers)
    python benchmarks/race.py tune                                                                  (make bench-peers-tune)
    python benchmarks/race.py guard [--store]                                                       (make bench-guard)

benchmarks/peers/README.md says what is measured and how.
"""

import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import click

from peers import end_to_end, plot, race, results, shapes
from peers import guard as guarding
from peers.contenders import CONTENDERS
from peers.environments import REQUIREMENTS, pins
from peers.markers import replaced
from peers.models import KINDS, Model, published
from peers.report import FILES_PLOT, PLOT, Race, Setting, block
from peers.wrk import LoadError, find_wrk
from sightline.bench.environment import Machine, this_machine
from sightline.console import messages, table
from sightline.console import results as printed
from sightline.host.files import write_atomically

ROOT: Final = Path(__file__).resolve().parent.parent
BUILD: Final = ROOT / "build" / "peers"
MEASURED: Final = BUILD / "measured.jsonl"
OUT: Final = ROOT / "build" / "bench_peers.json"
PAGE: Final = ROOT / "docs" / "benchmarks.md"
BLOCK: Final = ("bench-peers", "make bench-peers")

a_model = click.option("--model", "models", type=click.Choice(list(KINDS)), multiple=True, help="Only these; may be repeated.")
a_peer = click.option("--peer", "peers", type=click.Choice(list(CONTENDERS)), multiple=True, help="Only these; may be repeated.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure Sightline beside other servers of the same ONNX models."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that every server ends with its block
    try:
        find_wrk()
    except LoadError as error:
        raise click.ClickException(str(error)) from None


@main.command()
@a_model
@a_peer
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option(
    "--window", "window_s", type=click.FloatRange(1, 120), default=3.0, show_default=True, help="Seconds; VGG16 takes twice as long."
)
@click.option("--files/--no-files", default=True, show_default=True, help="Also measure from JPEG files to answers.")
@click.option("--perf-analyzer/--no-perf-analyzer", default=True, show_default=True)
@click.option("--docs/--no-docs", default=False, show_default=True, help="Write docs/benchmarks.md and its plots.")
@click.option("--again", is_flag=True, help="Forget what was measured before; else only what is missing is measured.")
@click.option("--measured", type=click.Path(path_type=Path), default=MEASURED, help="The file of turns.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, help="The result.")
def run(  # noqa: PLR0913, PLR0917 - click hands options over one by one
    models: Sequence[str],
    peers: Sequence[str],
    rounds: int,
    window_s: float,
    files: bool,
    perf_analyzer: bool,
    docs: bool,
    again: bool,
    measured: Path,
    out: Path,
) -> None:
    """Run the race; what is measured already stays, so that a run that was stopped goes on."""
    say = messages().print
    settings = race.Settings(rounds=rounds, window_s=window_s, perf_analyzer=perf_analyzer)
    folders = race.Folders(BUILD)
    if again:
        measured.unlink(missing_ok=True)
    machine = this_machine()
    _demand_same_window(measured, settings)
    results.forget_failures(measured)
    opened = _opened(models, say)
    race.run(opened, list(peers) or list(CONTENDERS), settings, folders, measured, say)
    if files and not peers and (not models or end_to_end.MODEL in models):
        fruit = next((model for model in opened if model.kind.name == end_to_end.MODEL), None)
        end_to_end.run(fruit or published(KINDS[end_to_end.MODEL], folders.models, say), settings, folders, measured, say)
    turns, file_turns = results.read(measured)
    done = Race(setting=_setting(machine), turns=tuple(turns), files=tuple(file_turns))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, done.model_dump_json(indent=1) + "\n")
    say(f"wrote {out}")
    if docs:
        _write_docs(done)
        say(f"wrote {PAGE}")
    else:
        printed().print(block(done))


def _demand_same_window(measured: Path, settings: race.Settings) -> None:
    """Raise ClickException if the file holds turns of another length: they do not belong beside the new ones."""
    turns, file_turns = results.read(measured)
    of = {turn.window_s / (race.HEAVY_FACTOR if KINDS[turn.model].heavy else 1.0) for turn in turns}
    others = (of | {turn.window_s for turn in file_turns}) - {settings.window_s}
    if others:
        kept = f"{min(others):g}"
        raise click.ClickException(f"{measured} holds turns with windows of {kept} s: go on with --window {kept}, or --again")


@main.command()
@click.option("--out", type=click.Path(path_type=Path, exists=True), default=OUT, help="The result that `run` wrote.")
def report(out: Path) -> None:
    """Write docs/benchmarks.md and its plots from a result."""
    _write_docs(Race.model_validate_json(out.read_text(encoding="utf-8")))


def _write_docs(done: Race) -> None:
    page = PAGE.read_text(encoding="utf-8")
    if done.turns:
        write_atomically(PAGE.with_name(PLOT), plot.servers(done.turns))
    if done.files:
        write_atomically(PAGE.with_name(FILES_PLOT), plot.files(done.files))
    write_atomically(PAGE, replaced(page, *BLOCK, block(done)))


@main.command()
@a_model
@a_peer
@click.option("--window", "window_s", type=click.FloatRange(1, 120), default=2.0, show_default=True)
@click.option("--again", is_flag=True, help="Try also what was tried before.")
def tune(models: Sequence[str], peers: Sequence[str], window_s: float, again: bool) -> None:
    """Try each peer's shapes for each model, and keep the order of their speed in benchmarks/peers/shapes.json."""
    say = messages().print
    tuned = shapes.read_tuned()
    for model in _opened(models, say):
        known = tuned.tried.get(model.kind.name, {})
        todo = [name for name in (peers or CONTENDERS) if again or name not in known]
        for name, tried in race.tune(model, todo, window_s, race.Folders(BUILD), say):
            if tried:
                tuned = tuned.with_tried(model.kind.name, name, tried).model_copy(update={"machine": _machine_text(this_machine())})
                shapes.write_tuned(tuned)


@main.command()
@click.option("--store", is_flag=True, help="Keep these ratios; later runs are held to them.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--window", "window_s", type=click.FloatRange(1, 120), default=2.0, show_default=True)
@a_model
def guard(store: bool, rounds: int, window_s: float, models: Sequence[str]) -> None:
    """Hold the ratios of a run to the stored ones; exit code 1 if one dropped by more than 15 %."""
    say = messages().print
    # Before minutes are measured, and not after.
    if store and models:
        raise click.UsageError("--store keeps the ratios of all models: leave --model out")
    stored = None if store else _stored()
    measured = BUILD / "guard.jsonl"
    measured.unlink(missing_ok=True)
    settings = race.Settings(rounds=rounds, window_s=window_s, perf_analyzer=False)
    names = [name for name in guarding.MODELS if not models or name in models]
    race.run(_opened(names, say), list(guarding.CONTENDERS), settings, race.Folders(BUILD), measured, say)
    turns, _ = results.read(measured)
    now = guarding.ratios(turns)
    machine = _machine_text(this_machine())
    if stored is None:
        if missing := [name for name in guarding.names() if name not in now]:
            raise click.ClickException(f"nothing was stored, since these could not be measured: {'; '.join(missing)}")
        at = datetime.now(UTC).date().isoformat()
        medians = {name: round(value.median, 3) for name, value in now.items()}
        guarding.store(guarding.Stored(machine=machine, at=at, rounds=rounds, window_s=window_s, ratios=medians), guarding.FILE)
        say(f"stored {len(now)} ratios in {guarding.FILE}")
        return
    if stored.machine != machine:
        say(f"note: the stored ratios are of another machine, {stored.machine}; this one is {machine}")
    expected = {name: value for name, value in stored.ratios.items() if name.partition(",")[0] in names}
    rows = guarding.compare(expected, now)
    _print_rows(rows)
    if any(row.failed for row in rows):
        sys.exit(1)


def _stored() -> guarding.Stored:
    try:
        return guarding.read_stored(guarding.FILE)
    except FileNotFoundError:
        raise click.ClickException(f"nothing is stored to compare with: make bench-guard-store writes {guarding.FILE}") from None
    except ValueError as error:
        raise click.ClickException(f"{guarding.FILE} holds no ratios ({str(error).splitlines()[0]}): make bench-guard-store") from None


def _print_rows(rows: Sequence[guarding.Row]) -> None:
    shown = table("ratio", "stored", "now", "lowest", "highest", "change", "verdict", left=1)
    for row in rows:
        values = [row.now.median, row.now.lowest, row.now.highest] if row.now else []
        cells = [f"{value:.2f}" for value in values] or ["", "", ""]
        stored = "" if row.stored is None else f"{row.stored:.2f}"
        shown.add_row(row.name, stored, *cells, "" if row.change is None else f"{row.change:+.0%}", row.verdict)
    printed().print(shown)


def _opened(names: Sequence[str], say: Callable[[str], None]) -> list[Model]:
    return [published(kind, BUILD / "models", say) for kind in KINDS.values() if not names or kind.name in names]


def _machine_text(machine: Machine) -> str:
    return f"{machine.cores} cores of {machine.processor}, {' '.join(machine.instructions)}"


def _setting(machine: Machine) -> Setting:
    versions = {}
    for contender in CONTENDERS.values():
        pinned = pins(REQUIREMENTS / f"{contender.environment}.txt") if contender.environment else {}
        plain = {name.partition("[")[0]: number for name, number in pinned.items()}
        for package in contender.packages:
            versions[package] = plain.get(package) or _version(package)
    versions |= {"onnxruntime": _version("onnxruntime"), "sightline": _version("sightline")}
    return Setting(
        processor=machine.processor,
        instructions=machine.instructions,
        cores=machine.cores,
        memory_gib=machine.memory_gib,
        system=machine.system,
        load=machine.load,
        python=".".join(map(str, sys.version_info[:3])),
        versions=versions,
        command=BLOCK[1],
        date=datetime.now(UTC).date().isoformat(),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    main()
