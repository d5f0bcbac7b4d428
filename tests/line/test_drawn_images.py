"""The scripts that draw what people send: the same images every time, and images of what they say."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.scripts import script

DIGITS, HANDS = script("scripts/drawn_digits.py"), script("scripts/drawn_hands.py")


def stroke() -> Image.Image:
    """A seven as MNIST has one: 28 x 28, light on dark."""
    plane = np.zeros((28, 28), np.uint8)
    plane[5:8, 7:21] = 255
    for row in range(8, 24):
        plane[row, 20 - (row - 8) // 2 - 2 : 20 - (row - 8) // 2 + 1] = 255
    return Image.fromarray(plane)


@pytest.mark.parametrize("scene", DIGITS.SCENES)
def test_a_scene_is_drawn_alike_every_time_and_holds_a_digit(scene: str) -> None:
    first, again, other = (DIGITS.SCENES[scene].draw(stroke(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(np.asarray(first), np.asarray(again))
    if scene != "MNIST":
        assert not np.array_equal(np.asarray(first), np.asarray(other))
    levels = np.asarray(first.getchannel("A") if first.mode == "RGBA" else first.convert("L")).astype(int)
    assert np.ptp(levels) > 60


def test_a_pen_of_another_width_changes_the_ink_and_not_the_size() -> None:
    thin, thick = (DIGITS.strokes(stroke(), 150, pen) for pen in (0.02, 0.08))
    assert max(thin.shape) == max(thick.shape) == 150
    assert thick.sum() > 2 * thin.sum()


def test_an_empty_sheet_is_empty() -> None:
    sheet = np.asarray(DIGITS.empty_sheet(np.random.default_rng(0))).astype(float)
    assert np.abs(sheet - np.median(sheet)).max() < 80


@pytest.mark.realdata
def test_the_hand_is_cut_out_of_each_photo(data_folder: Path) -> None:
    for path in sorted((data_folder / "asl_photos").glob("*.png")):
        photo = np.asarray(Image.open(path).convert("RGB")).astype(float)
        assert 0.12 < HANDS.hand_in(photo).mean() < 0.7, path.name


@pytest.mark.realdata
@pytest.mark.parametrize("scene", HANDS.SCENES)
def test_hands_are_drawn_alike_every_time(scene: str, data_folder: Path) -> None:
    (first, letters), (again, _) = (HANDS.drawn(scene, data_folder, 13) for _ in range(2))
    assert letters == list("ABDFGILOPSTVY")
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
