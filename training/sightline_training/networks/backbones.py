"""The classifiers of torchvision by name, as backbones to transfer from: structure without weights, and how they see an image."""

import copy
import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sightline.errors import UsageError
from sightline.preprocess import Preprocess
from sightline_training.networks.library_transforms import Transform, preprocess_from, resample_named
from sightline_training.networks.transfer import PooledBlocks, PooledFeatures

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum
    from torchvision.transforms._presets import ImageClassification

Part = Literal["network", "features", "blocks"]

Function: TypeAlias = Callable[..., object]
Settings: TypeAlias = Mapping[str, object] | None

RENORMALISING: Final = ("googlenet", "inception_v3")
"""Trained elsewhere, on pixels scaled to -1..1: they undo torchvision's mean and deviation by themselves (`transform_input`)."""


@dataclass(frozen=True)
class Backbone:
    """Which network is transferred from, and how much of it."""

    name: str
    """torchvision's, such as "vgg16": one of `known_backbones`."""
    part: Part = "network"
    """`network` is all but the last layer; `features` only the convolutional part, averaged over the image; `blocks` the same after
    each of its blocks: wherever the maps become smaller."""


@functools.cache
def known_backbones() -> tuple[str, ...]:
    """Return the names of torchvision's classifiers, sorted."""
    from torchvision import models

    return tuple(sorted(models.list_models(module=models)))


def trunk_of(backbone: Backbone) -> nn.Module:
    """Return the backbone without its last layer: normalised float32 [N, 3, H, W] → features [N, F]. Layers are zero: see `load_weights`.

    Its tensors have torchvision's names. Raises UsageError if there is no such network, or no convolutional part of it.
    """
    return _materialised(_trunk_structure(backbone))


def whole(backbone: Backbone) -> nn.Module:
    """Return the backbone with its own classifier: normalised float32 [N, 3, H, W] → logits [N, 1000]. Layers are zero: see `load_weights`.

    Raises UsageError if there is no such network, or if the backbone is only a part of it.
    """
    if backbone.part == "blocks":
        raise UsageError(
            f"{backbone.name} is to answer with its own classifier, which stands on the last block: not on every block.",
            settings=("every_block",),
        )
    if backbone.part != "network":
        raise UsageError(f"only the convolutional part of {backbone.name} is there: it has no classifier of its own to answer with.")
    return _materialised(structure(backbone.name))


@functools.cache
def feature_count(backbone: Backbone) -> int:
    """Return F, the number of features that `trunk_of` gives of one image."""
    height, width = preprocess_of(backbone).size
    with torch.inference_mode():
        trunk = _trunk_structure(backbone).eval().to("meta")
        features = trunk(torch.zeros(1, 3, height, width, device="meta"))
    return int(features.shape[1])


@functools.cache
def preprocess_of(backbone: Backbone, version: str | None = None) -> Preprocess:
    """Return how torchvision's weights of the backbone see an image, from the transforms that come with them.

    `version` is a name such as "IMAGENET1K_V2"; None means the first that was published, whose preprocessing is the usual one of
    its family. Raises UsageError if the card's specification cannot say the same.
    """
    versions = published(backbone.name)
    if version is not None and version not in versions:
        raise UsageError(f"torchvision has no weights {version} of {backbone.name}, only {', '.join(versions)}.")
    weights = versions[version] if version is not None else next(iter(versions.values()))
    return _preprocess_from(weights.transforms(), f"the preprocessing of {backbone.name} with torchvision's {weights}")


def published(name: str) -> dict[str, "WeightsEnum"]:
    """Return what torchvision publishes of a network: name of the version → member of its weights enumeration, the oldest first."""
    _demand_known(name)
    from torchvision.models import get_model_weights

    return {weights.name: weights for weights in get_model_weights(name)}


def structure(name: str) -> nn.Module:
    """Return the whole network with its layers' weights on torch's meta device: no memory for them, and no seconds of random numbers."""
    with _Unfilled():
        return built(name)


