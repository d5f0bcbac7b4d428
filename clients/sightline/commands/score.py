"""`sightline score`: a CSV row for every image of a folder."""

from pathlib import Path

import click

from sightline.commands.options import Server, max_pixels_option, model_options, options_as, version_option
from sightline.errors import RowsFailed
from sightline.scoring import ScoreSettings


@click.command(short_help="Score a folder of images: a CSV row for each.")
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The CSV file to write.")
@options_as(
    "settings",
    ScoreSettings,
    click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="How many classes to write for each image."),
    click.option(
        "--workers", type=click.IntRange(1, 64), help="Threads that read images and ask the server.  [default: 2 for each core, at most 8]"
    ),
    click.option("--overwrite", is_flag=True, help="Replace the file if it exists."),
)
@max_pixels_option
@version_option
@model_options
def score(model: str, folder: Path, out: Path, settings: ScoreSettings, max_pixels: int, version: str, server: Server) -> None:
    """Score every image below FOLDER with MODEL: one row per image, the broken ones included.

    An image that cannot be read gets a row with the reason and no label; the command then ends with exit code 16. The row of an
    image on which there is nothing to read says so in its last column, remark.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from sightline.console import messages
    from sightline.scoring import images_below, score_folder

    with server.opened(model, version=version, max_pixels=max_pixels) as classifier:
        columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=messages()) as bar:
            task = bar.add_task("scoring", total=sum(1 for _ in images_below(folder)))
            summary = score_folder(classifier, folder, out, settings, progress=lambda rows: bar.advance(task, rows))
        card_sha256 = classifier.card.sha256
    click.echo(
        f"{summary.rows} rows in {summary.out} ({summary.broken} with an error; {summary.remarked} with a remark; "
        f"{summary.passed_over} other files passed over; card {card_sha256[:12]})"
    )
    if summary.broken:
        raise RowsFailed(f"{summary.broken} of {summary.rows} images could not be read: their rows in {summary.out} say why")
