"""Memory on the GPU, against a driver that is played here: every call gets what cuda.h says, and a refusal is a sentence."""

import ctypes
from typing import Any

import numpy as np
import pytest

from sightline.errors import MachineError
from sightline_export.engine.cuda_memory import CudaMemory


class Driver:
    """The CUDA driver's functions on this process's own memory. `failing` is the name of one that answers with an error."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.calls, self.blocks = failing, list[str](), dict[int, Any]()

    def __getattr__(self, name: str) -> Any:
        function = getattr(type(self), f"do_{name.lower()}")

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == self.failing:
                return 2
            function(self, *(getattr(argument, "_obj", argument) for argument in arguments))
            return 0

        return call

    def do_cuinit(self, flags: ctypes.c_uint) -> None: ...
    def do_cudeviceget(self, device: ctypes.c_int, ordinal: ctypes.c_int) -> None: ...
    def do_cuctxsetcurrent(self, context: ctypes.c_void_p) -> None: ...
    def do_custreamsynchronize(self, stream: ctypes.c_void_p) -> None: ...

    def do_cudeviceprimaryctxretain(self, context: ctypes.c_void_p, device: ctypes.c_int) -> None:
        context.value = 11

    def do_custreamcreate(self, stream: ctypes.c_void_p, flags: ctypes.c_uint) -> None:
        assert flags.value == 1
        stream.value = 22

    def do_cumemalloc_v2(self, address: ctypes.c_uint64, size: ctypes.c_size_t) -> None:
        block = ctypes.create_string_buffer(size.value)
        address.value = ctypes.addressof(block)
        self.blocks[address.value] = block

    def do_cumemfree_v2(self, address: ctypes.c_uint64) -> None:
        del self.blocks[address.value]

    def do_cumemcpyhtodasync_v2(self, target: ctypes.c_uint64, source: Any, size: ctypes.c_size_t, stream: ctypes.c_void_p) -> None:
        assert stream.value == 22
        ctypes.memmove(target.value, source, size.value)

    def do_cumemcpydtohasync_v2(self, target: Any, source: ctypes.c_uint64, size: ctypes.c_size_t, stream: ctypes.c_void_p) -> None:
        assert stream.value == 22
        ctypes.memmove(target, source.value, size.value)

    def do_cugeterrorname(self, error: int, text: ctypes.c_char_p) -> None:
        text.value = b"CUDA_ERROR_OUT_OF_MEMORY"


def test_an_array_goes_to_the_gpu_and_comes_back_and_its_memory_is_freed() -> None:
    driver = Driver()
    memory, array = CudaMemory(driver), np.arange(12, dtype=np.float32).reshape(3, 4)
    with memory.buffer(array.nbytes) as address:
        memory.copy_to(address, array)
        assert np.array_equal(memory.copy_from(address, (3, 4)), array)
    assert (memory.stream, driver.blocks) == (22, {})
    assert driver.calls[-2:] == ["cuStreamSynchronize", "cuMemFree_v2"]


def test_memory_is_freed_if_the_work_in_between_fails() -> None:
    driver = Driver()
    memory = CudaMemory(driver)
    with pytest.raises(ValueError, match="in between"), memory.buffer(8):
        raise ValueError("in between")
    assert driver.blocks == {}


def test_a_refusal_of_the_driver_is_named() -> None:
    with (
        pytest.raises(MachineError, match=r"^the NVIDIA driver refuses cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY$"),
        CudaMemory(Driver("cuMemAlloc_v2")).buffer(8),
    ):
        pass