def built(name: str) -> nn.Module:
    """Return the network with torchvision's random initial weights, drawn from torch's global generator, without its auxiliary heads."""
    _demand_known(name)
    from torchvision.models import get_model

    settings: dict[str, object] = {}
    if name in RENORMALISING:
        settings = {"transform_input": True, "aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        # A learned position a patch: the network is made for one size of image.
        settings = {"image_size": preprocess_of(Backbone(name)).size[0]}
    network: nn.Module = get_model(name, weights=None, **settings)
    return network


def last_layer(network: nn.Module) -> str:
    """Return the name of the layer that makes the logits: the last linear one, or the last convolution where there is none (SqueezeNet)."""
    for kind in (nn.Linear, nn.Conv2d):
        names: list[str] = [name for name, module in network.named_modules() if isinstance(module, kind)]
        if names:
            return names[-1]
    raise UsageError(f"a {type(network).__name__} has neither a linear nor a convolutional layer to replace.")


def _trunk_structure(backbone: Backbone) -> nn.Module:
    network = structure(backbone.name)
    last = last_layer(network)
    features = getattr(network, "features", None)
    # Where nothing linear stands between the convolutions and the logits, the network less its last layer is the averaged features.
    between = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name != last and not name.startswith("features.")
    ]
    if backbone.part == "blocks":
        if not isinstance(features, nn.Sequential):
            raise UsageError(f"{backbone.name} has no convolutional part in blocks to learn from.", settings=("every_block",))
        return PooledBlocks(features, _ends(features, preprocess_of(backbone).size))
    if backbone.part == "features" and between:
        if features is None:
            raise UsageError(f"{backbone.name} has no convolutional part of its own. Transfer the whole network.")
        return PooledFeatures(features)
    network.set_submodule(last, nn.Identity())
    return network


def _ends(features: nn.Sequential, size: tuple[int, int]) -> list[int]:
    """Return the places of the modules that make the maps smaller, and of the last one."""
    ends, sides = [], torch.Size(size)
    maps = torch.zeros(1, 3, *size, device="meta")
    for at, module in enumerate(copy.deepcopy(features).eval().to("meta")):
        with torch.inference_mode():
            maps = module(maps)
        if maps.shape[2:] != sides:
            ends.append(at)
        sides = maps.shape[2:]
    return ends if ends and ends[-1] == len(features) - 1 else [*ends, len(features) - 1]


def _materialised(network: nn.Module) -> nn.Module:
    state = network.state_dict()
    for name, tensor in state.items():
        state[name] = torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor
    network.load_state_dict(state, assign=True)
    return network


class _Unfilled(TorchFunctionMode):
    """Sends what layers allocate unfilled to the meta device, and nothing else: some networks compute their widths with tensors."""

    def __torch_function__(self, func: Function, types: object, args: tuple[object, ...] = (), kwargs: Settings = None) -> object:
        """Called by torch in place of each of its functions."""
        settings = dict(kwargs or {})
        if func is torch.empty:
            settings["device"] = "meta"
        return func(*args, **settings)


def _demand_known(name: str) -> None:
    known = known_backbones()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
        advice = f"Did you mean {', '.join(near)}?" if near else f"Known are {', '.join(known)}."
        raise UsageError(f"torchvision has no classifier {name!r:.80}. {advice}")


def _preprocess_from(transforms: "ImageClassification", whose: str) -> Preprocess:
    """Return the card's preprocessing for torchvision's `ImageClassification`: resize the shorter side, centre crop, normalise."""
    try:
        (crop,), (resize,), resample = transforms.crop_size, transforms.resize_size, transforms.interpolation.value
        mean, std = tuple(map(float, transforms.mean)), tuple(map(float, transforms.std))
    except (AttributeError, TypeError, ValueError):
        raise UsageError(f"{whose} is not a resize of the shorter side and a square centre crop.") from None
    return preprocess_from(
        Transform(whose=whose, size=(crop, crop), fit="crop", resample=resample_named(resample, whose), mean=mean, std=std, scaled=resize)
    )
