"""Bo's own door: one dog against all other cats and dogs, from 137 photos, on a pre-trained network.

    sightline train bo --backbone mobilenet_v2 --weights mobilenet_v2_imagenet.safetensors     26 of 26 validation photos

(95 % interval 87.1 to 100 %) in 79 s, 52 s of CPU, on 2 cores of an AMD EPYC virtual machine that did other work too, 1.6 GB of memory,
torch 2.15.0, CPython 3.11.7. There is no test set, and settings were chosen with an eye on these photos; within a run the last epoch is
kept.

The default is VGG16, whose own weights were not available: tests/line/test_vgg16.py takes it through the line with random weights.
"""

from typing import Final

from torch import nn

from sightline.card import ModelCard
from sightline_training.augment.kornia_ops import InTurn, distortion
from sightline_training.datasets.bo import LABELS
from sightline_training.networks.backbones import Backbone, feature_count, trunk_of
from sightline_training.networks.transfer import Transferred
from sightline_training.recipe import Recipe, Stage
from sightline_training.recipes.imagenet import PREPROCESS


def _network(card: ModelCard, backbone: Backbone) -> nn.Module:
    return Transferred(trunk_of(backbone), nn.Linear(feature_count(backbone), len(card.labels)))


BO: Final = Recipe(
    name="bo",
    card=ModelCard(
        name="bo",
        description="Whether a photo shows Bo, the dog for whom the presidential doggy door opens.",
        labels=LABELS,
        preprocess=PREPROCESS,
        max_batch_size=32,
    ),
    transfer=_network,
    data="bo",
    stages=(
        Stage(epochs=60, batch_size=32, learning_rate=1e-3, weight_decay=1e-2, patience=60, trunk_share=0.0, views=8),
        Stage(epochs=6, batch_size=16, learning_rate=5e-5, weight_decay=1e-2, patience=6, trunk_share=0.25),
    ),
    augmentation=InTurn(
        (
            distortion("flip", "RandomHorizontalFlip", p=0.5),
            distortion("turn and zoom", "RandomAffine", degrees=10.0, translate=(0.1, 0.1), scale=(0.8, 1.2), padding_mode="border"),
            distortion("light", "ColorJiggle", brightness=0.2, contrast=0.2, saturation=0.2, hue=0.0),
        )
    ),
    target_accuracy=1.0,
)
