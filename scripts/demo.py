"""The whole line, once, for a newcomer: train, export, serve, classify, verify. `make demo` runs it.

Every step is a command that the newcomer could have typed, and is shown before it runs. Real MNIST is used if it is in the data
folder or can be fetched, else scikit-learn's bundled digits; the summary says which.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image, ImageOps
from rich.console import Console

from sightline.errors import DataError, SightlineError
from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS
from sightline_training.run.run import Run, load_run

BIN = Path(sys.executable).parent
RUN, IMAGES, REPOSITORY = Path("runs/mnist"), Path("runs/demo-images"), Path("model_repository")

notify = Console(highlight=False, soft_wrap=True)


def main(folder: Path) -> int:
    """Run the line in `folder`; the exit code is that of the first command that fails."""
    os.chdir(folder)
    began = time.monotonic()
    try:
        digits = train()
        sightline("export", str(RUN))
        run = load_run(RUN)
        images = draw_images(run)
        with start_server(REPOSITORY, FREE_PORTS) as server:
            notify.rule("serve", align="left")
            notify.print(f"Triton {server.triton} answers at {server.grpc_url} and {server.http_url}")
            sightline("models", "--url", server.grpc_url)
            for url in (server.grpc_url, server.http_url):
                sightline("classify", "mnist", *map(str, images), "--top", "2", "--url", url)
            sightline("verify", "mnist", "--grpc-url", server.grpc_url, "--http-url", server.http_url)
    except subprocess.CalledProcessError as error:
        return error.returncode
    except SightlineError as error:
        notify.print(f"error: {error}", style="bold red", markup=False)
        return error.exit_code
    summarise(run, digits, time.monotonic() - began)
    return 0


def train() -> bool:
    """Train on MNIST, or on the bundled digits if MNIST cannot be had. Returns whether it was the digits."""
    # A demo that was shown on the digits goes on with them, also when it is called again.
    if RUN.exists() and (RUN / "report.json").exists() and load_run(RUN).report.dataset.name == "digits":
        sightline("train", "mnist", "--data", "digits")
        return True
    try:
        sightline("train", "mnist")
    except subprocess.CalledProcessError as error:
        if error.returncode != DataError.exit_code:
            raise
        notify.print(
            "\nMNIST is not here and could not be fetched. The demo goes on with scikit-learn's bundled digits: "
            "1,797 real handwritten digits of 8 × 8 pixels. Everything works the same; the accuracy says nothing about MNIST.\n",
            style="bold yellow",
        )
        shutil.rmtree(RUN, ignore_errors=True)
        sightline("train", "mnist", "--data", "digits")
        return True
    return False


def sightline(*arguments: str) -> None:
    """Show a command, then run it. Raises CalledProcessError if it fails; the command itself has said why."""
    notify.rule(arguments[0], align="left")
    notify.print(f"$ sightline {' '.join(arguments)}", style="bold", markup=False)
    subprocess.run([BIN / "sightline", *arguments], check=True)


def draw_images(run: Run) -> list[Path]:
    """Write a few test images as a client would have them: as they are, and one as ink on white paper, scanned sideways."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    tests = run.images(run.judged_on, None)
    written = []
    for digit in (0, 3, 7, 8):
        index = int((tests.labels == digit).argmax())
        path = IMAGES / f"{digit}.png"
        tests.open(index).save(path)
        written.append(path)
    upright = ImageOps.invert(Image.open(written[2]).convert("L")).resize((560, 560), Image.Resampling.BICUBIC)
    scan = IMAGES / "7_ink_on_paper_scanned_sideways.jpg"
    exif = Image.Exif()
    exif[274] = 6  # turn clockwise to see it upright
    paper = upright.point(lambda value: 30 + value * 225 // 255).convert("RGB")
    paper.transpose(Image.Transpose.ROTATE_90).save(scan, quality=90, exif=exif)
    return [*written, scan]


def summarise(run: Run, digits: bool, seconds: float) -> None:
    """Say what happened and where things lie."""
    notify.rule("done", align="left")
    data = "scikit-learn's bundled digits (MNIST could not be had)" if digits else "MNIST"
    accuracy = run.report.judged_accuracy
    if accuracy is not None:
        notify.print(f"Trained on {data}: {accuracy.accuracy:.2%} of {accuracy.n:,} test images. All of it took {seconds:.0f} s.")
    places = {"the run, with its report and images": RUN, "the published model": REPOSITORY / "mnist", "the images": IMAGES}
    for what, where in places.items():
        notify.print(f"  {what:<40} {where}/")
    notify.print("Serve it:     make serve")
    notify.print(f"Then ask it:  .venv/bin/sightline classify mnist {IMAGES}/*")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent)))
