"""Writes a trained network as one ONNX file: uint8 pixels in, probabilities out, the batch free, the sealed card inside.

The same network and card always give the same bytes, and nothing of the machine that exported them is in the file.
"""

import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Final

import onnx
import torch
from onnx import GraphProto, ModelProto, NodeProto

from sightline.card import CARD_KEY, ModelCard, seal
from sightline.errors import GateRefused
from sightline_export.gate.checks import said

OPSET: Final = 18
"""Of ai.onnx. torch's exporter writes it without conversion; ONNX Runtime knows it since 1.14, so that Triton 24.10 (ONNX Runtime 1.19)
and all later ones load it (onnxruntime.ai/docs/reference/compatibility.html)."""

NEWEST_IR: Final = 10
"""The newest IR version that Triton 24.10's ONNX Runtime 1.19 reads."""

LARGEST_BYTES: Final = 2**31 - 1
"""protobuf's limit, and so that of an ONNX model in one file."""


def export_onnx(network: torch.nn.Module, card: ModelCard) -> bytes:
    """Export `network` as an ONNX model of opset `OPSET`, checked, with the sealed `card` in its metadata.

    `network` maps uint8 pixels [N, height, width, channels] to float32 probabilities [N, classes]; it is put into evaluation mode.
    Raises GateRefused if it cannot be exported, or only for one size of batch.
    """
    network.eval()
    if (weights := _bytes_of(network)) > LARGEST_BYTES:
        raise GateRefused(
            f"{card.name} was not exported: its weights are {weights:,} bytes, more than the {LARGEST_BYTES:,} of one ONNX file"
        )
    # Two images: an example of one would let the exporter take the batch for a constant (pytorch issue 157621).
    example = torch.zeros((2, *card.preprocess.shape), dtype=torch.uint8)
    try:
        with _quiet():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[card.input],
                output_names=[card.output],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        if program is None:
            raise RuntimeError("the exporter returned no model")  # noqa: TRY301 - its type allows what its documentation rules out
        model = program.model_proto
    except Exception as error:  # the exporter and the network raise nearly anything
        raise GateRefused(
            f"{card.name} was not exported: torch cannot write this network as ONNX with a free batch: {_reason(error)}"
        ) from error
    return sealed(model, card)


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
    used = {node.domain for nodes in (model.graph.node, *(function.node for function in model.functions)) for node in nodes}
    imports = [each for each in model.opset_import if each.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
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
        raise GateRefused(f"{card.name} was not exported: its file is one that ONNX's checker rejects: {_reason(error)}") from None
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


def _bytes_of(network: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns, logs and prints about its own insides; what matters comes as an exception."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _reason(error: BaseException) -> str:
    """What the innermost cause says: what torch wraps around it speaks of its own strategies."""
    while error.__cause__ is not None:
        error = error.__cause__
    return said(error)
