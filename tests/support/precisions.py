"""A network of the digits in other precisions, and harmed ones; and the gate's verdict about a file."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from sightline.card import ModelCard
from sightline_export.gate.checks import Verdict
from sightline_export.gate.compare import ComparedImages, ask_torch, gate
from sightline_export.graph.calibration import Calibration
from sightline_export.graph.convert import Conversion, convert
from sightline_export.graph.sealing import sealed
from sightline_export.precisions import PRECISIONS
from support.digits import Trained


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
        values: npt.NDArray[np.generic] = numpy_helper.to_array(tensor)
        wide = values.ndim == 2 and values.shape[0] == 10 and values.dtype != np.int8
        if wide or (values.dtype == np.float32 and values.shape == (10,) and "scale" in tensor.name):
            tensor.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), tensor.name))
    return sealed(proto, trained.card)
