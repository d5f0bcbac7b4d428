"""`sightline tune`: how many instances and threads a model gets on this machine, found by measuring, or given by hand."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.errors import UsageError

if TYPE_CHECKING:
    from sightline_serving.tuning import Tuned


@click.command(short_help="Find a model's best instances, threads and batching here.")
@click.argument("model")
@click.option(
    "--repository", type=click.Path(path_type=Path), default=Path("model_repository"), show_default=True, help="The model repository."
)
@click.option("--images", type=click.Path(path_type=Path), help="Folder of images to send  [default: the model's golden images].")
@click.option("--concurrency", type=click.IntRange(1, 1024), default=16, show_default=True, help="Requests under way at a time.")
@click.option(
    "--window", "window_s", type=click.FloatRange(0.5, 60), default=1.0, show_default=True, help="Seconds of each of the 3 windows."
)
@click.option("--p99", "p99_ms", type=click.FloatRange(0.01), help="The 99th percentile of latency that must be kept, in milliseconds.")
@click.option("--dry-run", is_flag=True, help="Measure and tell, and leave config.pbtxt as it is.")
@click.option("--instances", type=click.IntRange(1, 64), help="Do not measure: set the copies of the model that work at the same time.")
@click.option("--threads", type=click.IntRange(0, 256), help="Do not measure: set the threads of each copy; 0 is one for every core.")
@click.option("--queue-delay", type=click.IntRange(0, 1_000_000), help="Do not measure: set how many µs a request may wait for company.")
@click.option("--no-batching", is_flag=True, help="Do not measure: let no two requests be answered together.")
def tune(
    model: str,
    repository: Path,
    images: Path | None,
    concurrency: int,
    window_s: float,
    p99_ms: float | None,
    dry_run: bool,
    instances: int | None,
    threads: int | None,
    queue_delay: int | None,
    no_batching: bool,
) -> None:
    """Serve MODEL in several shapes, measure each with perf_analyzer, and write the best into its config.pbtxt.

    Nothing else is served meanwhile by this command, but whatever else the machine does is in the figures. A server that runs already
    serves the new shape when it is started again.
    """
    from sightline.bench import find_perf_analyzer
    from sightline.console import messages, results
    from sightline.repository.edit import change_instances, set_instances
    from sightline.repository.instances import InstanceChanges
    from sightline.repository.read import model_named
    from sightline.scoring import images_below
    from sightline_serving.tuning import tune as measure

    there = model_named(repository, model)
    if (instances, threads, queue_delay, no_batching) != (None, None, None, False):
        if dry_run:
            raise UsageError("--dry-run goes with measuring: there is nothing to try where the settings are given")
        shape = change_instances(repository, model, InstanceChanges(instances, threads, queue_delay, no_batching))
        messages().print(f"{model}: {shape}, from the server's next start on")
        return
    find_perf_analyzer()
    golden = [each for each in there.folder.glob("*/golden") if each.parent.name.isdigit()]
    if images is None and not golden:
        raise UsageError(f"{model} has no golden images in {repository}: say which images to send with --images FOLDER")
    folder = images or max(golden, key=lambda each: int(each.parent.name))
    console = messages()
    sent = [path for path, _ in zip(images_below(folder), range(256), strict=False)]
    found = measure(repository, model, sent, concurrency=concurrency, window_s=window_s, p99_ms=p99_ms, notify=console.print)
    results().print(_table(found))
    if found.best.shape == found.present.shape:
        console.print(f"{model} stays as it is: {found.present.shape}")
    elif dry_run:
        console.print(f"best: {found.best.shape}; --dry-run leaves {model} as it is")
    else:
        set_instances(repository, model, found.best.shape)
        console.print(f"{model}: {found.best.shape}, from the server's next start on")


def _table(found: "Tuned") -> object:
    from sightline.console import table

    rows = table("shape", "images/s", "p99 ms", "against now", "at worst", "", left=1)
    for trial in found.trials:
        mark = " ".join(word for word, other in (("now", found.present), ("best", found.best)) if trial == other)
        figures = (f"{trial.images_per_s:,.0f}", f"{trial.p99_ms:.2f}", f"{trial.ratio:.2f}", f"{trial.least_ratio:.2f}")
        rows.add_row(str(trial.shape), *figures, mark)
    return rows
