"""`sightline classify`: labels for images, from a server."""

import json
import sys
from pathlib import Path

import click

from sightline.commands.options import Server, server_options, version_option
from sightline.errors import ImageError, SightlineError


@click.command(short_help="Label images.")
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="How many classes to show for each image.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of a table.")
@version_option
@server_options
def classify(model: str, images: tuple[Path, ...], top: int, as_json: bool, version: str, server: Server) -> None:
    """Say what MODEL sees in each of the IMAGES.

    An image that cannot be read gets no label: it is reported on stderr, the others are still answered, and the command ends
    with exit code 3.
    """
    from sightline.classifier import Classifier

    broken = 0
    width = max(len(str(image)) for image in images)
    with Classifier(model, server.url, version=version, timeout_s=server.timeout_s, tls=server.tls) as classifier:
        for image, outcome in zip(images, classifier.stream(images, top), strict=True):
            if isinstance(outcome, SightlineError):
                broken += 1
                click.echo(f"error: {outcome}", err=True)
                if as_json:
                    click.echo(json.dumps({"image": str(image), "error": str(outcome)}))
            elif as_json:
                top_list = [{"label": c.label, "probability": c.probability, "index": c.index} for c in outcome.top]
                click.echo(
                    json.dumps({"image": str(image), "model": model, "version": outcome.version, "top": top_list}, ensure_ascii=False)
                )
            else:
                shown = "   ".join(f"{c.label}  {c.probability:.4f}" for c in outcome.top)
                click.echo(f"{image!s:<{width}}  {shown}")
            sys.stdout.flush()
    if broken:
        raise ImageError(f"{broken} of {len(images)} images could not be read; they got no label")
