"""A model that was not trained here asks to be published: its card is made from what its library says of it, or the reason why not.

The network, its preprocessing and its labels come from one of SOURCES; from there on it goes the way of every run (`pipeline.py`).
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from sightline.card import ModelCard
from sightline.errors import UsageError
from sightline.repository.read import FROM
from sightline_export.candidate import Candidate, Images
from sightline_export.graph.calibration import Calibration, calibration_from
from sightline_export.sources import probe_images as shown
from sightline_export.sources.from_huggingface import from_huggingface
from sightline_export.sources.from_timm import from_timm
from sightline_export.sources.from_torchvision import from_torchvision
from sightline_export.sources.imported_model import Brought, demand_float32, labels_in
from sightline_training.networks.wrappers import Answering, Network

SOURCES: Final = {"torchvision": from_torchvision, "timm": from_timm, "huggingface": from_huggingface}
"""Word before the colon → (what stands behind it, weights, labels) → a Brought. None imports its library before it is called."""

LARGEST_BATCH: Final = 32


def bring(
    source: str,
    *,
    weights: str | None = None,
    name: str | None = None,
    labels: Path | None = None,
    images_from: Path | None = None,
    calibrate_with: Path | None = None,
    calibration: int = 256,
    notify: Callable[[str], None] = lambda _sentence: None,
) -> Candidate:
    """The candidate that `source` names: "torchvision:NAME[/VERSION]", "timm:NAME" or "huggingface:DIR".

    `weights` is None (the published ones, or those in DIR), `random`, or a file. `name` is the model's in the repository, `labels` a
    text file with a label a line. The gate will compare on images below `images_from`, or on some that are made here; INT8 is
    calibrated with `calibration` images below `calibrate_with`. Raises UsageError, DataError or MissingExtra.
    """
    kind, _, what = source.partition(":")
    if kind not in SOURCES or not what:
        raise UsageError(f"--from takes torchvision:NAME, timm:NAME or huggingface:DIR, not {source!r:.80}")
    brought = SOURCES[kind](what, weights, None if labels is None else labels_in(labels))
    demand_float32(brought.body, brought.source)
    card = _card(brought, name)
    for note in brought.notes:
        notify(f"note: {note}")
    if images_from is None:
        notify("no images were named (--images-from DIR): comparing on smooth random colours made here, of which no accuracy can be known")
    else:
        notify(f"nobody says what the images of {images_from} show: they are compared on, and no accuracy can be known")
    network = Answering(Network(card, brought.body)).eval()

    def images(most: int) -> Images:
        return shown.made(card, min(most, shown.MADE)) if images_from is None else shown.given(images_from, card, most)

    def calibrating(card: ModelCard) -> Calibration:
        demand_calibration(source, calibrate_with)
        return calibration_from(Path(str(calibrate_with)), card, calibration)

    return Candidate(card, lambda: network, images, calibrating, _provenance(brought, card))


def demand_calibration(source: str, folder: Path | None) -> None:
    """Raise UsageError if a brought model has no images to calibrate INT8 with."""
    if folder is None:
        raise UsageError(
            f"{source} brings no training images, and INT8 must be calibrated with some: name a folder of images such as the model "
            "will see with --calibrate-with"
        )


def _card(brought: Brought, name: str | None) -> ModelCard:
    kind, _, what = brought.source.partition(":")
    # A version behind a slash says which weights, not which model: another one is to become its next version, if the card allows it.
    own = re.sub(r"[^A-Za-z0-9_-]", "_", what.partition("/")[0]).lstrip("_-")[:64]
    try:
        return ModelCard(
            name=own if name is None else name,
            description=f"{what} of {kind}, trained elsewhere and brought along; weights: {brought.weights}.",
            labels=brought.labels,
            preprocess=brought.preprocess,
            max_batch_size=LARGEST_BATCH,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        advice = " Choose another with --name." if place == "name" else " Give others with --labels FILE." if "label" in str(first) else ""
        reason = f"{f'{place}: ' if place else ''}{first['msg'].removeprefix('Value error, ')}"
        raise UsageError(f"{brought.source} cannot get a model card: {reason}.{advice}") from None


def _provenance(brought: Brought, card: ModelCard) -> dict[str, object]:
    """Where a version comes from, in terms that mean the same on every machine: no paths."""
    return {
        FROM: brought.source,
        "weights": brought.weights,
        "weights_sha256": brought.weights_sha256,
        "card_sha256": card.sha256,
        "preprocessing": dict(brought.settings),
        "notes": list(brought.notes),
        "judged": None,
        "versions": dict(brought.versions),
    }
