"""The arithmetic before the network, (x / 255 - mean) / std, against numbers computed by hand and against numpy in double precision."""

import pytest
import torch

from sightline_training.networks.wrappers import Normalise
from support.cards import differs_from_the_formula
from support.specs import SPECS, spec


def test_numbers_computed_by_hand():
    layer = Normalise(spec(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 0.1)))
    pixels = torch.tensor([[[[0, 0, 0], [255, 255, 255], [51, 51, 51]]]], dtype=torch.uint8)
    answer = layer(pixels)
    assert answer.dtype == torch.float32
    assert answer.shape == (1, 3, 1, 3)
    assert answer[0, 0, 0].tolist() == pytest.approx([-1.0, 1.0, -0.6], abs=1e-6)
    assert answer[0, 1, 0].tolist() == pytest.approx([-1.0, 3.0, -0.2], abs=1e-6)
    assert answer[0, 2, 0].tolist() == pytest.approx([0.0, 10.0, 2.0], abs=1e-6)


def test_imagenets_well_known_values():
    layer = Normalise(SPECS["imagenet"])
    black, white = (layer(torch.full((1, 1, 1, 3), value, dtype=torch.uint8))[0, :, 0, 0].tolist() for value in (0, 255))
    # What torchvision's documentation of ToTensor and Normalize leads to, to four places.
    assert black == pytest.approx([-2.1179, -2.0357, -1.8044], abs=5e-5)
    assert white == pytest.approx([2.2489, 2.4286, 2.6400], abs=5e-5)


@pytest.mark.parametrize("title", SPECS)
def test_every_byte_in_every_channel_is_the_formulas_value_within_a_millionth(title):
    assert not differs_from_the_formula(Normalise(SPECS[title]), SPECS[title])


def test_rows_columns_and_channels_keep_their_places():
    layer = Normalise(spec(mean=(0.1, 0.2, 0.3), std=1.0))
    pixels = torch.arange(2 * 3 * 4 * 3, dtype=torch.uint8).reshape(2, 3, 4, 3)
    answer = layer(pixels)
    assert answer.shape == (2, 3, 3, 4)
    for n, row, column, channel in [(0, 0, 0, 0), (1, 2, 3, 2), (0, 2, 1, 1), (1, 0, 3, 0)]:
        expected = pixels[n, row, column, channel].item() / 255 - (0.1, 0.2, 0.3)[channel]
        assert answer[n, channel, row, column].item() == pytest.approx(expected, abs=1e-6)
