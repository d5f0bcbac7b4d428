"""Sign language letters with an MLP 784-512-512-24, which overfits: it knows every training image and misses many of new hands.

    sightline train asl_mlp            79.75 % of the 7,172 test images, 100 % of the 27,455 training images

Seed 0 (95 % interval 78.81 to 80.67 %), 45 s of CPU on 2 cores of an AMD EPYC virtual machine, torch 2.15.0, CPython 3.11.7. No choice was
made by the test images: this is how such a network does.
"""

from typing import Final

from torch import nn

from sightline.card import ModelCard
from sightline_training.networks.mlp import mlp
from sightline_training.recipe import Recipe, Stage
from sightline_training.recipes.asl_cnn import CARD


def _network(card: ModelCard) -> nn.Module:
    height, width, channels = card.preprocess.shape
    # No dropout: this recipe shows what it would be good for.
    return mlp(height * width * channels, (512, 512), len(card.labels), input_dropout=0.0, dropout=0.0)


ASL_MLP: Final = Recipe(
    name="asl_mlp",
    card=CARD.model_copy(
        update={
            "name": "asl_mlp",
            "description": "Letters of American Sign Language but J and Z: an MLP that overfits, to compare with `asl`. Use that one.",
        }
    ),
    network=_network,
    data="asl",
    stages=(Stage(epochs=20, batch_size=256, learning_rate=1e-3, weight_decay=1e-2, patience=20),),
    target_accuracy=None,
)
