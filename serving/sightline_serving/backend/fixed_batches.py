"""Asks an ONNX model at a few sizes of batch alone, since a GPU plans anew whenever the size changes.

ONNX Runtime's CUDA provider keeps one plan of cuDNN for each convolution of a session, and makes it again as soon as a batch differs in
size from the last (onnxruntime/core/providers/cuda/nn/conv.cc, `UpdateState`; microsoft/onnxruntime#23006). Dynamic batching changes the
size all the time, and few sizes in one session would change it nearly as often. So each size has a session of its own, which is asked
at this size and no other; a batch between two sizes is filled up to the larger, and the answers to what filled it are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Array: TypeAlias = npt.NDArray[Any]


class FixedBatch:
    """A session that is asked at one size of batch, with what stays of it on its device: inputs and outputs, bound once."""

    def __init__(
        self,
        session: ort.InferenceSession,
        size: int,
        inputs: Mapping[str, tuple[npt.DTypeLike, Sequence[int]]],
        outputs: Sequence[str],
        device: tuple[str, int] = ("cpu", 0),
    ) -> None:
        """Plan the model for `size` rows: ask it twice, for rows of zeros. `inputs` are dtype and shape of a row of each.

        `device` is ONNX Runtime's name of it, and its number. Raises ValueError for an output that has not one row for each of the batch,
        and what ONNX Runtime raises, for want of memory perhaps.
        """
        self.session, self.size = session, size
        self.joined: dict[str, Array] = {name: np.zeros((size, *shape), dtype) for name, (dtype, shape) in inputs.items()}
        answers = [np.asarray(answer) for answer in session.run(outputs, self.joined)]
        for name, answer in zip(outputs, answers, strict=True):
            if answer.shape[:1] != (size,):
                raise ValueError(f"output {name} of a batch of {size} has the shape {list(answer.shape)}")
        self.inputs = {name: _memory(rows, device) for name, rows in self.joined.items()}
        self.outputs = [_memory(answer, device) for answer in answers]
        self.binding = session.io_binding()
        for name, value in self.inputs.items():
            self.binding.bind_ortvalue_input(name, value)
        for name, value in zip(outputs, self.outputs, strict=True):
            self.binding.bind_ortvalue_output(name, value)
        self.run([self.joined])

    def run(self, feeds: Sequence[Mapping[str, Array]]) -> list[Array]:
        """Return the answers to the rows of all `feeds` in their order, one row at least and `size` at most."""
        rows = 0
        for name, value in self.inputs.items():
            parts = [feed[name] for feed in feeds]
            rows = sum(map(len, parts))
            value.update_inplace(self._filled(name, parts, rows))
        self.session.run_with_iobinding(self.binding)
        # Copied, where the device is the CPU: the next batch is answered in the same memory.
        return [np.array(value.numpy()[:rows]) for value in self.outputs]

    def _filled(self, name: str, parts: Sequence[Array], rows: int) -> Array:
        if len(parts) == 1 and rows == self.size:
            return np.ascontiguousarray(parts[0])
        joined = self.joined[name]
        np.concatenate(parts, out=joined[:rows])
        # With a row that was asked for: on zeros, or on what an earlier batch left, a model may fail that answers this batch alone.
        joined[rows:] = joined[rows - 1]
        return joined


def _memory(like: Array, device: tuple[str, int]) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_shape_and_type(like.shape, like.dtype.type, *device)
