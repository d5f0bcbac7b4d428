"""`sightline train RECIPE`: trains a classifier into a run folder."""

from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

import click

from sightline.commands.options import options_as, options_named
from sightline.errors import UsageError
from sightline_training.settings import MAX_EPOCHS, MAX_SEED, MAX_SIZE_PX, MIN_SIZE_PX, DeviceChoice, TrainSettings

OPTIONS: Final = {
    "folder": "--run",
    "dataset": "--data digits",
    "data": "--data DIR",
    "seed": "--seed",
    "epochs": "--epochs",
    "restart": "--restart",
    "device": "--device",
    "backbone": "--backbone",
    "weights": "--weights",
    "weights_key": "--weights-key",
    "size": "--size",
    "every_block": "--every-block",
    "name": "--name",
}
"""What the command calls the settings that an error names."""

_settings_options = options_as(
    "settings",
    TrainSettings,
    click.option("--name", help="The name that the model is served under  [default: the recipe's]."),
    click.option("--backbone", help="A torchvision classifier to build on, such as mobilenet_v2  [default: the recipe's]."),
    click.option("--weights", metavar="FILE|RUN|random", help="What the backbone has learned before  [default: torchvision's weights]."),
    click.option("--weights-key", metavar="KEY", help="Which entry of a checkpoint is meant, such as state_dict_ema, if several could be."),
    click.option(
        "--size", type=click.IntRange(MIN_SIZE_PX, MAX_SIZE_PX), help="Pixels a side that a backbone gets  [default: its weights']."
    ),
    click.option("--every-block", is_flag=True, help="Learn from every block of a backbone's convolutional part, not from the last alone."),
    click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True, help="Decides all that is drawn at random."),
    click.option("--epochs", type=click.IntRange(1, MAX_EPOCHS), help="The most epochs of each stage  [default: the recipe's]."),
    click.option("--restart", is_flag=True, help="Delete the run in the folder and begin anew."),
    click.option("--device", type=click.Choice(get_args(DeviceChoice)), default="auto", show_default=True, help="Where to train."),
)


@click.command(short_help="Train a classifier.")
@click.argument("recipe")
@click.option("--data", metavar="DIR|digits", help="The data folder [default: $SIGHTLINE_DATA, else data/], or `digits`: scikit-learn's.")
@click.option("--run", "folder", type=click.Path(path_type=Path), help="The run folder  [default: runs/NAME, or runs/NAME-augmented].")
@click.option("--augment", is_flag=True, help="Train longer, on images distorted anew in every epoch.")
@_settings_options
def train(recipe: str, data: str | None, folder: Path | None, augment: bool, settings: TrainSettings) -> None:
    """Train the classifier RECIPE and write weights, card, report and images into a run folder.

    An interrupted training continues when the same command is run again.
    """
    from sightline.console import messages, results
    from sightline_training.recipes import recipe_named
    from sightline_training.run.summary import summary
    from sightline_training.train import train as train_recipe

    chosen = recipe_named(recipe)
    if data is not None:
        # The name of a dataset, and not of a folder: `./digits` is a folder.
        settings = replace(settings, dataset=data) if data == chosen.stand_in else replace(settings, data=Path(data))
    if augment:
        if chosen.augmented is None:
            raise UsageError(f"the recipe {recipe} has no augmented variant: leave out `--augment`.")
        chosen = chosen.augmented
    name = settings.name or recipe
    run_folder = folder or Path("runs", f"{name}-augmented" if augment else name)
    try:
        with options_named(OPTIONS):
            result = train_recipe(chosen, run_folder, settings)
    except KeyboardInterrupt:
        messages().print(f"stopped. The same command continues from the last finished epoch in {run_folder}.")
        raise
    if not result.fresh:
        messages().print(f"{run_folder} already holds this run, finished. `--restart` trains it anew.")
    results().print(summary(result.run))
