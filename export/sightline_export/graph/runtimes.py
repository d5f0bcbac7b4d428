"""Runs a model in torch or in ONNX Runtime, each as the same function: uint8 pixels in, probabilities out."""

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from sightline.batches import Pixels, Predict, Probabilities
from sightline.card import ModelCard

if TYPE_CHECKING:
    from torch import nn

Labels: TypeAlias = npt.NDArray[np.int64]
"""The class of each image: [N]; -1 where nobody knows."""


def in_torch(network: "nn.Module") -> Predict:
    """Return the network as a function of uint8 pixels. It is put into evaluation mode."""
    import torch

    network.eval()

    def predict(pixels: Pixels) -> Probabilities:
        with torch.inference_mode():
            probabilities: Probabilities = network(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()
        return probabilities

    return predict


def onnx_runtime_version() -> str:
    """Return ONNX Runtime's version, of whichever of its two packages is installed: for CPUs, or for GPUs."""
    import onnxruntime

    return str(onnxruntime.__version__)


def in_onnx_runtime(model: bytes, card: ModelCard, threads: int = 0) -> Predict:
    """Return the serialised ONNX `model` as a function of uint8 pixels, on the CPU with `threads` threads (0: all).

    Raises ONNX Runtime's errors, which share no base below Exception.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait for one another sleep, as torch's do (`sightline.cli.main`): on cores with other work spinning takes what they need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def predict(pixels: Pixels) -> Probabilities:
        probabilities: Probabilities = session.run([card.output], {card.input: pixels})[0]
        return probabilities

    return predict
