"""The weights of a backbone: from a file, a run, or torchvision; checked tensor by tensor before a network gets them."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from sightline.card import MAX_SEALED_BYTES, unseal
from sightline.errors import DataError, UsageError
from sightline.host.files import read_bytes, reason_of
from sightline.preprocess import Preprocess
from sightline.repository.layout import CARD_FILE
from sightline_training.networks.backbones import Backbone, Part, built, last_layer, preprocess_of, published, structure
from sightline_training.networks.checkpoint import prefix_hint, read_network
from sightline_training.networks.state import demand_finite, demand_shape, load_state
from sightline_training.networks.torchvision_weights import fetch_published, published_as
from sightline_training.networks.transfer import Headed
from sightline_training.networks.weight_files import read_tensors

TRUNK: Final = "body.trunk."
HEAD: Final = "body.head."
"""How the names of a transferred run's tensors begin."""

AUXILIARY: Final = ("AuxLogits.", "aux1.", "aux2.")
"""Second classifiers of GoogLeNet and Inception, which only their own training needs."""

FORMER_NAMES: Final = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(\.mlp\.)linear_1\."), r"\g<1>0."),
    (re.compile(r"(\.mlp\.)linear_2\."), r"\g<1>3."),
)
"""What torchvision's own loaders rename in the files that it published for DenseNet and the vision transformer
(torchvision.models.densenet._load_state_dict, torchvision.models.vision_transformer.MLPBlock)."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of one backbone under torchvision's names, complete but perhaps for the last layer's."""

    state: Mapping[str, Tensor] = field(repr=False)
    """Float32 (and int64 counters), finite, of the shapes that the backbone needs; the last layer's are as they came, if they came."""
    source: str
    """Where they are from, for people: no path."""
    sha256: str
    """Hexadecimal, of the file's bytes; of random weights, of their names and values."""
    part: Part
    """How much of the backbone they fill."""
    preprocess: Preprocess | None
    """How they see an image, if that is known of these very weights."""
    of_run: bool = False
    """Whether a run of ours made them."""
    unwrapped: str = ""
    """What was taken off in a file to find them, for people; empty if nothing was."""


def weights_from(name: str, choice: str | None, version: str | None = None, entry: str | None = None) -> Weights:
    """Return weights for torchvision's classifier `name`.

    `choice` is None (those that torchvision published as `version`, or its best ones, fetched unless torch's cache has them), `random`
    (always the same ones), a file (safetensors, or a state dict that `torch.save` wrote: the whole network, or its `features` alone; or
    a checkpoint that holds one, of which `entry` says where, see `read_network`), or the folder of a run that was itself built on that
    classifier or on its features. A file is recognised as one that torchvision published by its sha256. Raises UsageError if there is no
    such classifier, DataError if the weights are missing, damaged or another network's.
    """
    versions = published(name)
    if entry is not None and (choice in (None, "random") or Path(str(choice)).is_dir()):
        raise UsageError(f"{entry!r:.80} is to be an entry of a checkpoint, but the weights are no file.", settings=("weights_key",))
    if choice is None:
        tensors, sha256, weights = fetch_published(name, version)
        state, part = _fitted(tensors, name, weights.url.rpartition("/")[2])
        return Weights(state, f"torchvision's {weights}", sha256, part, preprocess_of(Backbone(name), weights.name))
    if choice == "random":
        return _random(name)
    path = Path(choice)
    if path.is_dir():
        return _of_run(name, path)
    file = read_network(path, structure(name).state_dict().keys(), entry, _renamed)
    known = published_as(name, file.sha256)
    state, part = _fitted(file.tensors, name, str(path))
    source = f"file {path.name}"
    if file.unwrapped:
        source = f"{source} ({file.unwrapped})"
    if known is not None:
        source = f"{source}, torchvision's {versions[known]}"
    preprocess = None if known is None else preprocess_of(Backbone(name), known)
    return Weights(state, source, file.sha256, part, preprocess, unwrapped=file.unwrapped)


