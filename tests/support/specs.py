"""The preprocessing specifications under which every golden image is looked at; each field's every value occurs in one of them."""

from collections.abc import Mapping
from typing import Any, Final

from sightline.card import ModelCard
from sightline.preprocess import Preprocess, PreprocessV1, PreprocessV2


def spec(**fields: Any) -> PreprocessV1:
    """A version-1 specification: RGB, 8 x 8, stretched bilinearly unless `fields` say otherwise; per-channel fields may be one number."""
    merged: dict[str, Any] = {**_PLAIN, **fields}
    for name in ("background", "mean", "std"):
        if not isinstance(merged[name], tuple):
            merged[name] = (merged[name],) * len(merged["mode"])
    return PreprocessV1(**merged)


def spec_v2(**fields: Any) -> PreprocessV2:
    """A version-2 specification: as `spec`, nothing decoded smaller, transparent pixels on black; `fields` as there."""
    merged: dict[str, Any] = {
        **dict(spec(**{name: value for name, value in fields.items() if name in _PLAIN})),
        "alpha_background": 0,
        "levels": "as-is",
        "frame": "as-is",
        "decode": "full",
        **{name: value for name, value in fields.items() if name not in _PLAIN},
        "version": 2,
    }
    if isinstance(merged["alpha_background"], int):
        merged["alpha_background"] = (merged["alpha_background"],) * len(merged["mode"])
    return PreprocessV2(**merged)


def card(**fields: Any) -> ModelCard:
    """A valid card; `fields` replace members of it."""
    merged: dict[str, Any] = {
        "name": "fruit",
        "description": "Fresh and rotten fruit.\nFor the tests.",
        "labels": ("fresh apple", 'rotten "banana"', "Ährenfäule", "腐ったオレンジ"),
        "preprocess": SPECS["imagenet"],
        "max_batch_size": 64,
    }
    return ModelCard(**{**merged, **fields})


_PLAIN: Final[dict[str, Any]] = {
    "version": 1,
    "mode": "RGB",
    "size": (8, 8),
    "fit": "stretch",
    "crop_fraction": 1.0,
    "resample": "bilinear",
    "background": 0,
    "exif": "apply",
    "polarity": "as-is",
    "mean": 0.5,
    "std": 0.25,
}

SPECS: Final[dict[str, PreprocessV1]] = {
    "mnist": spec(mode="L", size=(28, 28), fit="pad", polarity="light-on-dark"),
    "imagenet": spec(
        size=(20, 20),
        fit="crop",
        crop_fraction=0.875,
        background=255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    "stretch-bicubic": spec(size=(17, 13), resample="bicubic", background=(250, 10, 90)),
    "pad-lanczos": spec(size=(15, 22), fit="pad", resample="lanczos", background=(10, 200, 120)),
    "nearest": spec(size=(11, 13), resample="nearest"),
    "box": spec(size=(14, 14), fit="crop", resample="box", background=(1, 2, 3)),
    "wide-crop": spec(size=(9, 21), fit="crop", crop_fraction=0.8, resample="bicubic", background=128),
    "exif-ignored": spec(size=(16, 12), fit="pad", exif="ignore", background=(0, 0, 255)),
    "ink-in-colour": spec(size=(15, 11), fit="crop", crop_fraction=0.9, resample="lanczos", polarity="light-on-dark"),
    "enlarged": spec(mode="L", size=(44, 37), resample="bicubic", background=99),
}

SPECS_V2: Final[dict[str, PreprocessV2]] = {
    "digits": spec_v2(
        mode="L",
        size=(28, 28),
        fit="pad",
        polarity="light-on-dark",
        alpha_background="auto",
        levels="document",
        frame="ink-box",
        decode="dct",
    ),
    "letters-dark-on-light": spec_v2(
        size=(29, 23), fit="pad", resample="bicubic", alpha_background=(250, 240, 200), levels="document", frame="ink-box"
    ),
    "scan": spec_v2(mode="L", size=(26, 31), polarity="light-on-dark", alpha_background=255, levels="document"),
    "scan-in-colour": spec_v2(
        size=(24, 32), fit="pad", resample="lanczos", background=(9, 90, 200), alpha_background="auto", levels="document", decode="dct"
    ),
    "scan-large": spec_v2(mode="L", size=(300, 40), fit="crop", alpha_background="auto", levels="document", polarity="light-on-dark"),
    "photo": spec_v2(size=(20, 20), fit="crop", crop_fraction=0.875, background=7, alpha_background="auto", decode="dct"),
    "photo-full": spec_v2(size=(12, 14), background=7, alpha_background=(90, 7, 160)),
    "photo-stretched": spec_v2(mode="L", size=(15, 60), alpha_background=30, decode="dct", exif="ignore"),
    "photo-padded": spec_v2(
        size=(50, 44),
        fit="pad",
        resample="box",
        background=(200, 10, 10),
        alpha_background=(10, 200, 10),
        polarity="light-on-dark",
        decode="dct",
    ),
}
"""Those of version 2."""

SPECS_OF: Final[dict[int, Mapping[str, Preprocess]]] = {1: SPECS, 2: SPECS_V2}
"""The specifications of each version in `sightline.preprocess.VERSIONS`."""
