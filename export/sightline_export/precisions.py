"""The precisions that a model can be exported in: a new one is an entry here and its converter.

The command's choices, the gate's thresholds and what a TensorRT plan must compute in all follow from PRECISIONS.
"""

import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sightline.errors import UsageError
from sightline_export.gate.thresholds import FP16, FP32, INT8, DtypeShare, Thresholds

if TYPE_CHECKING:
    from sightline_export.graph.convert import Converter


@dataclass(frozen=True, kw_only=True)
class PrecisionSpec:
    """One precision: of the weights and of most operations. What goes in is uint8 and what comes out float32 in all of them."""

    thresholds: Thresholds
    """What the gate allows, its golden images' tolerance included; they name the precision."""
    converter: str | None
    """`module:function` of its `Converter`, imported when it is first needed; None for the exporter's own precision."""
    needs_calibration: bool = False
    """Whether the converter needs images."""
    weights: DtypeShare | None
    """Of the numbers in the ONNX file's matrices and kernels; None where nothing else can be in it."""
    plan_layers: DtypeShare
    """Of the layers of a TensorRT plan that multiply."""

    @property
    def name(self) -> str:
        """As in `--precision` and in reports."""
        return self.thresholds.precision

    def load_converter(self) -> "Converter | None":
        """Import the converter."""
        if self.converter is None:
            return None
        converter: Converter = pkgutil.resolve_name(self.converter)
        return converter


PRECISIONS: Final[dict[str, PrecisionSpec]] = {
    precision.name: precision
    for precision in (
        PrecisionSpec(thresholds=FP32, converter=None, weights=None, plan_layers=DtypeShare("float32", 1.0)),
        PrecisionSpec(
            thresholds=FP16,
            converter="sightline_export.graph.fp16:to_fp16",
            weights=DtypeShare("float16", 0.9),
            plan_layers=DtypeShare("float16", 0.9),
        ),
        PrecisionSpec(
            thresholds=INT8,
            converter="sightline_export.graph.int8:to_int8",
            needs_calibration=True,
            # What is left in float32 may be large: an MLP's first layer is.
            weights=DtypeShare("int8", 0.25),
            plan_layers=DtypeShare("int8", 0.25),
        ),
    )
}


def precision_named(name: str) -> PrecisionSpec:
    """Return the precision `name`. Raises UsageError, which names those that there are."""
    try:
        return PRECISIONS[name]
    except KeyError:
        raise UsageError(f"there is no precision {name!r:.40}, only {', '.join(PRECISIONS)}") from None
