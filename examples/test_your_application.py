"""Test an application that classifies images, without a server: pytest examples/test_your_application.py"""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sightline import Classifier, ImageError, ModelCard, PreprocessV1
from sightline.testing import FakeTransport

CARD = ModelCard(
    name="door",
    description="Whether the door opens.",
    labels=("cat", "dog"),
    preprocess=PreprocessV1(
        version=1,
        mode="RGB",
        size=(32, 32),
        fit="crop",
        crop_fraction=1.0,
        resample="bilinear",
        background=(255, 255, 255),
        exif="apply",
        polarity="as-is",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    max_batch_size=8,
)


def opens(door: Classifier, photo: Image.Image | str) -> bool:
    """Say whether the door opens: the application under test."""
    guess = door.classify(photo)[0]
    return guess.label == "cat" and guess.probability > 0.8


def bright_is_a_cat(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Stand in for the network: uint8 [N, 32, 32, 3] to probabilities float32 [N, 2]."""
    cat = pixels.mean(axis=(1, 2, 3), dtype=np.float32) / 255
    return np.stack([cat, 1 - cat], axis=1)


@pytest.fixture
def door() -> Classifier:
    """Give a classifier that answers in this process, with the checks of the real one."""
    return Classifier("door", transport=FakeTransport(CARD, bright_is_a_cat))


def test_the_door_opens_for_a_cat(door: Classifier) -> None:
    """A bright image is a cat."""
    assert opens(door, Image.new("RGB", (640, 480), "white"))


def test_the_door_stays_closed_for_a_dog(door: Classifier) -> None:
    """A dark image is none."""
    assert not opens(door, Image.new("RGB", (640, 480), "black"))


def test_a_photo_that_is_none_is_an_error_and_no_dog(door: Classifier) -> None:
    """No image gets a label by accident."""
    with pytest.raises(ImageError, match="cannot be read"):
        opens(door, "no-such-photo.jpg")
