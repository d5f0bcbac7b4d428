"""The courses' augmentations: every one changes images, each image in its own way, and keeps shape, scale and reproducibility."""

import numpy as np
import pytest
import torch

from sightline_training.augment.kornia_ops import Augmentation, InTurn, distortion, movement
from sightline_training.augment.warp import Warp
from sightline_training.recipes import RECIPES


def _variants() -> list[tuple[str, Augmentation]]:
    """Every augmentation of every recipe, and each step of those that have steps."""
    augmentations: list[tuple[str, Augmentation]] = []
    for recipe in RECIPES.values():
        for variant in (recipe, recipe.augmented):
            if variant is None or variant.augmentation is None:
                continue
            augmentations.append((f"{variant.name} all", variant.augmentation))
            if isinstance(variant.augmentation, InTurn):
                augmentations += [(f"{variant.name} {step.name}", step) for step in variant.augmentation.steps]
    return augmentations


VARIANTS = _variants()


def images(count: int = 48, side: int = 28, channels: int = 1) -> torch.Tensor:
    """The same image so many times: smooth, light, nowhere symmetrical."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    plane = 120 + 60 * torch.sin(7 * rows) * torch.cos(5 * columns) + 40 * columns
    return plane.round().to(torch.uint8)[None, :, :, None].repeat(count, 1, 1, channels)


def _suited(name: str) -> torch.Tensor:
    spec = RECIPES[name.partition(" ")[0]].card.preprocess
    return images(48 if spec.size[0] < 100 else 12, spec.size[0], spec.channels)


@pytest.mark.parametrize(("name", "augmentation"), VARIANTS, ids=[name for name, _ in VARIANTS])
def test_shape_and_scale_stay_and_each_image_is_changed_in_its_own_way(name: str, augmentation: Augmentation) -> None:
    torch.manual_seed(1)
    pixels = _suited(name)
    before = pixels.clone()
    changed = augmentation(pixels)
    assert torch.equal(pixels, before)
    assert changed.shape == pixels.shape
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 255.001
    different = (changed - pixels).abs().amax(dim=(1, 2, 3)) > 2
    assert different.float().mean() > 0.2
    assert len({image.numpy().round().astype(np.uint8).tobytes() for image in changed}) >= 2


@pytest.mark.parametrize(("name", "augmentation"), VARIANTS, ids=[name for name, _ in VARIANTS])
def test_the_same_seed_gives_the_same_distortions_whatever_was_drawn_before(name: str, augmentation: Augmentation) -> None:
    pixels = _suited(name)
    torch.manual_seed(5)
    first = augmentation(pixels)
    augmentation(pixels[:7])
    torch.manual_seed(5)
    assert torch.equal(augmentation(pixels), first)
    assert not torch.equal(augmentation(pixels), first)


@pytest.mark.parametrize(("name", "augmentation"), VARIANTS, ids=[name for name, _ in VARIANTS])
def test_a_batch_of_one_and_pixels_that_are_floats_already_are_welcome(name: str, augmentation: Augmentation) -> None:
    pixels = _suited(name)[:1].float()
    assert augmentation(pixels).shape == pixels.shape


def test_steps_are_taken_in_turn() -> None:
    flip = distortion("flip", "RandomHorizontalFlip", p=1.0)
    pixels = images(2)
    assert torch.allclose(flip(pixels), pixels.flip(2).float(), atol=1e-3)
    assert torch.allclose(InTurn((flip, flip))(pixels), pixels.float(), atol=1e-3)


def test_what_leaves_the_range_is_cut_off() -> None:
    brighter = distortion("brightness", "RandomBrightness", brightness=(2.0, 2.0), clip_output=False, p=1.0)
    assert brighter(images(2)).max() == 255


def test_a_distortion_says_what_it_is_so_that_runs_with_other_settings_are_told_apart() -> None:
    assert repr(distortion("turn", "RandomRotation", p=0.5, degrees=8.0)) == (
        "Distortion(name='turn', kind='RandomRotation', settings=(('degrees', 8.0), ('p', 0.5)))"
    )
    assert distortion("turn", "RandomRotation", degrees=8.0) != distortion("turn", "RandomRotation", degrees=9.0)


def test_the_asl_recipe_distorts_in_all_the_ways_that_were_asked_for() -> None:
    augmentation = RECIPES["asl"].augmentation
    assert isinstance(augmentation, InTurn)
    names = [step.name for step in augmentation.steps]
    assert names == ["flip", "rotation", "translation", "zoom", "perspective", "resized crop", "colour jitter"]


TURNED = {"degrees": (90.0, 90.0), "p": 1.0}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("RandomHorizontalFlip", {"p": 0.5}),
        ("RandomAffine", {"degrees": 20.0, "translate": (0.1, 0.1), "scale": (0.8, 1.2), "p": 0.7, "padding_mode": "border"}),
        ("RandomResizedCrop", {"size": (28, 28), "scale": (0.6, 1.0), "cropping_mode": "resample"}),
    ],
)
def test_a_movement_alone_gives_what_kornia_gives(kind: str, settings: dict[str, object]) -> None:
    if "degrees" in settings:
        settings = {**settings, "align_corners": True}
    pixels = images()
    torch.manual_seed(3)
    expected = distortion("a", kind, **settings)(pixels)
    torch.manual_seed(3)
    torch.testing.assert_close(movement("a", kind, **settings)(pixels), expected, rtol=0, atol=0.01)


def test_neighbouring_movements_become_one_in_their_order_and_lose_no_detail() -> None:
    turn, flip = movement("turn", "RandomAffine", **TURNED), movement("flip", "RandomHorizontalFlip", p=1.0)
    pixels = images(2)
    torch.testing.assert_close(InTurn((turn,) * 4)(pixels), pixels.float(), rtol=0, atol=0.01)
    torch.testing.assert_close(InTurn((turn, flip))(pixels), flip(turn(pixels)), rtol=0, atol=0.01)
    assert (InTurn((turn, flip))(pixels) - InTurn((flip, turn))(pixels)).abs().max() > 50
    slight = movement("slight", "RandomAffine", degrees=(7.0, 7.0), p=1.0)
    back = movement("back", "RandomAffine", degrees=(-7.0, -7.0), p=1.0)
    torch.testing.assert_close(InTurn((slight, back))(pixels), pixels.float(), rtol=0, atol=0.05)
    between = distortion("nothing", "RandomBrightness", brightness=(1.0, 1.0))
    assert (InTurn((slight, between, back))(pixels) - pixels).abs().max() > 1


def test_what_comes_from_outside_repeats_the_border_of_the_image() -> None:
    pixels = torch.full((4, 28, 28, 3), 200, dtype=torch.uint8)
    away = movement("away", "RandomPerspective", distortion_scale=0.9, p=1.0)
    torch.testing.assert_close(away(pixels), pixels.float(), rtol=0, atol=0.01)


def test_the_warp_of_mnist_gives_the_same_pixels_as_ever() -> None:
    warp = Warp(rotation_deg=10.0, shift=0.05, scale=0.12, shear_deg=8.0, elastic_px=1.3, elastic_knots=7)
    torch.manual_seed(11)
    warped = warp(images(2))
    assert warped.sum().item() == pytest.approx(WARPED_SUM, rel=1e-6)
    assert warped[1, 14, 10:14, 0].tolist() == pytest.approx(WARPED_ROW, abs=1e-3)


WARPED_SUM = 192661.046875
WARPED_ROW = [138.27002, 144.30804, 151.47600, 159.52377]
