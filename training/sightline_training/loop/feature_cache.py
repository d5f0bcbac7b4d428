"""Features of a frozen trunk, computed once for each image and view and kept on disk, so that transfer learning is minutes on a CPU."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
import torch
from torch import nn

from sightline.batches import batch_size_for
from sightline.console import messages
from sightline.errors import DataError, MachineError
from sightline.host.cache import cache_folder
from sightline.host.files import read_bytes, reason_of, write_atomically
from sightline_training.augment.kornia_ops import Augmentation
from sightline_training.datasets.image_set import Pixels
from sightline_training.loop.batches import seed_of
from sightline_training.networks.backbones import Backbone
from sightline_training.networks.transfer import Headed
from sightline_training.networks.weights import Weights
from sightline_training.networks.wrappers import Network
from sightline_training.progress import tracked
from sightline_training.recipe import Recipe

Item = TypeVar("Item")

Features = npt.NDArray[np.float32]
"""[N, F]: a row an image."""

CHUNK_BATCHES: Final = 4
"""Batches that go into one file: what a kill costs at most (a hundred images of 224 × 224, 15 s of VGG16 on two cores)."""

MAX_CHUNK_BYTES: Final = 1024**3
"""A larger file is none of ours: 4,000 images of 32 × 32 with 16,000 features each still fit."""


@dataclass(frozen=True, eq=False)
class FeatureSource:
    """Gives the features of a network's frozen trunk, for images and for augmented views of them."""

    network: Network
    """Its trunk is still as `weights` filled it."""
    backbone: Backbone
    weights: Weights
    recipe: Recipe
    cache: Path = field(default_factory=lambda: cache_folder("features"))
    """What it holds is not computed again."""

    def features(self, pixels: Pixels, view: int) -> Features:
        """Return what the trunk makes of pixels [N, H, W, C]: float32 [N, F], computed where the network's weights lie.

        View 0 is the images as they are; each other number is another draw of the recipe's augmentation, the same draw in every call.
        Raises MachineError if the cache cannot be written, DataError if the trunk gives anything but finite numbers.
        """
        if not isinstance(self.network.body, Headed):
            raise TypeError(f"a {type(self.network.body).__name__} has no trunk")
        augmentation = self.recipe.augmentation if view else None
        trunk = nn.Sequential(self.network.normalise, self.network.body.trunk)
        folder = self.cache / self._key(augmentation, view)
        return cached_features(trunk, pixels, folder, augmentation=augmentation, description=f"view {view}")

    def _key(self, augmentation: Augmentation | None, view: int) -> str:
        """Return what stands for all that decides the features but the image."""
        content = {
            "format": 1,
            "backbone": asdict(self.backbone),
            "weights": self.weights.sha256,
            "preprocess": self.recipe.card.preprocess.model_dump(mode="json"),
            "augmentation": None if augmentation is None else repr(augmentation),
            "view": view,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def cached_features(
    trunk: nn.Module, pixels: Pixels, folder: Path, *, augmentation: Augmentation | None = None, description: str = "features"
) -> Features:
    """Return features [N, F] of pixels [N, H, W, C] from the files in `folder`; those that are not there are computed and written there.

    `trunk` maps pixels on the 0..255 scale to float32 [n, F]; the folder's name must stand for all that decides its answer but the
    image: seeds of the augmentation are made of it. A file appears whole, and is named after its own sha256: one that is damaged is
    deleted and its images are computed again, and two processes that compute the same write the same.
    """
    size = batch_size_for(pixels.shape[1:])
    identities = _identities(pixels, None if augmentation is None else size)
    rows: dict[bytes, list[int]] = {}
    for row, identity in enumerate(identities):
        rows.setdefault(identity, []).append(row)
    features: Features | None = None
    for chunk in _read_chunks(folder):
        for identity in rows.keys() & chunk.keys():
            features = _with_rows(features, len(pixels), rows.pop(identity), chunk[identity])
    batches = _cut([rows_of_image[0] for rows_of_image in rows.values()], size)
    began, chunk = time.perf_counter(), {}
    for number, batch in enumerate(tracked(batches, f"computing {description}", bar_from=2), 1):
        computed = _computed(trunk, pixels[batch], augmentation, seed_of(folder.name, identities[batch[0]]))
        for row, vector in zip(batch, computed, strict=True):
            chunk[identities[row]] = vector
            features = _with_rows(features, len(pixels), rows[identities[row]], vector)
        if number % CHUNK_BATCHES == 0 or number == len(batches):
            _write_chunk(folder, chunk)
            chunk = {}
    if batches:
        messages().print(f"computed {description} of {sum(map(len, batches)):,} images in {time.perf_counter() - began:.1f} s")
    if features is None:
        raise ValueError("features of no images")
    return features


def _identities(pixels: Pixels, drawn_together: int | None) -> list[bytes]:
    """Return what each image is known by: the sha256 of its pixels.

    Draws are made for so many images together, and the next one's depend on how many came before. So an image that is augmented
    is known by its place in its batch as well, or else what was in the cache would change what is learned.
    """
    digests = [hashlib.sha256(image.tobytes()).digest() for image in pixels]
    if drawn_together is None:
        return digests
    known = []
    for batch in _cut(digests, drawn_together):
        together = b"".join(batch)
        known += [hashlib.sha256(place.to_bytes(8, "big") + together).digest() for place in range(len(batch))]
    return known


def _cut(items: list[Item], size: int) -> list[list[Item]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def _computed(trunk: nn.Module, pixels: Pixels, augmentation: Augmentation | None, seed: int) -> Features:
    batch = torch.from_numpy(pixels)
    if augmentation is not None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            batch = augmentation(batch)
    # Each module's own mode comes back: that of the whole would put a frozen trunk inside it into training mode.
    modes = [(module, module.training) for module in trunk.modules()]
    trunk.eval()
    with torch.inference_mode():
        features: Features = trunk(batch.to(next(trunk.parameters()).device)).float().cpu().numpy()
    for module, mode in modes:
        module.training = mode
    if not np.isfinite(features).all():
        raise DataError("the backbone's features are no finite numbers: its weights do not go together with these images.")
    return features


def _with_rows(features: Features | None, count: int, rows: list[int], vector: Features) -> Features:
    if features is None:
        features = np.empty((count, len(vector)), np.float32)
    features[rows] = vector
    return features


def _write_chunk(folder: Path, chunk: Mapping[bytes, Features]) -> None:
    known = np.frombuffer(b"".join(chunk), np.uint8).reshape(len(chunk), -1)
    content = safetensors.numpy.save({"identities": known, "features": np.stack(list(chunk.values()))})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{hashlib.sha256(content).hexdigest()}.safetensors", content)
    except OSError as error:
        raise MachineError(f"features cannot be kept in {folder}: {reason_of(error)}. Name another folder with SIGHTLINE_CACHE.") from None


def _read_chunks(folder: Path) -> Iterator[dict[bytes, Features]]:
    """Yield what each undamaged file holds: identity → features."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            content = read_bytes(path, MAX_CHUNK_BYTES)
            if hashlib.sha256(content).hexdigest() != path.stem:
                path.unlink(missing_ok=True)
                continue
            tensors = safetensors.numpy.load(content)
            identities, features = tensors["identities"], tensors["features"]
            if features.ndim == 2 and features.dtype == np.float32 and np.isfinite(features).all():
                yield dict(zip(map(bytes, identities), features, strict=True))
        except (OSError, KeyError, ValueError, safetensors.SafetensorError):
            continue  # computed again
