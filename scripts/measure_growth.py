"""How memory and the start grow with the number of served models: copies of one untrained network, with and without `<model>_image`.

    python scripts/measure_growth.py FOLDER [--recipe mnist] [--models 1 --models 4 --models 16 --models 64] [--plot docs/growth.svg]

The models are published in FOLDER, which is used again. PSS of the server's processes at rest, three seconds after all are ready.
"""

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from publish_untrained import untrained, write_noise

from sightline.console import messages, results, table
from sightline_export.pipeline import export_candidate
from sightline_export.settings import ExportSettings
from sightline_serving.process.memory import count, held, mib
from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS

SETTLE_S: Final = 3.0
STARTUP_S: Final = 300.0
KINDS: Final = {True: "with whole image files", False: "pixels alone"}


@dataclass(frozen=True)
class Row:
    """A server over so many models."""

    models: int
    images: bool
    """Whether each takes whole image files too."""
    processes: int
    memory_mib: int
    ready_s: float


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--recipe", default="mnist", show_default=True)
@click.option("--models", "counts", type=click.IntRange(1, 256), multiple=True, default=(1, 4, 16, 64), show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the figures as SVG or PNG.")
def measure(folder: Path, recipe: str, counts: tuple[int, ...], plot: Path | None) -> None:
    """Measure servers over copies of one network, below FOLDER."""
    names = publish(folder / "whole-files", recipe, max(counts))
    without_images(folder / "whole-files", folder / "pixels", names)
    rows = []
    for images, repository in ((True, folder / "whole-files"), (False, folder / "pixels")):
        for models in counts:
            rows.append(served(repository, names[:models], images=images))
            messages().print(f"{models} models, {KINDS[images]}: {rows[-1].memory_mib:,} MiB, ready after {rows[-1].ready_s:.1f} s")
    report = table("models", "", "processes", "MiB at rest", "MiB a model", "ready after, s", left=2)
    for row in rows:
        figures = (f"{row.processes}", f"{row.memory_mib:,}", f"{row.memory_mib / row.models:.0f}", f"{row.ready_s:.1f}")
        report.add_row(str(row.models), KINDS[row.images], *figures)
    results().print(report)
    if plot is not None:
        draw(rows, recipe, plot)


def publish(repository: Path, recipe: str, models: int) -> list[str]:
    """Export the network of a recipe under so many names, as far as they are missing, and return the names."""
    repository.mkdir(parents=True, exist_ok=True)
    names = [f"{recipe}_{number:03}" for number in range(models)]
    with tempfile.TemporaryDirectory(prefix="sightline-untrained-") as scratch:
        write_noise(Path(scratch))
        for name in names:
            if not (repository / name / "card.json").exists():
                export_candidate(untrained(recipe, Path(scratch), name), repository, ExportSettings())
    return names


def without_images(repository: Path, to: Path, names: Sequence[str]) -> None:
    """Copy the models alone, without what takes whole files for them."""
    for name in names:
        if not (to / name).exists():
            shutil.copytree(repository / name, to / name)


def served(repository: Path, names: Sequence[str], *, images: bool) -> Row:
    """Start a server over these models and read what it holds."""
    began_s = time.perf_counter()
    with start_server(repository, replace(FREE_PORTS, models=tuple(names), startup_timeout_s=STARTUP_S)) as server:
        ready_s = time.perf_counter() - began_s
        time.sleep(SETTLE_S)
        shares = held(server.pid)
    return Row(len(names), images, count(shares), mib(shares), ready_s)


def draw(rows: list[Row], recipe: str, file: Path) -> None:
    """Draw memory and start against the number of models."""
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    memory, start = figure.subplots(1, 2)
    for number, (images, name) in enumerate(KINDS.items()):
        line = [row for row in rows if row.images == images]
        models = [row.models for row in line]
        memory.plot(models, [row.memory_mib for row in line], "os"[number] + "-", color=f"C{number}", label=name)
        start.plot(models, [row.ready_s for row in line], "os"[number] + "-", color=f"C{number}", label=name)
    for axes, unit in ((memory, "memory at rest, MiB"), (start, "ready after, s")):
        axes.set(xlabel=f"models ({recipe})", ylabel=unit, xscale="log", yscale="log")
        axes.set_xticks(sorted({row.models for row in rows}), [str(models) for models in sorted({row.models for row in rows})])
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(visible=True, which="both", alpha=0.25)
    memory.legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    measure()
