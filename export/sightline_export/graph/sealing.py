"""Serialises an ONNX model with its sealed card inside, and nothing of the machine or the tool that made it."""

from collections.abc import Iterable
from typing import Final

import onnx
from onnx import GraphProto, ModelProto, NodeProto

from sightline.card import CARD_KEY, ModelCard, seal
from sightline.errors import GateRefused
from sightline.host.text import one_line

NEWEST_IR: Final = 10
"""The newest IR version that Triton 24.10's ONNX Runtime 1.19 reads."""


def sealed(model: ModelProto, card: ModelCard) -> bytes:
    """Serialise `model` with the sealed `card` in its metadata, and nothing else that is not the model. Changes `model`.

    Raises GateRefused if ONNX's checker rejects it, or Triton 24.10 could not read it.
    """
    # What the exporter notes for its own debugging: stack traces with this machine's paths, and names that change between runs.
    _strip(model.graph)
    for function in model.functions:
        del function.metadata_props[:]
        function.doc_string = ""
        _strip_nodes(function.node)
    del model.metadata_props[:]
    model.doc_string = ""
    model.graph.name = card.name
    used_domains = {node.domain for nodes in (model.graph.node, *(function.node for function in model.functions)) for node in nodes}
    used_opsets = [opset for opset in model.opset_import if opset.domain in used_domains]
    del model.opset_import[:]
    model.opset_import.extend(used_opsets)
    model.producer_version = model.producer_version.partition("+")[0]
    entry = model.metadata_props.add()
    entry.key, entry.value = CARD_KEY, seal(card)
    if model.ir_version > NEWEST_IR:
        raise GateRefused(
            f"{card.name} was not exported: its file is of ONNX IR version {model.ir_version}, but Triton 24.10 reads at most {NEWEST_IR}"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GateRefused(f"{card.name} was not exported: its file is one that ONNX's checker rejects: {one_line(error)}") from None
    return model.SerializeToString(deterministic=True)


def _strip(graph: GraphProto) -> None:
    del graph.metadata_props[:]
    graph.doc_string = ""
    for value in (*graph.input, *graph.output, *graph.value_info):
        del value.metadata_props[:]
        value.doc_string = ""
    for weights in graph.initializer:
        del weights.metadata_props[:]
        weights.doc_string = ""
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Iterable[NodeProto]) -> None:
    for node in nodes:
        del node.metadata_props[:]
        node.doc_string = ""
        for attribute in node.attribute:
            attribute.doc_string = ""
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _strip(graph)
