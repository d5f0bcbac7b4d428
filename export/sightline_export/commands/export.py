"""`sightline export`: a run, or a model that was trained elsewhere, becomes the next version of a model, if the gate lets it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from sightline.commands.options import options_as, options_named
from sightline.errors import UsageError
from sightline_export.graph.calibration import COUNT, CalibrationSettings
from sightline_export.precisions import PRECISIONS
from sightline_export.settings import ExportSettings, ImportSettings
from sightline_export.sources import registry

if TYPE_CHECKING:
    from rich.console import Console

    from sightline_export.candidate import ExportCandidate
    from sightline_export.pipeline import Exported


OPTIONS: Final = {"weights": "--weights", "weights_key": "--weights-key", "preprocess": "--preprocess FILE|KEY=VALUE"}
"""What the command calls the settings that an error names."""


@dataclass(frozen=True)
class InstanceOptions:
    """How the model is spread over a machine's cores; None leaves a setting as it is."""

    instances: int | None
    threads: int | None
    queue_delay: int | None
    no_batching: bool

    def __post_init__(self) -> None:
        """Raise UsageError for options that contradict each other."""
        if self.queue_delay is not None and self.no_batching:
            raise UsageError("--queue-delay is a setting of batching: leave out it or --no-batching")


def _settings(
    precisions: tuple[str, ...], images: int | None, calibration: int, calibrate_with: Path | None, image: bool, again: bool
) -> ExportSettings:
    return ExportSettings(
        precisions=precisions,
        images=images,
        calibration=CalibrationSettings(count=calibration, folder=calibrate_with),
        again=again,
        image_ensemble=image,
    )


