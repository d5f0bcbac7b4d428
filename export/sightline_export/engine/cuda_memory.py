"""Memory on the first GPU, through the driver's own C interface: no framework is needed to ask a plan. Not yet run on TensorRT hardware.

TensorRT works in the primary context of a device, which this module shares (CUDA Driver API, "Primary Context Management").
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline.errors import MachineError

LIBRARY: Final = "libcuda.so.1"
ERROR_NAME: Final = "cuGetErrorName"
NON_BLOCKING: Final = 1
"""CU_STREAM_NON_BLOCKING (cuda.h): the stream does not wait for the default one."""


class CudaMemory:
    """The first GPU that CUDA_VISIBLE_DEVICES shows: its context, a stream, and buffers. Both live until the process ends."""

    def __init__(self, cuda: object = None) -> None:
        try:
            self._cuda = ctypes.CDLL(LIBRARY) if cuda is None else cuda
        except OSError:
            raise MachineError(f"there is no NVIDIA driver on this machine ({LIBRARY} is missing)") from None
        device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._context = context
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(NON_BLOCKING))
        self._stream = stream

    @property
    def stream(self) -> int:
        """The stream's handle, in which copies and TensorRT's work follow one another."""
        return int(self._stream.value or 0)

    @contextmanager
    def buffer(self, size_bytes: int) -> Iterator[int]:
        """Allocate memory on the GPU until the block ends: its address. Raises MachineError if there is not enough."""
        # A context belongs to a thread, and another one may ask.
        self._call("cuCtxSetCurrent", self._context)
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size_bytes))
        try:
            yield int(address.value)
        finally:
            self._call("cuMemFree_v2", address)

    def copy_to(self, address: int, array: npt.NDArray[np.generic]) -> None:
        """Copy a contiguous array to the GPU, in the stream's order."""
        source = array.ctypes.data_as(ctypes.c_void_p)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), source, ctypes.c_size_t(array.nbytes), self._stream)

    def copy_from(self, address: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Wait until the stream has done its work, and return the float32 array at `address`."""
        array = np.empty(shape, np.float32)
        target = array.ctypes.data_as(ctypes.c_void_p)
        self._call("cuMemcpyDtoHAsync_v2", target, ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes), self._stream)
        self.synchronize()
        return array

    def synchronize(self) -> None:
        """Wait until the stream has done its work."""
        self._call("cuStreamSynchronize", self._stream)

    def _call(self, function: str, *arguments: object) -> None:
        result = getattr(self._cuda, function)(*arguments)
        if result:
            text = ctypes.c_char_p()
            getattr(self._cuda, ERROR_NAME)(result, ctypes.byref(text))
            raise MachineError(f"the NVIDIA driver refuses {function}: {(text.value or b'').decode() or result}")
