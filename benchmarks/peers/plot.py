"""Draws the race: requests/s of each server by model and concurrency, the limit in process as a line; and images/s from files."""

import io
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from peers.contenders import CONTENDERS, OURS
from peers.end_to_end import CLIENT, IMAGE, STREAM, TRANSFORMS
from peers.models import KINDS
from peers.report import file_rates
from peers.results import IN_PROCESS, FileTurn, Turn, figure, rates

DPI: Final = 110
OUR_COLOUR: Final = "#d1495b"
GREYS: Final = ("#30638e", "#4f83ab", "#78a5c2", "#003d5b", "#00798c", "#5aa9a3", "#9a8c98", "#c9ada7")


def servers(turns: Sequence[Turn]) -> bytes:
    """Return the figure as PNG: a panel for each model, a group of bars for each concurrency."""
    kinds = [kind for kind in KINDS.values() if any(turn.model == kind.name for turn in turns)]
    names = [name for name in CONTENDERS if any(turn.contender == name and not turn.failure for turn in turns)]
    drawing = Figure(figsize=(9.0, 2.6 * len(kinds) + 0.8), layout="constrained")
    panels = drawing.subplots(len(kinds), squeeze=False)[:, 0]
    for kind, axes in zip(kinds, panels, strict=True):
        groups = [[rates(turns, kind.name, name, each) for name in names] for each in kind.concurrencies]
        limits = [figure(rates(turns, kind.name, IN_PROCESS, each).values()) for each in kind.concurrencies]
        _bars(axes, [[figure(each.values()) for each in group] for group in groups], names)
        tallest = max((bar.highest for group in groups for each in group if (bar := figure(each.values()))), default=1.0)
        axes.set_ylim(0, tallest * 1.25)
        for place, limit in enumerate(limits):
            if limit is None:
                continue
            if limit.median <= tallest * 1.2:
                axes.hlines(limit.median, place - 0.45, place + 0.45, color="black", linewidth=1.2, linestyle="--")
            else:
                axes.annotate(f"in process: {limit.median:,.0f}", (place, tallest * 1.14), ha="center", fontsize=8)
        axes.set_xticks(range(len(groups)), [f"concurrency {each}" for each in kind.concurrencies])
        axes.set_ylabel("requests/s")
        axes.set_title(kind.title.replace("`", ""), fontsize=10, loc="left")
    _legend(drawing, panels[0], "dashed: ONNX Runtime in process, the limit; whiskers: lowest and highest round")
    return _png(drawing)


def files(turns: Sequence[FileTurn]) -> bytes:
    """Return the figure of whole files as PNG: a panel for each kind of photo."""
    photos = list(dict.fromkeys(turn.photos for turn in turns))
    ways = [CLIENT, STREAM, IMAGE, *TRANSFORMS]
    concurrencies = sorted({turn.concurrency for turn in turns if not turn.failure})
    drawing = Figure(figsize=(9.0, 2.6 * len(photos) + 0.8), layout="constrained")
    panels = drawing.subplots(len(photos), squeeze=False)[:, 0]
    for name, axes in zip(photos, panels, strict=True):
        groups = [[figure(file_rates(turns, name, way, each).values()) for way in ways] for each in concurrencies]
        _bars(axes, groups, ways)
        axes.set_xticks(range(len(groups)), [f"concurrency {each}" for each in concurrencies])
        axes.set_ylabel("images/s")
        axes.set_title(name, fontsize=10, loc="left")
    _legend(drawing, panels[0], "MobileNetV2; client and server on the same cores")
    return _png(drawing)


def _bars(axes: Axes, groups: Sequence[Sequence[object]], names: Sequence[str]) -> None:
    from peers.results import Figure as Measured

    width = 0.86 / max(1, len(names))
    for number, name in enumerate(names):
        ours = name == OURS or name in (CLIENT, STREAM, IMAGE)
        shades = {CLIENT: OUR_COLOUR, STREAM: "#e58a97", IMAGE: "#f2c1c8", OURS: OUR_COLOUR}
        colour = shades[name] if ours else GREYS[number % len(GREYS)]
        bars = [(place, group[number]) for place, group in enumerate(groups) if isinstance(group[number], Measured)]
        places = [place - 0.43 + (number + 0.5) * width for place, _ in bars]
        measured = [bar for _, bar in bars if isinstance(bar, Measured)]
        label = CONTENDERS[name].title if name in CONTENDERS else name.replace("`", "")
        axes.bar(places, [bar.median for bar in measured], width * 0.94, color=colour, label=label)
        below, above = [bar.median - bar.lowest for bar in measured], [bar.highest - bar.median for bar in measured]
        axes.errorbar(places, [bar.median for bar in measured], [below, above], fmt="none", ecolor="#444444", elinewidth=0.8)
    axes.grid(visible=True, axis="y", alpha=0.25)
    axes.set_axisbelow(True)


def _legend(drawing: Figure, axes: Axes, title: str) -> None:
    handles, labels = axes.get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, title=title, title_fontsize=8, frameon=False)


def _png(drawing: Figure) -> bytes:
    FigureCanvasAgg(drawing)
    content = io.BytesIO()
    drawing.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()
