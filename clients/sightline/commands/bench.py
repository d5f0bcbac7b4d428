"""`sightline bench`: throughput and latency of a served model, on real images, over both protocols, and where an image's time goes."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.bench import BenchSettings, Load
from sightline.commands.options import Server, access_options, options_as
from sightline.errors import RepositoryError, UsageError

if TYPE_CHECKING:
    from sightline.bench import BenchDocument
    from sightline.card import ModelCard
    from sightline.repository.golden import GoldenSet


@dataclass(frozen=True)
class BenchPaths:
    """Whom to measure, with which images, and what becomes of the result."""

    images: Path | None
    repository: Path
    grpc_url: str
    http_url: str
    out: Path | None
    old: Path | None

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


@dataclass(frozen=True)
class WaySettings:
    """In how many threads images are taken from their files to their answers."""

    threads: tuple[int, ...]
    left_out: bool


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
        help="Where the golden images and their published answers are.",
    ),
    click.option("--grpc-url", default="grpc://localhost:8001", show_default=True, help="The server over gRPC; '' leaves it out."),
    click.option("--http-url", default="http://localhost:8000", show_default=True, help="The server over HTTP; '' leaves it out."),
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        help="Also write the result: a .json file, its rows as a .csv file, or a folder with both and the plot (PNG, SVG).",
    ),
    click.option(
        "--compare", "old", type=click.Path(path_type=Path), help="Hold the result to an older one: what --out wrote, file or folder."
    ),
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
    click.option(
        "--batch",
        "batches",
        type=click.IntRange(1),
        multiple=True,
        default=(1,),
        show_default=True,
        help="Images in each request; repeatable.",
    ),
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
@options_as(
    "way",
    WaySettings,
    click.option(
        "--threads",
        type=click.IntRange(1, 256),
        multiple=True,
        default=(1, 4),
        show_default=True,
        help="Threads that take images from their files to their answers, for the split of that way; repeatable.",
    ),
    click.option("--no-files", "left_out", is_flag=True, help="Leave the way from files out."),
)
@access_options
def bench(model: str, paths: BenchPaths, settings: BenchSettings, way: WaySettings, access: Server) -> None:
    """Measure MODEL with NVIDIA's perf_analyzer, fed with real images and held to the expected answers.

    A server that answers wrongly fails, with exit code 9: the published answers to the golden images must come before anything is
    measured, and under load the answers that the server gave to each image alone.

    Then image files are taken to their answers one by one, and the time is split: read, decode, reformat, serialise, network, queue,
    compute.
    """
    from sightline.bench import compare, demand_writable, find_perf_analyzer, read, write
    from sightline.bench.run import demand_batches
    from sightline.commands.bench_tables import show, show_comparison
    from sightline.console import messages
    from sightline.transport.headers import SECRET

    find_perf_analyzer()
    urls = paths.urls()
    folder = paths.folder(model, settings.version)
    if paths.out is not None:
        demand_writable(paths.out)
    old = None if paths.old is None else read(paths.old)
    # With --check, each address may be another server.
    for url in urls if access.check else urls[:1]:
        with access.at(url).opened(model, version=settings.version) as classifier:
            card, version = classifier.card, classifier.served_version()
    demand_batches(card, settings)
    sent = [access.at(url).headers_sent() for url in urls]
    settings = replace(settings, version=version, headers=sent[0], tls=access.tls)
    if SECRET & set(settings.headers):
        messages().print("note: perf_analyzer takes the token as an argument, which every user of this machine can read while it runs")
    document = _measured(card, version, folder, paths, settings, way)
    show(document)
    if paths.out is not None:
        write(document, paths.out)
    if old is not None:
        show_comparison(compare(old, document), str(paths.old))


def _measured(
    card: "ModelCard", version: str, folder: Path, paths: BenchPaths, settings: BenchSettings, way: WaySettings
) -> "BenchDocument":
    from sightline.bench import BenchDocument, describe, end_to_end
    from sightline.bench import bench as measure
    from sightline.bench.settings import MOST_IMAGES
    from sightline.console import messages
    from sightline.scoring import images_below

    urls, console = paths.urls(), messages()
    files = [file for file, _ in zip(images_below(folder), range(MOST_IMAGES), strict=False)]
    golden, precision = published(paths.repository, card, version)
    environment = describe(card, urls, settings, precision)
    with console.status("starting perf_analyzer") as status:

        def progress(protocol: str, load: Load) -> None:
            sentence = f"measuring {protocol}, {load}"
            status.update(sentence)
            if not console.is_terminal:
                console.print(sentence)

        def progress_of_way(protocol: str, load: Load) -> None:
            progress(f"from files over {protocol}", load)

        rows = measure(card, files, urls, settings, progress, golden)
        ways = [] if way.left_out else end_to_end(card, files, urls, settings, way.threads, progress_of_way)
    if golden is None and not all(served.has_sample for served in environment.served):
        console.print(
            "note: there is no published answer to hold the model to (no golden images of it in --repository, no golden sample on the "
            "server): its answers under load were held to its own alone"
        )
    return BenchDocument(
        schema=1,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        images=len(files),
        source=str(folder),
        window_s=settings.window_s,
        environment=environment,
        rows=tuple(rows),
        end_to_end=tuple(ways),
    )


def published(repository: Path, card: "ModelCard", version: str) -> "tuple[GoldenSet | None, str]":
    """Return the golden images and the precision of a version, if `repository` holds the one that is served; else None and "".

    Raises RepositoryError if its golden images are damaged.
    """
    from sightline.repository.golden import read_golden
    from sightline.repository.layout import golden_folders
    from sightline.repository.read import model_named

    try:
        model = model_named(repository, card.name)
        if model.card.sha256 != card.sha256 or not (version.isascii() and version.isdecimal()):
            return None, ""
        present = model.version(int(version))
    except RepositoryError:
        return None, ""  # another server's
    has_golden = any(folder.parent == present.folder for folder in golden_folders(model.folder))
    precision = present.described.precision if present.described is not None else ""
    return read_golden(present, card) if has_golden else None, precision
