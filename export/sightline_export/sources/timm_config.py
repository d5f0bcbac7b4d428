"""timm's `config.json` and `pretrained_cfg`: which network, how it sees an image in a card's words, what its classes are called."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Final

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from sightline.errors import DataError, UsageError
from sightline.host.files import read_json, reason_of
from sightline.host.text import first_problem
from sightline.preprocess import Preprocess
from sightline_export.sources.labels import distinct_labels
from sightline_export.sources.libraries import library
from sightline_training.networks.library_transforms import Transform, preprocess_from, resample_named

CONFIG: Final = "config.json"
MAX_CONFIG_BYTES: Final = 64 * 1024 * 1024

READ_KEYS: Final = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
"""Of a `pretrained_cfg`, that decide how an image is seen."""


class _Content(BaseModel):
    """A config.json as timm writes it; of what it does not know here, nothing is read."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, protected_namespaces=())

    architecture: str
    num_classes: int | None = None
    label_names: list[str] | dict[str, str] | None = None
    labels: list[str] | None = None
    label_descriptions: dict[str, str] | None = None
    model_args: dict[str, JsonValue] = {}
    pretrained_cfg: dict[str, JsonValue] | None = None


@dataclass(frozen=True)
class TimmConfig:
    """What is known of a network of timm's and of its weights."""

    architecture: str
    pretrained_cfg: Mapping[str, object] = field(repr=False)
    """In timm's words, as it was found."""
    num_classes: int
    label_names: tuple[str, ...] = field(default=(), repr=False)
    """In the order of the output; empty if nobody says."""
    label_descriptions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    """Name → what people call it."""
    model_args: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """What the network was built with, beside its name."""

    @property
    def settings(self) -> dict[str, object]:
        """The keys that decide how an image is seen."""
        return {key: self.pretrained_cfg.get(key) for key in READ_KEYS}


def read_config(path: Path) -> TimmConfig | None:
    """Return what a `config.json` says, if it is one of timm's; None if it is another program's, or not there.

    Raises DataError if it cannot be read, or is timm's and damaged.
    """
    if not path.exists():
        return None
    try:
        content = read_json(path, MAX_CONFIG_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}") from None
    return _config(content, str(path)) if is_timm(content) else None


def is_timm(content: Mapping[str, object]) -> bool:
    """Whether the content of a JSON file is a config.json of timm's: by itself, or inside of transformers' wrapper of its networks."""
    return isinstance(content.get("architecture"), str) and ("pretrained_cfg" in content or "input_size" in content)


def preprocess_in(content: Mapping[str, object], where: str) -> Preprocess:
    """Return the preprocessing that timm's config.json with this content says. Raises DataError or UsageError."""
    return timm_preprocess(_config(content, where).pretrained_cfg, where)


def timm_preprocess(config: Mapping[str, object], source: str) -> Preprocess:
    """Return a card's preprocessing that does what timm does to an image at evaluation, given a `pretrained_cfg` as a mapping.

    The size is `input_size`; timm's larger `test_input_size` is not used. Raises UsageError, with the reason, if a card cannot say it.
    """
    whose = f"the preprocessing of {source}"
    try:
        data = library("timm.data", "timm").resolve_data_config(pretrained_cfg=dict(config))
        channels, *size = data["input_size"]
        height, width = size
        # timm rounds down, and leaves it to the transforms whether anything is cut at all.
        scaled = [math.floor(side / data["crop_pct"]) for side in size]
        transform = partial(
            Transform,
            whose=whose,
            resample=resample_named(data["interpolation"], whose),
            mean=tuple(map(float, data["mean"])),
            std=tuple(map(float, data["std"])),
            size=(height, width),
        )
        background = [round(255 * value) for value in data["mean"]]
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
        raise UsageError(f"{whose} is none that timm could have written: {', '.join(READ_KEYS)} do not fit together.") from None
    if channels != 3:
        raise UsageError(f"{whose} is for images of {channels} channels; only RGB can be imported.")
    mode = data["crop_mode"]
    if mode == "center":
        if scaled[0] != scaled[1]:
            raise UsageError(f"{whose} covers {height} x {width} pixels and rounds the longer side to the nearest; a card rounds it down.")
        return preprocess_from(transform(fit="crop", scaled=scaled[0]))
    if mode not in ("squash", "border"):
        raise UsageError(f"{whose} has the crop_mode {mode!r:.40}, which is not known here: center, squash and border are.")
    if scaled != size:
        raise UsageError(
            f"{whose} ({mode}, crop_pct {data['crop_pct']:g}) makes {scaled[0]} x {scaled[1]} pixels of an image and then crops "
            f"{height} x {width} out of them; a card can {'stretch' if mode == 'squash' else 'pad'} or crop, not both."
        )
    if mode == "squash":
        return preprocess_from(transform(fit="stretch"))
    return preprocess_from(transform(fit="pad", background=background))


def labels_of(timm: ModuleType, config: TimmConfig, source: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the labels that come with the weights, else ImageNet's if they are as many; notes; and the classes' short names.

    Short names are WordNet's, such as n01440764, where labels are ImageNet's, else none. Raises UsageError if nobody knows the labels.
    """
    names, descriptions = list(config.label_names), config.label_descriptions
    if not names and (subset := timm.data.infer_imagenet_subset({"num_classes": config.num_classes})):
        info = timm.data.ImageNetInfo(subset)
        names = info.label_names()
        descriptions = dict(zip(names, info.label_descriptions(), strict=True))
    if len(names) != config.num_classes:
        raise UsageError(
            f"timm does not know what the {config.num_classes:,} classes of {source} are called: name them in a text file, a label a line"
        )
    labels, notes = distinct_labels([str(descriptions.get(name, name)) for name in names])
    return labels, notes, tuple(names)


def _config(content: Mapping[str, object], where: str) -> TimmConfig:
    try:
        read = _Content.model_validate(dict(content))
    except ValidationError as error:
        raise DataError(f"{where}: damaged: {first_problem(error)}") from None
    # Before timm 0.9 everything stood on the first level.
    pretrained = dict(content) if read.pretrained_cfg is None else dict(read.pretrained_cfg)
    classes = read.num_classes if read.num_classes is not None else pretrained.get("num_classes")
    names = read.label_names or read.labels or pretrained.get("label_names") or ()
    if isinstance(names, Mapping):
        # Numbers of classes as text, since JSON knows no others.
        numbers = [str(number) for number in range(len(names))]
        names = [names[number] for number in numbers] if set(numbers) == set(names) else ()
    described = read.label_descriptions or pretrained.get("label_descriptions") or {}
    return TimmConfig(
        architecture=read.architecture,
        pretrained_cfg=MappingProxyType(pretrained),
        num_classes=classes if isinstance(classes, int) else 0,
        label_names=tuple(str(name) for name in names) if isinstance(names, list | tuple) else (),
        label_descriptions=MappingProxyType(
            {str(name): str(text) for name, text in described.items()} if isinstance(described, dict) else {}
        ),
        model_args=MappingProxyType(read.model_args),
    )
