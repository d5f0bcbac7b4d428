"""`sightline train RECIPE`: trains a classifier into a run folder."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sightline_training.train import Device


@click.command(short_help="Train a classifier.")
@click.argument("recipe")
@click.option("--data", metavar="DIR|digits", help="The data folder [default: $SIGHTLINE_DATA, else data/], or `digits`: scikit-learn's.")
@click.option("--run", "folder", type=click.Path(path_type=Path), help="The run folder  [default: runs/NAME, or runs/NAME-augmented].")
@click.option("--name", help="The name that the model is served under  [default: the recipe's].")
@click.option("--backbone", help="A torchvision classifier to build on, such as mobilenet_v2  [default: the recipe's].")
@click.option("--weights", metavar="FILE|RUN|random", help="What the backbone has learned before  [default: torchvision's weights].")
@click.option("--size", type=click.IntRange(16, 1024), help="Pixels a side that a backbone is shown  [default: its weights'].")
@click.option("--every-block", is_flag=True, help="Learn from every block of a backbone's convolutional part, not from the last alone.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Decides all that is drawn at random.")
@click.option("--augment", is_flag=True, help="Train longer, on images distorted anew in every epoch.")
@click.option("--epochs", type=click.IntRange(1, 100_000), help="The most epochs of each stage  [default: the recipe's].")
@click.option("--restart", is_flag=True, help="Delete the run in the folder and begin anew.")
@click.option("--device", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True, help="Where to train.")
def train(
    recipe: str,
    data: str | None,
    folder: Path | None,
    name: str | None,
    backbone: str | None,
    weights: str | None,
    size: int | None,
    every_block: bool,
    seed: int,
    augment: bool,
    epochs: int | None,
    restart: bool,
    device: "Device",
) -> None:
    """Train the classifier RECIPE and write weights, card, report and images into a run folder.

    An interrupted training continues when the same command is run again.
    """
    from sightline.console import results
    from sightline.errors import UsageError
    from sightline_training.progress import talk
    from sightline_training.recipes import recipe_named
    from sightline_training.run.summary import summary
    from sightline_training.train import train as train_recipe

    chosen = recipe_named(recipe)
    stand_in = data is not None and data == chosen.stand_in
    if augment:
        if chosen.augmented is None:
            raise UsageError(f"the recipe {recipe} has no augmented variant: leave out `--augment`.")
        chosen = chosen.augmented
    run_folder = folder or Path("runs", f"{name or recipe}-augmented" if augment else name or recipe)
    try:
        trained = train_recipe(
            chosen,
            run_folder,
            dataset=data if stand_in else None,
            data=Path(data) if data is not None and not stand_in else None,
            seed=seed,
            epochs=epochs,
            restart=restart,
            device=device,
            backbone=backbone,
            weights=weights,
            size=size,
            every_block=every_block,
            name=name,
        )
    except KeyboardInterrupt:
        talk().print(f"stopped. The same command continues from the last finished epoch in {run_folder}.")
        raise
    if not trained.fresh:
        talk().print(f"{run_folder} already holds this run, finished. `--restart` trains it anew.")
    results().print(summary(trained.run))
