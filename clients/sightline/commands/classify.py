"""`sightline classify`: labels for images, from a server."""

from dataclasses import dataclass
from pathlib import Path

import click

from sightline.commands.options import Server, max_pixels_option, model_options, version_option
from sightline.errors import ImageError


@dataclass(frozen=True)
class ClassifiedImage:
    """What --json prints of an image that has a label."""

    image: str
    model: str
    version: str
    """Version of the model that answered."""
    top: tuple[object, ...]
    """`sightline.ClassProbability`, best first."""
    remark: str
    """What makes the answer doubtful: there is nothing to read on the image. Empty if nothing."""


@dataclass(frozen=True)
class RefusedImage:
    """What --json prints of an image that cannot be read."""

    image: str
    error: str


@click.command(short_help="Label images.")
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="How many classes to show for each image.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of a table.")
@max_pixels_option
@version_option
@model_options
def classify(model: str, images: tuple[Path, ...], top: int, as_json: bool, max_pixels: int, version: str, server: Server) -> None:
    """Say what MODEL sees in each of the IMAGES.

    An image that cannot be read gets no label: it is reported on stderr, the others are still answered, and the command ends
    with exit code 3. An image of one colour is answered with "nothing to read here"; what the model says of it stands on stderr,
    and in the document of --json beside the remark.
    """
    from sightline.console import print_document
    from sightline.remarks import NOTHING

    refused = 0
    width = max(len(str(image)) for image in images)
    with server.opened(model, version=version, max_pixels=max_pixels) as classifier:
        for image, guess in zip(images, classifier.stream(images, top), strict=True):
            if isinstance(guess, ImageError):
                refused += 1
                click.echo(f"error: {guess}", err=True)
                if as_json:
                    print_document(RefusedImage(str(image), str(guess)))
            elif as_json:
                print_document(ClassifiedImage(str(image), model, guess.version, guess.top, guess.remark))
            elif guess.remark:
                print(f"{image!s:<{width}}  {NOTHING}", flush=True)
                click.echo(f"note: {image}: {guess.remark}: {guess.label}  {guess.probability:.4f}", err=True)
            else:
                classes = "   ".join(f"{entry.label}  {entry.probability:.4f}" for entry in guess.top)
                print(f"{image!s:<{width}}  {classes}", flush=True)
    if refused:
        raise ImageError(f"{refused} of {len(images)} images could not be read; they got no label")
