"""The multilayer perceptron: fully connected layers with batch normalisation and dropout."""

from collections.abc import Sequence

from torch import nn


def mlp(inputs: int, widths: Sequence[int], classes: int, *, input_dropout: float, dropout: float) -> nn.Sequential:
    """float32 [N, C, H, W] with C·H·W = `inputs` → logits [N, classes], through hidden layers of `widths`.

    A hidden layer is linear, batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167), ReLU, dropout (Srivastava et
    al. 2014, JMLR 15); the linear layer has no bias, since normalisation would take it away again.
    """
    layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(input_dropout)]
    for width in widths:
        layers += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))
