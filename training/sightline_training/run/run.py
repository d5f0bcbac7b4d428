"""A finished run, read back from its folder without trusting it: what `export` publishes and `verify` compares with."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import safetensors
import safetensors.torch
import torch
from torch import nn

from sightline.card import MAX_SEALED_BYTES, ModelCard, unseal
from sightline.errors import DataError
from sightline_training.datasets import DATASETS, open_dataset
from sightline_training.datasets.image_set import ImageSet, Split
from sightline_training.files import read_json
from sightline_training.networks.backbones import Backbone, Part, known_backbones
from sightline_training.networks.wrappers import Answering, Network
from sightline_training.recipes import RECIPES

REPORT, WEIGHTS, CARD, SETTINGS = "report.json", "weights.safetensors", "card.json", "settings.json"

OWN_IMAGES = "own_pictures"
"""The key in settings.json under which the folder of a user's own images stands."""


@dataclass(frozen=True)
class Run:
    """A trained classifier: weights, the card that belongs to them, and the report of how they came about."""

    folder: Path
    card: ModelCard
    report: Mapping[str, Any] = field(repr=False)
    weights_sha256: str
    """Hexadecimal sha256 of weights.safetensors, checked against the report when the run was loaded."""
    own_folder: Path | None = None
    """Where a user's own images lay when it was trained."""

    def network(self) -> nn.Module:
        """The trained network in eval mode on the CPU: uint8 pixels [N, H, W, C] → probabilities float32 [N, classes].

        Raises DataError if the weights on disk changed since the run was loaded, or do not fit the recipe's network; the message
        names the first tensor that does not.
        """
        path = self.folder / WEIGHTS
        content = _bytes_of(path)
        if hashlib.sha256(content).hexdigest() != self.weights_sha256:
            raise DataError(f"{path}: the weights are not those that report.json describes. Train again with `--restart`.")
        network = Network(self.card, RECIPES[self.report["recipe"]].build(self.card, self.backbone))
        try:
            weights = safetensors.torch.load(content)
        except (safetensors.SafetensorError, ValueError) as error:
            raise DataError(f"{path}: no valid safetensors file ({error}).") from None
        _fill(network, weights, path)
        return Answering(network).eval()

    @property
    def backbone(self) -> Backbone | None:
        """The pre-trained network that it was made from; None if it was made from nothing."""
        described = self.report["backbone"]
        return None if described is None else Backbone(described["name"], described["part"])

    @property
    def judged_on(self) -> Split:
        """The split that its accuracy was counted on."""
        split: Split = self.report["judged_on"]
        return split

    def images(self, split: Split, data: Path | None = None) -> ImageSet:
        """The images of one split of the dataset that the run was trained on, from the data folder `data`.

        A user's own images are looked for where they were if `data` is None. Raises DataError if they are missing, or are not
        the same images.
        """
        dataset = self.report["dataset"]
        found = open_dataset(dataset["name"], data or self.own_folder)[split]
        expected = dataset["splits"][split]["fingerprint"]
        if found.fingerprint != expected:
            raise DataError(
                f"the {split} images of {found.name} are not those of the run {self.folder}: their fingerprint is "
                f"{found.fingerprint[:12]}…, the run's {expected[:12]}…. Name the data folder it was trained on, or train again."
            )
        return found


def load_run(folder: Path) -> Run:
    """Read a run folder. Raises DataError if it is missing, unfinished or damaged, ContractError if its card is."""
    if not folder.is_dir():
        raise DataError(f"there is no run folder {folder}. `sightline train RECIPE --run {folder}` makes one.")
    if not (folder / REPORT).is_file():
        raise DataError(f"{folder} holds no finished run (no {REPORT}). Run the same `sightline train` command again: it continues.")
    report = read_json(folder / REPORT)
    _check(report, folder / REPORT)
    card = unseal(_bytes_of(folder / CARD, MAX_SEALED_BYTES + 1), str(folder / CARD))
    if card.sha256 != report["card_sha256"]:
        raise DataError(f"{folder / CARD}: the card is not the one that {REPORT} describes. Train again with `--restart`.")
    digest = hashlib.sha256(_bytes_of(folder / WEIGHTS)).hexdigest()
    if digest != report["weights_sha256"]:
        raise DataError(f"{folder / WEIGHTS}: the weights are not those that {REPORT} describes. Train again with `--restart`.")
    own = read_json(folder / SETTINGS).get(OWN_IMAGES) if (folder / SETTINGS).is_file() else None
    return Run(folder, card, report, digest, Path(own) if isinstance(own, str) else None)


def _check(report: dict[str, Any], path: Path) -> None:
    """Everything that this module reads out of a report must be there and of its kind."""
    dataset = report.get("dataset")
    splits = dataset.get("splits") if isinstance(dataset, dict) else None
    recipe = str(report.get("recipe"))
    if recipe not in RECIPES:
        raise DataError(f"{path}: the recipe {recipe[:64]!r} is not known here. Known: {', '.join(sorted(RECIPES))}.")
    if not isinstance(dataset, dict) or str(dataset.get("name")) not in DATASETS:
        raise DataError(f"{path}: dataset.name is missing or names no known dataset ({', '.join(sorted(DATASETS))}).")
    if not isinstance(splits, dict) or not set(splits) <= {"train", "valid", "test"} or report.get("judged_on") not in splits:
        raise DataError(f"{path}: dataset.splits and judged_on do not say what it was judged on. Train again with `--restart`.")
    for split, entry in splits.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("fingerprint"), str):
            raise DataError(f"{path}: dataset.splits.{split}.fingerprint is missing. Train again with `--restart`.")
    backbone = report.get("backbone")
    transferred = isinstance(backbone, dict) and backbone.get("name") in known_backbones() and backbone.get("part") in get_args(Part)
    if transferred != (RECIPES[recipe].transfer is not None) or not (transferred or backbone is None):
        raise DataError(f"{path}: backbone names no network that the recipe {recipe} can be built on. Train again with `--restart`.")
    for key in ("card_sha256", "weights_sha256"):
        if not isinstance(report.get(key), str):
            raise DataError(f"{path}: {key} is missing. Train again with `--restart`.")


def _bytes_of(path: Path, most: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Train again with `--restart`.") from None


def _fill(network: Network, weights: dict[str, torch.Tensor], path: Path) -> None:
    """load_state_dict, with a sentence for a person when it cannot."""
    wanted = network.state_dict()
    for name in (*wanted, *weights):
        if name not in weights:
            raise DataError(f"{path}: the tensor {name} is missing.")
        if name not in wanted:
            raise DataError(f"{path}: the tensor {name} belongs to another network.")
        found, expected = weights[name], wanted[name]
        if (found.shape, found.dtype) != (expected.shape, expected.dtype):
            raise DataError(
                f"{path}: the tensor {name} is {found.dtype} {tuple(found.shape)}; "
                f"the network needs {expected.dtype} {tuple(expected.shape)}."
            )
        if found.is_floating_point() and not bool(torch.isfinite(found).all()):
            raise DataError(f"{path}: the tensor {name} holds values that are no finite numbers.")
    network.load_state_dict(weights)
