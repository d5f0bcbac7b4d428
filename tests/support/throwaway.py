"""A precision and a source that exist in the tests alone, named as any new one would be: a module and a line in a registry."""

import numpy as np
import onnx
from onnx import numpy_helper
from torch import nn

from sightline.card import ModelCard
from sightline_export.graph.calibration import Calibration
from sightline_export.graph.convert import Conversion, Notify
from sightline_export.sources.imported_model import ImportedModel, ImportRequest, seeded
from sightline_export.sources.settled_preprocess import PreprocessClaim, settle
from sightline_training.networks.library_transforms import Transform, preprocess_from


def to_rounded(model: bytes, card: ModelCard, calibration: Calibration | None, notify: Notify) -> Conversion:
    """Weights are rounded to 12 bits of mantissa, and stay float32."""
    proto = onnx.load_from_string(model)
    for tensor in proto.graph.initializer:
        if len(tensor.dims) > 1:
            bits = numpy_helper.to_array(tensor).view(np.uint32) & np.uint32(0xFFFFF800)
            tensor.CopyFrom(numpy_helper.from_array(bits.view(np.float32), tensor.name))
    notify("rounding")
    return Conversion(proto.SerializeToString(deterministic=True), {"bits": 12})


def from_pocket(request: ImportRequest) -> ImportedModel:
    """A network of two layers with random weights, called whatever is asked for."""
    transform = Transform(
        whose="the pocket", size=(16, 16), fit="stretch", resample="bilinear", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
    return ImportedModel(
        source=f"pocket:{request.named}",
        body=seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 3))),
        preprocess=settle(PreprocessClaim(preprocess_from(transform), "as the pocket says"), request.stated),
        labels=request.labels or ("left", "right", "lost"),
        weights=request.weights or "random",
        weights_sha256="ab" * 32,
        settings={},
    )
