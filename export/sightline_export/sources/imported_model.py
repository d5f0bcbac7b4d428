"""What every source of imported models gives: a network, its preprocessing, its labels, and where it all comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import torch
from torch import nn

from sightline.errors import UsageError
from sightline_export.sources.settled_preprocess import SettledPreprocess
from sightline_export.sources.stated_preprocess import NOTHING, StatedPreprocess

Built = TypeVar("Built")

SEED: Final = 0
"""Of random weights: always the same ones."""


@dataclass(frozen=True)
class ImportRequest:
    """What is asked of a source."""

    named: str
    """What stands behind the colon."""
    weights: str | None = None
    """None (the published ones, or those in the folder), `random`, or a file."""
    weights_key: str | None = None
    """Which entry of a checkpoint is meant, where several could be."""
    labels: tuple[str, ...] | None = field(default=None, repr=False)
    """None: the source's own."""
    stated: StatedPreprocess = NOTHING
    """What somebody says of the preprocessing."""


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """A network that was trained elsewhere, and what its card will say."""

    source: str
    """As a user names it, exact enough to find it again; no path."""
    body: nn.Module = field(repr=False)
    """Normalised float32 [N, 3, H, W] → logits float32 [N, classes], with its weights."""
    preprocess: SettledPreprocess
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
    class_ids: tuple[str, ...] = field(default=(), repr=False)
    """Other names of the classes, in the order of the labels: WordNet's, where they are ImageNet's. Folders may be called so."""
    name: str = ""
    """What the model is called in a repository unless somebody says; empty: as `source` has it."""


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