@click.command(short_help="Prove a trained model's ONNX export and publish it for Triton.")
@click.argument("run", required=False)
@click.option("--from", "source", metavar="SOURCE", help=f"Instead of a run, a model that was trained elsewhere: {registry.usage()}.")
@options_as(
    "imported",
    ImportSettings,
    click.option("--weights", metavar="FILE|random", help="With --from: a safetensors file or state dict  [default: the published ones]."),
    click.option("--weights-key", metavar="KEY", help="With --from: which entry of a checkpoint is meant, such as state_dict_ema."),
    click.option(
        "--preprocess",
        metavar="FILE|KEY=VALUE",
        multiple=True,
        help="With --from: how images are seen, a file that says it or fields of it; may be repeated  [default: as the source says].",
    ),
    click.option("--name", help="With --from: the model's name in the repository  [default: the network's]."),
    click.option(
        "--labels",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="With --from: a text file, a label a line  [default: the source's own].",
    ),
    click.option(
        "--images-from",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="With --from: compare on the images of this folder, with their accuracy if it has a folder for each label  "
        "[default: on smooth random colours, made here].",
    ),
)
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=Path("model_repository"),
    show_default=True,
    help="The model repository; it is made if it is missing.",
)
@click.option("--data", type=click.Path(path_type=Path), help="The data folder  [default: $SIGHTLINE_DATA, else data/].")
@options_as(
    "settings",
    _settings,
    click.option(
        "--images", type=click.IntRange(1), help="How many test images to compare  [default: all up to 10,000, fewer if they are large]."
    ),
    click.option(
        "--precision",
        "precisions",
        type=click.Choice(list(PRECISIONS)),
        multiple=True,
        default=("fp32",),
        show_default=True,
        help="Of weights and operations. Given several times, each becomes a version, in that order; the last one is the newest.",
    ),
    click.option(
        "--calibration", type=click.IntRange(1), default=COUNT, show_default=True, help="Training images that INT8 is calibrated with."
    ),
    click.option(
        "--calibrate-with",
        type=click.Path(path_type=Path),
        help="Calibrate INT8 with images of this folder  [default: the run's training images].",
    ),
    click.option(
        "--image/--no-image", default=True, help="Whether RUN_image, which takes encoded images, stands beside it  [default: yes]."
    ),
    click.option("--again", is_flag=True, help="Publish a new version even if the newest one is this very model."),
)
@options_as(
    "instances",
    InstanceOptions,
    click.option("--instances", type=click.IntRange(1, 64), help="Copies of the model that work at the same time  [default: by its size]."),
    click.option("--threads", type=click.IntRange(0, 256), help="Of each copy; 0 is one for every core  [default: by its size]."),
    click.option("--queue-delay", type=click.IntRange(0, 1_000_000), help="How many µs a request may wait for company  [default: 0]."),
    click.option("--no-batching", is_flag=True, help="Let no two requests be answered together."),
)
def export(
    run: str | None,
    source: str | None,
    imported: ImportSettings,
    repository: Path,
    data: Path | None,
    settings: ExportSettings,
    instances: InstanceOptions,
) -> None:
    """Export RUN, a run folder or the name of one below runs/, or the model that --from names, to ONNX, prove it, and publish it.

    A model that does not give the trained network's answers on real images is refused, with the figures, and nothing is published.
    Exporting a run whose model is the newest version already publishes nothing, says so, and ends well.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from sightline_export.pipeline import Listeners, export_candidate

    talk = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    candidate = _run(run, imported, data) if source is None else _imported(source, run, imported, data, settings, talk)
    columns = (TextColumn("answers"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=talk, transient=True, disable=not talk.is_terminal) as bar:
        task = bar.add_task("answers", visible=False)
        listeners = Listeners(
            notify=talk.print,
            progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True),
            exported=lambda exported: _tell(exported, repository, instances, talk),
        )
        export_candidate(candidate, repository, settings, listeners)


def _run(run: str | None, imported: ImportSettings, data: Path | None) -> "ExportCandidate":
    """The candidate of a run. Raises UsageError for options that only an imported model has."""
    from sightline_export.commands.run_folder import run_folder
    from sightline_export.sources.run import candidate_from_run, load_run

    options = {
        "--weights": imported.weights,
        "--weights-key": imported.weights_key,
        "--preprocess": imported.preprocess or None,
        "--name": imported.name,
        "--labels": imported.labels,
        "--images-from": imported.images_from,
    }
    for option, value in options.items():
        if value is not None:
            raise UsageError(f"{option} belongs to --from: a run has its own")
    if run is None:
        raise UsageError("name a run, or a model that was trained elsewhere with --from")
    return candidate_from_run(load_run(run_folder(run)), data)


def _imported(
    source: str, run: str | None, imported: ImportSettings, data: Path | None, settings: ExportSettings, talk: "Console"
) -> "ExportCandidate":
    """The candidate that --from names."""
    from sightline_export.sources.external import demand_calibration, import_model

    if run is not None:
        raise UsageError(f"name a run or a model with --from, not both: {run!r:.80} and {source!r:.80}")
    if data is not None:
        raise UsageError("--data is where a run's images lie: with --from, --images-from names a folder of them")
    if any(PRECISIONS[name].needs_calibration for name in settings.precisions):
        demand_calibration(source, settings.calibration)
    with options_named(OPTIONS):
        candidate = import_model(source, imported, talk.print)
    if candidate.preprocess_origin is not None and candidate.preprocess_origin.assumed:
        talk.print(f"{OPTIONS['preprocess']} states it; with --images-from, folders that are called as the labels show whether it is right")
    return candidate


def _tell(exported: "Exported", repository: Path, instances: InstanceOptions, talk: "Console") -> None:
    """Tell what became of one precision, and set its instances. The result is on stdout, everything else on stderr."""
    from rich.console import Console

    from sightline.repository.edit import change_instances
    from sightline.repository.instances import InstanceChanges
    from sightline_export.commands.export_table import table

    published = exported.published
    if exported.image_model:
        talk.print(
            f"{exported.image_model} takes whole JPEG and PNG files, for clients that cannot reformat by themselves "
            "(--no-image leaves it out)"
        )
    if exported.already:
        talk.print(f"nothing was published: version {published.number} of {published.model} is this very model (--again publishes it anew)")
    if instances != InstanceOptions(None, None, None, no_batching=False):
        changes = InstanceChanges(instances.instances, instances.threads, instances.queue_delay, instances.no_batching)
        settings = change_instances(repository, published.model, changes)
        talk.print(f"{published.model}: {settings}, from the server's next start on")
    # Another program, which reads this, has no width: no path may be folded for it.
    Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, markup=False).print(table(published))
