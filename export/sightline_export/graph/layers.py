"""The layers of an ONNX graph: the operations that multiply by trained weights."""

from typing import Final

from onnx import ModelProto, NodeProto

LAYERS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def layers(model: ModelProto) -> list[NodeProto]:
    """Return the layers in the order of the graph, which is that of the computation."""
    return [node for node in model.graph.node if node.op_type in LAYERS]


def before_first_layer(model: ModelProto) -> list[str]:
    """Return the names of the nodes that come before any layer: how pixels become what the network was trained with."""
    names = []
    for node in model.graph.node:
        if node.op_type in LAYERS:
            break
        names.append(node.name)
    return names
