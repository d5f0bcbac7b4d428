"""`sightline tune`: how many instances and threads a model gets on this machine, found by measuring, or set by hand."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.commands.options import options_as
from sightline.errors import MachineError, UsageError
from sightline.repository.instances import InstanceChanges

if TYPE_CHECKING:
    from rich.console import Console

    from sightline_serving.tuning import TuneResult, TuneSettings
    from sightline_serving.tuning.measuring import Progress

MAX_IMAGES = 256


@dataclass(frozen=True)
class MeasureOptions:
    """What to send, how, and what becomes of the result."""

    images: Path | None
    concurrencies: tuple[int, ...]
    window_s: float
    p99_ms: float | None
    exhaustive: bool
    json_file: Path | None
    dry_run: bool


def _instance_changes(*, no_batching: bool, **counts: int | None) -> InstanceChanges:
    if no_batching and counts["queue_delay_us"] is not None:
        raise UsageError("--queue-delay is a setting of batching: leave out it or --no-batching")
    return InstanceChanges(**counts, no_batching=no_batching)


_measure_options = options_as(
    "measuring",
    MeasureOptions,
    click.option("--images", type=click.Path(path_type=Path), help="Folder of images to send  [default: the model's golden images]."),
    click.option(
        "--concurrency",
        "concurrencies",
        type=click.IntRange(1, 1024),
        multiple=True,
        default=(1, 8, 32),
        show_default="1, 8 and 32",
        help="Requests under way at a time (may be given several times): a setting is judged at all of them.",
    ),
    click.option(
        "--window",
        "window_s",
        type=click.FloatRange(0.3, 60),
        default=1.0,
        show_default=True,
        help="Seconds of each measurement, at least.",
    ),
    click.option("--p99", "p99_ms", type=click.FloatRange(0.01), help="The 99th percentile of latency that must be kept, in milliseconds."),
    click.option("--exhaustive", is_flag=True, help="Measure every combination to the end, and drop none early: several times as long."),
    click.option(
        "--json",
        "json_file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write every setting with every round to this file.",
    ),
    click.option("--dry-run", is_flag=True, help="Measure and tell, and leave config.pbtxt as it is."),
)
_change_options = options_as(
    "changes",
    _instance_changes,
    click.option("--instances", type=click.IntRange(1, 64), help="Do not measure: set the copies of the model that work at the same time."),
    click.option("--threads", type=click.IntRange(0, 256), help="Do not measure: set the threads of each copy; 0 is one for every core."),
    click.option(
        "--queue-delay",
        "queue_delay_us",
        type=click.IntRange(0, 1_000_000),
        help="Do not measure: set how many µs a request may wait for company.",
    ),
    click.option("--no-batching", is_flag=True, help="Do not measure: let no two requests be answered together."),
)


@click.command(short_help="Find a model's best instances, threads and batching here.")
@click.argument("model")
@click.option(
    "--repository", type=click.Path(path_type=Path), default=Path("model_repository"), show_default=True, help="The model repository."
)
@_measure_options
@_change_options
def tune(model: str, repository: Path, measuring: MeasureOptions, changes: InstanceChanges) -> None:
    """Serve MODEL with several settings, measure each beside the present one with perf_analyzer, and write the best into config.pbtxt.

    MODEL may be <model>_image: then whole files are sent, and the processes that reformat them are tried too. The present setting stays
    unless another is surely better. Whatever else the machine does falls on both alike, and costs time. A server that runs already serves
    with the new setting when it is started again; Ctrl-C leaves everything as it is.
    """
    from sightline.console import messages, results
    from sightline.repository.edit import change_instances
    from sightline.repository.read import model_named

    console = messages()
    if changes:
        if measuring.dry_run:
            raise UsageError("--dry-run goes with measuring: there is nothing to try where the settings are given")
        model_named(repository, model)
        console.print(f"{model}: {change_instances(repository, model, changes)}, from the server's next start on")
        return
    result = _measure(repository, model, measuring, console)
    results().print(_table(result))
    if result.best == result.present:
        console.print(f"{model} stays as it is: {result.present.candidate}")
        return
    console.print(f"{result.best.candidate}: {_gain(result)}")
    if measuring.dry_run:
        console.print(f"--dry-run leaves {model} as it is")
        return
    _keep(repository, model, result)
    console.print(f"{model} is served so from the server's next start on")


def _measure(repository: Path, name: str, measuring: MeasureOptions, console: "Console") -> "TuneResult":
    from sightline.bench import find_perf_analyzer
    from sightline.in_triton import IMAGE
    from sightline.repository.layout import golden_folders
    from sightline.repository.read import model_named
    from sightline.scoring import images_below
    from sightline_serving.tuning import TuneSettings
    from sightline_serving.tuning import tune as measure

    encoded = name.endswith(IMAGE) and (repository / name).is_dir()
    model = model_named(repository, name.removesuffix(IMAGE) if encoded else name)
    find_perf_analyzer()
    golden = golden_folders(model.folder)
    if measuring.images is None and not golden:
        raise UsageError(f"{model.name} has no golden images in {repository}: say which images to send with --images FOLDER")
    if measuring.json_file is not None and not measuring.json_file.absolute().parent.is_dir():
        raise UsageError(f"{measuring.json_file.absolute().parent}: there is no such folder for the result")
    settings = TuneSettings(
        concurrencies=measuring.concurrencies, window_s=measuring.window_s, p99_ms=measuring.p99_ms, exhaustive=measuring.exhaustive
    )
    images = list(islice(images_below(measuring.images or golden[-1]), MAX_IMAGES))
    with _shown(console) as progress:
        result = measure(repository, name, images, settings, console.print, progress)
    if measuring.json_file is not None:
        _write(result, settings, measuring.json_file)
    return result


def _write(result: "TuneResult", settings: "TuneSettings", file: Path) -> None:
    from datetime import UTC, datetime

    from sightline.bench.environment import this_machine
    from sightline.host.files import reason_of, write_atomically
    from sightline_serving.tuning.result import document

    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        write_atomically(file, document(result, now, this_machine().processor, settings.window_s, exhaustive=settings.exhaustive))
    except OSError as error:
        raise MachineError(f"{file}: the result cannot be written: {reason_of(error)}") from None


def _keep(repository: Path, name: str, result: "TuneResult") -> None:
    """Write what differs from the present setting."""
    from sightline.in_triton import IMAGE
    from sightline.repository.edit import set_instances, set_reformats

    best, present = result.best.candidate, result.present.candidate
    base = name if best.reformats is None else name.removesuffix(IMAGE)
    if best.instances != present.instances:
        set_instances(repository, base, best.instances)
    if best.reformats is not None and best.reformats != present.reformats:
        set_reformats(repository, base, best.reformats)


@contextlib.contextmanager
def _shown(console: "Console") -> Iterator[Callable[["Progress"], None]]:
    """Show on a terminal how far a search is; elsewhere a line for each tenth of it."""
    if not console.is_terminal:
        last = -1

        def line(progress: "Progress") -> None:
            nonlocal last
            tenth = 10 * progress.measurements // progress.of
            if tenth > last:
                last = tenth
                console.print(f"measurement {progress.measurements + 1} of {progress.of}: {progress.text}")

        yield line
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    with Bar(BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda progress: bar.update(task, total=progress.of, completed=progress.measurements, description=progress.text)


def _gain(result: "TuneResult") -> str:
    """What the best setting brings: `1.21 times as many images/s (95 %: 1.15 to 1.26), 40 MiB more`."""
    best, present = result.best, result.present
    between = "" if best.interval is None else f" (95 %: {best.interval[0]:.2f} to {best.interval[1]:.2f})"
    memory_mib = round(best.memory_mib - present.memory_mib)
    more = f"{abs(memory_mib):,} MiB {'more' if memory_mib >= 0 else 'less'}"
    return f"{best.ratio:.2f} times the images/s of now{between}, {more}"


def _table(result: "TuneResult") -> object:
    from sightline.console import table

    at = [f"{concurrency} under way" for concurrency in result.concurrencies]
    rows = table(
        "setting",
        "images/s, 1 under way" if at == ["1 under way"] else f"images/s, {at[0]}",
        *at[1:],
        "p99 ms",
        "against now",
        "95 %",
        "MiB",
        "",
        left=1,
    )
    for trial in result.trials:
        now = trial == result.present
        words = ("now", now), ("best", trial == result.best), (f"dropped after {len(trial.rounds)}", not trial.final)
        between = "" if now or trial.interval is None else f"{trial.interval[0]:.2f}–{trial.interval[1]:.2f}"
        rates = (f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}" for rate in trial.images_per_s)
        figures = (*rates, f"{trial.p99_ms:.2f}", f"{trial.ratio:.2f}", between, f"{trial.memory_mib:,.0f}")
        rows.add_row(str(trial.candidate), *figures, " ".join(word for word, marked in words if marked))
    return rows
