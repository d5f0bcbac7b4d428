"""`sightline compare`: two versions, models or servers on the same images, for people and as a gate in continuous integration."""

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from sightline.commands.options import Server, max_pixels_option, model_options, options_as
from sightline.compare import CompareSettings, Limits
from sightline.errors import HopDiffers, RowsFailed, UsageError

if TYPE_CHECKING:
    from sightline.classifier import Classifier
    from sightline.compare import Comparison
    from sightline.transport.patience import OnWait

SIDE: Final = re.compile(r"(?P<model>[A-Za-z0-9][A-Za-z0-9_-]{0,63})(:(?P<version>[0-9]{1,19}))?(@(?P<url>\S+))?", re.ASCII)
"""A model's name holds neither `:` nor `@`."""


@dataclass(frozen=True)
class Output:
    """What is printed and written of a comparison."""

    out: Path | None
    overwrite: bool
    as_json: bool


@click.command(short_help="Compare two versions, models or servers on the same images.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.argument("folder", type=click.Path(path_type=Path))
@options_as(
    "settings",
    CompareSettings,
    click.option("--labelled", is_flag=True, help="The first folder below FOLDER says what an image shows: compare the accuracies too."),
    max_pixels_option,
)
@options_as(
    "output",
    Output,
    click.option("--out", type=click.Path(path_type=Path), help="Write each image whose labels differ to this file, .csv or .jsonl."),
    click.option("--overwrite", is_flag=True, help="Replace that file if it exists."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table."),
)
@options_as(
    "limits",
    Limits,
    click.option("--at-most-flips", "flips", type=click.IntRange(0), metavar="N", help="Fail if more than N images get different labels."),
    click.option("--at-most-dp", "delta_p", type=click.FloatRange(0, 1), metavar="X", help="Fail if a probability differs by more than X."),
)
@model_options
def compare(a: str, b: str, folder: Path, settings: CompareSettings, output: Output, limits: Limits, server: Server) -> None:
    """Compare the answers of A and B to every image below FOLDER.

    A and B are MODEL or MODEL:VERSION, each on --url or on a server of its own: mnist:2@http://other:8000. Their labels are matched by
    name. With --at-most-flips or --at-most-dp the command ends with exit code 14 if they differ more; with 16 if images could not be read.
    """
    from sightline.commands.progress import Display
    from sightline.compare import compare as compared
    from sightline.compare import flips_file
    from sightline.compare.flips import demand_writable
    from sightline.console import messages, print_document
    from sightline.scoring import listing

    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder of images")
    if output.out is not None:
        demand_writable(output.out, overwrite=output.overwrite)
    with ExitStack() as stack:
        display = stack.enter_context(Display(listing(folder), messages(), "images"))
        before, after = (stack.enter_context(_opened(text, server, display.waiting)) for text in (a, b))
        _demand_two(before, after)
        keep = stack.enter_context(flips_file(output.out)) if output.out is not None else lambda _: None
        comparison = compared(before, after, folder, settings, keep, display.progress)
    if output.as_json:
        print_document(comparison)
    else:
        from sightline.commands.compare_table import show

        show(comparison)
    for broken in comparison.broken_images:
        messages().print(f"error: {broken.error}")
    if comparison.broken > len(comparison.broken_images):
        messages().print(f"… and {comparison.broken - len(comparison.broken_images):,} more (`--out` lists all)")
    _check(comparison, limits)


def _opened(text: str, server: Server, on_wait: "OnWait") -> "Classifier":
    """Open one side, bound to the version that answers now: one that is published meanwhile answers nothing of it."""
    parts = SIDE.fullmatch(text)
    if parts is None:
        raise UsageError(f"{text}: name a model as MODEL, MODEL:VERSION or MODEL:VERSION@URL, for example mnist:2@http://other:8000")
    there, version = server.at(parts["url"] or server.url), parts["version"] or ""
    if not version:
        with there.opened(parts["model"], on_wait=on_wait) as newest:
            version = newest.served_version()
    return there.opened(parts["model"], version=version, on_wait=on_wait)


def _demand_two(a: "Classifier", b: "Classifier") -> None:
    """Raise UsageError where A and B are one: such a gate would let everything pass."""
    if (a.model, a.version, a.url) == (b.model, b.version, b.url):
        raise UsageError(f"A and B are the same: {a.model} version {a.version} on {a.url}")


def _check(comparison: "Comparison", limits: Limits) -> None:
    from sightline.compare.result import told_apart

    seen = comparison.images + comparison.broken
    beyond = comparison.excess(limits)
    if beyond:
        a, b = told_apart(comparison.a, comparison.b)
        raise HopDiffers(f"{a} and {b} differ more than they may: {'; '.join(beyond)}")
    if comparison.broken:
        raise RowsFailed(f"{comparison.broken:,} of {seen:,} images could not be read, and were not compared")
