"""The converter to FP16: most of the graph becomes float16, its inputs and outputs stay, and what float16 cannot hold stays float32."""

from typing import Final

import onnx
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from sightline.card import ModelCard
from sightline_export.graph.calibration import Calibration
from sightline_export.graph.convert import Conversion, Notify
from sightline_export.graph.layers import before_first_layer

IN_FLOAT32: Final = (
    *("Softmax", "LogSoftmax", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Div"),
    *("ReduceMean", "ReduceSum", "ReduceL2", "GlobalAveragePool"),
    *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization"),
)
"""Operations with sums of many terms, quotients or exponentials: float16 ends at 65,504 and has 11 bits."""


def to_fp16(model: bytes, card: ModelCard, calibration: Calibration | None, notify: Notify) -> Conversion:  # noqa: ARG001 - a Converter
    """Convert the serialised ONNX `model` to float16 weights and operations, through ONNX Runtime's own converter.

    Inputs and outputs keep their types. Float32 stay what IN_FLOAT32 names and everything before the first layer: pixels of 0..255
    are normalised there, and an error in that step is an error in every pixel.
    """
    proto = onnx.load_from_string(model)
    converted = convert_float_to_float16(
        proto,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *IN_FLOAT32],
        node_block_list=before_first_layer(proto),
    )
    _keep_float32_outputs(converted)
    # The converter appends its casts at the end, which is no order that ONNX allows.
    OnnxModel(converted).topological_sort()
    # What it notes of types in between is wrong around its casts, and may be left out.
    del converted.graph.value_info[:]
    return Conversion(converted.SerializeToString(deterministic=True))


def _keep_float32_outputs(model: onnx.ModelProto) -> None:
    """Let an output that is computed in float32 be the output itself: the converter casts it to float16 and back, which rounds it."""
    producers = {name: node for node in model.graph.node for name in node.output}
    for output in model.graph.output:
        cast_back = producers[output.name]
        cast_down = producers.get(cast_back.input[0]) if _casts(cast_back, onnx.TensorProto.FLOAT) else None
        if cast_down is None or not _casts(cast_down, onnx.TensorProto.FLOAT16) or cast_down.input[0] not in producers:
            continue
        exact = cast_down.input[0]
        for node in model.graph.node:
            for names in (node.input, node.output):
                for at, name in enumerate(names):
                    if name == exact:
                        names[at] = output.name
        model.graph.node.remove(cast_back)
        if not any(cast_down.output[0] in node.input for node in model.graph.node):
            model.graph.node.remove(cast_down)


def _casts(node: onnx.NodeProto, to: int) -> bool:
    return node.op_type == "Cast" and any(attribute.name == "to" and attribute.i == to for attribute in node.attribute)
