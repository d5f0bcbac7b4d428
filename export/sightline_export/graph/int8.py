"""The converter to INT8: static QDQ quantisation through ONNX Runtime's own tool, calibrated with images as the network saw them."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from sightline.batches import Pixels, Probabilities, batch_size_for, in_batches
from sightline.card import ModelCard
from sightline.host.cpu import called, integer_instructions
from sightline_export.graph.calibration import Calibration
from sightline_export.graph.convert import Conversion, Notify
from sightline_export.graph.layers import before_first_layer, layers
from sightline_export.graph.quiet import quiet
from sightline_export.graph.runtimes import in_onnx_runtime

QUANTISED: Final = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul"),
    *("Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Relu", "Clip", "Reshape", "Flatten"),
)
"""Operations that ONNX Runtime computes in 8-bit integers, or that pass them on. Softmax stays float32: its results are the answers."""

GOOD_MOVED: Final = 0.01
"""A method that moves less than this share of the probability, on average, is taken without trying the next one."""


@dataclass(frozen=True)
class Method:
    """A method of quantising. The first that is good enough is taken, so the fastest stands first."""

    ranges: CalibrationMethod
    quantises_ends: bool
    """Whether the first and the last layer are quantised too."""

    def __str__(self) -> str:
        """For people and reports: `minmax, first and last layer left in float32`."""
        return f"{self.ranges.name.lower()}{'' if self.quantises_ends else ', first and last layer left in float32'}"


METHODS: Final = tuple(
    Method(ranges, ends) for ranges in (CalibrationMethod.MinMax, CalibrationMethod.Percentile) for ends in (True, False)
)


@dataclass(frozen=True)
class _Trial:
    """A method, the model that it gave, and the share of the probability that it moved."""

    method: Method
    model: bytes
    moved: float
    top_1_agreement: float

    def as_json(self) -> dict[str, object]:
        return {"way": str(self.method), "moved": self.moved, "top_1_agreement": self.top_1_agreement}


def to_int8(model: bytes, card: ModelCard, calibration: Calibration | None, notify: Notify) -> Conversion:
    """Quantise the weights of the serialised ONNX `model` to int8 per channel and activations to uint8 per tensor, in QDQ form.

    The activations of the `calibration` images decide the ranges. On its held-out images METHODS are compared with `model`: by the
    probability that they move, half the sum of |Δp| of an image, on average. On a processor that adds products up in 16 bits (see
    `sightline.host.cpu`) weights get 7 bits, which cannot overflow.
    """
    if calibration is None:
        raise ValueError("quantising to INT8 needs images to be calibrated with")
    proto = onnx.load_from_string(model)
    layer_names = [node.name for node in layers(proto)]
    ends = [layer_names[0], layer_names[-1]]
    expected = _answers(model, card, calibration.held_out)
    trials: list[_Trial] = []
    # Where there is nothing between the first and the last layer, the model without them would be what it was.
    for method in (method for method in METHODS if method.quantises_ends or len(layer_names) > len(ends)):
        left_out = [*before_first_layer(proto), *([] if method.quantises_ends else ends)]
        trial = _try(method, _quantised(model, card, calibration.pixels, method.ranges, left_out), card, calibration.held_out, expected)
        trials.append(trial)
        notify(
            f"int8, {method}: moves {trial.moved:.2%} of the probability on {len(calibration.held_out)} other images, "
            f"{trial.top_1_agreement:.1%} same label"
        )
        if trial.moved <= GOOD_MOVED:
            break
    best = min(trials, key=lambda trial: trial.moved)
    return Conversion(best.model, {"way": str(best.method), "tried": [trial.as_json() for trial in trials], **_notes(calibration)})


def _try(method: Method, quantised: bytes, card: ModelCard, held_out: Pixels, expected: Probabilities) -> _Trial:
    probabilities = _answers(quantised, card, held_out)
    moved = float(np.abs(probabilities.astype(np.float64) - expected).sum(axis=1).mean() / 2)
    return _Trial(method, quantised, moved, float((probabilities.argmax(axis=1) == expected.argmax(axis=1)).mean()))


def _notes(calibration: Calibration) -> Mapping[str, object]:
    instructions = integer_instructions()
    return {
        "weights": f"int8 per channel{'' if instructions else ', 7 bits of it'}",
        "activations": "uint8 per tensor",
        "calibration_pictures": len(calibration.pixels),
        "held_out_pictures": len(calibration.held_out),
        "processor": called(),
        "integer_instructions": list(instructions),
        "seven_bits": not instructions,
    }


class _Reader(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime has no types
    """Hands images to the calibration, a batch at a time."""

    def __init__(self, card: ModelCard, pixels: Pixels) -> None:
        self.name, self.pixels = card.input, pixels
        self.size = max(1, min(16, batch_size_for(card.preprocess.shape)))
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return math.ceil(len(self.pixels) / self.size)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.batches = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        number = next(self.batches, None)
        return None if number is None else {self.name: self.pixels[number * self.size : (number + 1) * self.size]}


def _quantised(model: bytes, card: ModelCard, calibration: Pixels, ranges: CalibrationMethod, left_out: list[str]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="sightline-int8-") as folder, quiet():
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(model)
        quantize_static(
            str(source),
            str(target),
            _Reader(card, calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            reduce_range=not integer_instructions(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=left_out,
            calibrate_method=ranges,
            # Batch by batch: histograms of all activations of all images at once would take gigabytes.
            extra_options={"CalibStridedMinMax": 1, "CalibPercentile": 99.99},
        )
        return target.read_bytes()


def _answers(model: bytes, card: ModelCard, pixels: Pixels) -> Probabilities:
    return in_batches(in_onnx_runtime(model, card), pixels, batch_size_for(card.preprocess.shape))
