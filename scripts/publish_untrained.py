"""Publishes networks of recipes as they are before training: for measurements of memory and speed, which do not depend on what was learnt.

python scripts/publish_untrained.py REPOSITORY mnist asl
"""

import tempfile
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from sightline.console import results
from sightline_export.candidate import ExportCandidate
from sightline_export.graph.calibration import calibration_from
from sightline_export.pipeline import export_candidate
from sightline_export.sources.probe_images import images_below
from sightline_training.networks.wrappers import Answering, Network
from sightline_training.recipes import recipe_named


@click.command()
@click.argument("repository", type=click.Path(file_okay=False, path_type=Path))
@click.argument("recipes", nargs=-1, required=True)
def main(repository: Path, recipes: tuple[str, ...]) -> None:
    """Publish RECIPES, those that need no other network's weights, in REPOSITORY."""
    with tempfile.TemporaryDirectory(prefix="sightline-untrained-") as scratch:
        images = Path(scratch)
        write_noise(images)
        for name in recipes:
            for exported in export_candidate(untrained(name, images), repository):
                results().print(f"{exported.published.folder} is published, untrained")


def write_noise(folder: Path) -> None:
    """Write 64 images of noise to compare on."""
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")


def untrained(name: str, images: Path, served_as: str = "") -> ExportCandidate:
    """Return the network of a recipe, with the weights that it begins with, compared on the images of a folder.

    `served_as` is the model's name; empty is the recipe's.
    """
    recipe = recipe_named(name)
    card = recipe.card.model_copy(update={"name": served_as or recipe.card.name})

    def network() -> torch.nn.Module:
        torch.manual_seed(0)
        return Answering(Network(card, recipe.build(card, None))).eval()

    return ExportCandidate(
        card=card,
        network=network,
        images=lambda most: images_below(images, recipe.card, most),
        calibration=lambda card, settings: calibration_from(images, card, settings.count),
        provenance={"recipe": name, "weights": "untrained"},
    )


if __name__ == "__main__":
    main()
