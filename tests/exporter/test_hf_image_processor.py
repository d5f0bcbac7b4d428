"""Hugging Face's preprocessor_config.json: the same pixels as transformers' own processors make, or the reason why there are none."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sightline.errors import UsageError
from sightline.reformatting import reformat
from sightline_export.sources.hf_image_processor import SHIFTED, processor_preprocess
from support.comparison_images import SIZES, all_images, furthest, noise, smooth, width_first  # noqa: F401 - a fixture
from support.hf_processors import CONVNEXT, DEIT, MOBILENET, VIT, processor

transformers = pytest.importorskip("transformers")


"""The keys and values of google/vit-base-patch16-224, facebook/convnext-tiny-224 (and microsoft/resnet-50), google/mobilenet_v2_1.0_224
and facebook/deit-base-patch16-224."""


def as_transformers(config: dict[str, Any], image: Image.Image) -> npt.NDArray[np.uint8]:
    """What transformers' PIL implementation makes of an image before it rescales: uint8 [H, W, 3]."""
    pixels = processor(config)(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    return np.asarray(pixels).transpose(1, 2, 0).astype(np.uint8)


def shifted(image: Image.Image, config: dict[str, Any]) -> bool:
    """Whether transformers' crop begins one pixel earlier than a card's: where the pixels to cut off are 3, 7, 11 …"""
    crop = config["size"] if "crop_pct" in config else config["crop_size"]["height"]
    longer = 256 * max(image.size) // min(image.size)
    return bool((longer - crop) % 4 == 3)


@pytest.mark.parametrize("config", [VIT, {**CONVNEXT, "size": 384}], ids=["vit", "convnext-384"])
@pytest.mark.usefixtures("width_first")
def test_a_squashed_image_is_the_one_that_transformers_makes_byte_by_byte(config: dict[str, Any]) -> None:
    spec = processor_preprocess(config, "").preprocess
    assert spec.fit == "stretch"
    assert [furthest(reformat(image, spec), as_transformers(config, image)) for image in all_images()] == [0] * 2 * len(SIZES)


@pytest.mark.parametrize("config", [CONVNEXT, MOBILENET], ids=["convnext", "mobilenet_v2"])
@pytest.mark.usefixtures("width_first")
def test_a_cropped_image_is_the_one_that_transformers_makes_byte_by_byte_or_begins_one_pixel_later(config: dict[str, Any]) -> None:
    seen = processor_preprocess(config, "")
    assert (seen.preprocess.fit, seen.preprocess.crop_fraction, seen.notes) == ("crop", 0.875, (SHIFTED,))
    later = 0
    sizes = (*SIZES, *((256, 300 + more) for more in range(8)), *((300 + more, 256) for more in range(8)))
    for image in (draw(0, size) for size in sizes for draw in (smooth, noise)):
        ours, theirs = reformat(image, seen.preprocess), as_transformers(config, image)
        if shifted(image, config):
            later += 1
            assert furthest(ours, theirs) > 0
            if image.height > image.width:
                ours, theirs = ours[:-1], theirs[1:]
            else:
                ours, theirs = ours[:, :-1], theirs[:, 1:]
        assert furthest(ours, theirs) == 0, image.size
    assert later > 3


@pytest.mark.parametrize("config", [VIT, CONVNEXT, MOBILENET], ids=["vit", "convnext", "mobilenet_v2"])
def test_with_todays_pillow_a_photo_differs_by_two_levels_at_most(config: dict[str, Any]) -> None:
    spec = processor_preprocess(config, "").preprocess
    for number, size in enumerate(SIZES):
        image = smooth(number, size)
        if spec.fit == "stretch" or not shifted(image, config):
            # Pillow 13 scales the height of a tall image first, which rounds once more on another side of the order.
            assert furthest(reformat(image, spec), as_transformers(config, image)) <= 2


@pytest.mark.parametrize(
    ("config", "model_type"),
    [
        ({**VIT, "size": 224}, ""),
        ({**VIT, "size": [224, 224]}, ""),
        ({**VIT, "image_processor_type": "ViTImageProcessorFast", "use_fast": True, "do_convert_rgb": None}, ""),
        (
            {key: value for key, value in VIT.items() if key not in ("image_processor_type", "resample", "do_rescale", "rescale_factor")},
            "vit",
        ),
        ({**VIT, "image_mean": 0.5, "image_std": 0.5, "do_pad": False, "do_reduce_labels": True}, ""),
        ({**VIT, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}, ""),
    ],
    ids=["a number", "a list", "fast", "defaults", "one mean for all", "a crop of everything"],
)
def test_other_words_for_the_same_are_the_same(config: dict[str, Any], model_type: str) -> None:
    assert processor_preprocess(config, model_type).preprocess == processor_preprocess(VIT, "").preprocess


def test_what_is_not_normalised_has_mean_0_and_deviation_1() -> None:
    spec = processor_preprocess({**VIT, "do_normalize": False}, "").preprocess
    assert (spec.mean, spec.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


CANNOT = "preprocessor_config.json cannot be said by a card: "


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (DEIT, f"{CANNOT}crop_size: 224 crops out of images that were squashed to 256 x 256; a card can stretch or crop, not both."),
        (
            {**VIT, "do_resize": False},
            f"{CANNOT}do_resize: False leaves images as large as they come; a card always scales them to one size.",
        ),
        ({**VIT, "do_rescale": False}, f"{CANNOT}do_rescale: False is not what a card does, which scales pixels to 0..1: 1/255."),
        (
            {**VIT, "rescale_factor": 0.00784313725490196},
            f"{CANNOT}rescale_factor: 0.00784313725490196 is not what a card does, which scales pixels to 0..1: 1/255.",
        ),
        ({**VIT, "resample": 5}, "preprocessor_config.json (resample: 5) resizes with 'hamming', which a card cannot say: it knows "),
        ({**VIT, "resample": 9}, f"{CANNOT}resample: 9 is none of Pillow's filters."),
        ({**VIT, "do_pad": True}, f"{CANNOT}do_pad: True is not known here, and may change pixels."),
        ({**VIT, "do_flip_channel_order": True}, f"{CANNOT}do_flip_channel_order: True is not known here, and may change pixels."),
        ({**VIT, "size_divisor": 32}, f"{CANNOT}size_divisor: 32 is not known here, and may change pixels."),
        (
            {**VIT, "size": {"shortest_edge": 224}},
            f"{CANNOT}do_center_crop: None with size {{'shortest_edge': 224}} leaves images in their ",
        ),
        ({**VIT, "size": {"longest_edge": 224}}, f"{CANNOT}size: {{'longest_edge': 224}} is no size that a card can say: "),
        ({**VIT, "size": {"height": 224.5, "width": 224}}, f"{CANNOT}size: 224.5 is no number of pixels from 1 to 8192."),
        ({**VIT, "size": True}, f"{CANNOT}size: True is no size that a card can say: "),
        ({**VIT, "image_mean": [0.5, 0.5]}, f"{CANNOT}image_mean: [0.5, 0.5] is not one number for each of red, green and blue."),
        (
            {**VIT, "image_mean": [128, 128, 128]},
            "preprocessor_config.json cannot be said by a card: mean.0: Input should be less than or equal ",
        ),
        (
            {**VIT, "image_std": [0, 0, 0]},
            "preprocessor_config.json cannot be said by a card: std.0: Input should be greater than or equal ",
        ),
        (
            {**MOBILENET, "crop_size": {"height": 288, "width": 288}},
            "preprocessor_config.json scales the shorter side to 256 pixels and pads the crop of 288 with black, which a card cannot say.",
        ),
        (
            {**MOBILENET, "crop_size": {"height": 224, "width": 192}},
            "preprocessor_config.json crops 224 x 192 pixels: of a crop that is no ",
        ),
        (
            {**CONVNEXT, "crop_pct": 0.95},
            "preprocessor_config.json scales the shorter side to 235 pixels and crops 224: transformers rounds the corner ",
        ),
        ({**CONVNEXT, "crop_pct": -1}, f"{CANNOT}crop_pct: -1 is no number above 0."),
        (
            {**CONVNEXT, "do_center_crop": True, "crop_size": 200},
            f"{CANNOT}crop_size: 200 crops once more, out of 224 x 224 pixels, which a ",
        ),
        (
            {**VIT, "image_processor_type": "LevitImageProcessor"},
            f"{CANNOT}image_processor_type: 'LevitImageProcessor' does things of its own ",
        ),
        (
            {**VIT, "auto_map": {"AutoImageProcessor": "x.Y"}},
            f"{CANNOT}auto_map: {{'AutoImageProcessor': 'x.Y'}} names program code that came ",
        ),
        ({"size": 224}, "preprocessor_config.json names no image_processor_type, and transformers knows none for 'nothing'."),
    ],
)
def test_what_a_card_cannot_say_is_refused_with_the_key_and_its_value(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        processor_preprocess(config, "nothing")
    assert str(refused.value).startswith(sentence)
