"""The optimizer of a stage and its learning rate: a one-cycle schedule."""

import math
from collections.abc import Iterable

from torch import nn, optim

from sightline_training.recipe import Stage


def optimizer_of(stage: Stage, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """Return the stage's optimizer for these parameters, at the peak of its learning rate."""
    if stage.optimizer == "sgd":
        return optim.SGD(parameters, lr=stage.learning_rate, momentum=0.9, nesterov=True, weight_decay=stage.weight_decay, fused=True)
    return optim.AdamW(parameters, lr=stage.learning_rate, weight_decay=stage.weight_decay, fused=True)


def one_cycle(step: int, steps: int) -> float:
    """Return the share of the peak learning rate at `step` (from 0) of `steps`: a cosine from 1/25 up over the first fifth, then to 0.

    The shape of Smith and Topin 2017 (arXiv:1708.07120) with the constants of fast.ai. torch's OneCycleLR divides by zero when
    there are five steps.
    """
    warm = 0.2 * steps
    if step < warm:
        return 1 - 0.96 * (1 + math.cos(math.pi * step / warm)) / 2
    return (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2
