"""The way of a trained network into a model repository: export, gate, golden images, publish. Each step refuses rather than guesses."""

import hashlib
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.flop_counter import FlopCounterMode

from sightline.card import ModelCard
from sightline.errors import DataError, RepositoryError, UsageError
from sightline.reformat import reformat
from sightline.repository.config import MODEL_FILE, WARM_UP_FILE, config_text, shape_for, warm_batches
from sightline.repository.golden import golden_files
from sightline.repository.image_ensemble import check_image_ensemble, publish_image_ensemble
from sightline.repository.publish import Published, agreed_card, publish
from sightline.repository.read import check_files, read_version, versions
from sightline_export.candidate import Candidate
from sightline_export.gate.checks import THRESHOLDS, Precision
from sightline_export.gate.compare import gate, in_onnx_runtime, in_torch
from sightline_export.gate.speed import side_by_side
from sightline_export.graph.calibration import Calibration, calibration_from
from sightline_export.graph.convert import converted
from sightline_export.graph.torch_to_onnx import OPSET, export_onnx
from sightline_training.run.run import Run, load_run

MOST_IMAGES: Final = 10_000
MOST_BYTES: Final = 128 * 1024 * 1024
"""Of pixels that the gate compares: all 10,000 images of MNIST (8 MB), some 890 of 224 × 224 × 3."""

CALIBRATION: Final = 256
"""Training images that INT8 is calibrated with, if nobody says."""

TOOLS: Final = ("sightline", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True)
class Exported:
    """What became of a candidate."""

    published: Published
    already: bool
    """Whether the newest version was this very model, so that nothing was published."""


