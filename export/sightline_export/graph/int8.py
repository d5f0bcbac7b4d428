"""8-bit integers: static QDQ quantisation through ONNX Runtime's own tool, calibrated with training images as the network saw them."""

import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from sightline.card import ModelCard
from sightline.host.cpu import called, integer_instructions
from sightline_export.gate.compare import Pixels, in_onnx_runtime
from sightline_export.graph.layers import before_first_layer, layers
from sightline_training.networks.wrappers import comfortable_batch

QUANTISED: Final = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul"),
    *("Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Relu", "Clip", "Reshape", "Flatten"),
)
"""Operations that ONNX Runtime has in integers, or that pass them on. Softmax stays float32: what it gives are the answers."""

GOOD_MOVED: Final = 0.01
"""A way of quantising that moves less than this share of the probability, on average, is taken without trying the next one."""


@dataclass(frozen=True)
class Way:
    """One way to quantise. The first that is good enough is taken, so the fastest stands first."""

    method: CalibrationMethod
    ends: bool
    """Whether the first and the last layer become integers too."""

    def __str__(self) -> str:
        """For people and reports: `minmax, first and last layer left in float32`."""
        return f"{self.method.name.lower()}{'' if self.ends else ', first and last layer left in float32'}"


WAYS: Final = tuple(Way(method, ends) for method in (CalibrationMethod.MinMax, CalibrationMethod.Percentile) for ends in (True, False))


@dataclass(frozen=True)
class Quantised:
    """A model in integers, and what a report says of its making."""

    model: bytes
    notes: Mapping[str, Any]


def to_int8(
    model: bytes, card: ModelCard, calibration: Pixels, held_out: Pixels, notify: Callable[[str], None] = lambda _sentence: None
) -> Quantised:
    """The serialised ONNX `model` with weights in int8 per channel and activations in uint8 per tensor, in QDQ form.

    `calibration` are the images, uint8 [n, height, width, channels], whose activations decide the ranges. On the images `held_out`
    the ways of WAYS are compared with `model`: by the probability that they move, half the sum of |Δp| of an image, on average.
    On a processor that adds products up in 16 bits (see `sightline.host.cpu`) weights get 7 bits, which cannot overflow.
    """
    exact = integer_instructions()
    proto = onnx.load_from_string(model)
    there = [node.name for node in layers(proto)]
    ends = [there[0], there[-1]]
    expected = _answers(model, card, held_out)
    tried: list[dict[str, Any]] = []
    best: tuple[float, bytes, Way] | None = None
    # Where there is nothing between the first and the last layer, the model without them would be what it was.
    for way in (each for each in WAYS if each.ends or len(there) > len(ends)):
        left_out = [*before_first_layer(proto), *([] if way.ends else ends)]
        quantised = _quantised(model, card, calibration, way.method, left_out, reduce_range=not exact)
        answers = _answers(quantised, card, held_out)
        moved = float(np.abs(answers.astype(np.float64) - expected).sum(axis=1).mean() / 2)
        agreeing = float((answers.argmax(axis=1) == expected.argmax(axis=1)).mean())
        tried.append({"way": str(way), "moved": moved, "top_1_agreement": agreeing})
        notify(f"int8, {way}: moves {moved:.2%} of the probability on {len(held_out)} other images, {agreeing:.1%} same label")
        if best is None or moved < best[0]:
            best = (moved, quantised, way)
        if moved <= GOOD_MOVED:
            break
    if best is None:
        raise AssertionError("WAYS is not empty")
    return Quantised(
        best[1],
        {
            "way": str(best[2]),
            "tried": tried,
            "weights": f"int8 per channel{'' if exact else ', 7 bits of it'}",
            "activations": "uint8 per tensor",
            "calibration_pictures": len(calibration),
            "held_out_pictures": len(held_out),
            "processor": called(),
            "integer_instructions": list(exact),
            "seven_bits": not exact,
        },
    )


class _Reader(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime has no types
    """Hands images to the calibration, a batch at a time."""

    def __init__(self, name: str, pixels: Pixels) -> None:
        self.name, self.pixels = name, pixels
        self.size = max(1, min(16, comfortable_batch(tuple(pixels.shape[1:]))))
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return math.ceil(len(self.pixels) / self.size)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.batches = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        number = next(self.batches, None)
        return None if number is None else {self.name: self.pixels[number * self.size : (number + 1) * self.size]}


def _quantised(
    model: bytes, card: ModelCard, calibration: Pixels, method: CalibrationMethod, left_out: list[str], *, reduce_range: bool
) -> bytes:
    with tempfile.TemporaryDirectory(prefix="sightline-int8-") as folder, _quiet():
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(model)
        quantize_static(
            str(source),
            str(target),
            _Reader(card.input, calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=left_out,
            calibrate_method=method,
            # Batch by batch: histograms of all activations of all images at once would take gigabytes.
            extra_options={"CalibStridedMinMax": 1, "CalibPercentile": 99.99},
        )
        return target.read_bytes()


def _answers(model: bytes, card: ModelCard, pixels: Pixels) -> npt.NDArray[np.float32]:
    ask, size = in_onnx_runtime(model, card), comfortable_batch(card.preprocess.shape)
    return np.concatenate([ask(pixels[start : start + size]) for start in range(0, len(pixels), size)])


@contextmanager
def _quiet() -> Iterator[None]:
    """The tool gives advice on its root logger and prints what it is doing."""
    import io
    from contextlib import redirect_stdout

    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
