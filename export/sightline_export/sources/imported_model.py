"""What every source of a brought model gives: a network, how it sees an image, its labels, and where it all comes from."""

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from sightline.errors import DataError, MissingExtra, UsageError
from sightline.preprocess import Preprocess, PreprocessV1, Resample

WHITE: Final = (255, 255, 255)
"""Under transparent pixels, of which the libraries' transforms say nothing, or the same."""

MAX_LABELS_BYTES: Final = 16 * 1024 * 1024

SEED: Final = 0
"""Of random weights: always the same ones."""


@dataclass(frozen=True, eq=False)
class Brought:
    """A network that was trained elsewhere, and what its card will say."""

    source: str
    """As after `--from`, exact enough to find it again; no path."""
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


def specification(
    whose: str,
    *,
    size: tuple[int, int],
    fit: str,
    resample: str,
    mean: Sequence[float],
    std: Sequence[float],
    scaled: int | None = None,
    background: Sequence[int] = WHITE,
) -> Preprocess:
    """A card's preprocessing from what a library says of RGB images; `scaled` is what `crop` scales the shorter side to, in pixels.

    Raises UsageError, naming the field, if a card cannot say it.
    """
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
                "fit": fit,
                "crop_fraction": fraction,
                "resample": resample,
                "background": tuple(background),
                "exif": "apply",
                "polarity": "as-is",
                "mean": tuple(map(float, mean)),
                "std": tuple(map(float, std)),
            }
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field_name = ".".join(map(str, first["loc"])) or "it"
        raise UsageError(f"{whose} cannot be said by a card: {field_name}: {first['msg'].removeprefix('Value error, ')}.") from None


def filter_called(name: str, whose: str) -> str:
    """The card's name of Pillow's filter `name`. Raises UsageError if it has none."""
    known: tuple[str, ...] = Resample.__args__  # type: ignore[attr-defined]
    if name not in known:
        raise UsageError(f"{whose} resizes with {name!r:.40}, which a card cannot say: it knows {', '.join(known)}.")
    return name


def labels_in(path: Path) -> tuple[str, ...]:
    """The labels of a text file, a label a line; blank lines at the end are none. Raises DataError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LABELS_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: the labels cannot be read: {error.strerror}") from None
    if len(content) > MAX_LABELS_BYTES:
        raise DataError(f"{path}: larger than {MAX_LABELS_BYTES:,} bytes, the most that a file of labels may have")
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").rstrip().split("\n")]
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text, a label a line") from None
    for at, line in enumerate(lines, 1):
        if not line:
            raise DataError(f"{path}, line {at}: no label: there must be one on every line, in the order of the network's output")
    if doubles := [label for label, count in Counter(lines).items() if count > 1]:
        raise DataError(f"{path}: {doubles[0]!r:.80} stands on several lines: two classes cannot share a name")
    return tuple(lines)


def told_apart(labels: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labels with the number of the class behind those that occur twice (ImageNet has two cranes), and the note that says so."""
    stripped = [" ".join(label.split()) for label in labels]
    counts = Counter(stripped)
    doubles = [label for label, count in counts.items() if count > 1]
    told = tuple(label if counts[label] == 1 else f"{label} ({at})" for at, label in enumerate(stripped))
    note = f"labels that several classes share got the number of their class behind them: {', '.join(doubles[:5])}"
    return told, (f"{note}{' and others' if len(doubles) > 5 else ''}",) if doubles else ()


def matching(given: tuple[str, ...] | None, classes: int, whose: str) -> None:
    """Raise UsageError unless the labels of `--labels`, if there are any, are as many as the network's classes."""
    if given is not None and len(given) != classes:
        raise UsageError(f"--labels names {len(given):,} labels, but {whose} tells {classes:,} classes apart")


def seeded(make: Any) -> Any:
    """What `make` gives with torch's generator at SEED; the generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return make()


def demand_float32(body: nn.Module, whose: str) -> None:
    """Raise UsageError, naming the tensor, unless all parameters are float32: other precisions are made at export, and judged there."""
    for name, parameter in body.named_parameters():
        if parameter.dtype != torch.float32:
            raise UsageError(f"{whose}: {name} is {parameter.dtype}, not float32: convert the weights, and choose with --precision")


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
