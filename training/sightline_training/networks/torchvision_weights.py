"""torchvision's weights API: which weights it publishes of a classifier, and their files, fetched into torch's cache and checked."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sightline.console import messages
from sightline.errors import DataError
from sightline_training.downloads import FETCH_TIMEOUT_S, silence_limited_to
from sightline_training.networks.backbones import published
from sightline_training.networks.weight_files import read_weights, tensors_in

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum


def fetch_published(name: str, version: str | None) -> tuple[Mapping[str, Tensor], str, "WeightsEnum"]:
    """Return the tensors that torchvision publishes of a network as `version`, their file's sha256, and the member of its enumeration.

    None means the best ones. They are fetched unless torch's cache has them. Raises DataError if they are damaged or not to be had.
    """
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT if version is None else published(name)[version]
    expected = _hash_in(weights.url)
    path = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    if not path.is_file():
        console = messages()
        console.print(f"fetching the weights of {name} ({weights}) into {path.parent}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with silence_limited_to(FETCH_TIMEOUT_S):
                torch.hub.download_url_to_file(weights.url, str(path), expected, progress=console.is_terminal)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "reason", error)
            raise DataError(
                f"the weights of {name} could not be fetched from {weights.url} ({getattr(reason, 'strerror', None) or reason}). Fetch "
                "the file elsewhere and name it as the weights, or see whether everything runs with `random` ones.",
                settings=("weights",),
            ) from None
    content = read_weights(path)
    sha256 = hashlib.sha256(content).hexdigest()
    if not sha256.startswith(expected):
        raise DataError(f"{path}: its sha256 does not begin with {expected}, so that it is damaged. Delete it, and it is fetched again.")
    return tensors_in(content, path), sha256, weights


def published_as(name: str, sha256: str) -> str | None:
    """Return the version as which torchvision published the file of that sha256, such as "IMAGENET1K_V1"; None if it did not."""
    return next((version for version, weights in published(name).items() if sha256.startswith(_hash_in(weights.url))), None)


def _hash_in(url: str) -> str:
    """Return the beginning of the file's sha256, which torchvision writes into its name."""
    match = re.search(r"-([0-9a-f]{8,64})\.pth$", url)
    if match is None:
        raise DataError(f"torchvision names no hash of {url}, so that what is fetched from there cannot be checked.")
    return match[1]
