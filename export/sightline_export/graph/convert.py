"""From the FP32 graph to the precision that was asked for.

Precisions are versions of one model: what goes in and comes out, the labels and the preprocessing are the same in all of them, so
clients need not know, and `rollback` goes from one to another.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import onnx

from sightline.card import ModelCard
from sightline_export.gate.checks import Precision
from sightline_export.graph.calibration import Calibration
from sightline_export.graph.fp16 import to_float16
from sightline_export.graph.int8 import to_int8
from sightline_export.graph.torch_to_onnx import sealed


def converted(
    model: bytes, card: ModelCard, precision: Precision, calibration: Calibration | None, notify: Callable[[str], None]
) -> tuple[bytes, dict[str, Any] | None]:
    """The FP32 ONNX `model` of `card` in `precision`, sealed with the card again, and what its version's report says of the conversion.

    INT8 needs `calibration` images. FP32 is the export itself, of which there is nothing to say.
    """
    if precision == "fp32":
        return model, None
    made: dict[str, Any] = {"from_sha256": hashlib.sha256(model).hexdigest()}
    if precision == "fp16":
        written = to_float16(model)
    else:
        if calibration is None:
            raise ValueError("integers need images to be calibrated with")
        quantised = to_int8(model, card, calibration.pixels, calibration.held_out, notify)
        written = quantised.model
        made |= {"calibration": {"source": calibration.source, "sha256": calibration.sha256}, **quantised.notes}
    return sealed(onnx.load_from_string(written), card), made
