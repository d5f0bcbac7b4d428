"""A model that was not trained here becomes a candidate: its card is made from what its library says of it, or the reason why not.

The network, its preprocessing and its labels come from a source of the registry; from there on it goes the way of every run.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from sightline.card import ModelCard
from sightline.errors import UsageError
from sightline.host.text import first_problem
from sightline.repository.report import FROM
from sightline_export.candidate import ComparisonImages, ExportCandidate
from sightline_export.graph.calibration import Calibration, CalibrationSettings, calibration_from
from sightline_export.settings import ImportSettings
from sightline_export.sources import probe_images
from sightline_export.sources.imported_model import ImportedModel, demand_float32
from sightline_export.sources.labels import read_labels
from sightline_export.sources.registry import source_named
from sightline_training.networks.wrappers import Answering, Network

LARGEST_BATCH: Final = 32


def import_model(
    source: str, settings: ImportSettings | None = None, notify: Callable[[str], None] = lambda _sentence: None
) -> ExportCandidate:
    """Return the candidate that `source` names, such as "timm:NAME". Raises UsageError, DataError or MissingExtra."""
    settings = settings or ImportSettings()
    registered, named = source_named(source)
    model = registered.load()(named, settings.weights, None if settings.labels is None else read_labels(settings.labels))
    demand_float32(model.body, model.source)
    card = _card(model, settings.name)
    for note in model.notes:
        notify(f"note: {note}")
    if settings.images_from is None:
        notify("no images were named: comparing on smooth random colours made here, of which no accuracy can be known")
    else:
        notify(f"nobody says what the images of {settings.images_from} show: they are compared on, and no accuracy can be known")
    network = Answering(Network(card, model.body)).eval()

    def images(most: int) -> ComparisonImages:
        if settings.images_from is None:
            return probe_images.generated_images(card, min(most, probe_images.GENERATED))
        return probe_images.images_below(settings.images_from, card, most)

    def calibration(card: ModelCard, calibration_settings: CalibrationSettings) -> Calibration:
        return calibration_from(demand_calibration(source, calibration_settings), card, calibration_settings.count)

    return ExportCandidate(card, lambda: network, images, calibration, _provenance(model, card))


def demand_calibration(source: str, settings: CalibrationSettings) -> Path:
    """Return the folder of images to calibrate an imported model with. Raises UsageError if none is named."""
    if settings.folder is None:
        raise UsageError(
            f"{source} comes without training images, and INT8 must be calibrated with some: name a folder of images such as the model "
            "will see to calibrate with"
        )
    return settings.folder


def _card(model: ImportedModel, name: str | None) -> ModelCard:
    kind, _, what = model.source.partition(":")
    # A version behind a slash says which weights, not which model: another one is to become its next version, if the card allows it.
    own_name = re.sub(r"[^A-Za-z0-9_-]", "_", what.partition("/")[0]).lstrip("_-")[:64]
    try:
        return ModelCard(
            name=own_name if name is None else name,
            description=f"{what} of {kind}, trained elsewhere and brought along; weights: {model.weights}.",
            labels=model.labels,
            preprocess=model.preprocess,
            max_batch_size=LARGEST_BATCH,
        )
    except ValidationError as error:
        problem = first_problem(error)
        field = error.errors(include_url=False, include_input=False, include_context=False)[0]["loc"]
        advice = (
            " Choose another name." if field == ("name",) else " Name others in a text file, a label a line." if "label" in problem else ""
        )
        raise UsageError(f"{model.source} cannot get a model card: {problem}.{advice}") from None


def _provenance(model: ImportedModel, card: ModelCard) -> dict[str, object]:
    """Where a version comes from, in terms that mean the same on every machine: no paths."""
    return {
        FROM: model.source,
        "weights": model.weights,
        "weights_sha256": model.weights_sha256,
        "card_sha256": card.sha256,
        "preprocessing": dict(model.settings),
        "notes": list(model.notes),
        "judged": None,
        "versions": dict(model.versions),
    }
