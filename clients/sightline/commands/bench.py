"""`sightline bench`: throughput and latency of a served model, on real images, over both protocols."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from sightline.errors import UsageError


@click.command(short_help="Measure a served model with perf_analyzer.")
@click.argument("model")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of images to send.  [default: the model's golden images in --repository]",
)
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=Path("model_repository"),
    show_default=True,
    help="Where the golden images are.",
)
@click.option("--grpc-url", default="grpc://localhost:8001", show_default=True, help="The server over gRPC; '' leaves it out.")
@click.option("--http-url", default="http://localhost:8000", show_default=True, help="The server over HTTP; '' leaves it out.")
@click.option(
    "--concurrency",
    "concurrencies",
    type=click.IntRange(1, 1024),
    multiple=True,
    default=(1, 4, 16),
    show_default=True,
    help="Requests under way at a time; repeatable.",
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images in each request.")
@click.option(
    "--window",
    "window_s",
    type=click.FloatRange(0.5, 60),
    default=2.0,
    show_default=True,
    help="Seconds of each of the 3 windows.",
)
@click.option("--version", "version", default="", metavar="N", help="Version of the model; the server chooses if it is left out.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Also write the rows as JSON to this file.")
def bench(
    model: str,
    images: Path | None,
    repository: Path,
    grpc_url: str,
    http_url: str,
    concurrencies: tuple[int, ...],
    batch: int,
    window_s: float,
    version: str,
    out: Path | None,
) -> None:
    """Measure MODEL with NVIDIA's perf_analyzer, fed with real images."""
    from sightline.bench import bench as measure
    from sightline.bench import find_perf_analyzer
    from sightline.classifier import Classifier
    from sightline.console import messages, results, table
    from sightline.scoring import images_below

    find_perf_analyzer()
    urls = [url for url in (grpc_url, http_url) if url]
    if not urls:
        raise UsageError("there is no server to measure: give --grpc-url or --http-url")
    folder = images or _golden(repository, model, version)
    with Classifier(model, urls[0], version=version) as classifier:
        card = classifier.card
    console = messages()
    with console.status("starting perf_analyzer") as status:

        def progress(protocol: str, concurrency: int) -> None:
            status.update(f"measuring {protocol}, concurrency {concurrency}")
            if not console.is_terminal:
                console.print(f"measuring {protocol}, concurrency {concurrency}")

        rows = measure(
            card,
            images_below(folder),
            urls,
            version=version,
            concurrencies=concurrencies,
            batch=batch,
            window_s=window_s,
            progress=progress,
        )
    shown = table("protocol", "concurrency", "batch", "images/s", "± %", "mean ms", "p50", "p95", "p99", "queue", "compute")
    for row in rows:
        times = [f"{value:.2f}" for value in (row.mean_ms, row.p50_ms, row.p95_ms, row.p99_ms, row.queue_ms, row.compute_ms)]
        rate = (f"{row.images_per_s:,.0f}", f"{row.spread_percent:.0f}")
        shown.add_row(row.protocol, str(row.concurrency), str(row.batch), *rate, *times)
    results().print(shown)
    if out is not None:
        out.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


def _golden(repository: Path, model: str, version: str) -> Path:
    folders = [folder for folder in (repository / model).glob(f"{version or '*'}/golden") if folder.parent.name.isdigit()]
    if not folders:
        raise UsageError(f"{repository / model}: there are no golden images of this model: say which images to send with --images FOLDER")
    return max(folders, key=lambda folder: int(folder.parent.name))
