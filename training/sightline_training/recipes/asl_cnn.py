"""Sign language letters with three convolutional blocks, without augmentation. The card of all recipes for these letters stands here.

sightline train asl_cnn            not yet measured
"""

from functools import partial
from typing import Final

from torch import nn

from sightline.card import ModelCard, Preprocess
from sightline_training.convnet import convnet
from sightline_training.datasets.asl import LETTERS
from sightline_training.recipe import Recipe, Stage

CARD: Final = ModelCard(
    name="asl_cnn",
    description="Letters of American Sign Language but J and Z, one hand a picture: a small convolutional network.",
    labels=LETTERS,
    preprocess=Preprocess(
        version=1,
        mode="L",
        size=(28, 28),
        # A crop could cut off the finger that makes the letter.
        fit="pad",
        crop_fraction=1.0,
        resample="bilinear",
        # The walls behind the hands: the median of the training pictures' border pixels is 169.
        background=(169,),
        exif="apply",
        polarity="as-is",
        # Mean and deviation of all pixels of the 27,455 training pictures, to four places.
        mean=(0.6247,),
        std=(0.1913,),
    ),
    max_batch_size=256,
)


def network(card: ModelCard, map_dropout: float, dropout: float) -> nn.Module:
    """The network of the recipes `asl_cnn` and `asl`: 24, 48, 96 maps, then 256 units; 280,256 weights."""
    return convnet(card.preprocess.shape, (24, 48, 96), 256, len(card.labels), map_dropout=map_dropout, dropout=dropout)


ASL_CNN: Final = Recipe(
    name="asl_cnn",
    card=CARD,
    network=partial(network, map_dropout=0.3, dropout=0.5),
    data="asl",
    # No picture chooses an epoch: the data has no honest validation split, so that the last one is kept.
    stages=(
        Stage(
            epochs=8,
            batch_size=256,
            learning_rate=1e-2,
            weight_decay=0.05,
            label_smoothing=0.1,
            patience=8,
            mixed_precision=True,
        ),
    ),
    target_accuracy=0.985,
)
