"""A network of the digits in other precisions, and harmed ones."""

import numpy as np
import onnx
from onnx import numpy_helper

from sightline_export.gate.checks import THRESHOLDS, Precision, Verdict
from sightline_export.gate.compare import gate
from sightline_export.graph.calibration import Calibration
from sightline_export.graph.convert import converted
from sightline_export.graph.torch_to_onnx import sealed
from support.digits import Trained


def calibration(trained: Trained) -> Calibration:
    return Calibration("tests", trained.pixels[:100], trained.pixels[100:200])


def made(trained: Trained, precision: Precision) -> bytes:
    model, _ = converted(trained.model, trained.card, precision, calibration(trained), lambda _sentence: None)
    return model


def judged(model: bytes, trained: Trained, precision: Precision) -> Verdict:
    return gate(model, trained.network, trained.card, trained.pixels, trained.labels, thresholds=THRESHOLDS[precision])


def scaled(model: bytes, trained: Trained, factor: float) -> bytes:
    """The file with the last layer's weights, of whatever type, times `factor`; those in integers through their scales."""
    proto = onnx.load_from_string(model)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        wide = values.ndim == 2 and values.shape[0] == 10 and values.dtype != np.int8
        if wide or (values.dtype == np.float32 and values.shape == (10,) and "scale" in tensor.name):
            tensor.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), tensor.name))
    return sealed(proto, trained.card)
