"""Half precision: the graph is rewritten to float16, its inputs and outputs stay, and what float16 cannot hold safely stays float32."""

from typing import Final

import onnx
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from sightline_export.graph.layers import before_first_layer

IN_FLOAT32: Final = (
    *("Softmax", "LogSoftmax", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Div"),
    *("ReduceMean", "ReduceSum", "ReduceL2", "GlobalAveragePool"),
    *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization"),
)
"""Operations with sums of many terms, quotients or exponentials: float16 ends at 65,504 and has 11 bits."""


def to_float16(model: bytes) -> bytes:
    """The serialised ONNX `model` with weights and most operations in float16, through ONNX Runtime's own converter.

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
    _straighten(converted)
    # The converter appends its casts at the end, which is no order that ONNX allows.
    OnnxModel(converted).topological_sort()
    # What it notes of types in between is wrong around its casts, and may be left out.
    del converted.graph.value_info[:]
    written: bytes = converted.SerializeToString(deterministic=True)
    return written


def _straighten(model: onnx.ModelProto) -> None:
    """Let an output that is computed in float32 be the output itself: the converter takes it to float16 and back, which rounds it."""
    made = {name: node for node in model.graph.node for name in node.output}
    for output in model.graph.output:
        back = made[output.name]
        there = made.get(back.input[0]) if _casts(back, onnx.TensorProto.FLOAT) else None
        if there is None or not _casts(there, onnx.TensorProto.FLOAT16) or there.input[0] not in made:
            continue
        exact = there.input[0]
        for node in model.graph.node:
            for names in (node.input, node.output):
                for at, name in enumerate(names):
                    if name == exact:
                        names[at] = output.name
        model.graph.node.remove(back)
        if not any(there.output[0] in node.input for node in model.graph.node):
            model.graph.node.remove(there)


def _casts(node: onnx.NodeProto, to: int) -> bool:
    return node.op_type == "Cast" and any(each.name == "to" and each.i == to for each in node.attribute)
