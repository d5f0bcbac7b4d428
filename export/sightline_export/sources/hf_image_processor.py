"""Hugging Face's `preprocessor_config.json` in the words of a model card, or the exact reason why there are none.

What a key means depends on the class of the processor (transformers.models.*.image_processing_pil_*): only classes whose code does
what this file settings are known here. A key that is left out has the default of its class, in the transformers that is installed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from PIL import Image

from sightline.errors import UsageError
from sightline.preprocess import Preprocess
from sightline_export.sources.libraries import library
from sightline_training.networks.library_transforms import Transform, preprocess_from, resample_named

PLAIN: Final = frozenset(
    f"{name}ImageProcessor" for name in ("ViT", "DeiT", "Beit", "Bit", "CLIP", "MobileNetV1", "MobileNetV2", "Pvt", "Siglip")
)
"""They resize, crop the centre, rescale and normalise, one after the other, each if it is asked for (PilBackend._preprocess)."""

CONVNEXT: Final = "ConvNextImageProcessor"
"""Below SQUASHED_FROM it scales the shorter side to size / crop_pct and crops; from there on it squashes (its method `resize`)."""

SQUASHED_FROM: Final = 384

READ_KEYS: Final = (
    *("do_resize", "size", "default_to_square", "resample", "crop_pct", "do_center_crop", "crop_size"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
)
"""The keys that are read; `crop_pct` means something to ConvNeXT's class only."""

WITHOUT_EFFECT: Final = frozenset(
    (
        *("image_processor_type", "feature_extractor_type", "processor_class", "use_fast", "return_tensors", "data_format", "device"),
        *("input_data_format", "disable_grouping", "_valid_processor_keys", "do_reduce_labels", "reduce_labels", "pad_size"),
        "do_convert_rgb",  # a card always makes RGB, and lays transparent pixels over white as transformers does
    )
)
"""On the pixels of an image: labels of segmentation, kinds of array, `pad_size` without `do_pad`."""

SHIFTED: Final = (
    "transformers rounds the corner of a centre crop down, a card rounds it half to even: of a picture that is scaled to 3, 7, 11 … pixels "
    "more than the crop on its longer side, the crop begins one pixel later"
)


@dataclass(frozen=True)
class ProcessorPreprocess:
    """What a processor does to an image, in a card's words, and notes about it."""

    preprocess: Preprocess
    settings: Mapping[str, object]
    """What was read of its file, defaults of the class included."""
    notes: tuple[str, ...]


def processor_preprocess(config: Mapping[str, object], model_type: str) -> ProcessorPreprocess:
    """Return a card's words for the content of a `preprocessor_config.json`; `model_type` decides the class where the file names none.

    Raises UsageError, with the key and its value, for whatever a card cannot say; MissingExtra without transformers.
    """
    kind = _class_of(config, model_type)
    defaults = getattr(library("transformers", "huggingface"), f"{kind}Pil")
    settings = {key: getattr(defaults, key, None) if config.get(key) is None else config[key] for key in READ_KEYS}
    for key, value in config.items():
        if key not in READ_KEYS and key not in WITHOUT_EFFECT and value is not None and value is not False:
            raise _refused(key, value, "is not known here, and may change pixels")
    if not settings["do_resize"]:
        raise _refused("do_resize", settings["do_resize"], "leaves images as large as they come; a card always scales them to one size")
    if not settings["do_rescale"] or abs(255 * _number(settings["rescale_factor"], "rescale_factor") - 1) > 1e-6:
        key = "rescale_factor" if settings["do_rescale"] else "do_rescale"
        raise _refused(key, settings[key], "is not what a card does, which scales pixels to 0..1: 1/255")
    size, scaled = _geometry(kind, settings)
    preprocess = preprocess_from(
        Transform(
            whose="preprocessor_config.json",
            size=size,
            fit="stretch" if scaled is None else "crop",
            scaled=scaled,
            resample=_filter(settings["resample"]),
            mean=_channels(settings["image_mean"], "image_mean") if settings["do_normalize"] else (0.0, 0.0, 0.0),
            std=_channels(settings["image_std"], "image_std") if settings["do_normalize"] else (1.0, 1.0, 1.0),
        )
    )
    if scaled is not None and (scaled - size[0]) % 4 == 3:
        raise UsageError(
            f"preprocessor_config.json scales the shorter side to {scaled} pixels and crops {size[0]}: transformers rounds the corner of "
            "that crop down and a card rounds it half to even, so every crop would begin one pixel later."
        )
    return ProcessorPreprocess(preprocess, {"image_processor_type": kind, **settings}, () if scaled is None else (SHIFTED,))


