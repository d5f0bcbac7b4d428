"""The arithmetic before the network, (x / 255 - mean) / std, against numbers computed by hand and against numpy in double precision."""

import pytest

from support.cards import differs_from_the_formula
from support.mutation import Mutant, loaded
from support.specs import SPECS, spec

torch = pytest.importorskip("torch")
wrappers = pytest.importorskip("sightline_training.networks.wrappers")
Normalise = wrappers.Normalise


def test_numbers_computed_by_hand() -> None:
    layer = Normalise(spec(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 0.1)))
    pixels = torch.tensor([[[[0, 0, 0], [255, 255, 255], [51, 51, 51]]]], dtype=torch.uint8)
    answer = layer(pixels)
    assert answer.dtype == torch.float32
    assert answer.shape == (1, 3, 1, 3)
    assert answer[0, 0, 0].tolist() == pytest.approx([-1.0, 1.0, -0.6], abs=1e-6)
    assert answer[0, 1, 0].tolist() == pytest.approx([-1.0, 3.0, -0.2], abs=1e-6)
    assert answer[0, 2, 0].tolist() == pytest.approx([0.0, 10.0, 2.0], abs=1e-6)


def test_imagenets_well_known_values() -> None:
    layer = Normalise(SPECS["imagenet"])
    black, white = (layer(torch.full((1, 1, 1, 3), value, dtype=torch.uint8))[0, :, 0, 0].tolist() for value in (0, 255))
    # What torchvision's documentation of ToTensor and Normalize leads to, to four places.
    assert black == pytest.approx([-2.1179, -2.0357, -1.8044], abs=5e-5)
    assert white == pytest.approx([2.2489, 2.4286, 2.6400], abs=5e-5)


@pytest.mark.parametrize("title", SPECS)
def test_every_byte_in_every_channel_is_the_formulas_value_within_a_millionth(title: str) -> None:
    assert not differs_from_the_formula(Normalise(SPECS[title]), SPECS[title])


def test_rows_columns_and_channels_keep_their_places() -> None:
    layer = Normalise(spec(mean=(0.1, 0.2, 0.3), std=1.0))
    pixels = torch.arange(2 * 3 * 4 * 3, dtype=torch.uint8).reshape(2, 3, 4, 3)
    answer = layer(pixels)
    assert answer.shape == (2, 3, 3, 4)
    for n, row, column, channel in [(0, 0, 0, 0), (1, 2, 3, 2), (0, 2, 1, 1), (1, 0, 3, 0)]:
        expected = pixels[n, row, column, channel].item() / 255 - (0.1, 0.2, 0.3)[channel]
        assert answer[n, channel, row, column].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "mutant",
    [
        Mutant("Normalise", "1 / (255 * std)", "1 / (256 * std)"),
        Mutant("Normalise", "1 / (255 * std)", "1 / std"),
        Mutant("Normalise", "1 / (255 * std)", "1 / (255 * std.mean())"),
        Mutant("Normalise", "mean / std", "mean"),
        Mutant("Normalise", "mean / std", "mean.flip(0) / std"),
        Mutant("Normalise", "pixels.to(torch.float32) * self.scale - self.shift", "pixels.to(torch.float32) * self.scale + self.shift"),
        Mutant(
            "Normalise",
            "(pixels.to(torch.float32) * self.scale - self.shift).permute(0, 3, 1, 2)",
            "(pixels.to(torch.float32) * self.scale - self.shift).permute(0, 3, 2, 1)",
        ),
        Mutant(
            "Normalise",
            "(pixels.to(torch.float32) * self.scale - self.shift).permute(0, 3, 1, 2)",
            "(pixels.to(torch.float32) * self.scale - self.shift).permute(0, 3, 1, 2).flip(1)",
        ),
    ],
    ids=lambda mutant: mutant.new,
)
def test_a_mistake_in_the_arithmetic_before_the_network_is_noticed(mutant: Mutant) -> None:
    layer = loaded(wrappers, mutant).Normalise
    assert any(differs_from_the_formula(layer(spec), spec) for spec in SPECS.values())