def load_weights(module: nn.Module, weights: Weights) -> None:
    """Copy `weights` into a network, or into the trunk of one with a head; what it has cut off is left out.

    Raises DataError, naming the tensor, if one that it needs is missing or has another shape.
    """
    load_state(module.trunk if isinstance(module, Headed) else module, weights.state, weights.source, others=True)


def sha256_of(state: Mapping[str, Tensor]) -> str:
    """Return the hexadecimal sha256 of the tensors' names and values: the identity of weights that are no single file."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _random(name: str) -> Weights:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = built(name).state_dict()
    return Weights(state, "random", sha256_of(state), "network", None)


def _of_run(name: str, folder: Path) -> Weights:
    path, card_path = folder / "weights.safetensors", folder / CARD_FILE
    if not path.is_file():
        raise DataError(f"{folder} holds no finished run (no {path.name}) to take weights from.")
    try:
        card = unseal(read_bytes(card_path, MAX_SEALED_BYTES), str(card_path))
    except OSError as error:
        raise DataError(f"{card_path}: cannot be read: {reason_of(error)}.") from None
    tensors, sha256 = read_tensors(path)
    if not any(tensor_name.startswith(TRUNK) for tensor_name in tensors):
        raise DataError(f"{path}: the run of {card.name} has no trunk to transfer from.")
    trunk = {tensor_name.removeprefix(TRUNK): tensor for tensor_name, tensor in tensors.items() if not tensor_name.startswith(HEAD)}
    state, part = _fitted(trunk, name, str(path))
    return Weights(state, f"run of {card.name}", sha256, part, card.preprocess, of_run=True)


def _fitted(tensors: Mapping[str, Tensor], network: str, source: str) -> tuple[dict[str, Tensor], Part]:
    """Return the tensors under today's names, and how much of the network they are, if every one of them belongs to it and fits."""
    renamed = {_renamed(former): tensor for former, tensor in tensors.items()}
    renamed = {name: tensor for name, tensor in renamed.items() if not name.startswith(AUXILIARY)}
    skeleton = structure(network)
    needed, last = skeleton.state_dict(), f"{last_layer(skeleton)}."
    part: Part = "features" if renamed and all(name.startswith("features.") for name in renamed) else "network"
    if part == "features":
        needed = {name: tensor for name, tensor in needed.items() if name.startswith("features.")}
    for name in sorted(renamed):
        if name not in needed:
            raise DataError(f"{source}: the tensor {name!r:.120} does not belong to {network}.{prefix_hint(renamed)}")
    state: dict[str, Tensor] = {}
    for name, expected in needed.items():
        if name in renamed:
            # A network that told other classes apart is as good a trunk.
            state[name] = _converted(renamed[name], renamed[name] if name.startswith(last) else expected, name, source)
        elif name.endswith(".num_batches_tracked"):
            # Files from before torch 0.4.1 do not count batches; only training from scratch would ask.
            state[name] = torch.zeros((), dtype=torch.int64)
        elif not name.startswith(last):
            raise DataError(f"{source}: the tensor {name} is missing, which {network} needs.")
    return state, part


def _renamed(former: str) -> str:
    """Today's name of a tensor."""
    for pattern, today in FORMER_NAMES:
        former = pattern.sub(today, former)
    return former


def _converted(tensor: Tensor, expected: Tensor, name: str, source: str) -> Tensor:
    # Shapes first: a stranger's tensor may claim more elements than its file has bytes.
    demand_shape(tensor, expected, name, source)
    if tensor.dtype != expected.dtype and not (tensor.is_floating_point() and expected.is_floating_point()):
        raise DataError(f"{source}: the tensor {name} is {tensor.dtype}; the network needs {expected.dtype}.")
    converted = tensor.detach().to(expected.dtype).contiguous()
    demand_finite(converted, name, source)
    return converted
