"""The classifiers that can be trained by name. A new one is one new file and its line here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sightline.errors import UsageError
from sightline_training.recipe import Recipe
from sightline_training.recipes.asl import ASL
from sightline_training.recipes.asl_cnn import ASL_CNN
from sightline_training.recipes.asl_mlp import ASL_MLP
from sightline_training.recipes.bo import BO
from sightline_training.recipes.cifar10 import CIFAR10
from sightline_training.recipes.doggy_door import DOGGY_DOOR
from sightline_training.recipes.folder import FOLDER
from sightline_training.recipes.fruit import FRUIT
from sightline_training.recipes.imagenet import IMAGENET
from sightline_training.recipes.mnist import MNIST

RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType(
    {recipe.name: recipe for recipe in (MNIST, ASL_MLP, ASL_CNN, ASL, CIFAR10, IMAGENET, DOGGY_DOOR, BO, FRUIT, FOLDER)}
)


def recipe_named(name: str) -> Recipe:
    """The recipe of that name. Raises UsageError, listing the known ones, if there is none."""
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name}. Known recipes: {', '.join(sorted(RECIPES))}.")
    return RECIPES[name]
