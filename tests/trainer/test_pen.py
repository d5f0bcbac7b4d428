"""Pens of other widths, in training batches: thicker and thinner, a share of the images, their ink full, and nothing else touched."""

import torch
from torch.nn import functional

from sightline_training.augment.pen import Chain, Pen, _dilated


def bars(count: int) -> torch.Tensor:
    """Images [count, 28, 28, 1] with an upright bar four pixels wide and fading edges."""
    pixels = torch.zeros(count, 28, 28, 1, dtype=torch.uint8)
    pixels[:, 4:24, 12:16] = 255
    pixels[:, 4:24, [11, 16]] = 90
    return pixels


def test_half_of_the_share_is_thicker_and_half_is_thinner_and_all_ink_is_full() -> None:
    torch.manual_seed(0)
    pixels = bars(2_000)
    drawn = Pen(share=0.5, thicker=1.0, thinner=0.8)(pixels)
    assert drawn.dtype == torch.float32
    assert drawn.shape == pixels.shape
    ink, before = drawn.sum(dim=(1, 2, 3)), pixels.float().sum(dim=(1, 2, 3))
    shares = [(comparison.float().mean().item()) for comparison in (ink > before + 1, ink < before - 1, (ink - before).abs() <= 1)]
    assert all(abs(share - expected) < 0.04 for share, expected in zip(shares, (0.25, 0.25, 0.5), strict=True)), shares
    assert torch.allclose(drawn.amax(dim=(1, 2, 3)), torch.tensor(255.0))
    assert drawn.min() >= 0


def test_the_thickest_pen_is_a_pixel_wider_on_each_side() -> None:
    torch.manual_seed(1)
    thick = Pen(share=1.0, thicker=1.0, thinner=0.0)(bars(500))
    widest = thick[thick.sum(dim=(1, 2, 3)).argmax()]
    assert (widest[14, :, 0] > 200).sum() == 6


def test_an_empty_image_stays_empty_and_the_batch_itself_is_not_changed() -> None:
    pixels = torch.zeros(8, 28, 28, 1)
    pixels[0, 10:12] = 255.0
    kept = pixels.clone()
    torch.manual_seed(0)
    drawn = Pen(share=1.0, thicker=1.0, thinner=0.8)(pixels)
    assert torch.equal(pixels, kept)
    assert torch.equal(drawn[1:], kept[1:])


def test_a_chain_applies_its_steps_in_turn() -> None:
    pixels = bars(3)
    torch.manual_seed(5)
    together = Chain((Pen(share=1.0, thicker=1.0, thinner=0.5), lambda batch: batch + 1))(pixels)
    torch.manual_seed(5)
    assert torch.equal(together, Pen(share=1.0, thicker=1.0, thinner=0.5)(pixels) + 1)


def test_a_dilation_is_torchs_own_maximum_bit_for_bit() -> None:
    planes = torch.rand(5, 1, 9, 7) * 255
    assert torch.equal(_dilated(planes), functional.max_pool2d(planes, 3, 1, 1))
    assert torch.equal(-_dilated(-planes), -functional.max_pool2d(-planes, 3, 1, 1))
