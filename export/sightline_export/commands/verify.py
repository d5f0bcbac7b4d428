"""`sightline verify`: the hop-by-hop proof, as a table or as a document."""

from pathlib import Path

import click

from sightline.commands.options import options_as
from sightline_export.settings import Endpoints, ImageSelection


@click.command(short_help="Prove, hop by hop, that a model answers the same everywhere.")
@click.argument("model")
@click.option(
    "--run", "run_folder", type=click.Path(path_type=Path), help="The run that the model was exported from.  [default: runs/MODEL]"
)
@click.option(
    "--repository", type=click.Path(path_type=Path), default=Path("model_repository"), show_default=True, help="Where it was published."
)
@options_as(
    "images",
    ImageSelection,
    click.option(
        "--data", type=click.Path(path_type=Path), help="The data folder with the test images.  [default: SIGHTLINE_DATA, else data/]"
    ),
    click.option("--images", "limit", type=click.IntRange(1), help="Compare the first N test images only.  [default: all]"),
)
@options_as(
    "endpoints",
    Endpoints,
    click.option("--grpc-url", default="grpc://localhost:8001", show_default=True, help="The server over gRPC."),
    click.option("--http-url", default="http://localhost:8000", show_default=True, help="The server over HTTP."),
    click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(0, min_open=True),
        default=30.0,
        show_default=True,
        help="Seconds each call may take.",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print the proof as one JSON document instead of a table.")
def verify(model: str, run_folder: Path | None, repository: Path, images: ImageSelection, endpoints: Endpoints, as_json: bool) -> None:
    """Prove that MODEL gives the same answer everywhere: trainer, ONNX file, gRPC, HTTP.

    Prints one row per hop. Ends with exit code 14, naming the first hop where two answers part, if any do.
    """
    from rich.progress import Progress
    from rich.text import Text

    from sightline.console import messages, results, table
    from sightline_export.verify.hops import HopVerdict
    from sightline_export.verify.prove import verify as prove

    with Progress(console=messages(), transient=True) as bar:
        task = bar.add_task("comparing", total=None)
        proof = prove(
            model,
            run_folder or Path("runs") / model,
            repository,
            endpoints,
            images,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        click.echo(proof.model_dump_json(indent=1))
        proof.check()
        return
    verdicts = {
        HopVerdict.SAME: Text("same", style="green"),
        HopVerdict.DIFFERS: Text("DIFFERS", style="bold red"),
        HopVerdict.NOT_REACHED: Text("not reached", style="yellow"),
    }
    rows = table("hop", "images", "same", "max |Δ|", "verdict")
    rows.columns[-1].justify = "left"
    for hop in proof.hops:
        counted = (f"{hop.images:,}", f"{hop.agreeing:,}", f"{hop.max_delta:.2g}") if hop.images else ("", "", "")
        rows.add_row(str(hop), *counted, verdicts[hop.verdict])
    results().print(rows)
    proof.check()
    click.echo(f"{model} version {proof.version}: same picture, same answer, at every hop")
