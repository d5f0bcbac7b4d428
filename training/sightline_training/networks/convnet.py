"""A small convolutional network for small images: blocks that halve the image, then fully connected layers."""

from collections.abc import Sequence

import torch
from torch import nn

from sightline_training.networks.mlp import mlp


def convnet(
    shape: tuple[int, int, int],
    maps: Sequence[int],
    hidden: int,
    classes: int,
    *,
    depth: int = 1,
    map_dropout: float,
    dropout: float,
) -> nn.Sequential:
    """float32 [N, C, H, W] of `shape` (H, W, C) → logits [N, classes], through one block for each number of `maps`.

    A block is `depth` times a 3 x 3 convolution, batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) and ReLU; then dropout
    of whole maps (Tompson et al. 2015, arXiv:1411.4280, section 3.2) and 2 x 2 max pooling, which rounds odd sides down. After the
    blocks comes one layer of `hidden` units, as in `mlp`. Raises ValueError if the image is too small for so many blocks.
    """
    height, width, inputs = shape
    layers: list[nn.Module] = []
    for outputs in maps:
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        layers += [nn.Dropout2d(map_dropout), nn.MaxPool2d(2)]
        height, width = height // 2, width // 2
    if not height * width:
        raise ValueError(f"images of {shape[0]} x {shape[1]} pixels cannot be halved {len(maps)} times")
    # Whatever follows a convolution in this layout keeps it, and pooling is then several times faster on a CPU. Only the first
    # one is told: with one input channel its weights lie in memory as before, so that they can be saved as they are.
    if shape[2] == 1:
        layers[0].to(memory_format=torch.channels_last)
    return nn.Sequential(*layers, mlp(inputs * height * width, (hidden,), classes, input_dropout=0.0, dropout=dropout))
