"""A second version of the specification, for the tests of the machinery alone: version 1, and a picture may be mirrored."""

from typing import Annotated, Literal

import numpy as np

from sightline.image import MAX_PIXELS, ImageInput
from sightline.preprocess import Preprocess, Version
from sightline.reformat import reformat_v1
from support import oracle
from support.golden_corpus import Pixels
from support.specs import SPECS


class PreprocessV2(Preprocess):
    """Version 1, and `mirror`."""

    version: Annotated[Literal[2], Version]
    """Version of this specification."""
    mirror: Literal["as-is", "left-right"]
    """Whether left and right change places, last of all."""


def reformat_v2(image: ImageInput, spec: PreprocessV2, max_pixels: int = MAX_PIXELS) -> Pixels:
    """The reference."""
    pixels = reformat_v1(image, spec, max_pixels)  # type: ignore[arg-type]  # it has all of version 1's fields
    return pixels[:, ::-1].copy() if spec.mirror == "left-right" else pixels


def oracle_v2(truth: Pixels, orientation: int, spec: PreprocessV2) -> Pixels:
    """The second reading."""
    pixels = oracle.reformat_v1(truth, orientation, spec)  # type: ignore[arg-type]
    return np.fliplr(pixels) if spec.mirror == "left-right" else pixels


def specs() -> dict[str, Preprocess]:
    """Its specifications. They can be made only while version 2 is registered."""
    return {
        "mirrored": PreprocessV2(**{**dict(SPECS["imagenet"]), "version": 2, "mirror": "left-right"}),
        "not-mirrored": PreprocessV2(**{**dict(SPECS["mnist"]), "version": 2, "mirror": "as-is"}),
    }