def export_run(
    run_folder: Path,
    repository: Path,
    data: Path | None = None,
    *,
    precision: Precision = "fp32",
    calibration: int = CALIBRATION,
    calibration_folder: Path | None = None,
    images: int | None = None,
    again: bool = False,
    image: bool = True,
    notify: Callable[[str], None] = lambda _sentence: None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Exported:
    """Publish the run in `run_folder` as the next version of its model in `repository`, in `precision`.

    INT8 is calibrated with `calibration` of the run's training images, or of those in `calibration_folder`.
    The gate compares up to `images` test images of the run's data (in the data folder `data`), spread evenly; left out, as many
    as MOST_IMAGES and MOST_BYTES allow. If the newest version holds the same ONNX file, unharmed, nothing is published unless
    `again`. With `image`, the model gets its `<model>_image` beside it, if it has none yet. `notify` gets a sentence at each step,
    `progress` the gate's count of answers.

    Raises DataError (the run or its data), GateRefused or RepositoryError; nothing was published then.
    """
    run = load_run(run_folder)
    tested = _tested(run)
    candidate = Candidate(
        card=run.card,
        network=run.network,
        images=lambda _wanted: run.images(run.judged_on, data),
        calibration=lambda card: calibrating(run, card, data, calibration_folder, calibration),
        provenance=_provenance(run, tested),
        reported=None if tested is None else (tested["n"], tested["accuracy"]),
    )
    return export_candidate(
        candidate, repository, precision=precision, images=images, again=again, image=image, notify=notify, progress=progress
    )


def export_candidate(
    candidate: Candidate,
    repository: Path,
    *,
    precision: Precision = "fp32",
    images: int | None = None,
    again: bool = False,
    image: bool = True,
    notify: Callable[[str], None] = lambda _sentence: None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Exported:
    """Publish `candidate` as the next version of its model in `repository`: what `export_run` does, wherever the network comes from.

    Raises what its parts raise, GateRefused or RepositoryError; nothing was published then.
    """
    card = agreed_card(repository, candidate.card, notify)
    if image:
        check_image_ensemble(repository, card)
    network = candidate.network()
    notify(f"exporting {card.name} to ONNX (opset {OPSET})")
    fp32 = export_onnx(network, card)
    images_for_int8 = candidate.calibration(card) if precision == "int8" else None
    if not again and (found := _newest(repository / card.name, precision, fp32, images_for_int8)):
        if image:
            _take_images(repository, card, notify)
        return Exported(found, already=True)
    if precision != "fp32":
        notify(f"converting to {precision}")
    model, conversion = converted(fp32, card, precision, images_for_int8, notify)
    thresholds = THRESHOLDS[precision]
    tried = candidate.images(wanted := images or fitting(card))
    indices = spread(len(tried), wanted)
    notify(f"comparing ONNX Runtime with torch on {len(indices):,} of {len(tried):,} {tried.split} images of {tried.name}")
    pixels, labels = tried.pixels(card.preprocess, indices), tried.labels[indices]
    n, accuracy = candidate.reported or (0, None)
    reported = accuracy if len(indices) == len(tried) == n else None
    verdict = gate(model, network, card, pixels, labels, thresholds=thresholds, reported_accuracy=reported, progress=progress)
    verdict.require(card.name)
    notify("the gate let it pass; publishing")
    # What a server is held to is this file's answers; those of FP32 are the trained network's own.
    answers = in_torch(network) if precision == "fp32" else in_onnx_runtime(model, card)
    golden = golden_files(card, tried.open, tried.labels, answers, thresholds.golden_tolerance)
    shape = shape_for(flop := flop_per_image(network, card))
    report = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "precision": precision,
        "conversion": conversion,
        "against_fp32": None
        if conversion is None
        else {"bytes": len(fp32), "speed": side_by_side({"fp32": fp32, precision: model}, card, pixels, shape.threads)},
        "opset": OPSET,
        "card_sha256": card.sha256,
        "provenance": candidate.provenance,
        "gate": {**verdict.as_json(), "data": {"name": tried.name, "split": tried.split, "fingerprint": tried.fingerprint}},
        "model_bytes": len(model),
        "parameters": sum(each.numel() for each in network.parameters()),
        "flop_per_picture": flop,
        "tools": {"python": platform.python_version(), **{tool: version(tool) for tool in TOOLS}},
    }
    config = config_text(card, shape, warm_batches(card, flop))
    first = reformat(next(content for name, content in golden.items() if name.endswith(".png")), card.preprocess)
    beside = {f"warmup/{WARM_UP_FILE}": first.tobytes()}
    published = publish(repository, card, config, {MODEL_FILE: model, **golden}, report, notify, beside=beside)
    if image:
        _take_images(repository, card, notify)
    return Exported(published, already=False)


def spread(there: int, wanted: int) -> npt.NDArray[np.int64]:
    """Indices of `wanted` of `there` images at equal distances (all of them if there are fewer): data often lies sorted by class."""
    if wanted < 1:
        raise UsageError(f"the gate needs at least one image to compare, not {wanted}")
    return np.arange(there) if wanted >= there else (np.arange(wanted) * there) // wanted


def fitting(card: ModelCard) -> int:
    """How many images the gate compares if nobody says."""
    return max(1, min(MOST_IMAGES, MOST_BYTES // math.prod(card.preprocess.shape)))


def flop_per_image(network: torch.nn.Module, card: ModelCard) -> int:
    """Floating-point operations for one image in matrix products and convolutions, as torch's own counter sees them."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros((1, *card.preprocess.shape), dtype=torch.uint8))
    return int(counter.get_total_flops())


def calibrating(run: Run, card: ModelCard, data: Path | None, folder: Path | None, count: int) -> Calibration:
    """Up to `count` of the run's training images, or of those in `folder`, to calibrate with, and as many others to compare on.

    Raises DataError if there are none, UsageError if it is too few to ask.
    """
    if count < 1:
        raise UsageError(f"INT8 needs at least one image to be calibrated with, not {count}")
    if folder is not None:
        return calibration_from(folder, card, count)
    if "train" not in run.report["dataset"]["splits"]:
        raise DataError(
            f"the run {run.folder} has no training images, and INT8 must be calibrated with some: "
            "name a folder of images such as the model will see with --calibrate-with"
        )
    training = run.images("train", data)
    indices = spread(len(training), 2 * count)
    pixels = training.pixels(card.preprocess, indices)
    if len(pixels) < 2:
        raise DataError(
            f"{training.name} has a single training image: INT8 needs two at least, one to calibrate with and one to compare on"
        )
    return Calibration(f"training images of {training.name}", pixels[::2], pixels[1::2])


def _take_images(repository: Path, card: ModelCard, notify: Callable[[str], None]) -> None:
    made = publish_image_ensemble(repository, card)
    if made:
        notify(f"{made[-1]} takes whole JPEG and PNG files, for clients that cannot reformat by themselves (--no-image leaves it out)")


def _newest(model: Path, precision: Precision, fp32: bytes, calibration: Calibration | None) -> Published | None:
    """The newest version, if it was made of the same FP32 file in the same way and none of its files was changed."""
    sha256 = hashlib.sha256(fp32).hexdigest()
    there = versions(model) if model.is_dir() else []
    if not there:
        return None
    try:
        newest = read_version(model / str(there[-1]))
        if newest.report.get("precision") != precision:
            return None
        if precision == "fp32":
            if newest.files.get(MODEL_FILE) != sha256:
                return None
        elif not _made_so(newest.report.get("conversion"), sha256, calibration):
            return None
        check_files(newest)
    except RepositoryError:
        return None  # damaged: publishing anew is the remedy
    return Published(model.name, newest.number, newest.folder, newest.report)


def _made_so(conversion: object, fp32_sha256: str, calibration: Calibration | None) -> bool:
    if not isinstance(conversion, dict) or conversion.get("from_sha256") != fp32_sha256:
        return False
    with_images = conversion.get("calibration")
    return calibration is None or (isinstance(with_images, dict) and with_images.get("sha256") == calibration.sha256)


def _tested(run: Run) -> Mapping[str, Any] | None:
    """What the training run found on the images it was judged on: split, n, accuracy (0..1), its 95 % interval. Raises DataError.

    None if nobody knows what those images show.
    """
    accuracy = run.report.get("accuracy")
    if isinstance(accuracy, dict) and run.judged_on in accuracy and accuracy[run.judged_on] is None:
        return None
    tested = accuracy.get(run.judged_on) if isinstance(accuracy, dict) else None
    if not isinstance(tested, dict) or not all(isinstance(tested.get(key), int | float) for key in ("n", "accuracy")):
        raise DataError(
            f"the report of the run {run.folder} says nothing of its accuracy on the {run.judged_on} images. Train again with `--restart`."
        )
    return {"split": run.judged_on, **{key: tested.get(key) for key in ("n", "accuracy", "interval_95")}}


def _provenance(run: Run, tested: Mapping[str, Any] | None) -> dict[str, Any]:
    """Where a version comes from, in terms that mean the same on every machine: no paths."""
    report = run.report
    return {
        "run": run.folder.resolve().name,
        "recipe": report["recipe"],
        "seed": report.get("seed"),
        "trained": report.get("written"),
        "weights_sha256": run.weights_sha256,
        "card_sha256": run.card.sha256,
        "dataset": report["dataset"],
        "judged": tested,
        "backbone": report["backbone"],
        "settings": report.get("settings"),
        "versions": report.get("versions"),
        "hardware": report.get("hardware"),
    }
