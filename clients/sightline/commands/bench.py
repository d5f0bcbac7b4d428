"""`sightline bench`: throughput and latency of a served model, on real images, over both protocols."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click

from sightline.bench import BenchSettings, Measurement
from sightline.commands.options import Server, access_options, options_as
from sightline.errors import MachineError, UsageError

COLUMNS: Final = ("protocol", "concurrency", "batch", "images/s", "± %", "mean ms", "p50", "p95", "p99", "queue", "compute")


@dataclass(frozen=True)
class BenchPaths:
    """Whom to measure, and with which images."""

    images: Path | None
    repository: Path
    grpc_url: str
    http_url: str

    def urls(self) -> list[str]:
        """The servers to measure. Raises UsageError if there is none."""
        urls = [url for url in (self.grpc_url, self.http_url) if url]
        if not urls:
            raise UsageError("there is no server to measure: give --grpc-url or --http-url")
        return urls

    def folder(self, model: str, version: str) -> Path:
        """The folder of the images. Raises UsageError if none was named and the repository has no golden images of the model."""
        if self.images is not None:
            return self.images
        from sightline.repository.layout import golden_folders

        folders = [folder for folder in golden_folders(self.repository / model) if version in ("", folder.parent.name)]
        if not folders:
            raise UsageError(
                f"{self.repository / model}: there are no golden images of this model: say which images to send with --images FOLDER"
            )
        return folders[-1]


@click.command(short_help="Measure a served model with perf_analyzer.")
@click.argument("model")
@options_as(
    "paths",
    BenchPaths,
    click.option(
        "--images",
        type=click.Path(path_type=Path),
        help="Folder of images to send.  [default: the model's golden images in --repository]",
    ),
    click.option(
        "--repository",
        type=click.Path(path_type=Path),
        default=Path("model_repository"),
        show_default=True,
        help="Where the golden images are.",
    ),
    click.option("--grpc-url", default="grpc://localhost:8001", show_default=True, help="The server over gRPC; '' leaves it out."),
    click.option("--http-url", default="http://localhost:8000", show_default=True, help="The server over HTTP; '' leaves it out."),
)
@options_as(
    "settings",
    BenchSettings,
    click.option(
        "--concurrency",
        "concurrencies",
        type=click.IntRange(1, 1024),
        multiple=True,
        default=(1, 4, 16),
        show_default=True,
        help="Requests under way at a time; repeatable.",
    ),
    click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images in each request."),
    click.option(
        "--window",
        "window_s",
        type=click.FloatRange(0.5, 60),
        default=2.0,
        show_default=True,
        help="Seconds of each of the 3 windows.",
    ),
    click.option("--version", "version", default="", metavar="N", help="Version of the model; the server chooses if it is left out."),
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Also write the rows as JSON to this file.")
@access_options
def bench(model: str, paths: BenchPaths, settings: BenchSettings, out: Path | None, access: Server) -> None:
    """Measure MODEL with NVIDIA's perf_analyzer, fed with real images."""
    from pydantic_core import to_json

    from sightline.bench import bench as measure
    from sightline.bench import find_perf_analyzer
    from sightline.console import messages, results, table
    from sightline.host.files import reason_of, write_atomically
    from sightline.scoring import images_below
    from sightline.transport.headers import SECRET

    find_perf_analyzer()
    urls = paths.urls()
    folder = paths.folder(model, settings.version)
    # With --check, each address may be another server.
    for url in urls if access.check else urls[:1]:
        with access.at(url).opened(model, version=settings.version) as classifier:
            card = classifier.card
    sent = [access.at(url).headers_sent() for url in urls]
    settings = replace(settings, headers=sent[0])
    console = messages()
    if SECRET & set(settings.headers):
        console.print("note: perf_analyzer takes the token as an argument, which every user of this machine can read while it runs")
    with console.status("starting perf_analyzer") as status:

        def progress(protocol: str, concurrency: int) -> None:
            status.update(f"measuring {protocol}, concurrency {concurrency}")
            if not console.is_terminal:
                console.print(f"measuring {protocol}, concurrency {concurrency}")

        measurements = measure(card, images_below(folder), urls, settings, progress=progress)
    rows = table(*COLUMNS)
    for measurement in measurements:
        rows.add_row(*_row(measurement))
    results().print(rows)
    if out is not None:
        try:
            write_atomically(out, to_json(measurements, indent=2).decode() + "\n")
        except OSError as error:
            raise MachineError(f"{out}: the rows cannot be written: {reason_of(error)}") from None


def _row(row: Measurement) -> tuple[str, ...]:
    times_ms = (row.mean_ms, row.p50_ms, row.p95_ms, row.p99_ms, row.queue_ms, row.compute_ms)
    rate = (f"{row.images_per_s:,.0f}", f"{row.spread_percent:.0f}")
    return row.protocol, str(row.concurrency), str(row.batch), *rate, *(f"{time_ms:.2f}" for time_ms in times_ms)
