"""Prints a benchmark on the terminal: what was measured and where, the rows, the way of an image, and a comparison with an older result."""

from typing import TYPE_CHECKING, Final

from sightline.bench import BenchDocument, Comparison, EndToEnd, Environment, Measurement
from sightline.console import messages, results, table
from sightline.host.text import one_line, printable

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS: Final = ("protocol", "concurrency", "batch", "images/s", "± %", "mean ms", "p50", "p95", "p99", "queue", "compute", "checked")

WAY: Final = (
    "protocol",
    "threads",
    "images/s",
    "± %",
    "wall ms",
    "read",
    "decode",
    "reformat",
    "serialise",
    "network",
    "queue",
    "compute",
    "sum",
)

COMPARED: Final = (
    "protocol",
    "concurrency",
    "batch",
    "images/s old",
    "new",
    "ratio",
    "noise %",
    "",
    "p95 ms old",
    "new",
    "ratio",
    "noise %",
    "",
)


def show(document: BenchDocument) -> None:
    """Print the environment, the rows and the way of an image; on stderr what makes a figure doubtful."""
    console = results()
    if document.environment is not None:
        for line in described(document.environment):
            console.print(line, soft_wrap=True)
    rows = table(*COLUMNS)
    for row in document.rows:
        rows.add_row(*_row(row))
    console.print(rows)
    if document.end_to_end:
        console.print("from image file to answer, an image a request, ms of each image")
        console.print(_ways(document.end_to_end))
    if document.environment is not None and document.environment.machine.was_busy:
        messages().print(f"note: {busy(document.environment)}: the figures are lower, and differ more, than on a quiet machine")
    for doubt in (doubt for way in document.end_to_end for doubt in way.doubts()):
        messages().print(f"note: {doubt}")


def described(environment: Environment) -> list[str]:
    """Return the environment in a few lines."""
    machine = environment.machine
    memory = f", {machine.memory_gib:g} GiB" if machine.memory_gib else ""
    lines = [
        f"client   {machine.processor}, {machine.cores} cores{memory}, {machine.system}, load {machine.load:g}",
        f"         {' '.join(machine.instructions) or machine.architecture}",
        f"         {', '.join(f'{name} {number}' for name, number in environment.versions.items())}",
    ]
    for served in environment.served:
        threads = f" of {served.threads} thread{'s' * (served.threads != '1')}" if served.threads else ""
        where = "" if served.on_this_machine else " (another machine)"
        parts = [
            f"Triton {served.server_version}",
            f"{served.model} version {served.version}",
            served.precision or "precision not known here",
            served.backend,
            f"{served.instances}{threads}",
            f"batching {served.batching}",
            f"card {served.card_sha256[:12]}",
        ]
        lines.append("server   " + one_line(printable(f"{served.url}{where}: {', '.join(part for part in parts if part)}"), 400))
    return lines


def busy(environment: Environment) -> str:
    """Return the words for a machine that was."""
    return f"this machine did other work (load {environment.machine.load:g} on {environment.machine.cores} cores)"


def show_comparison(comparison: Comparison, old: str) -> None:
    """Print both results side by side, and what of the environment is another one."""
    console = results()
    console.print(f"against {one_line(printable(old), 90)}")
    rows = table(*COMPARED)
    for each in comparison.differences:
        before, after = each.old, each.new
        rows.add_row(
            *(after.protocol, str(after.concurrency), str(after.batch)),
            *(f"{before.images_per_s:,.0f}", f"{after.images_per_s:,.0f}", f"{each.rate_ratio:.2f}"),
            *(f"{each.rate_noise_percent:.0f}", each.rate_verdict),
            *(f"{before.p95_ms:.2f}", f"{after.p95_ms:.2f}", f"{each.p95_ratio:.2f}"),
            *(f"{each.p95_noise_percent:.0f}", each.p95_verdict),
        )
    console.print(rows)
    beyond = [each for each in comparison.differences if {each.rate_verdict, each.p95_verdict} != {"within noise"}]
    console.print(f"{len(beyond)} of {len(comparison.differences)} rows differ by more than noise")
    if comparison.only_old or comparison.only_new:
        messages().print(
            f"note: {comparison.only_old} rows of the old result were not measured now, and {comparison.only_new} of the new one not then"
        )
    if comparison.old_was_busy:
        messages().print("note: the old result is from a machine that did other work: its figures may be too low")
    for change in comparison.environment:
        messages().print(f"note: the two were not measured alike: {one_line(printable(change), 200)}")


def _row(row: Measurement) -> tuple[str, ...]:
    times_ms = (row.mean_ms, row.p50_ms, row.p95_ms, row.p99_ms, row.queue_ms, row.compute_ms)
    rate = (f"{row.images_per_s:,.0f}", f"{row.spread_percent:.0f}")
    checked = f"{row.checked:,} {row.check}" if row.check else ""
    return row.protocol, str(row.concurrency), str(row.batch), *rate, *(f"{time_ms:.2f}" for time_ms in times_ms), checked


def _ways(ways: tuple[EndToEnd, ...]) -> "Table":
    rows = table(*WAY)
    for way in ways:
        parts_ms = (
            way.wall_ms,
            way.read_ms,
            way.decode_ms,
            way.reformat_ms,
            way.serialise_ms,
            way.network_ms,
            way.queue_ms,
            way.compute_ms,
        )
        rows.add_row(
            *(way.protocol, str(way.concurrency), f"{way.images_per_s:,.0f}", f"{way.spread_percent:.0f}"),
            *(f"{part_ms:.3f}" for part_ms in parts_ms),
            f"{(way.wall_ms - way.other_ms) / way.wall_ms:.0%}" if way.wall_ms else "",
        )
    return rows
