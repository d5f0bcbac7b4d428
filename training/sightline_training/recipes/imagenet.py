"""ImageNet's 1000 classes with a pre-trained network as it is: nothing is trained, the weights' own preprocessing is kept.

    sightline train imagenet --backbone mobilenet_v2 --weights mobilenet_v2_imagenet.safetensors

takes a second. ImageNet's validation images were not available, so no accuracy was measured. The default is VGG16, whose
own weights were not available either: tests/line/test_vgg16.py takes it through the line in shape, with random weights.
"""

from typing import Final

from torch import nn

from sightline.card import ModelCard
from sightline.preprocess import PreprocessV1
from sightline_training.datasets.imagenet_labels import LABELS
from sightline_training.networks.backbones import Backbone, whole
from sightline_training.recipe import Recipe

PREPROCESS: Final = PreprocessV1(
    version=1,
    mode="RGB",
    size=(224, 224),
    fit="crop",
    crop_fraction=0.875,
    resample="bilinear",
    background=(255, 255, 255),
    exif="apply",
    polarity="as-is",
    # Of the transforms that come with torchvision's VGG16_Weights.IMAGENET1K_V1 (`backbones.preprocess_of`).
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
"""How most networks trained on ImageNet see an image. `--weights` that are known to see otherwise bring their own."""


def _network(_: ModelCard, backbone: Backbone) -> nn.Module:
    return whole(backbone)


IMAGENET: Final = Recipe(
    name="imagenet",
    card=ModelCard(
        name="imagenet",
        description="A thousand kinds of animals, plants and things: a network of torchvision that was trained on ImageNet.",
        labels=LABELS,
        preprocess=PREPROCESS,
        max_batch_size=32,
    ),
    transfer=_network,
    data="imagenet",
    stages=(),
    target_accuracy=None,
)
