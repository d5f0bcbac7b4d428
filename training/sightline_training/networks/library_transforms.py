"""Translates a library's transforms into a card's preprocessing, or names the one that a card cannot say: the one place for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args

from pydantic import ValidationError

from sightline.errors import UsageError
from sightline.host.text import first_problem
from sightline.preprocess import Preprocess, PreprocessV1, Resample

WHITE: Final = (255, 255, 255)
"""Under transparent pixels, of which the libraries' transforms say nothing: images with a clear ground are made for white pages."""


@dataclass(frozen=True, kw_only=True)
class Transform:
    """What a library does to an RGB image before its network gets it."""

    whose: str
    """For sentences: `the preprocessing of timm:x`."""
    size: tuple[int, int]
    """Height and width of the result in pixels."""
    fit: str
    """In a card's word."""
    resample: str
    """In a card's word."""
    mean: Sequence[float]
    std: Sequence[float]
    scaled: int | None = None
    """What `crop` scales the shorter side to, in pixels; None without a crop."""
    background: Sequence[int] = WHITE


def preprocess_from(transform: Transform) -> Preprocess:
    """Return a card's preprocessing that does what a library's `transform` does. Raises UsageError, naming the field, if there is none."""
    whose, size, scaled = transform.whose, transform.size, transform.scaled
    fraction = 1.0
    if scaled is not None:
        if size[0] != size[1]:
            raise UsageError(
                f"{whose} crops {size[0]} x {size[1]} pixels: of a crop that is no square, a card scales the two sides differently."
            )
        if scaled < size[0]:
            raise UsageError(
                f"{whose} scales the shorter side to {scaled} pixels and pads the crop of {size[0]} with black, which a card cannot say."
            )
        fraction = size[0] / scaled
        if round(size[0] / fraction) != scaled:
            raise UsageError(f"{whose} scales to {scaled} and crops {size[0]} pixels, which a card's crop_fraction cannot say exactly.")
    try:
        return PreprocessV1.model_validate(
            {
                "version": 1,
                "mode": "RGB",
                "size": size,
                "fit": transform.fit,
                "crop_fraction": fraction,
                "resample": transform.resample,
                "background": tuple(transform.background),
                "exif": "apply",
                "polarity": "as-is",
                "mean": tuple(map(float, transform.mean)),
                "std": tuple(map(float, transform.std)),
            }
        )
    except ValidationError as error:
        raise UsageError(f"{whose} cannot be said by a card: {first_problem(error)}.") from None


def resample_named(name: str, whose: str) -> str:
    """Return the card's name of Pillow's filter `name`. Raises UsageError if it has none."""
    known: tuple[str, ...] = get_args(Resample)
    if name not in known:
        raise UsageError(f"{whose} resizes with {name!r:.40}, which a card cannot say: it knows {', '.join(known)}.")
    return name
