"""Runs a model in torch or in ONNX Runtime, each as the same function: uint8 pixels in, probabilities out."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from sightline.card import ModelCard

if TYPE_CHECKING:
    from torch import nn

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""Images as a network takes them: [N, height, width, channels]."""
Labels: TypeAlias = npt.NDArray[np.int64]
"""The class of each image: [N]; -1 where nobody knows."""
Probabilities: TypeAlias = npt.NDArray[np.float32]
"""A model's answers: [N, classes]."""
Predict: TypeAlias = Callable[[Pixels], Probabilities]


def in_torch(network: "nn.Module") -> Predict:
    """Return the network as a function of uint8 pixels. It is put into evaluation mode."""
    import torch

    network.eval()

    def predict(pixels: Pixels) -> Probabilities:
        with torch.inference_mode():
            probabilities: Probabilities = network(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()
        return probabilities

    return predict


def in_onnx_runtime(model: bytes, card: ModelCard, threads: int = 0) -> Predict:
    """Return the serialised ONNX `model` as a function of uint8 pixels, on the CPU with `threads` threads (0: all).

    Raises ONNX Runtime's errors, which share no base below Exception.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def predict(pixels: Pixels) -> Probabilities:
        probabilities: Probabilities = session.run([card.output], {card.input: pixels})[0]
        return probabilities

    return predict


def in_batches(predict: Predict, pixels: Pixels, size: int, progress: Callable[[int], None] = lambda _done: None) -> Probabilities:
    """Return the answers to all `pixels`, asked for `size` at a time; `progress` is called with the number of images that are done."""
    batches = []
    for start in range(0, len(pixels), size):
        batches.append(predict(pixels[start : start + size]))
        progress(min(start + size, len(pixels)))
    return np.concatenate(batches)


def comfortable_batch(card: ModelCard) -> int:
    """Return how many images of a model are asked about at a time: 1000 of MNIST's, 26 of 224 × 224, where VGG16 then takes a gigabyte."""
    return max(1, min(1000, 4_000_000 // math.prod(card.preprocess.shape)))
