"""`--from torchvision:NAME[/VERSION]`: a classifier as torchvision publishes it, or with weights of one's own in its structure."""

from pathlib import Path

from torch import nn

from sightline.errors import DataError, UsageError
from sightline.preprocess import Preprocess
from sightline_export.sources.imported_model import ImportedModel
from sightline_export.sources.labels import demand_label_count
from sightline_training.networks.backbones import Backbone, last_layer, preprocess_of, published, whole
from sightline_training.networks.weights import Weights, load_weights, weights_from


def from_torchvision(named: str, weights: str | None, labels: tuple[str, ...] | None) -> ImportedModel:
    """Import the classifier `named`, "resnet50" or "resnet50/IMAGENET1K_V1", with `weights` (None: published ones; `random`; a file).

    Images are preprocessed as by the version that is named, by the one that the file is, or else by the best one. The weights may tell
    other classes apart than ImageNet's: then `labels` must name them. Raises UsageError or DataError.
    """
    name, _, version = named.partition("/")
    versions = published(name)
    if version:
        preprocess_of(Backbone(name), version)
    if weights not in (None, "random") and Path(str(weights)).is_dir():
        raise UsageError(f"{weights} is a folder: `sightline export {weights}` publishes a run; weights for a named network are a file")
    loaded = weights_from(name, weights, version or None)
    version, preprocess = _preprocess(name, version, weights, loaded)
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
        preprocess=preprocess,
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


def _preprocess(name: str, version: str, weights: str | None, loaded: Weights) -> tuple[str, Preprocess]:
    """Return which published version's preprocessing the weights get. Raises UsageError if that is not known, or another than was named."""
    from torchvision.models import get_model_weights

    known = {weights_version: preprocess_of(Backbone(name), weights_version) for weights_version in published(name)}
    if loaded.preprocess is not None and version and known[version] != loaded.preprocess:
        raise UsageError(f"the weights are {loaded.source}, whose preprocessing is not that of {version}: leave /{version} out")
    if loaded.preprocess is not None and weights is not None:
        return next(known_version for known_version, preprocess in known.items() if preprocess == loaded.preprocess), loaded.preprocess
    best: str = get_model_weights(name).DEFAULT.name
    if not version and weights not in (None, "random") and len(set(known.values())) > 1:
        raise UsageError(
            f"{weights} is not a file that torchvision published, and its versions of {name} see images differently: "
            f"say which one yours was trained like, {' or '.join(f'torchvision:{name}/{known_version}' for known_version in known)}"
        )
    return version or best, known[version or best]


def _resized(layer: nn.Module, classes: int) -> nn.Module:
    """Return a layer like torchvision's last one, for another number of classes."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, classes, bias=layer.bias is not None)
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
        return nn.Conv2d(layer.in_channels, classes, kernel_size=1, bias=layer.bias is not None)
    raise UsageError(f"a last layer of the kind {type(layer).__name__} cannot be given another number of classes")
