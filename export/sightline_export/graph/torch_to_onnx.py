"""Writes a trained network as one ONNX file: uint8 pixels in, probabilities out, the batch free, the sealed card inside.

The same network and card always give the same bytes, and nothing of the machine that exported them is in the file.
"""

import io
from contextlib import redirect_stderr
from typing import Final

import torch

from sightline.card import ModelCard
from sightline.errors import GateRefused
from sightline.host.text import one_line
from sightline_export.graph.quiet import quiet
from sightline_export.graph.sealing import sealed

OPSET: Final = 18
"""Of ai.onnx. torch's exporter writes it without conversion; ONNX Runtime knows it since 1.14, so that Triton 24.10 (ONNX Runtime 1.19)
and all later ones load it (onnxruntime.ai/docs/reference/compatibility.html)."""

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
        with quiet(), redirect_stderr(io.StringIO()):
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


def _bytes_of(network: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))


def _reason(error: BaseException) -> str:
    """Return what the innermost cause says: what torch wraps around it speaks of its own strategies."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)
