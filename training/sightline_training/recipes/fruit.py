"""Fresh and rotten apples, bananas and oranges on a pre-trained network: first a new head, then its last blocks at a low rate.

not yet measured
"""

from typing import Final

from torch import nn

from sightline.card import ModelCard, Preprocess
from sightline_training.backbones import Backbone, feature_count, trunk_of
from sightline_training.datasets.fruits import LABELS
from sightline_training.distortions import InTurn, distortion
from sightline_training.headed import Transferred
from sightline_training.recipe import Recipe, Stage
from sightline_training.recipes.imagenet import PREPROCESS


def _network(card: ModelCard, backbone: Backbone) -> nn.Module:
    return Transferred(trunk_of(backbone), nn.Linear(feature_count(backbone), len(card.labels)))


FRUIT: Final = Recipe(
    name="fruit",
    card=ModelCard(
        name="fruit",
        description="Whether a photo shows fresh or rotten apples, bananas or oranges; it has seen mostly single fruits on white ground.",
        labels=LABELS,
        # A crop would cut off the rotten end of a banana.
        preprocess=Preprocess.model_validate({**PREPROCESS.model_dump(), "fit": "stretch", "crop_fraction": 1.0}),
        max_batch_size=32,
    ),
    transfer=_network,
    data="fruits",
    stages=(
        Stage(epochs=30, batch_size=32, learning_rate=2e-3, weight_decay=1e-2, patience=30, label_smoothing=0.05, trunk_share=0.0, views=3),
        Stage(epochs=8, batch_size=32, learning_rate=2e-4, weight_decay=1e-2, patience=8, label_smoothing=0.05, trunk_share=0.3),
    ),
    augmentation=InTurn(
        (
            distortion("flip", "RandomHorizontalFlip", p=0.5),
            distortion(
                "turn, shift and zoom", "RandomAffine", degrees=20.0, translate=(0.08, 0.08), scale=(0.85, 1.2), padding_mode="border"
            ),
            # No change of hue: brown is what tells a rotten fruit.
            distortion("light", "ColorJiggle", brightness=0.15, contrast=0.15, saturation=0.15, hue=0.0),
        )
    ),
    target_accuracy=0.985,
)
