"""What every source of imported models gives: a network, its preprocessing, its labels, and where it all comes from."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from sightline.errors import DataError, MissingExtra, UsageError
from sightline.host.text import first_problem
from sightline.preprocess import Preprocess, PreprocessV1, Resample

WHITE: Final = (255, 255, 255)
"""Under transparent pixels, of which the libraries' transforms say nothing, or the same."""

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
    settings: Mapping[str, Any]
    """The source's own words for its preprocessing, as they were found."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of libraries that only this source needs."""
    notes: tuple[str, ...] = ()
    """What a reader of the report should know, in sentences."""


def library(name: str, source: str) -> Any:
    """Import the library that `source` needs. Raises MissingExtra, with what to install."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingExtra(f"`sightline export --from {source}:…` needs {name}: pip install 'sightline[bring]'") from None


@dataclass(frozen=True, kw_only=True)
class Transform:
    """What a library does to an RGB image before its network sees it."""

    whose: str
    """For sentences: `the preprocessing of timm:x`."""
    size: tuple[int, int]
    """Height and width of the result in pixels."""
    fit: str
    """In a card's word."""
    resample: str
    """In a card's word."""
    mean: Sequence[float]
    std: Sequence[float]
    scaled: int | None = None
    """What `crop` scales the shorter side to, in pixels; None without a crop."""
    background: Sequence[int] = WHITE


def preprocess_from(transform: Transform) -> Preprocess:
    """Return a card's preprocessing that does what a library's `transform` does. Raises UsageError, naming the field, if there is none."""
    whose, size, scaled = transform.whose, transform.size, transform.scaled
    fraction = 1.0
    if scaled is not None:
        if size[0] != size[1]:
            raise UsageError(
                f"{whose} crops {size[0]} x {size[1]} pixels: of a crop that is no square, a card scales the two sides differently."
            )
        if scaled < size[0]:
            raise UsageError(
                f"{whose} scales the shorter side to {scaled} pixels and pads the crop of {size[0]} with black, which a card cannot say."
            )
        fraction = size[0] / scaled
        if round(size[0] / fraction) != scaled:
            raise UsageError(f"{whose} scales to {scaled} and crops {size[0]} pixels, which a card's crop_fraction cannot say exactly.")
    try:
        return PreprocessV1.model_validate(
            {
                "version": 1,
                "mode": "RGB",
                "size": size,
                "fit": transform.fit,
                "crop_fraction": fraction,
                "resample": transform.resample,
                "background": tuple(transform.background),
                "exif": "apply",
                "polarity": "as-is",
                "mean": tuple(map(float, transform.mean)),
                "std": tuple(map(float, transform.std)),
            }
        )
    except ValidationError as error:
        raise UsageError(f"{whose} cannot be said by a card: {first_problem(error)}.") from None


def resample_named(name: str, whose: str) -> str:
    """Return the card's name of Pillow's filter `name`. Raises UsageError if it has none."""
    known: tuple[str, ...] = get_args(Resample)
    if name not in known:
        raise UsageError(f"{whose} resizes with {name!r:.40}, which a card cannot say: it knows {', '.join(known)}.")
    return name


def seeded(build: Callable[[], Any]) -> Any:
    """Return what `build` makes with torch's generator at SEED; the generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build()


def demand_float32(network: nn.Module, whose: str) -> None:
    """Raise UsageError, naming the tensor, unless all parameters are float32: other precisions are made at export, and judged there."""
    for name, parameter in network.named_parameters():
        if parameter.dtype != torch.float32:
            raise UsageError(f"{whose}: {name} is {parameter.dtype}, not float32: convert the weights, and choose a precision at export")


def fill(body: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Copy `state` into a network of the same names and shapes. Raises DataError, naming the tensor, if it is another network's."""
    wanted = body.state_dict()
    for name in (*wanted, *state):
        if name not in state:
            raise DataError(f"{where}: the tensor {name} is missing")
        if name not in wanted:
            raise DataError(f"{where}: the tensor {name!r:.120} belongs to another network")
        if state[name].shape != wanted[name].shape:
            raise DataError(
                f"{where}: the tensor {name} has the shape {list(state[name].shape)}; the network needs {list(wanted[name].shape)}"
            )
        if state[name].is_floating_point() != wanted[name].is_floating_point():
            raise DataError(f"{where}: the tensor {name} is {state[name].dtype}; the network needs {wanted[name].dtype}")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(state[name])
