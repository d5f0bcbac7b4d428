"""Every model of the courses through the whole line: train, export, serve, verify, classify. `make models` runs it.

Each step is a command that one could type, and is shown before it runs. What is finished and up to date is not done again; a
training that was interrupted goes on. A model whose images or weights cannot be had is named at the end, the others are made.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress, TaskID

from sightline import Classifier
from sightline.errors import SightlineError, UsageError
from sightline.host.files import read_json, write_atomically
from sightline_export.settings import Endpoints
from sightline_export.verify.hops import HopKind
from sightline_export.verify.prove import verify
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS
from sightline_training.datasets import data_root
from sightline_training.run.json_text import json_text
from sightline_training.run.run import load_run

BIN: Final = Path(sys.executable).parent
RUNS, REPOSITORY = Path("runs"), Path("model_repository")
LINE: Final = RUNS / "line.json"
"""What serving and verifying gave, for docs/models.md."""
MAX_LINE_BYTES: Final = 1024 * 1024

MOBILENET: Final = ("--backbone", "mobilenet_v2", "--weights", "{data}/weights/mobilenet_v2_imagenet.safetensors")
"""The ImageNet weights that the data folder holds. Without them torchvision's VGG16 is asked for, which needs a network."""
TRUNK: Final = ("--backbone", "vgg16_bn", "--weights", "runs/cifar10", "--size", "64", "--every-block")
"""Our own VGG16: its first blocks know more of fruit than its last, which knows ten kinds of vehicles and animals."""

notify = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Job:
    """One run to be made, and whether it is published."""

    run: str
    arguments: tuple[str, ...]
    """Of `sightline train`."""
    published: bool = True


MODELS: Final = (
    Job("mnist", ("mnist",)),
    Job("mnist-augmented", ("mnist", "--augment"), published=False),
    Job("asl_mlp", ("asl_mlp",)),
    Job("asl_cnn", ("asl_cnn",)),
    Job("asl", ("asl",)),
    Job("asl-seed1", ("asl", "--seed", "1"), published=False),
    Job("asl-seed2", ("asl", "--seed", "2"), published=False),
    Job("imagenet", ("imagenet", *MOBILENET)),
    Job("doggy_door", ("doggy_door", *MOBILENET)),
    Job("bo", ("bo", *MOBILENET)),
    Job("fruit", ("fruit", *MOBILENET)),
)
OWN_VGG16: Final = (
    Job("cifar10", ("cifar10",)),
    Job("fruit-cifar10", ("fruit", *TRUNK, "--name", "fruit-cifar10")),
    Job("bo-cifar10", ("bo", *TRUNK, "--name", "bo-cifar10")),
)
"""Hours on two cores, so only when asked for."""


def main(folder: Path, *, own_vgg16: bool) -> int:
    """Make all models in `folder`; 0, or the exit code of the first command that failed."""
    os.chdir(folder)
    began = time.monotonic()
    failed: dict[str, int] = {}
    jobs = (*MODELS, *(OWN_VGG16 if own_vgg16 else ()))
    for job in jobs:
        code = made(job)
        if code:
            failed[job.run] = code
            notify.print(f"{job.run} was not made (exit code {code}); the others go on.\n", style="bold yellow")
    served = [job for job in jobs if job.published and job.run not in failed]
    try:
        if served:
            with start_server(REPOSITORY, FREE_PORTS) as server:
                prove(served, server)
    except SightlineError as error:
        notify.print(f"error: {error}", style="bold red", markup=False)
        return error.exit_code
    notify.rule("done", align="left")
    notify.print(f"{len(jobs) - len(failed)} of {len(jobs)} runs are there, after {time.monotonic() - began:.0f} s.")
    notify.print("Their page, docs/models.md, is written by: make models-page")
    if failed:
        notify.print(f"Not made: {', '.join(failed)}. The reasons stand above.", style="bold yellow")
    return next(iter(failed.values()), 0)


def made(job: Job) -> int:
    """Train a run and publish it, as far as that is still to do. Gives the exit code of the command that failed, else 0."""
    run = RUNS / job.run
    arguments = [argument.format(data=data_root(None)) for argument in job.arguments]
    if "--weights" in arguments and not Path(arguments[arguments.index("--weights") + 1]).exists():
        # Without the file there is torchvision's own VGG16 to be had, on a machine with a network.
        arguments = arguments[: arguments.index("--backbone")]
    code = sightline("train", *arguments, "--run", str(run))
    if code == UsageError.exit_code and (run / "report.json").is_file():
        notify.print("The recipe has changed since that run: training anew.", style="yellow")
        code = sightline("train", *arguments, "--run", str(run), "--restart")
    return code or (sightline("export", str(run)) if job.published else 0)


def sightline(*arguments: str) -> int:
    """Show a command, run it, give its exit code."""
    notify.rule(" ".join(arguments[:2]), align="left")
    notify.print(f"$ sightline {' '.join(arguments)}", style="bold", markup=False)
    return subprocess.run([BIN / "sightline", *arguments], check=False).returncode


def show(bar: Progress, task: TaskID, done: int, total: int) -> None:
    """Move the bar on."""
    bar.update(task, completed=done, total=total)


def prove(jobs: list[Job], server: Server) -> None:
    """Compare each published model hop by hop on the running server, and ask `asl` about the photos; keep the figures in LINE."""
    notify.rule("serve, verify, classify", align="left")
    # What was proven of models that are not made this time stays.
    line: dict[str, Any] = {"models": {}} | (read_json(LINE, MAX_LINE_BYTES) if LINE.is_file() else {})
    for job in jobs:
        model = load_run(RUNS / job.run).card.name
        with Progress(console=notify, transient=True, disable=not notify.is_terminal) as bar:
            task = bar.add_task(model)
            proof = verify(
                model,
                RUNS / job.run,
                REPOSITORY,
                Endpoints(grpc_url=server.grpc_url, http_url=server.http_url, timeout_s=300.0),
                progress=partial(show, bar, task),
            )
        proof.check()
        answers = [hop for hop in proof.hops if hop.kind is HopKind.ANSWERS]
        line["models"][job.run] = {
            "model": model,
            "version": proof.version,
            "triton": server.triton,
            "hops": len(proof.hops),
            "pictures": answers[0].images,
            "max_delta_p": {hop.route: hop.max_delta for hop in answers},
        }
        notify.print(f"{model} version {proof.version}: the same at all {len(proof.hops)} hops, {answers[0].images:,} images")
    photos = sorted((data_root(None) / "asl_photos").glob("?.png"))
    if photos and any(job.run == "asl" for job in jobs):
        line["asl_photos"] = asked_about(photos, server)
    write_atomically(LINE, json_text(line))


def asked_about(photos: list[Path], server: Server) -> list[dict[str, Any]]:
    """What the served `asl` says of each colour photo, whose file is named after its letter."""
    with Classifier("asl", url=server.grpc_url) as asl:
        guesses = list(asl.classify(photos))
    right = sum(guess.label.lower() == photo.stem.lower() for guess, photo in zip(guesses, photos, strict=True))
    notify.print(f"asl: {right} of {len(photos)} colour photos right, reformatted by the client")
    return [
        {"letter": photo.stem.upper(), "answer": guess.label, "probability": guess.probability}
        for guess, photo in zip(guesses, photos, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent, own_vgg16="--own-vgg16" in sys.argv[1:]))
