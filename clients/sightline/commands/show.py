"""`sightline show`: an image beside the pixels that a model gets of it, as a PNG file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from sightline.commands.options import Server, max_pixels_option, model_options, options_as, version_option
from sightline.errors import ContractError, MachineError, UsageError

if TYPE_CHECKING:
    from sightline.card import ModelCard
    from sightline.classifier import Guess

CLASSES: Final = 3
"""How many of the most probable ones are written below."""


@dataclass(frozen=True)
class Drawing:
    """What to draw, and where."""

    out: Path
    card_file: Path | None
    overwrite: bool
    max_pixels: int


@click.command(short_help="Draw an image beside what a model sees of it.")
@click.argument("model")
@click.argument("image", type=click.Path(path_type=Path))
@options_as(
    "drawing",
    Drawing,
    click.option("--out", type=click.Path(path_type=Path), required=True, help="The PNG file to write."),
    click.option(
        "--card",
        "card_file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The card.json of MODEL, of a run folder or a repository: then no server is asked, and no guess given.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace the file if it exists."),
    max_pixels_option,
)
@version_option
@model_options
def show(model: str, image: Path, drawing: Drawing, version: str, server: Server) -> None:
    """Draw IMAGE as it is, and beside it the pixels that MODEL gets of it, enlarged; below, how they were made and the model's answer.

    Where an answer is wrong this shows whether the model was given what you see: upright, whole, and the right way round in its colours.
    """
    from sightline.reformatting import reformat

    out = drawing.out
    _check(out, image, drawing.overwrite)
    if drawing.card_file is not None:
        card = _card_in(drawing.card_file, model)
        _write(image, card, f"as the card {drawing.card_file} says; no server was asked", drawing)
        click.echo(f"{out}: {image} as {model} gets it")
        return
    with server.opened(model, version=version) as classifier:
        pixels = reformat(image, classifier.card.preprocess, drawing.max_pixels)
        (guess,) = classifier.classify_pixels(pixels[None], CLASSES)
        _write(image, classifier.card, _answer(guess, f"{model} version {guess.version} on {classifier.url}"), drawing)
    click.echo(f"{out}: {image} as {model} gets it: {guess.label}  {guess.probability:.4f}")
    if guess.remark:
        click.echo(f"note: {image}: {guess.remark}", err=True)


def _answer(guess: "Guess", who: str) -> str:
    classes = ", ".join(f"{entry.label} {entry.probability:.4f}" for entry in guess.top)
    return f"{who} answers: {classes}" + (f". But {guess.remark}" if guess.remark else "")


def _write(image: Path, card: "ModelCard", note: str, drawing: Drawing) -> None:
    from sightline.host.files import reason_of, replacing
    from sightline.seen import side_by_side

    sheet = side_by_side(image, card.preprocess, [note], drawing.max_pixels)
    try:
        with replacing(drawing.out) as file:
            sheet.save(file, format="PNG")
    except OSError as error:
        raise MachineError(f"{drawing.out}: the image cannot be written: {reason_of(error)}") from None


def _card_in(path: Path, model: str) -> "ModelCard":
    from sightline.card import MAX_SEALED_BYTES, unseal
    from sightline.host.files import read_bytes, reason_of

    try:
        content = read_bytes(path, MAX_SEALED_BYTES)
    except OSError as error:
        raise ContractError(f"{path}: the card cannot be read: {reason_of(error)}") from None
    card = unseal(content, str(path))
    if card.name != model:
        raise UsageError(f"{path}: the card is that of {card.name}, not of {model}")
    return card


def _check(out: Path, image: Path, overwrite: bool) -> None:
    if out.suffix.lower() != ".png":
        raise UsageError(f"{out}: it is written as PNG, so the file's name must end with .png")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: there is no such folder to write {out.name} in")
    if out.is_dir() or (out.exists() and not overwrite):
        raise UsageError(f"{out}: the file exists already: choose another name, or overwrite it")
    if out.exists() and image.exists() and out.samefile(image):
        raise UsageError(f"{out}: this is the image itself: choose another name")
