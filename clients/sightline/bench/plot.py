"""Draws throughput against latency: how much longer each answer takes for each image more that is answered in a second."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

from sightline.bench.settings import Measurement
from sightline.errors import MissingExtra
from sightline.host.text import one_line, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI: Final = 120
INCHES: Final = (8.0, 5.0)
NAMES: Final = {"grpc": "gRPC", "http": "HTTP"}
MARKERS: Final = {"grpc": "o", "http": "s"}


def demand_matplotlib() -> None:
    """Raise MissingExtra if matplotlib is not installed."""
    try:
        import matplotlib as mpl  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra(
            "the plot of a benchmark needs matplotlib: pip install 'sightline[score]', or name a .json or .csv file with --out"
        ) from None


def throughput_against_latency(rows: Sequence[Measurement], subject: str, form: Literal["png", "svg"]) -> bytes:
    """Return the figure as a file: PNG, or SVG, whose letters stay letters and whose bytes depend on the rows alone."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sightline"}):
        figure = _figure(rows, subject)
        FigureCanvasAgg(figure)
        figure.savefig(content, format=form, dpi=DPI, metadata={"Date": None} if form == "svg" else None)
    return content.getvalue()


def _figure(rows: Sequence[Measurement], subject: str) -> "Figure":
    """A line for each protocol and size of batch, from the smallest concurrency to the largest; p50 full, p95 dashed."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.subplots()
    batches = sorted({row.batch for row in rows})
    for number, (protocol, batch) in enumerate(dict.fromkeys((row.protocol, row.batch) for row in rows)):
        line = sorted((row for row in rows if (row.protocol, row.batch) == (protocol, batch)), key=lambda row: row.concurrency)
        rates = [row.images_per_s for row in line]
        name = NAMES.get(protocol, protocol) + (f", batch {batch}" if len(batches) > 1 or batch > 1 else "")
        axes.errorbar(
            rates,
            [row.p50_ms for row in line],
            xerr=[row.images_per_s * row.spread_percent / 100 for row in line],
            color=f"C{number}",
            marker=MARKERS.get(protocol, "o"),
            capsize=3,
            linewidth=1.8,
            label=name,
        )
        axes.plot(rates, [row.p95_ms for row in line], color=f"C{number}", marker=".", linestyle="--", linewidth=1)
        for row in line:
            axes.annotate(
                f"{row.concurrency}", (row.images_per_s, row.p50_ms), (5, -12), textcoords="offset points", fontsize=8, color=f"C{number}"
            )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlim(left=0)
    axes.set_xlabel("images/s (numbers: requests under way at a time; bars: how far the windows lay apart)")
    axes.set_ylabel("latency of a request in ms (full: p50, dashed: p95)")
    axes.set_title(one_line(printable(subject), 80) or "throughput against latency")
    axes.grid(visible=True, alpha=0.25)
    if rows:
        axes.legend(fontsize=8)
    return figure
