"""The card's arithmetic is the network's first layer, once, whatever comes in."""

import numpy as np
import pytest
import torch
from torch import nn

from sightline.card import ModelCard
from sightline_training.networks.backbones import Backbone
from sightline_training.networks.wrappers import Answering, Network, Normalise, probabilities_of
from sightline_training.recipe import Recipe
from sightline_training.recipes import RECIPES
from sightline_training.recipes.mnist import CARD
from sightline_training.run.run import Run

COLOUR = CARD.preprocess.model_copy(
    update={"mode": "RGB", "size": (5, 7), "background": (0, 0, 0), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
)


def test_normalising_is_what_the_card_says_channel_by_channel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    expected = (pixels / 255.0 - np.array(COLOUR.mean)) / np.array(COLOUR.std)
    normalised = Normalise(COLOUR)(torch.from_numpy(pixels))
    assert normalised.shape == (3, 3, 5, 7)
    assert normalised.dtype == torch.float32
    assert np.abs(normalised.numpy() - expected.transpose(0, 3, 1, 2)).max() < 1e-5


def test_augmented_floats_are_normalised_like_the_bytes_they_came_from() -> None:
    pixels = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    assert torch.equal(Normalise(COLOUR)(pixels), Normalise(COLOUR)(pixels.float()))


def built(recipe: Recipe) -> nn.Module:
    """The body; on a small backbone where one is needed."""
    return recipe.build(recipe.card, None if recipe.transfer is None else Backbone("mobilenet_v3_small"))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_every_recipe_maps_pixels_of_its_card_to_probabilities_of_its_labels(recipe: Recipe) -> None:
    network = Answering(Network(recipe.card, built(recipe))).eval()
    pixels = np.random.default_rng(1).integers(0, 256, (3, *recipe.card.preprocess.shape), dtype=np.uint8)
    answers = probabilities_of(network, pixels)
    assert answers.shape == (3, len(recipe.card.labels))
    assert np.abs(answers.sum(axis=1) - 1).max() < 1e-6
    assert (answers >= 0).all()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_the_augmented_variant_has_the_same_card_and_the_same_tensors(recipe: Recipe) -> None:
    if recipe.augmented is None:
        pytest.skip("has no augmented variant")
    plain, augmented = (built(variant).state_dict() for variant in (recipe, recipe.augmented))
    assert recipe.augmented.card == recipe.card
    assert {name: tensor.shape for name, tensor in plain.items()} == {name: tensor.shape for name, tensor in augmented.items()}


def test_mnists_network_is_784_512_512_10() -> None:
    layers = [layer for layer in built(RECIPES["mnist"]).modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(784, 512), (512, 512), (512, 10)]


def test_batching_does_not_change_an_answer(digits_run: Run) -> None:
    card: ModelCard = digits_run.card
    pixels = digits_run.images("test").pixels(card.preprocess, range(33))
    network = digits_run.network()
    one_by_one = np.concatenate([probabilities_of(network, pixels[at : at + 1]) for at in range(33)])
    assert np.abs(one_by_one - probabilities_of(network, pixels)).max() < 1e-6
