"""`--from timm:NAME`: a classifier of timm, that sees as timm's own evaluation does (transforms_imagenet_eval)."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from torch import nn

from sightline.errors import DataError, UsageError
from sightline.host.text import one_line
from sightline.preprocess import Preprocess
from sightline_export.sources.imported_model import ImportedModel, demand_float32, library, seeded
from sightline_export.sources.labels import demand_label_count, distinct_labels
from sightline_training.networks.library_transforms import Transform, preprocess_from, resample_named
from sightline_training.networks.state import load_state
from sightline_training.networks.weight_files import read_tensors
from sightline_training.networks.weights import sha256_of

if TYPE_CHECKING:
    from timm.models import PretrainedCfg


def from_timm(name: str, weights: str | None, labels: tuple[str, ...] | None) -> ImportedModel:
    """Import timm's classifier `name`, such as "convnext_tiny.fb_in1k", with `weights` (None: published ones; `random`; a file).

    Published weights are fetched from the Hugging Face hub unless they are in its cache. A file, or random weights, may have as many
    classes as `labels` names. Raises UsageError, DataError, or MissingExtra without timm.
    """
    timm = library("timm", "timm")
    config = _config(timm, name)
    source = f"timm:{config.architecture}.{config.tag}" if config.tag else f"timm:{config.architecture}"
    preprocess = timm_preprocess(settings := asdict(config), source)
    published = config.num_classes
    classes = published if weights is None or labels is None else len(labels)
    if not classes:
        raise UsageError(f"{source} has no classes, only features: name a classifier, or a file of weights and their labels")
    demand_label_count(labels, classes, source)
    all_labels, notes = (labels, ()) if labels is not None else _labels(timm, config, source)
    if weights is None:
        model, description, sha256 = _fetched(timm, name, source)
    else:
        model = seeded(lambda: timm.create_model(name, pretrained=False, num_classes=classes))
        description, sha256 = "random", ""
        if weights != "random":
            state, sha256 = read_tensors(Path(weights))
            load_state(model, state, weights)
            description = f"file {Path(weights).name}"
    demand_float32(model, source)
    return ImportedModel(
        source=source,
        body=model,
        preprocess=preprocess,
        labels=all_labels,
        weights=description,
        weights_sha256=sha256 or sha256_of(model.state_dict()),
        settings={key: settings.get(key) for key in ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")},
        versions={"timm": timm.__version__},
        notes=notes,
    )


def timm_preprocess(config: Mapping[str, object], source: str) -> Preprocess:
    """Return a card's preprocessing that does what timm does to an image at evaluation, given a `pretrained_cfg` as a mapping.

    The size is `input_size`; timm's larger `test_input_size` is not used. Raises UsageError, with the reason, if a card cannot say it.
    """
    data = library("timm.data", "timm").resolve_data_config(pretrained_cfg=dict(config))
    whose = f"the preprocessing of {source}"
    channels, *size = data["input_size"]
    if channels != 3:
        raise UsageError(f"{whose} is for images of {channels} channels; only RGB can be imported.")
    height, width = size
    # timm rounds down, and leaves it to the transforms whether anything is cut at all.
    scaled = [math.floor(side / data["crop_pct"]) for side in size]
    transform = partial(
        Transform,
        whose=whose,
        resample=resample_named(data["interpolation"], whose),
        mean=data["mean"],
        std=data["std"],
        size=(height, width),
    )
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
    return preprocess_from(transform(fit="pad", background=[round(255 * value) for value in data["mean"]]))


def _config(timm: ModuleType, name: str) -> "PretrainedCfg":
    """Read what timm knows of the weights `name`. Raises UsageError if it knows no such network or no such weights of it."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture.lower(), timm.list_models(), n=3, cutoff=0.5)
        advice = f" Did you mean {', '.join(near)}?" if near else ""
        raise UsageError(f"timm has no network {architecture!r:.80}.{advice}")
    tags = [model.partition(".")[2] for model in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise UsageError(f"timm has no weights {tag!r:.80} of {architecture}, only {', '.join(sorted(tags)) or 'none'}.")
    config: PretrainedCfg = timm.get_pretrained_cfg(name)
    return replace(config, architecture=architecture)


def _fetched(timm: ModuleType, name: str, source: str) -> tuple[nn.Module, str, str]:
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # noqa: BLE001 - a dozen libraries are on the way to the hub
        raise DataError(
            f"the weights of {source} could not be fetched from the Hugging Face hub ({one_line(error)}). Fetch the file elsewhere and "
            "name it as the weights, or see whether everything runs with the weights `random`."
        ) from None
    return model, f"timm's {source.partition(':')[2]}", sha256_of(model.state_dict())


def _labels(timm: ModuleType, config: "PretrainedCfg", source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels that come with the weights, else ImageNet's if they are as many; and notes."""
    classes = config.num_classes
    labels = list(config.label_names or [])
    descriptions = config.label_descriptions or {}
    if labels:
        labels = [str(descriptions.get(label, label)) for label in labels]
    elif subset := timm.data.infer_imagenet_subset({"num_classes": classes}):
        labels = timm.data.ImageNetInfo(subset).label_descriptions()
    if len(labels) != classes:
        raise UsageError(
            f"timm does not know what the {classes:,} classes of {source} are called: name them in a text file, a label a line"
        )
    return distinct_labels(labels)
