"""Converts the FP32 graph to another precision, with the converter of that precision.

Precisions are versions of one model: what goes in and comes out, the labels and the preprocessing are the same in all of them, so
clients need not know, and `rollback` goes from one to another.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import onnx

from sightline.card import ModelCard
from sightline_export.graph.calibration import Calibration
from sightline_export.graph.sealing import sealed


@dataclass(frozen=True)
class Conversion:
    """A converted model, and what its version's report says of the conversion."""

    model: bytes = field(repr=False)
    """Serialised ONNX."""
    notes: Mapping[str, object] = field(default_factory=dict)
    """JSON values."""


Notify: TypeAlias = Callable[[str], None]
Converter: TypeAlias = Callable[[bytes, ModelCard, Calibration | None, Notify], Conversion]
"""Makes of a serialised FP32 ONNX model one of another precision; its inputs and outputs keep their names and types."""


def convert(fp32: bytes, card: ModelCard, converter: Converter, calibration: Calibration | None, notify: Notify) -> Conversion:
    """Convert the serialised ONNX model `fp32` of `card` and seal it with the card again. The notes say from which file and images."""
    conversion = converter(fp32, card, calibration, notify)
    notes: dict[str, object] = {"from_sha256": hashlib.sha256(fp32).hexdigest()}
    if calibration is not None:
        notes["calibration"] = {"source": calibration.source, "sha256": calibration.sha256}
    return Conversion(sealed(onnx.load_from_string(conversion.model), card), {**notes, **conversion.notes})
