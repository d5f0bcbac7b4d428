"""A version of the specification that does not exist, for the tests of the machinery alone: version 1, and an image may be mirrored."""

from typing import Annotated, Literal

import numpy as np
from PIL import Image

from sightline.preprocess import Preprocess, Version
from sightline.reformatting import reformat_v1
from support import oracle
from support.golden_corpus import Pixels
from support.specs import SPECS


class PreprocessV3(Preprocess):
    """Version 1, and `mirror`."""

    version: Annotated[Literal[3], Version]
    """Version of this specification."""
    mirror: Literal["as-is", "left-right"]
    """Whether left and right change places, last of all."""


def reformat_v3(decoded: Image.Image, spec: PreprocessV3) -> Pixels:
    """The reference."""
    pixels = reformat_v1(decoded, spec)  # type: ignore[arg-type]  # it has all of version 1's fields
    return pixels[:, ::-1].copy() if spec.mirror == "left-right" else pixels


def oracle_v3(truth: Pixels, orientation: int, spec: PreprocessV3) -> Pixels:
    """The second reading."""
    pixels = oracle.reformat_v1(truth, orientation, spec)  # type: ignore[arg-type]
    return np.fliplr(pixels) if spec.mirror == "left-right" else pixels


def specs() -> dict[str, Preprocess]:
    """Its specifications. They can be made only while version 3 is registered."""
    return {
        "mirrored": PreprocessV3(**{**dict(SPECS["imagenet"]), "version": 3, "mirror": "left-right"}),
        "not-mirrored": PreprocessV3(**{**dict(SPECS["mnist"]), "version": 3, "mirror": "as-is"}),
    }
