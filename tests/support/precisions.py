"""A network of the digits in other precisions, and harmed ones; and the gate's verdict about a file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from sightline.card import ModelCard
from sightline_export.candidate import ExportCandidate
from sightline_export.gate.checks import Verdict
from sightline_export.gate.compare import ComparedImages, ask_torch, gate
from sightline_export.graph.calibration import Calibration
from sightline_export.graph.convert import Conversion, convert
from sightline_export.graph.runtimes import in_torch
from sightline_export.graph.sealing import sealed
from sightline_export.precisions import PRECISIONS
from sightline_export.sources.run import candidate_from_run, load_run
from sightline_training.datasets.image_set import ImageSet
from support.digits import Trained

SURE: float = 0.9
"""Of an image whose most probable class is as probable as that, no processor's 8-bit arithmetic changes the label: those with 8-bit
instructions have 8 bits for weights, the others 7 (`sightline.host.cpu`), and an image that the network is undecided about may tip on
one of them alone. One of 360 costs more accuracy than the gate allows."""


def sure_images(trained: Trained) -> ComparedImages:
    """The test images that the network is sure of."""
    sure = in_torch(trained.network)(trained.pixels).max(axis=1) > SURE
    assert sure.sum() > 200
    return ComparedImages(trained.pixels[sure], trained.labels[sure])


def surely_classified(run_folder: Path) -> ExportCandidate:
    """A run as a candidate, compared on the test images that its network is sure of."""
    run = load_run(run_folder)
    images = run.images("test")
    probabilities = in_torch(run.network())(images.pixels(run.card.preprocess))
    sure = np.flatnonzero(probabilities.max(axis=1) > SURE)
    assert len(sure) > 200
    subset = ImageSet(images.name, images.split, images.labels[sure], images.fingerprint, lambda index: images.open(int(sure[index])))
    return replace(candidate_from_run(run), images=lambda _most: subset, reported=None)


def calibration(trained: Trained) -> Calibration:
    return Calibration("tests", trained.pixels[:100], trained.pixels[100:200])


def conversion(trained: Trained, precision: str, images: Calibration | None) -> Conversion:
    converter = PRECISIONS[precision].load_converter()
    assert converter is not None
    return convert(trained.model, trained.card, converter, images, lambda _sentence: None)


def in_precision(trained: Trained, precision: str) -> bytes:
    """The network's file, converted."""
    return conversion(trained, precision, calibration(trained) if PRECISIONS[precision].needs_calibration else None).model


def verdict_on(
    model: bytes,
    network: torch.nn.Module,
    card: ModelCard,
    images: ComparedImages,
    precision: str = "fp32",
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Verdict:
    """The gate's verdict on a file, as the export asks for it."""
    spec, count = PRECISIONS[precision], len(images)
    reference = ask_torch(network, card, images, lambda done: progress(done, 2 * count))
    return gate(
        model,
        card,
        images,
        reference,
        thresholds=spec.thresholds,
        weights=spec.weights,
        progress=lambda done: progress(count + done, 2 * count),
    )


def images_of(trained: Trained, reported_accuracy: float | None = None) -> ComparedImages:
    return ComparedImages(trained.pixels, trained.labels, reported_accuracy)


def judged(model: bytes, trained: Trained, precision: str) -> Verdict:
    return verdict_on(model, trained.network, trained.card, images_of(trained), precision)


def scaled(model: bytes, trained: Trained, factor: float) -> bytes:
    """The file with the last layer's weights, of whatever type, times `factor`; those in integers through their scales."""
    proto = onnx.load_from_string(model)
    for tensor in proto.graph.initializer:
        values: npt.NDArray[Any] = numpy_helper.to_array(tensor)
        wide = values.ndim == 2 and values.shape[0] == 10 and values.dtype != np.int8
        if wide or (values.dtype == np.float32 and values.shape == (10,) and "scale" in tensor.name):
            tensor.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), tensor.name))
    return sealed(proto, trained.card)
