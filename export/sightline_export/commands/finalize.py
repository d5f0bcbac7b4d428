"""`sightline finalize`: a published version becomes a TensorRT plan for the GPU of this machine, if the gate lets it."""

import sys
from pathlib import Path

import click

from sightline.repository.tensorrt_plan import Hardware


@click.command(short_help="Build a model's TensorRT plan on the machine that serves it.")
@click.argument("model")
@click.option(
    "--repository", type=click.Path(path_type=Path), default=Path("model_repository"), show_default=True, help="The model repository."
)
@click.option("--version", "number", type=click.IntRange(1), help="The version to build from  [default: the newest that is served].")
@click.option("--run", help="Hold the plan to the test images of this run too  [default: to the golden images alone].")
@click.option("--data", type=click.Path(path_type=Path), help="The data folder of --run  [default: $SIGHTLINE_DATA, else data/].")
@click.option("--images", type=click.IntRange(1), help="How many test images of --run  [default: all up to 10,000, fewer if large].")
@click.option("--opt-batch", type=click.IntRange(1), help="The batch to be fastest at  [default: half of the card's largest].")
@click.option(
    "--timing-cache", type=click.Path(path_type=Path, dir_okay=False), help="TensorRT's timing cache  [default: in ~/.cache/sightline]."
)
@click.option(
    "--hardware-compatibility",
    "hardware",
    type=click.Choice(["none", "ampere-plus", "same-compute-capability"]),
    default="none",
    show_default=True,
    help="Other GPUs that may load the plan too; it may be slower.",
)
@click.option("--version-compatible", is_flag=True, help="Let newer TensorRTs load it; it then brings code along, and may be slower.")
@click.option("--again", is_flag=True, help="Build it even if this very plan is there.")
def finalize(
    model: str,
    repository: Path,
    number: int | None,
    run: str | None,
    data: Path | None,
    images: int | None,
    opt_batch: int | None,
    timing_cache: Path | None,
    hardware: Hardware,
    version_compatible: bool,
    again: bool,
) -> None:
    """Build a TensorRT plan of MODEL for the first GPU of this machine, prove it, and put it beside the version it was built from.

    A plan that does not give the ONNX file's answers, or that does not compute in the file's precision, is refused. `sightline serve`
    uses a plan where it fits the machine, and ONNX Runtime elsewhere. Not yet run on TensorRT hardware: see docs/tensorrt.md.
    """
    from rich.console import Console

    from sightline.errors import UsageError
    from sightline_export.commands.export import run_folder
    from sightline_export.engine.finalize import finalize as build

    if run is None and (data is not None or images is not None):
        raise UsageError("--data and --images say which images of a run: name the run with --run")
    talk = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    done = build(
        repository,
        model,
        number,
        run=None if run is None else run_folder(run),
        data=data,
        images=images,
        opt_batch=opt_batch,
        timing_cache=timing_cache,
        hardware=hardware,
        version_compatible=version_compatible,
        again=again,
        notify=talk.print,
    )
    record = done.plan.record
    if done.already:
        talk.print(f"nothing was built: {done.plan.called} is this very plan (--again builds it anew)")
    made, gate = record.fingerprint, record.gate
    shares = ", ".join(f"{share:.0%} {kind}" for kind, share in record.realised.items())
    rows = {
        "model": f"{record.model} version {record.version}, {record.precision}",
        "built": f"{made.gpu} ({made.compute_capability}), TensorRT {made.tensorrt}, CUDA {made.cuda}, driver {made.driver}",
        "batches": f"{record.profile.minimum} to {record.profile.maximum}, fastest at {record.profile.optimum}",
        "computes": f"{shares}; TF32 off",
        "gate": f"passed {len(gate['checks'])} checks on {gate['pictures']:,} images",
        "seconds": f"{record.build_seconds:.1f}",
        "folder": str(done.plan.folder),
    }
    out = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, markup=False)
    for what, said in rows.items():
        out.print(f"{what:<9}{said}")
