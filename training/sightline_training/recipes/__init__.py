"""The classifiers that can be trained by name. A new one is one new file and its line here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sightline.errors import UsageError
from sightline_training.recipe import Recipe
from sightline_training.recipes.mnist import MNIST

RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType({recipe.name: recipe for recipe in (MNIST,)})


def recipe_named(name: str) -> Recipe:
    """The recipe of that name. Raises UsageError, listing the known ones, if there is none."""
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name}. Known recipes: {', '.join(sorted(RECIPES))}.")
    return RECIPES[name]
