"""A finished run, read back from its folder without trusting it: what `export` publishes and `verify` compares with."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
from torch import nn

from sightline.card import MAX_SEALED_BYTES, ModelCard, unseal
from sightline.errors import DataError
from sightline.host.files import read_bytes, reason_of
from sightline_training.datasets import DATASETS, open_dataset
from sightline_training.datasets.image_set import ImageSet, Split
from sightline_training.networks.backbones import Backbone, known_backbones
from sightline_training.networks.state import load_state_exactly
from sightline_training.networks.weight_files import MAX_WEIGHTS_BYTES
from sightline_training.networks.wrappers import Answering, Network
from sightline_training.recipes import RECIPES
from sightline_training.run.folder import CARD, REPORT, WEIGHTS, own_images_of
from sightline_training.run.report import RunReport, read_report


@dataclass(frozen=True, eq=False)
class Run:
    """A trained classifier: weights, the card that belongs to them, and the report of how they came about."""

    folder: Path
    card: ModelCard
    report: RunReport = field(repr=False)
    weights_sha256: str
    """Hexadecimal sha256 of weights.safetensors, checked against the report when the run was loaded."""
    own_folder: Path | None = None
    """Where a user's own images lay when it was trained."""

    def network(self) -> nn.Module:
        """Return the trained network in eval mode on the CPU: uint8 pixels [N, H, W, C] → probabilities float32 [N, classes].

        Raises DataError if the weights on disk changed since the run was loaded, or do not fit the recipe's network; the message
        names the first tensor that does not.
        """
        path = self.folder / WEIGHTS
        content = _content_of(path, MAX_WEIGHTS_BYTES)
        if hashlib.sha256(content).hexdigest() != self.weights_sha256:
            raise DataError(f"{path}: the weights are not those that {REPORT} describes. Train it anew.")
        network = Network(self.card, RECIPES[self.report.recipe].build(self.card, self.backbone))
        try:
            tensors = safetensors.torch.load(content)
        except (safetensors.SafetensorError, ValueError) as error:
            raise DataError(f"{path}: no valid safetensors file ({error}).") from None
        load_state_exactly(network, tensors, str(path))
        return Answering(network).eval()

    @property
    def backbone(self) -> Backbone | None:
        """The pre-trained network that it was made from; None if it was made from nothing."""
        backbone = self.report.backbone
        return None if backbone is None else Backbone(backbone.name, backbone.part)

    @property
    def judged_on(self) -> Split:
        """The split that its accuracy was counted on."""
        return self.report.judged_on

    def images(self, split: Split, data: Path | None = None) -> ImageSet:
        """Return the images of one split of the dataset that the run was trained on, from the data folder `data`.

        A user's own images are looked for where they were if `data` is None. Raises DataError if they are missing, or are not
        the same images.
        """
        dataset = self.report.dataset
        images = open_dataset(dataset.name, data or self.own_folder)[split]
        expected = dataset.splits[split].fingerprint
        if images.fingerprint != expected:
            raise DataError(
                f"the {split} images of {images.name} are not those of the run {self.folder}: their fingerprint is "
                f"{images.fingerprint[:12]}…, the run's {expected[:12]}…. Name the data folder it was trained on, or train again."
            )
        return images


def load_run(folder: Path) -> Run:
    """Read a run folder. Raises DataError if it is missing, unfinished or damaged, ContractError if its card is."""
    if not folder.is_dir():
        raise DataError(f"there is no run folder {folder}. `sightline train` makes one.")
    if not (folder / REPORT).is_file():
        raise DataError(f"{folder} holds no finished run (no {REPORT}). Run the same `sightline train` command again: it continues.")
    report = read_report(folder / REPORT)
    _demand_known(report, folder / REPORT)
    card = unseal(_content_of(folder / CARD, MAX_SEALED_BYTES), str(folder / CARD))
    if card.sha256 != report.card_sha256:
        raise DataError(f"{folder / CARD}: the card is not the one that {REPORT} describes. Train it anew.")
    digest = hashlib.sha256(_content_of(folder / WEIGHTS, MAX_WEIGHTS_BYTES)).hexdigest()
    if digest != report.weights_sha256:
        raise DataError(f"{folder / WEIGHTS}: the weights are not those that {REPORT} describes. Train it anew.")
    return Run(folder, card, report, digest, own_images_of(folder))


def _demand_known(report: RunReport, path: Path) -> None:
    """Raise DataError unless the recipe, the dataset and the backbone of the report are known here and go together."""
    if report.recipe not in RECIPES:
        raise DataError(f"{path}: the recipe {report.recipe[:64]!r} is not known here. Known: {', '.join(sorted(RECIPES))}.")
    if report.dataset.name not in DATASETS:
        raise DataError(f"{path}: dataset.name is {report.dataset.name[:64]!r}, which is none of {', '.join(sorted(DATASETS))}.")
    known = report.backbone is not None and report.backbone.name in known_backbones()
    if known != (RECIPES[report.recipe].transfer is not None) or known != (report.backbone is not None):
        raise DataError(f"{path}: backbone names no network that the recipe {report.recipe} can be built on. Train it anew.")


def _content_of(path: Path, limit_bytes: int) -> bytes:
    try:
        return read_bytes(path, limit_bytes)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}. Train it anew.") from None
