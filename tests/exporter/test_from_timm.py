"""timm's pretrained_cfg: the same pixels as timm's own evaluation makes, or the reason why there are none."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sightline.errors import DataError, UsageError
from sightline.reformatting import reformat
from sightline_export.sources.from_timm import from_timm
from sightline_export.sources.imported_model import ImportRequest
from sightline_export.sources.timm_config import timm_preprocess
from support.comparison_images import SIZES, all_images, furthest, smooth, width_first  # noqa: F401 - a fixture

timm = pytest.importorskip("timm")

CONFIG = {
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "crop_mode": "center",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


TWICE = "makes 248 x 248 pixels of an image and then crops 224 x 224 out of them; a card can"


def as_timm(config: dict[str, Any]) -> Callable[[Image.Image], npt.NDArray[np.uint8]]:
    """timm's evaluation without its normalisation: an image → uint8 [H, W, 3]."""
    transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=config), normalize=False)
    return lambda image: np.asarray(transform(image).permute(1, 2, 0).numpy(), np.uint8)


KINDS = {
    "0.875": CONFIG,
    "0.9, which timm rounds down": {**CONFIG, "crop_pct": 0.9},
    "0.95 of 288": {**CONFIG, "input_size": (3, 288, 288), "crop_pct": 0.95},
    "nothing cut off twice": {**CONFIG, "crop_pct": 1.0},
    "bilinear": {**CONFIG, "interpolation": "bilinear", "crop_pct": 0.96},
    "lanczos": {**CONFIG, "interpolation": "lanczos"},
    "squash": {**CONFIG, "crop_mode": "squash", "crop_pct": 1.0},
    "squash to an oblong": {**CONFIG, "input_size": (3, 192, 320), "crop_mode": "squash", "crop_pct": 1.0},
    "border": {**CONFIG, "crop_mode": "border", "crop_pct": 1.0},
}


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
@pytest.mark.usefixtures("width_first")
def test_an_image_is_the_one_that_timm_makes_byte_by_byte(config: dict[str, Any]) -> None:
    spec, transform = timm_preprocess(config, "timm:x"), as_timm(config)
    assert [furthest(reformat(image, spec), transform(image)) for image in all_images()] == [0] * 2 * len(SIZES)


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_with_todays_pillow_a_photo_differs_by_two_levels_at_most(config: dict[str, Any]) -> None:
    spec, transform = timm_preprocess(config, "timm:x"), as_timm(config)
    # Pillow 13 scales the height of a tall image first, which rounds on the other side of the order.
    assert max(furthest(reformat(smooth(number, size), spec), transform(smooth(number, size))) for number, size in enumerate(SIZES)) <= 2


def test_every_published_configuration_is_said_but_those_that_squash_or_pad_and_then_crop_or_scale_to_less_than_the_crop() -> None:
    expressible, refused = 0, 0
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name).to_dict()
        side = max(config["input_size"][1:])
        exact = config["crop_mode"] == "center" or math.floor(side / config["crop_pct"]) == side
        if exact and config["crop_pct"] <= 1:
            spec = timm_preprocess(config, name)
            assert spec.size == tuple(config["input_size"][1:])
            assert (spec.resample, spec.mean, spec.std) == (config["interpolation"], tuple(config["mean"]), tuple(config["std"]))
            expressible += 1
        else:
            with pytest.raises(UsageError, match="a card"):
                timm_preprocess(config, name)
            refused += 1
    assert expressible > 100 * refused > 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"crop_mode": "squash", "crop_pct": 0.9},
            f"(squash, crop_pct 0.9) {TWICE} stretch or crop, not both.",
        ),
        (
            {"crop_mode": "border", "crop_pct": 0.9},
            f"(border, crop_pct 0.9) {TWICE} pad or crop, not both.",
        ),
        ({"crop_pct": 1.15}, "scales the shorter side to 194 pixels and pads the crop of 224 with black, which a card cannot say."),
        ({"crop_mode": "spiral"}, "has the crop_mode 'spiral', which is not known here: center, squash and border are."),
        (
            {"input_size": (3, 192, 320)},
            "covers 192 x 320 pixels and rounds the longer side to the nearest; a card rounds it down.",
        ),
        ({"input_size": (1, 224, 224)}, "is for images of 1 channels; only RGB can be imported."),
        (
            {"interpolation": "hamming"},
            "resizes with 'hamming', which a card cannot say: it knows nearest, box, bilinear, bicubic, lanczos.",
        ),
        ({"mean": (128.0, 128.0, 128.0)}, "cannot be said by a card: mean.0: Input should be less than or equal to 1."),
    ],
)
def test_what_a_card_cannot_say_is_refused_with_the_reason(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        timm_preprocess({**CONFIG, **settings}, "timm:x")
    assert str(refused.value) == f"the preprocessing of timm:x {sentence}"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("convnext_atom", "timm has no network 'convnext_atom'. Did you mean convnext_atto, "),
        ("convnext_atto.mine", "timm has no weights 'mine' of convnext_atto, only d2_in1k"),
        (
            "somebody/something",
            "timm has no network 'somebody/something'. A folder must be there; a name of the Hugging Face hub is written timm:hf-hub:some",
        ),
        ("vit_small_patch14_dinov2.lvd142m", "timm:vit_small_patch14_dinov2.lvd142m has no classes, only features: name a classifier, or "),
    ],
)
def test_what_is_no_classifier_of_timm_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        from_timm(ImportRequest(name, "random"))
    assert str(refused.value).startswith(sentence)


def test_random_weights_are_always_the_same_ones_and_the_two_cranes_are_told_apart() -> None:
    first, second = from_timm(ImportRequest("test_resnet.r160_in1k", "random")), from_timm(ImportRequest("test_resnet.r160_in1k", "random"))
    assert first.weights_sha256 == second.weights_sha256
    assert (first.labels[134], first.labels[517], len(set(first.labels))) == ("crane (134)", "crane (517)", 1000)
    assert first.notes == ("labels that several classes share got the number of their class behind them: crane",)


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", _fails)
    with pytest.raises(DataError) as refused:
        from_timm(ImportRequest("test_resnet.r160_in1k"))
    assert str(refused.value) == (
        "the weights of timm:test_resnet.r160_in1k could not be fetched from the Hugging Face hub (no route to host). Fetch the file "
        "elsewhere and name it as the weights, or see whether everything runs with the weights `random`."
    )


def _fails(*_: object, **__: object) -> None:
    raise OSError("no route to host")
