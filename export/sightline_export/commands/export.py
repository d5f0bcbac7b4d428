"""`sightline export`: a run, or a model brought along, becomes the next version of a model in a Triton repository, if the gate lets it."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.errors import DataError, UsageError
from sightline_export.gate.checks import Precision

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from sightline.repository.publish import Published
    from sightline_export.pipeline import Exported

RUNS = Path("runs")


@click.command(short_help="Prove a trained model's ONNX export and publish it for Triton.")
@click.argument("run", required=False)
@click.option(
    "--from",
    "source",
    metavar="SOURCE",
    help="Instead of a run, a model that was trained elsewhere: torchvision:NAME[/VERSION], timm:NAME or huggingface:DIR.",
)
@click.option("--weights", metavar="FILE|random", help="With --from: a safetensors file or state dict  [default: the published ones].")
@click.option("--name", help="With --from: the model's name in the repository  [default: the network's].")
@click.option(
    "--labels",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With --from: a text file, a label a line  [default: the source's own].",
)
@click.option(
    "--images-from",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="With --from: compare on the images of this folder  [default: on smooth random colours, made here].",
)
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=Path("model_repository"),
    show_default=True,
    help="The model repository; it is made if it is missing.",
)
@click.option("--data", type=click.Path(path_type=Path), help="The data folder  [default: $SIGHTLINE_DATA, else data/].")
@click.option(
    "--images", type=click.IntRange(1), help="How many test images to compare  [default: all up to 10,000, fewer if they are large]."
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["fp32", "fp16", "int8"]),
    multiple=True,
    default=("fp32",),
    show_default=True,
    help="Of weights and operations. Given several times, each becomes a version, in that order; the last one is the newest.",
)
@click.option("--calibration", type=click.IntRange(1), default=256, show_default=True, help="Training images that INT8 is calibrated with.")
@click.option(
    "--calibrate-with",
    type=click.Path(path_type=Path),
    help="Calibrate INT8 with images of this folder  [default: the run's training images].",
)
@click.option("--image/--no-image", default=True, help="Whether RUN_image, which takes encoded images, stands beside it  [default: yes].")
@click.option("--instances", type=click.IntRange(1, 64), help="Copies of the model that work at the same time  [default: by its size].")
@click.option("--threads", type=click.IntRange(0, 256), help="Of each copy; 0 is one for every core  [default: by its size].")
@click.option("--queue-delay", type=click.IntRange(0, 1_000_000), help="How many µs a request may wait for company  [default: 0].")
@click.option("--no-batching", is_flag=True, help="Let no two requests be answered together.")
@click.option("--again", is_flag=True, help="Publish a new version even if the newest one is this very model.")
def export(
    run: str | None,
    source: str | None,
    weights: str | None,
    name: str | None,
    labels: Path | None,
    images_from: Path | None,
    repository: Path,
    data: Path | None,
    images: int | None,
    precisions: tuple[Precision, ...],
    calibration: int,
    calibrate_with: Path | None,
    image: bool,
    instances: int | None,
    threads: int | None,
    queue_delay: int | None,
    no_batching: bool,
    again: bool,
) -> None:
    """Export RUN, a run folder or the name of one below runs/, or the model that --from names, to ONNX, prove it, and publish it.

    A model that does not give the trained network's answers on real images is refused, with the figures, and nothing is published.
    Exporting a run whose model is the newest version already publishes nothing, says so, and ends well.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from sightline.repository.edit import change_shape
    from sightline_serving.tuning import described

    if queue_delay is not None and no_batching:
        raise UsageError("--queue-delay is a setting of batching: leave out it or --no-batching")
    talk = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    if source is None:
        own = {"--weights": weights, "--name": name, "--labels": labels, "--images-from": images_from}
        publish = _run(run, own, data=data, calibration=calibration, calibration_folder=calibrate_with)
    else:
        settings = {"weights": weights, "name": name, "labels": labels, "images_from": images_from}
        publish = _brought(
            source, run, data, precisions, notify=talk.print, calibration=calibration, calibrate_with=calibrate_with, **settings
        )
    columns = (TextColumn("answers"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    for precision in dict.fromkeys(precisions):
        with Progress(*columns, console=talk, transient=True, disable=not talk.is_terminal) as bar:
            moved = partial(_moved, bar, bar.add_task("answers", visible=False))
            exported = publish(
                repository,
                precision=precision,
                images=images,
                again=again,
                image=image,
                notify=talk.print,
                progress=moved,
            )
        published = exported.published
        if exported.already:
            talk.print(
                f"nothing was published: version {published.version} of {published.model} is this very model (--again publishes it anew)"
            )
        if (instances, threads, queue_delay, no_batching) != (None, None, None, False):
            shape = change_shape(
                repository,
                published.model,
                instances=instances,
                threads=threads,
                queue_delay_us=queue_delay,
                no_batching=no_batching,
            )
            talk.print(f"{published.model}: {described(shape)}, from the server's next start on")
        # Another program, which reads this, has no width: no path may be folded for it.
        Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, markup=False).print(table(published))


def _moved(bar: "Progress", task: "TaskID", done: int, total: int) -> None:
    bar.update(task, completed=done, total=total, visible=True)


def _run(run: str | None, own: Mapping[str, object], **settings: Any) -> "Callable[..., Exported]":
    """What publishes a run. Raises UsageError for options (`own`) that only a brought model has."""
    from sightline_export.pipeline import export_run

    for option, value in own.items():
        if value is not None:
            raise UsageError(f"{option} belongs to --from: a run has its own")
    if run is None:
        raise UsageError("name a run, or a model that was trained elsewhere with --from")
    return partial(export_run, run_folder(run), **settings)


def _brought(
    source: str, run: str | None, data: Path | None, precisions: tuple[Precision, ...], **settings: Any
) -> "Callable[..., Exported]":
    """What publishes the model that --from names."""
    from sightline_export.pipeline import export_candidate
    from sightline_export.sources.external import bring, demand_calibration

    if run is not None:
        raise UsageError(f"name a run or a model with --from, not both: {run!r:.80} and {source!r:.80}")
    if data is not None:
        raise UsageError("--data is where a run's images lie: with --from, --images-from names a folder of them")
    if "int8" in precisions:
        demand_calibration(source, settings["calibrate_with"])
    return partial(export_candidate, bring(source, **settings))


def run_folder(run: str) -> Path:
    """The folder that RUN means: a path, or the name of a folder below runs/. Raises DataError that names the runs that there are."""
    named = Path(run)
    for folder in (named, *([RUNS / named] if len(named.parts) == 1 else [])):
        if folder.is_dir():
            return folder
    there = sorted(each.name for each in RUNS.iterdir() if each.is_dir()) if RUNS.is_dir() else []
    known = f"the runs there are: {', '.join(there)}" if there else "there are no runs yet: make one with `sightline train`"
    raise DataError(f"there is no run folder {run}{f' and none in {RUNS}/' if len(named.parts) == 1 else ''}; {known}")


def table(published: "Published") -> "Table":
    """The result for people: what was published where, and how close the export is."""
    from rich.table import Table

    from sightline.repository.read import FROM

    report = published.report
    gate = report["gate"]
    measured = {check["name"]: check["measured"] for check in gate["checks"]}
    rows = Table(box=None, show_header=False, pad_edge=False)
    rows.add_column(style="bold")
    rows.add_column(overflow="fold")
    rows.add_row("model", f"{published.model} version {published.version}")
    if came_from := report["provenance"].get(FROM):
        rows.add_row("from", f"{came_from}, weights: {report['provenance']['weights']}")
    rows.add_row("precision", f"{report['precision']}, ONNX opset {report['opset']}, {report['model_bytes']:,} bytes")
    rows.add_row(
        "gate", f"passed {len(gate['checks'])} checks on {gate['pictures']:,} {gate['data']['split']} images of {gate['data']['name']}"
    )
    rows.add_row("same label", f"{measured['top-1 agreement']:.2%}")
    rows.add_row("|Δp|", f"max {measured['max |Δp|']:.1e}, mean {measured['mean |Δp|']:.1e}")
    if "accuracy" in measured:
        rows.add_row("accuracy", f"{measured['accuracy']:.2%} in ONNX Runtime, {measured['accuracy of torch']:.2%} in torch")
    else:
        rows.add_row("accuracy", "not known: nobody says what the images show")
    if report.get("against_fp32"):
        against = report["against_fp32"]
        rows.add_row("size", f"{report['model_bytes'] / against['bytes']:.0%} of FP32's {against['bytes']:,} bytes")
        for row in against["speed"]:
            faster = ", ".join(f"{ratio:.2f} times FP32" for ratio in row["ratio"].values())
            rate = row["pictures_per_second"][report["precision"]]
            rows.add_row("speed", f"{faster} in batches of {row['batch']} ({rate:,.0f} images/s in this process)")
    rows.add_row("card", report["card_sha256"][:12])
    rows.add_row("folder", str(published.folder))
    return rows
