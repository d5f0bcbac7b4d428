"""A finished run as a source of models: the only module of export that reads runs, recipes and datasets of the training package."""

from pathlib import Path
from typing import TypedDict

from sightline.card import ModelCard
from sightline.errors import DataError, RepositoryError
from sightline_export.candidate import ExportCandidate
from sightline_export.gate.compare import ComparedImages
from sightline_export.graph.calibration import Calibration, CalibrationSettings, calibration_from
from sightline_export.graph.sampling import fitting, spread
from sightline_export.pipeline import NOBODY, Exported, Listeners, export_candidate
from sightline_export.settings import ExportSettings, ImageSelection
from sightline_training.run.folder import CARD, REPORT
from sightline_training.run.run import Run, load_run

__all__ = ["Run", "candidate_from_run", "card_file", "export_run", "images_of_run", "is_finished_run", "load_run"]


def export_run(
    run_folder: Path,
    repository: Path,
    settings: ExportSettings | None = None,
    *,
    data: Path | None = None,
    listeners: Listeners = NOBODY,
) -> tuple[Exported, ...]:
    """Publish the run in `run_folder` as the next versions of its model in `repository`; its images lie in the data folder `data`.

    Raises DataError (the run or its data), GateRefused or RepositoryError, as `export_candidate` does.
    """
    return export_candidate(candidate_from_run(load_run(run_folder), data), repository, settings, listeners)


def candidate_from_run(run: Run, data: Path | None = None) -> ExportCandidate:
    """Return what may be published of a run."""
    judged = _judged(run)
    return ExportCandidate(
        card=run.card,
        network=run.network,
        images=lambda _most: run.images(run.judged_on, data),
        calibration=lambda card, settings: _calibration(run, card, data, settings),
        provenance=_provenance(run, judged),
        reported=None if judged is None else (judged["n"], judged["accuracy"]),
    )


def images_of_run(run_folder: Path, selection: ImageSelection, card: ModelCard) -> ComparedImages:
    """Return test images of the run that a model of this `card` was exported from, spread evenly.

    Raises DataError, or RepositoryError if the run is of another card.
    """
    run = load_run(run_folder)
    if run.card.sha256 != card.sha256 and run.card.model_copy(update={"description": card.description}).sha256 != card.sha256:
        raise RepositoryError(
            f"the run {run_folder} is of another model ({run.card.name}) or of another card: name the run that was exported"
        )
    images = run.images(run.judged_on, selection.data)
    indices = spread(len(images), selection.limit or fitting(card))
    return ComparedImages(images.pixels(card.preprocess, indices), images.labels[indices])


def is_finished_run(folder: Path) -> bool:
    """Whether `folder` holds a run that was trained to its end."""
    return (folder / REPORT).is_file()


def card_file(folder: Path) -> Path:
    """Return where the card of the run in `folder` lies."""
    return folder / CARD


def _calibration(run: Run, card: ModelCard, data: Path | None, settings: CalibrationSettings) -> Calibration:
    """Up to `count` of the run's training images, or of those in a folder, to calibrate with, and as many others to compare on."""
    if settings.folder is not None:
        return calibration_from(settings.folder, card, settings.count)
    if "train" not in run.report.dataset.splits:
        raise DataError(
            f"the run {run.folder} has no training images, and INT8 must be calibrated with some: "
            "name a folder of images such as the model will see to calibrate with"
        )
    training = run.images("train", data)
    pixels = training.pixels(card.preprocess, spread(len(training), 2 * settings.count))
    if len(pixels) < 2:
        raise DataError(
            f"{training.name} has a single training image: INT8 needs two at least, one to calibrate with and one to compare on"
        )
    # The source stands in published reports, whose words do not change.
    return Calibration(f"training pictures of {training.name}", pixels[::2], pixels[1::2])


class _Judged(TypedDict):
    """What the training run measured on the images that it was judged on."""

    split: str
    n: int
    accuracy: float
    """0..1."""
    interval_95: list[float]


def _judged(run: Run) -> _Judged | None:
    """The accuracy of the training run; None if nobody knows what its images show."""
    accuracy = run.report.judged_accuracy
    if accuracy is None:
        return None
    return {"split": run.judged_on, "n": accuracy.n, "accuracy": accuracy.accuracy, "interval_95": list(accuracy.interval_95)}


def _provenance(run: Run, judged: _Judged | None) -> dict[str, object]:
    """Where a version comes from, in terms that mean the same on every machine: no paths."""
    report, document = run.report, run.report.model_dump(mode="json", by_alias=True)
    return {
        "run": run.folder.resolve().name,
        "recipe": report.recipe,
        "seed": report.seed,
        "trained": report.written,
        "weights_sha256": run.weights_sha256,
        "card_sha256": run.card.sha256,
        "dataset": document["dataset"],
        "judged": judged,
        "backbone": document["backbone"],
        "settings": document["settings"],
        "versions": document["versions"],
        "hardware": document["hardware"],
    }
