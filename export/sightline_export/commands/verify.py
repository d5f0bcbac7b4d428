"""`sightline verify`: the hop-by-hop proof, as a table."""

from pathlib import Path

import click


@click.command(short_help="Prove, hop by hop, that a model answers the same everywhere.")
@click.argument("model")
@click.option(
    "--run", "run_folder", type=click.Path(path_type=Path), help="The run that the model was exported from.  [default: runs/MODEL]"
)
@click.option(
    "--repository", type=click.Path(path_type=Path), default=Path("model_repository"), show_default=True, help="Where it was published."
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="The data folder with the test images.  [default: SIGHTLINE_DATA, else data/]"
)
@click.option("--images", "limit", type=click.IntRange(1), help="Compare the first N test images only.  [default: all]")
@click.option("--grpc-url", default="grpc://localhost:8001", show_default=True, help="The server over gRPC.")
@click.option("--http-url", default="http://localhost:8000", show_default=True, help="The server over HTTP.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True, help="Seconds each call may take."
)
def verify(
    model: str,
    run_folder: Path | None,
    repository: Path,
    data: Path | None,
    limit: int | None,
    grpc_url: str,
    http_url: str,
    timeout_s: float,
) -> None:
    """Prove that MODEL gives the same answer everywhere: trainer, ONNX file, gRPC, HTTP.

    Prints one row per hop. Ends with exit code 14, naming the first hop where two answers part, if any do.
    """
    from rich.progress import Progress
    from rich.text import Text

    from sightline.console import messages, results, table
    from sightline_export.verify.hops import DIFFERS, SAME
    from sightline_export.verify.hops import verify as prove

    with Progress(console=messages(), transient=True) as bar:
        task = bar.add_task("comparing", total=None)
        proof = prove(
            model,
            run_folder or Path("runs") / model,
            repository,
            grpc_url=grpc_url,
            http_url=http_url,
            data=data,
            limit=limit,
            timeout_s=timeout_s,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    rows = table("hop", "images", "same", "max |Δ|", "verdict")
    rows.columns[-1].justify = "left"
    for hop in proof.hops:
        counted = (f"{hop.images:,}", f"{hop.agreeing:,}", f"{hop.max_delta:.2g}") if hop.images else ("", "", "")
        rows.add_row(hop.name, *counted, Text(hop.verdict, style={SAME: "green", DIFFERS: "bold red"}.get(hop.verdict, "yellow")))
    results().print(rows)
    proof.check()
    click.echo(f"{model} version {proof.version}: same picture, same answer, at every hop")
