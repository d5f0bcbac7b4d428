"""`sightline tune`: how many instances and threads a model gets on this machine, found by measuring, or set by hand."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.commands.options import options_as
from sightline.errors import UsageError
from sightline.repository.instances import InstanceChanges

if TYPE_CHECKING:
    from sightline.repository.read import PublishedModel
    from sightline_serving.tuning import TuneResult

MAX_IMAGES = 256


@dataclass(frozen=True)
class MeasureOptions:
    """What to send, how, and whether to write the result."""

    images: Path | None
    concurrency: int
    window_s: float
    p99_ms: float | None
    dry_run: bool


def _instance_changes(*, no_batching: bool, **counts: int | None) -> InstanceChanges:
    if no_batching and counts["queue_delay_us"] is not None:
        raise UsageError("--queue-delay is a setting of batching: leave out it or --no-batching")
    return InstanceChanges(**counts, no_batching=no_batching)


_measure_options = options_as(
    "measuring",
    MeasureOptions,
    click.option("--images", type=click.Path(path_type=Path), help="Folder of images to send  [default: the model's golden images]."),
    click.option("--concurrency", type=click.IntRange(1, 1024), default=16, show_default=True, help="Requests under way at a time."),
    click.option(
        "--window", "window_s", type=click.FloatRange(0.5, 60), default=1.0, show_default=True, help="Seconds of each of the 3 windows."
    ),
    click.option("--p99", "p99_ms", type=click.FloatRange(0.01), help="The 99th percentile of latency that must be kept, in milliseconds."),
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
    """Serve MODEL with several instance settings, measure each with perf_analyzer, and write the best into its config.pbtxt.

    Nothing else is served meanwhile by this command, but whatever else the machine does is in the figures. A server that runs already
    serves with the new setting when it is started again.
    """
    from sightline.console import messages, results
    from sightline.repository.edit import change_instances, set_instances
    from sightline.repository.read import model_named

    published = model_named(repository, model)
    console = messages()
    if changes:
        if measuring.dry_run:
            raise UsageError("--dry-run goes with measuring: there is nothing to try where the settings are given")
        console.print(f"{model}: {change_instances(repository, model, changes)}, from the server's next start on")
        return
    result = _measure(repository, published, measuring)
    results().print(_table(result))
    best, present = result.best.instances, result.present.instances
    if best == present:
        console.print(f"{model} stays as it is: {present}")
    elif measuring.dry_run:
        console.print(f"best: {best}; --dry-run leaves {model} as it is")
    else:
        set_instances(repository, model, best)
        console.print(f"{model}: {best}, from the server's next start on")


def _measure(repository: Path, model: "PublishedModel", measuring: MeasureOptions) -> "TuneResult":
    from sightline.bench import find_perf_analyzer
    from sightline.console import messages
    from sightline.repository.layout import golden_folders
    from sightline.scoring import images_below
    from sightline_serving.tuning import TuneSettings
    from sightline_serving.tuning import tune as measure

    find_perf_analyzer()
    golden = golden_folders(model.folder)
    if measuring.images is None and not golden:
        raise UsageError(f"{model.name} has no golden images in {repository}: say which images to send with --images FOLDER")
    images = list(islice(images_below(measuring.images or golden[-1]), MAX_IMAGES))
    settings = TuneSettings(concurrency=measuring.concurrency, window_s=measuring.window_s, p99_ms=measuring.p99_ms)
    return measure(repository, model.name, images, settings, messages().print)


def _table(result: "TuneResult") -> object:
    from sightline.console import table

    rows = table("setting", "images/s", "p99 ms", "against now", "at worst", "", left=1)
    for trial in result.trials:
        mark = " ".join(word for word, marked in (("now", result.present), ("best", result.best)) if trial == marked)
        figures = (f"{trial.images_per_s:,.0f}", f"{trial.p99_ms:.2f}", f"{trial.ratio:.2f}", f"{trial.least_ratio:.2f}")
        rows.add_row(str(trial.instances), *figures, mark)
    return rows
