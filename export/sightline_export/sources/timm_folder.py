"""A network of timm's as a hub has it: a folder with `config.json` and `model.safetensors`, or a state dict; nothing in it is run."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Final

import torch
from torch import nn

from sightline.errors import DataError, SightlineError, UsageError
from sightline.host.text import one_line
from sightline_export.sources.imported_model import ImportedModel, ImportRequest, demand_float32, seeded
from sightline_export.sources.labels import demand_label_count
from sightline_export.sources.libraries import library
from sightline_export.sources.settled_preprocess import PreprocessClaim, settle
from sightline_export.sources.timm_config import CONFIG, TimmConfig, labels_of, timm_preprocess
from sightline_training.networks.checkpoint import prefix_hint, read_network
from sightline_training.networks.state import demand_finite, load_state
from sightline_training.networks.weights import sha256_of

WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")
"""What timm calls a network's weights; the first that is there is taken. The second is a state dict of torch, and not unpickled."""

MAX_PARAMETERS: Final = 1024**3
"""What fits the largest file of weights in single precision."""

MAX_CLASSES: Final = 100_000
"""As many as a card has labels."""


@dataclass(frozen=True)
class TimmFolder:
    """Where a network of timm's comes from."""

    source: str
    """As a user names it; no path."""
    config: TimmConfig
    weights: Path | None
    """The file of them; None if there is none."""
    origin: str = CONFIG
    """Where its preprocessing stands, for people."""
    name: str = ""
    """What the model is called unless somebody says; empty: as `source` has it."""
    of: str = ""
    """Other weights than those that the config was written for, if these are imported."""
    doubt: str = ""
    """Why they may be seen otherwise."""


def weights_in(folder: Path) -> Path | None:
    """Return the file of weights in a folder; None if there is none."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def model_in(folder: TimmFolder, request: ImportRequest) -> ImportedModel:
    """Import the network that a folder's config.json describes, with the weights of the request, else the folder's.

    Raises UsageError, DataError, or MissingExtra without timm.
    """
    timm = library("timm", "timm")
    config, source = folder.config, folder.source
    if not timm.is_model(config.architecture):
        raise UsageError(f"{source}: the timm that is installed ({timm.__version__}) has no network {config.architecture!r:.80}")
    claim = replace(claim_of(config.pretrained_cfg, source, folder.origin), of=folder.of, doubt=folder.doubt)
    settled = settle(claim, request.stated)
    if not config.num_classes:
        raise UsageError(f"{source} has no classes, only features: name a classifier, or a file of weights and their labels")
    demand_label_count(request.labels, config.num_classes, source)
    labels, notes, ids = (request.labels, (), ()) if request.labels is not None else labels_of(timm, config, source)
    file = folder.weights if request.weights in (None, "random") else Path(str(request.weights))
    if file is None and request.weights is None:
        raise DataError(f"{source} holds no weights: {' or '.join(WEIGHTS)} is expected beside {CONFIG}")
    network = built(timm, config, source)
    description, sha256 = "random", ""
    if request.weights != "random" and file is not None:
        unwrapped, sha256 = loaded(network, file, request.weights_key, source)
        description = f"file {file.name}{f' ({unwrapped})' if unwrapped else ''}"
    demand_float32(network, source)
    return ImportedModel(
        source=source,
        body=network,
        preprocess=settled,
        labels=labels,
        weights=description,
        weights_sha256=sha256 or sha256_of(network.state_dict()),
        settings=config.settings,
        versions={"timm": timm.__version__},
        notes=notes,
        class_ids=ids,
        name=folder.name,
    )


def claim_of(pretrained_cfg: Mapping[str, object], source: str, origin: str) -> PreprocessClaim:
    """What a `pretrained_cfg` says of the weights that it comes with."""
    try:
        return PreprocessClaim(timm_preprocess(pretrained_cfg, source), origin)
    except SightlineError as error:
        return PreprocessClaim(None, origin, refusal=error)


def built(timm: ModuleType, config: TimmConfig, source: str) -> nn.Module:
    """Build the network with random weights, always the same ones. Raises UsageError for arguments that are not a network's.

    A config.json is a stranger's: what it asks for is built without memory first, and counted.
    """
    settings = {"num_classes": config.num_classes, **config.model_args}
    known = inspect.signature(timm.create_model).parameters
    if reserved := sorted(key for key in settings if key in known):
        raise UsageError(f"{source}: {CONFIG} has the model_args {', '.join(reserved)[:120]}, which are no arguments of a network")
    if settings["num_classes"] != config.num_classes or config.num_classes > MAX_CLASSES:
        raise UsageError(
            f"{source}: {CONFIG} describes a network of {settings['num_classes']!r:.20} classes: 2 to {MAX_CLASSES:,} can be imported"
        )
    try:
        if config.model_args:
            with torch.device("meta"):
                _demand_bounded(timm.create_model(config.architecture, pretrained=False, **settings), source)
        network: nn.Module = seeded(lambda: timm.create_model(config.architecture, pretrained=False, **settings))
    except SightlineError:
        raise
    except Exception as error:  # noqa: BLE001 - of arguments that do not fit, a network raises anything
        raise UsageError(f"{source}: timm cannot build the network that {CONFIG} describes ({one_line(error)})") from None
    return network.eval()


def _demand_bounded(network: nn.Module, source: str) -> None:
    """Raise UsageError for a network that no file of weights could fill."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > MAX_PARAMETERS:
        raise UsageError(f"{source}: {CONFIG} describes a network of {parameters:,} weights: {MAX_PARAMETERS:,} are the most")


def loaded(network: nn.Module, file: Path, weights_key: str | None, source: str) -> tuple[str, str]:
    """Copy a file's weights into the network; return what was unwrapped, for people, and the file's sha256. Raises DataError."""
    expected = network.state_dict()
    found = read_network(file, expected.keys(), weights_key)
    for name, tensor in found.tensors.items():
        if name not in expected:
            hint = prefix_hint(found.tensors)
            raise DataError(f"{file}: the tensor {name!r:.120} does not belong to {source.partition(':')[2]}.{hint}")
        demand_finite(tensor, name, str(file))
    load_state(network, found.tensors, str(file))
    return found.unwrapped, found.sha256
