"""`--from torchvision:NAME[/VERSION]`: a classifier as torchvision publishes it, or with weights of one's own in its structure."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from torch import nn

from sightline.errors import DataError, UsageError
from sightline_export.sources.imported_model import ImportedModel, ImportRequest
from sightline_export.sources.labels import demand_label_count
from sightline_export.sources.settled_preprocess import PreprocessClaim, SettledPreprocess, settle
from sightline_training.networks.backbones import Backbone, last_layer, preprocess_of, published, whole
from sightline_training.networks.weights import Weights, load_weights, weights_from


def from_torchvision(request: ImportRequest) -> ImportedModel:
    """Import a classifier, "resnet50" or "resnet50/IMAGENET1K_V1", with its weights (None: published ones; `random`; a file).

    Images are seen as by the version that is named, by the one that the file is, or else by the best one, but for what is stated. The
    weights may tell other classes apart than ImageNet's: then labels must be named. Raises UsageError or DataError.
    """
    weights, labels = request.weights, request.labels
    name, _, version = request.named.partition("/")
    versions = published(name)
    if version:
        preprocess_of(Backbone(name), version)
    if weights not in (None, "random") and Path(str(weights)).is_dir():
        raise UsageError(f"{weights} is a folder: `sightline export {weights}` publishes a run; weights for a named network are a file")
    loaded = weights_from(name, weights, version or None, request.weights_key)
    version, settled = _settled(name, version, request, loaded)
    last = last_layer(network := whole(Backbone(name)))
    if f"{last}.weight" not in loaded.state:
        raise DataError(f"{loaded.source}: the tensor {last}.weight is missing: these weights are a trunk without a classifier")
    classes = len(loaded.state[f"{last}.weight"])
    demand_label_count(labels, classes, loaded.source)
    categories = tuple(versions[version].meta["categories"])
    if labels is None and classes != len(categories):
        raise UsageError(
            f"{loaded.source} tells {classes:,} classes apart, which are not ImageNet's: name them in a text file, a label a line"
        )
    if classes != len(categories):
        network.set_submodule(last, _resized(network.get_submodule(last), classes))
    load_weights(network, loaded)
    transforms = versions[version].transforms()
    return ImportedModel(
        source=f"torchvision:{name}/{version}",
        body=network,
        preprocess=settled,
        labels=labels or categories,
        weights=loaded.source,
        weights_sha256=loaded.sha256,
        settings={
            "resize_size": list(transforms.resize_size),
            "crop_size": list(transforms.crop_size),
            "interpolation": transforms.interpolation.value,
            "mean": list(transforms.mean),
            "std": list(transforms.std),
        },
    )


def _settled(name: str, version: str, request: ImportRequest, loaded: Weights) -> tuple[str, SettledPreprocess]:
    """Return which published version the weights are seen like, and how that is.

    Raises UsageError if that is not known, or another than was named, and not stated either.
    """
    from torchvision.models import get_model_weights

    known = {weights_version: preprocess_of(Backbone(name), weights_version) for weights_version in published(name)}
    file = request.weights not in (None, "random")
    if loaded.preprocess is not None and version and known[version] != loaded.preprocess:
        raise UsageError(f"the weights are {loaded.source}, whose preprocessing is not that of {version}: leave /{version} out")
    if loaded.preprocess is not None and file:
        like = next(known_version for known_version, preprocess in known.items() if preprocess == loaded.preprocess)
        return like, settle(PreprocessClaim(loaded.preprocess, f"as {loaded.source} sees them"), request.stated)
    like = version or get_model_weights(name).DEFAULT.name
    claim = PreprocessClaim(known[like], f"as torchvision's {name}/{like} sees them")
    if file and not version:
        claim = replace(claim, of=Path(str(request.weights)).name, published=MappingProxyType(known))
    settled = settle(claim, request.stated)
    if settled.ways > 1:
        raise UsageError(
            f"{request.weights} is not a file that torchvision published, and its versions of {name} see images differently: "
            f"say which one yours was trained like, {' or '.join(f'torchvision:{name}/{known_version}' for known_version in known)}, "
            "or state the preprocessing",
            settings=("preprocess",),
        )
    return like, settled


def _resized(layer: nn.Module, classes: int) -> nn.Module:
    """Return a layer like torchvision's last one, for another number of classes."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, classes, bias=layer.bias is not None)
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
        return nn.Conv2d(layer.in_channels, classes, kernel_size=1, bias=layer.bias is not None)
    raise UsageError(f"a last layer of the kind {type(layer).__name__} cannot be given another number of classes")