def _class_of(config: Mapping[str, object], model_type: str) -> str:
    """Return the name of the processor's class, without what tells its implementations apart. Raises UsageError if it is not known here."""
    if config.get("auto_map") is not None:
        raise _refused("auto_map", config["auto_map"], "names program code that came with the model, which is never run here")
    name = config.get("image_processor_type") or config.get("feature_extractor_type")
    if name is None:
        mapping = library("transformers.models.auto.image_processing_auto", "huggingface").IMAGE_PROCESSOR_MAPPING_NAMES
        name = mapping.get(model_type, {}).get("pil")
        if name is None:
            raise UsageError(f"preprocessor_config.json names no image_processor_type, and transformers knows none for {model_type!r:.40}.")
    kind = str(name).removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    if kind not in PLAIN and kind != CONVNEXT:
        known = ", ".join(sorted((*PLAIN, CONVNEXT)))
        raise _refused("image_processor_type", name, f"does things of its own that are not mapped here; known are {known}")
    return kind


def _geometry(kind: str, settings: Mapping[str, object]) -> tuple[tuple[int, int], int | None]:
    """Return the result's height and width, and what the shorter side is scaled to before its centre is cropped; None if it is squashed."""
    size = _size(settings["size"], "size", square=bool(settings["default_to_square"]))
    crop = _size(settings["crop_size"], "crop_size", square=True) if settings["do_center_crop"] else None
    if kind == CONVNEXT:
        if not isinstance(size, int):
            raise _refused("size", settings["size"], "must be a shortest_edge for this class")
        result, scaled = (size, size), None
        if size < SQUASHED_FROM:
            scaled = int(size / _number(settings["crop_pct"], "crop_pct"))
        if crop not in (None, result):
            raise _refused("crop_size", settings["crop_size"], f"crops once more, out of {size} x {size} pixels, which a card cannot say")
        return result, scaled
    if isinstance(size, int):
        if crop is None:
            raise _refused(
                "do_center_crop", settings["do_center_crop"], f"with size {settings['size']} leaves images in their own aspect ratio"
            )
        return (crop, crop) if isinstance(crop, int) else crop, size
    if crop not in (None, size):
        raise _refused(
            "crop_size",
            settings["crop_size"],
            f"crops out of images that were squashed to {size[0]} x {size[1]}; a card can stretch or crop, not both",
        )
    return size, None


def _size(value: object, key: str, *, square: bool) -> int | tuple[int, int]:
    """Return height and width, or the shorter side alone."""
    if isinstance(value, Mapping) and set(value) == {"height", "width"}:
        return _side(value["height"], key), _side(value["width"], key)
    if isinstance(value, Mapping) and set(value) == {"shortest_edge"}:
        return _side(value["shortest_edge"], key)
    if isinstance(value, list | tuple) and len(value) == 2:
        return _side(value[0], key), _side(value[1], key)
    if type(value) is int:
        return (_side(value, key), _side(value, key)) if square else _side(value, key)
    raise _refused(key, value, "is no size that a card can say: height and width, or shortest_edge")


def _side(value: object, key: str) -> int:
    if type(value) is not int or not 1 <= value <= 8192:
        raise _refused(key, value, "is no number of pixels from 1 to 8192")
    return value


def _number(value: object, key: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise _refused(key, value, "is no number above 0")
    return float(value)


def _channels(value: object, key: str) -> tuple[float, ...]:
    """Return one number for each of red, green and blue; a single one is for all."""
    numbers = [value] * 3 if isinstance(value, int | float) else value
    if not isinstance(numbers, list | tuple) or len(numbers) != 3 or any(type(number) not in (int, float) for number in numbers):
        raise _refused(key, value, "is not one number for each of red, green and blue")
    return tuple(float(number) for number in numbers)


def _filter(value: object) -> str:
    try:
        name = Image.Resampling(value).name.lower()  # type: ignore[arg-type]
    except ValueError:
        raise _refused("resample", value, "is none of Pillow's filters") from None
    return resample_named(name, f"preprocessor_config.json (resample: {value})")


def _refused(key: str, value: object, reason: str) -> UsageError:
    return UsageError(f"preprocessor_config.json cannot be said by a card: {key}: {value!r:.120} {reason}.")
