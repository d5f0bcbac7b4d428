"""Training sees an image through the same `reformat` as a client, and every batch is made of real images, each once."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sightline.reformatting import reformat
from sightline_training.augment.warp import Warp
from sightline_training.datasets import open_dataset
from sightline_training.loop.batches import Batch, Memory, Shuffled, train_batches, watched_batches
from sightline_training.recipes.mnist import CARD, MNIST
from support.present import present


def test_the_pixels_of_a_set_are_what_reformat_makes_of_each_image() -> None:
    test = present(open_dataset("digits").test)
    pixels = test.pixels(CARD.preprocess, [3, 0, 359])
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, 28, 28, 1)
    for row, index in zip(pixels, (3, 0, 359), strict=True):
        assert np.array_equal(row, reformat(test.open(index), CARD.preprocess))


def test_the_digits_are_split_without_overlap_and_in_proportion() -> None:
    digits = open_dataset("digits")
    assert [len(images) for images in digits.splits] == [1257, 180, 360]
    for images in digits.splits:
        assert np.abs(np.bincount(images.labels) / len(images) - 0.1).max() < 0.005
    together = np.sum([np.bincount(images.labels, minlength=10) for images in digits.splits], axis=0)
    assert together.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_digits_white_is_255_and_none_is_inverted() -> None:
    pixels = present(open_dataset("digits").test).pixels(CARD.preprocess)
    assert pixels.max() == 255
    # Mostly slate, little chalk: an inverted digit would have a median near white.
    assert np.median(pixels, axis=(1, 2, 3)).max() < 128


@pytest.mark.parametrize("index", [-1, 360])
def test_an_image_that_is_not_there_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError, match=f"image {index} of 360 in digits/test"):
        present(open_dataset("digits").test).open(index)


def _memory(count: int) -> Memory:
    return Memory(np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1), np.arange(count, dtype=np.int64))


def _orders(loader: DataLoader[Batch]) -> list[list[int]]:
    return [batch[1].tolist() for batch in loader]


def test_an_epoch_shows_every_image_once_in_steps_of_nearly_one_size() -> None:
    batches = _orders(train_batches(_memory(101), 25, "seed"))
    assert sorted(index for batch in batches for index in batch) == list(range(101))
    assert sorted(map(len, batches)) == [20, 20, 20, 20, 21]


def test_pixels_stay_with_their_labels() -> None:
    for pixels, labels in train_batches(_memory(60), 16, "seed"):
        assert pixels.dtype == torch.uint8
        assert pixels[:, 0, 0, 0].tolist() == labels.tolist()


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first, again, other = (train_batches(_memory(50), 10, seed) for seed in ("a", "a", "b"))
    assert _orders(first) == _orders(again) == _orders(first)
    assert _orders(first) != _orders(other)
    assert isinstance(first.sampler, Shuffled)
    assert isinstance(again.sampler, Shuffled)
    first.sampler.set_epoch(1)
    assert _orders(first) != _orders(again)
    again.sampler.set_epoch(1)
    assert _orders(first) == _orders(again)


def test_validation_goes_in_order_and_to_the_last_image() -> None:
    assert _orders(watched_batches(_memory(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def _warp(*, rotation_deg: float = 0.0, shift: float = 0.0, scale: float = 0.0, elastic_px: float = 0.0) -> Warp:
    """A warp of nothing but what is given."""
    return Warp(rotation_deg=rotation_deg, shift=shift, scale=scale, shear_deg=0.0, elastic_px=elastic_px, elastic_knots=7)


def _square() -> torch.Tensor:
    """A white square of 8 × 8 in the middle of 28 × 28."""
    pixels = torch.zeros(64, 28, 28, 1, dtype=torch.uint8)
    pixels[:, 10:18, 10:18] = 255
    return pixels


def test_a_warp_of_nothing_changes_nothing() -> None:
    warped = _warp()(_square())
    assert warped.dtype == torch.float32
    assert torch.allclose(warped, _square().float(), atol=0.01)


def _moments(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mass, row and column of the centre of each image."""
    planes, place = pixels[..., 0].double(), torch.arange(28.0, dtype=torch.float64)
    mass = planes.sum((1, 2))
    return mass, (planes.sum(2) * place).sum(1) / mass, (planes.sum(1) * place).sum(1) / mass


def test_a_shift_moves_by_at_most_its_fraction_of_the_side_both_ways() -> None:
    torch.manual_seed(0)
    mass, rows, columns = _moments(_warp(shift=0.1)(_square()))
    assert torch.allclose(mass, torch.full_like(mass, 255 * 64), rtol=1e-3)
    for centres in (rows, columns):
        assert 2.0 < (centres - 13.5).abs().max() <= 2.81
        assert (centres > 13.5).any()
        assert (centres < 13.5).any()


def test_a_scale_changes_the_area_and_not_the_place() -> None:
    torch.manual_seed(0)
    mass, rows, _ = _moments(_warp(scale=0.2)(_square()))
    assert (rows - 13.5).abs().max() < 0.05
    ratio = mass / (255 * 64)
    assert ratio.max() < np.exp(0.4) * 1.03
    assert ratio.min() > np.exp(-0.4) / 1.03
    assert ratio.max() > 1.15
    assert ratio.min() < 0.87


def test_a_rotation_keeps_area_and_place_and_turns() -> None:
    torch.manual_seed(0)
    warped = _warp(rotation_deg=30.0)(_square())
    mass, rows, columns = _moments(warped)
    assert torch.allclose(mass, torch.full_like(mass, 255 * 64), rtol=0.02)
    assert (rows - 13.5).abs().max() < 0.05
    assert (columns - 13.5).abs().max() < 0.05
    assert (warped - _square().float()).abs().amax((1, 2, 3)).max() > 200


def test_the_elastic_displacement_has_the_standard_deviation_that_was_asked_for() -> None:
    torch.manual_seed(0)
    field = _warp(elastic_px=1.5)._elastic(400, 28, 28, torch.device("cpu")) * 14
    assert field.std().item() == pytest.approx(1.5, rel=0.03)
    neighbours = torch.corrcoef(torch.stack([field[:, :, 1:, 0].flatten(), field[:, :, :-1, 0].flatten()]))[0, 1]
    assert neighbours > 0.95


def test_mnists_augmentation_is_drawn_anew_each_time_and_keeps_the_scale() -> None:
    assert MNIST.augmented is not None
    warp = MNIST.augmented.augmentation
    assert warp is not None
    pixels = torch.from_numpy(present(open_dataset("digits").test).pixels(CARD.preprocess, range(32)))
    first, second = warp(pixels), warp(pixels)
    assert first.shape == pixels.shape
    assert not torch.equal(first, second)
    assert first.min() >= 0
    assert first.max() <= 255.001
    assert (first - pixels.float()).abs().mean() > 5
