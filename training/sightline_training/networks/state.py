"""Copies tensors into a network, and names the first one that does not belong there: the one place for it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sightline.errors import DataError


def load_state_exactly(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy `tensors` into a network of the very same names, shapes and dtypes, all of them finite.

    `source` is what messages begin with. Raises DataError, naming the first tensor that does not fit.
    """
    state = network.state_dict()
    _demand_known(tensors, state, source)
    for name, expected in state.items():
        tensor = demand_shape(tensors.get(name), expected, name, source)
        if tensor.dtype != expected.dtype:
            raise DataError(f"{source}: the tensor {name} is {tensor.dtype}; the network needs {expected.dtype}.")
        demand_finite(tensor, name, source)
    load_state(network, tensors, source)


def load_state(network: nn.Module, tensors: Mapping[str, Tensor], source: str, *, others: bool = False) -> None:
    """Copy `tensors` into a network, converted to its dtypes; `others` are left out if they may be there.

    Raises DataError, naming the tensor, if one is missing, has another shape, is of integers where the network has real numbers, or
    belongs to another network.
    """
    state = network.state_dict()
    if not others:
        _demand_known(tensors, state, source)
    with torch.no_grad():
        for name, expected in state.items():
            tensor = demand_shape(tensors.get(name), expected, name, source)
            if tensor.is_floating_point() != expected.is_floating_point():
                raise DataError(f"{source}: the tensor {name} is {tensor.dtype}; the network needs {expected.dtype}.")
            expected.copy_(tensor)


def demand_finite(tensor: Tensor, name: str, source: str) -> None:
    """Raise DataError if a tensor of real numbers holds an infinite one, or none at all."""
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise DataError(f"{source}: the tensor {name} holds values that are no finite numbers.")


def demand_shape(tensor: Tensor | None, expected: Tensor, name: str, source: str) -> Tensor:
    """Return the tensor. Raises DataError if it is missing or has another shape than the network's."""
    if tensor is None:
        raise DataError(f"{source}: the tensor {name} is missing.")
    if tensor.shape != expected.shape:
        raise DataError(f"{source}: the tensor {name} has the shape {list(tensor.shape)}; the network needs {list(expected.shape)}.")
    return tensor


def _demand_known(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    for name in tensors:
        if name not in state:
            raise DataError(f"{source}: the tensor {name!r:.120} belongs to another network.")
