"""`sightline finalize`: a published version becomes a TensorRT plan for the GPU of this machine, if the gate lets it."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.commands.options import options_as
from sightline.errors import UsageError
from sightline.repository.tensorrt_plan import Hardware
from sightline_export.settings import FinalizeSettings, ImageSelection, PlanSettings

if TYPE_CHECKING:
    from sightline_export.engine.finalize import Finalized


def _settings(
    opt_batch: int | None, timing_cache: Path | None, hardware: Hardware, version_compatible: bool, again: bool
) -> FinalizeSettings:
    plan = PlanSettings(hardware=hardware, version_compatible=version_compatible)
    return FinalizeSettings(opt_batch=opt_batch, timing_cache=timing_cache, plan=plan, again=again)


@click.command(short_help="Build a model's TensorRT plan on the machine that serves it.")
@click.argument("model")
@click.option(
    "--repository", type=click.Path(path_type=Path), default=Path("model_repository"), show_default=True, help="The model repository."
)
@click.option("--version", "number", type=click.IntRange(1), help="The version to build from  [default: the newest that is served].")
@click.option("--run", help="Hold the plan to the test images of this run too  [default: to the golden images alone].")
@options_as(
    "selection",
    ImageSelection,
    click.option("--data", type=click.Path(path_type=Path), help="The data folder of --run  [default: $SIGHTLINE_DATA, else data/]."),
    click.option(
        "--images",
        "limit",
        type=click.IntRange(1),
        help="How many test images of --run  [default: all up to 10,000, fewer if large].",
    ),
)
@options_as(
    "settings",
    _settings,
    click.option("--opt-batch", type=click.IntRange(1), help="The batch to be fastest at  [default: half of the card's largest]."),
    click.option(
        "--timing-cache",
        type=click.Path(path_type=Path, dir_okay=False),
        help="TensorRT's timing cache  [default: in $SIGHTLINE_CACHE, else ~/.cache/sightline].",
    ),
    click.option(
        "--hardware-compatibility",
        "hardware",
        type=click.Choice(["none", "ampere-plus", "same-compute-capability"]),
        default="none",
        show_default=True,
        help="Other GPUs that may load the plan too; it may be slower.",
    ),
    click.option("--version-compatible", is_flag=True, help="Let newer TensorRTs load it; it then brings code along, and may be slower."),
    click.option("--again", is_flag=True, help="Build it even if this very plan is there."),
)
def finalize(
    model: str, repository: Path, number: int | None, run: str | None, selection: ImageSelection, settings: FinalizeSettings
) -> None:
    """Build a TensorRT plan of MODEL for the first GPU of this machine, prove it, and put it beside the version it was built from.

    A plan that does not give the ONNX file's answers, or that does not compute in the file's precision, is refused. `sightline serve`
    uses a plan where it fits the machine, and ONNX Runtime elsewhere. Not yet run on TensorRT hardware: see docs/tensorrt.md.
    """
    from rich.console import Console

    from sightline_export.engine.finalize import finalize as build

    if run is None and selection != ImageSelection():
        raise UsageError("--data and --images say which images of a run: name the run with --run")
    images = None
    if run is not None:
        from sightline_export.commands.run_folder import run_folder
        from sightline_export.sources.run import images_of_run

        images = partial(images_of_run, run_folder(run), selection)
    talk = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    finalized = build(repository, model, number, settings, images=images, notify=talk.print)
    if finalized.already:
        talk.print(f"nothing was built: {finalized.plan.place} is this very plan (--again builds it anew)")
    out = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, markup=False)
    for name, text in _rows(finalized).items():
        out.print(f"{name:<9}{text}")


def _rows(finalized: "Finalized") -> dict[str, str]:
    record = finalized.plan.record
    fingerprint, gate = record.fingerprint, record.gate
    shares = ", ".join(f"{share:.0%} {dtype}" for dtype, share in record.realised.items())
    return {
        "model": f"{record.model} version {record.version}, {record.precision}",
        "built": f"{fingerprint.gpu} ({fingerprint.compute_capability}), TensorRT {fingerprint.tensorrt}, CUDA {fingerprint.cuda}, "
        f"driver {fingerprint.driver}",
        "batches": f"{record.profile.minimum} to {record.profile.maximum}, fastest at {record.profile.optimum}",
        "computes": f"{shares}; TF32 off",
        "gate": f"passed {len(gate.checks)} checks on {gate.images:,} images",
        "seconds": f"{record.build_seconds:.1f}",
        "folder": str(finalized.plan.folder),
    }
