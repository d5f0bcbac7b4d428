"""A model that was not trained here becomes a candidate: its card is made from what its library says of it, or the reason why not.

The network, its preprocessing and its labels come from a source of the registry; from there on it goes the way of every run.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch
from pydantic import ValidationError
from torch import nn

from sightline.card import ModelCard
from sightline.errors import UsageError
from sightline.host.text import first_problem, one_line
from sightline.repository.report import FROM, PreprocessOrigin
from sightline_export.candidate import ComparisonImages, ExportCandidate
from sightline_export.graph.calibration import Calibration, CalibrationSettings, calibration_from, files_below
from sightline_export.settings import ImportSettings
from sightline_export.sources import probe_images
from sightline_export.sources.imported_model import ImportedModel, ImportRequest, demand_float32
from sightline_export.sources.labelled_folders import labels_by_folder
from sightline_export.sources.labels import read_labels
from sightline_export.sources.registry import source_named
from sightline_export.sources.stated_preprocess import read_statement
from sightline_training.networks.wrappers import Answering, Network

LARGEST_BATCH: Final = 32


def import_model(
    source: str, settings: ImportSettings | None = None, notify: Callable[[str], None] = lambda _sentence: None
) -> ExportCandidate:
    """Return the candidate that `source` names, such as "timm:NAME". Raises UsageError, DataError or MissingExtra."""
    settings = settings or ImportSettings()
    registered, named = source_named(source)
    if settings.weights_key is not None and settings.weights in (None, "random"):
        raise UsageError(
            f"{settings.weights_key!r:.80} is to be an entry of a checkpoint, but the weights are no file.", settings=("weights_key",)
        )
    model = registered.load()(
        ImportRequest(
            named=named,
            weights=settings.weights,
            weights_key=settings.weights_key,
            labels=None if settings.labels is None else read_labels(settings.labels),
            stated=read_statement(settings.preprocess),
        )
    )
    demand_float32(model.body, model.source)
    card = _card(model, settings.name)
    network = Answering(Network(card, model.body)).eval()
    _demand_answers(network, card, model.source)
    notify(model.preprocess.sentence)
    for note in model.notes:
        notify(f"note: {note}")
    folder, classes = settings.images_from, _classes(settings.images_from, model, notify)

    def images(most: int) -> ComparisonImages:
        if folder is None:
            return probe_images.generated_images(card, min(most, probe_images.GENERATED))
        return probe_images.images_below(folder, card, most, classes)

    def calibration(card: ModelCard, calibration_settings: CalibrationSettings) -> Calibration:
        return calibration_from(demand_calibration(source, calibration_settings), card, calibration_settings.count)

    settled = model.preprocess
    origin = PreprocessOrigin(
        source=settled.origin,
        assumed=settled.assumed,
        published_versions=settled.versions,
        different_ways=settled.ways,
        stated=settled.stated,
    )
    return ExportCandidate(card, lambda: network, images, calibration, _provenance(model, card), preprocess_origin=origin)


def demand_calibration(source: str, settings: CalibrationSettings) -> Path:
    """Return the folder of images to calibrate an imported model with. Raises UsageError if none is named."""
    if settings.folder is None:
        raise UsageError(
            f"{source} comes without training images, and INT8 must be calibrated with some: name a folder of images such as the model "
            "will see to calibrate with"
        )
    return settings.folder


def _classes(folder: Path | None, model: ImportedModel, notify: Callable[[str], None]) -> Mapping[Path, int]:
    """The classes that folders of images name, if they do; the user is told whether an accuracy will be reported."""
    if folder is None:
        notify("no images were named: comparing on smooth random colours made here, of which no accuracy can be known")
        return {}
    by_folder = labels_by_folder(folder, files_below(folder, "compare on"), model.labels, model.class_ids)
    notify(by_folder.sentence)
    return by_folder.classes


def _demand_answers(network: nn.Module, card: ModelCard, source: str) -> None:
    """Raise UsageError unless the network takes an image of the card's shape, and answers with a number for each label."""
    height, width, channels = card.preprocess.shape
    try:
        with torch.inference_mode():
            answer = network(torch.zeros((1, height, width, channels), dtype=torch.uint8))
    except Exception as error:  # noqa: BLE001 - a network raises anything
        raise UsageError(
            f"{source} does not take images of {height} x {width} pixels in {channels} channel{'s' if channels > 1 else ''}, as they are "
            f"preprocessed ({one_line(error)})",
            settings=("preprocess",),
        ) from None
    if answer.shape != (1, len(card.labels)):
        raise UsageError(
            f"{source} answers an image with {list(answer.shape)[1:]} numbers, not with one for each of {len(card.labels):,} labels"
        )


def _card(model: ImportedModel, name: str | None) -> ModelCard:
    kind, _, what = model.source.partition(":")
    # A version behind a slash says which weights, not which model: another one is to become its next version, if the card allows it.
    own_name = re.sub(r"[^A-Za-z0-9_-]", "_", model.name or what.partition("/")[0]).lstrip("_-")[:64]
    try:
        return ModelCard(
            name=own_name if name is None else name,
            description=f"{what} of {kind}, trained elsewhere and brought along; weights: {model.weights}.",
            labels=model.labels,
            preprocess=model.preprocess.preprocess,
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
