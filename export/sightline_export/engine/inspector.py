"""Reads from TensorRT's engine inspector the precision that was really built: a plan that is called FP16 and computes in FP32 is refused.

What the inspector writes differs between versions of TensorRT, and NVIDIA does not document it. What is read here is seen in public
outputs: TensorRT 8 and 9 (NVIDIA/TensorRT, trt-engine-explorer/examples; issue 4020) say `Row major linear FP32` and
`"Weights": {"Type": "Half"}`, TensorRT 10 (issue 4397) says `Half` and names the ONNX nodes of a fused layer in `Metadata`.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from types import MappingProxyType
from typing import Final

from sightline_export.gate.checks import Check, at_least, exactly
from sightline_export.gate.thresholds import DtypeShare

DTYPES: Final = MappingProxyType(
    {
        "int8": "int8",
        "fp8": "float8",
        "e4m3": "float8",
        "half": "float16",
        "fp16": "float16",
        "bf16": "bfloat16",
        "bfloat16": "bfloat16",
        "float": "float32",
        "fp32": "float32",
    }
)
"""A word of the inspector → the type's name in numpy; the narrowest first. Pixels and indices are of other types."""
NARROWEST: Final = tuple(dict.fromkeys(DTYPES.values()))

COMPUTES: Final = re.compile(r"conv|gemm|matrixmultiply|matmul|fullyconnected", re.IGNORECASE)
"""In the kind of a layer: CaskConvolution, CaskConvActPool, CaskGemmMatrixMultiply, gemm …"""
MOVES: Final = re.compile(r"reformat|noop|constant|shuffle|signal|wait|shapehostcopy", re.IGNORECASE)
"""In the kind of a layer that takes a tensor from one form to another, though its name may be that of the layer that it does it for."""
ONNX_LAYER: Final = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


def inspected_precisions(layers: str, onnx_layers: Collection[str] = ()) -> dict[str, float]:
    """Return the share of the computing layers (matrix products, convolutions) by the type that they compute in, from the inspector's text.

    `onnx_layers` are the names of the ONNX file's Conv, Gemm and MatMul nodes: a fused layer that contains one computes too. A
    float32 layer whose tactic uses TF32 counts as `tf32`. Empty if the text tells nothing about layers.
    """
    counted = Counter(_dtype_of(layer) for layer in _computing(layers, frozenset(onnx_layers)))
    return {dtype: count / counted.total() for dtype, count in sorted(counted.items())}


def check_inspected(wanted: DtypeShare, shares: dict[str, float]) -> Check:
    """Check whether enough of a plan's computing layers have the type that its precision is named after."""
    if not shares:
        return exactly("computing layers that the engine inspector tells of", "none", "some")
    return at_least(f"share of the computing layers in {wanted.dtype}", shares.get(wanted.dtype, 0.0), wanted.least)


def _computing(layers: str, onnx_layers: frozenset[str]) -> Iterator[dict[str, object]]:
    try:
        content = json.loads(layers)
    except (ValueError, RecursionError):
        return
    entries = content.get("Layers") if isinstance(content, dict) else None
    for layer in entries if isinstance(entries, list) else []:
        # Without detailed profiling verbosity a layer is its name only.
        if not isinstance(layer, dict):
            continue
        kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}"
        if MOVES.search(kind) and not COMPUTES.search(str(layer.get("ParameterType", ""))):
            continue
        fused = ONNX_LAYER.findall(str(layer.get("Metadata", "")))
        if COMPUTES.search(kind) or onnx_layers.intersection(fused):
            yield layer


def _dtype_of(layer: dict[str, object]) -> str:
    weights = layer.get("Weights")
    formats = [weights.get("Type")] if isinstance(weights, dict) else []
    if not _dtypes(formats):
        inputs = layer.get("Inputs")
        formats = [tensor.get("Format/Datatype") for tensor in inputs if isinstance(tensor, dict)] if isinstance(inputs, list) else []
    dtypes = _dtypes(formats)
    dtype = next((dtype for dtype in NARROWEST if dtype in dtypes), "unknown")
    return "tf32" if dtype == "float32" and "tf32" in str(layer.get("TacticName", "")).lower() else dtype


def _dtypes(formats: Sequence[object]) -> set[str]:
    words = {word.lower() for text in formats for word in re.findall(r"[A-Za-z0-9]+", str(text))}
    return {DTYPES[word] for word in words & DTYPES.keys()}
