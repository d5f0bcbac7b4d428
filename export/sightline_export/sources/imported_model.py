"""What every source of imported models gives: a network, its preprocessing, its labels, and where it all comes from."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Final, TypeVar

import torch
from torch import nn

from sightline.errors import MissingExtra, UsageError
from sightline.preprocess import Preprocess

Built = TypeVar("Built")

SEED: Final = 0
"""Of random weights: always the same ones."""


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """A network that was trained elsewhere, and what its card will say."""

    source: str
    """As a user names it, exact enough to find it again; no path."""
    body: nn.Module = field(repr=False)
    """Normalised float32 [N, 3, H, W] → logits float32 [N, classes], with its weights."""
    preprocess: Preprocess
    labels: tuple[str, ...] = field(repr=False)
    weights: str
    """Where they are from, for people: no path."""
    weights_sha256: str
    settings: Mapping[str, object]
    """The source's own words for its preprocessing, as they were found."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of libraries that only this source needs."""
    notes: tuple[str, ...] = ()
    """What a reader of the report should know, in sentences."""


def library(name: str, source: str) -> ModuleType:
    """Import the library that `source` needs. Raises MissingExtra, with what to install."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingExtra(f"`sightline export --from {source}:…` needs {name}: pip install 'sightline[bring]'") from None


def seeded(build: Callable[[], Built]) -> Built:
    """Return what `build` makes with torch's generator at SEED; the generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build()


def demand_float32(network: nn.Module, whose: str) -> None:
    """Raise UsageError, naming the tensor, unless all parameters are float32: other precisions are made at export, and judged there."""
    for name, parameter in network.named_parameters():
        if parameter.dtype != torch.float32:
            raise UsageError(f"{whose}: {name} is {parameter.dtype}, not float32: convert the weights, and choose a precision at export")
