"""Serves ONNX models inside the PyPI Triton, which has no C++ ONNX Runtime backend: a Python-based backend of the same name.

Triton loads this file for every model with `backend: "onnxruntime"`. It reads the same `config.pbtxt` as NVIDIA's C++ backend,
parameters included (github.com/triton-inference-server/onnxruntime_backend, README), so that one repository serves in both.
It runs alone in Triton's worker process: nothing of Sightline is imported here but the files beside it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from sightline_serving.backend.busy import busy_file
    from sightline_serving.backend.config_settings import largest_run, lone_threads, session_options, stated_batch_sizes
    from sightline_serving.backend.fixed_batches import FixedBatch
else:
    # Triton puts this file's folder on the path of its worker.
    from busy import busy_file
    from config_settings import largest_run, lone_threads, session_options, stated_batch_sizes
    from fixed_batches import FixedBatch

Array = npt.NDArray[np.generic]

ONNX_TYPES: Final = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
}

ON_THE_CPU: Final = "it runs on the CPU"
"""Ends a warning that whoever serves must see: the one who starts the server looks for it in the log."""

CUDA_OPTIONS: Final = {
    # TF32 has ten bits of a float32's 23: the answers would not be those of the gate.
    "use_tf32": "0",
    # The default searches longer, for every size of batch: seconds each.
    "cudnn_conv_algo_search": "HEURISTIC",
}


class TritonPythonModel:
    """One instance of one model version: an ONNX Runtime session and the names, types and shapes that the config promises."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the model and hold it to its config. Raises TritonModelException, whose text Triton logs as the reason."""
        config = json.loads(args["model_config"])
        file = Path(args["model_repository"], args["model_version"], config.get("default_model_filename") or "model.onnx")
        if not file.is_file():
            _refuse(f"there is no {file.name} in the version folder")
        try:
            options = session_options(config)
            batch_sizes, images_a_run, most_threads = stated_batch_sizes(config), largest_run(config), lone_threads(config)
        except ValueError as error:
            _refuse(str(error))
        try:
            providers = _providers(args, config)
            new_session = functools.partial(ort.InferenceSession, file, options, providers=providers)
            self.session = new_session()
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's classes share no narrower base
            _refuse(f"{file.name} is no model that ONNX Runtime {ort.__version__} can load: {_one_line(error)}")
        on_gpu = "CUDAExecutionProvider" in self.session.get_providers()
        if len(providers) > 1 and not on_gpu:
            # ONNX Runtime says so in its own log only, and goes on without.
            pb_utils.Logger.log_warn(f"{config['name']}: ONNX Runtime cannot use the GPU (see the lines above): {ON_THE_CPU}")
        self.max_batch_size = int(config["max_batch_size"])
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        _agree("input", self.session.get_inputs(), config["input"], self.max_batch_size)
        _agree("output", self.session.get_outputs(), config["output"], self.max_batch_size)
        self.joined: dict[str, Array] = {}
        self.warm_ups = len(config.get("model_warmup", []))
        gains = most_threads > options.intra_op_num_threads and not on_gpu
        self.busy = busy_file(args, config) if gains else None
        self.lone_session = self.session
        # Of idle instances Triton asks the first: no other is ever alone for long.
        if self.busy is not None and self.busy.is_first:
            options.intra_op_num_threads = most_threads
            self.lone_session = new_session()
        # What a run on the CPU needs of memory is kept for the next one, and grows with its images.
        self.largest_run = 0 if on_gpu else images_a_run
        device = ("cuda", int(args["model_instance_device_id"])) if on_gpu else ("cpu", 0)
        self.fixed = self._fixed_batches(config, batch_sizes, new_session, device)

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer a batch of requests: join them once, run once, hand each its rows. One alone is not copied at all."""
        if self.warm_ups > 0:
            return self._warm_up(requests)
        if self.busy is None:
            return self._execute(requests, self.session)
        try:
            return self._execute(requests, self.lone_session if self.busy.enter() else self.session)
        finally:
            self.busy.leave()

    def _warm_up(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer a request that Triton warms the model up with, in each session; after the last of them, give free memory back."""
        for session in {id(session): session for session in (self.lone_session, self.session)}.values():
            responses = self._execute(requests, session)
        self.warm_ups -= 1
        if self.warm_ups == 0:
            _give_memory_back()
        return responses

    def _execute(self, requests: Sequence[pb_utils.InferenceRequest], session: ort.InferenceSession) -> list[pb_utils.InferenceResponse]:
        feeds = [{name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs} for request in requests]
        joint_answers = self._answer_together(feeds, session) if len(feeds) > 1 and self.max_batch_size > 0 else None
        if joint_answers is None:
            return [self._answer_alone(request, feed, session) for request, feed in zip(requests, feeds, strict=True)]
        return [self._respond(request, answers) for request, answers in zip(requests, joint_answers, strict=True)]

    def _answer_together(self, feeds: Sequence[Mapping[str, Array]], session: ort.InferenceSession) -> list[list[Array]] | None:
        """The answers to each, as views of one run's; None if that fails: one bad request must not fail its neighbours."""
        ends = list(itertools.accumulate(len(feed[self.inputs[0]]) for feed in feeds))
        try:
            answers = self._run(feeds, session)
        except Exception:  # noqa: BLE001 - each is asked again, alone, and then says what is wrong with it
            return None
        if any(len(answer) != ends[-1] for answer in answers):
            return None
        return [[answer[start:end] for answer in answers] for start, end in itertools.pairwise([0, *ends])]

    def _answer_alone(
        self, request: pb_utils.InferenceRequest, feed: Mapping[str, Array], session: ort.InferenceSession
    ) -> pb_utils.InferenceResponse:
        try:
            return self._respond(request, self._run([feed], session))
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to this request
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"ONNX Runtime cannot answer: {_one_line(error)}"))

    def _run(self, feeds: Sequence[Mapping[str, Array]], session: ort.InferenceSession) -> list[Array]:
        """What the network answers to all rows of `feeds`: at the next of the fixed sizes, else in runs of at most `largest_run` images."""
        rows = sum(len(feed[self.inputs[0]]) for feed in feeds) if self.max_batch_size > 0 else 0
        if batch := next((batch for batch in self.fixed if 0 < rows <= batch.size), None):
            return batch.run(feeds)
        feed = feeds[0] if len(feeds) == 1 else {name: self._join(name, [feed[name] for feed in feeds]) for name in self.inputs}
        most = self.largest_run
        if not 0 < most < rows:
            return list(session.run(self.outputs, feed))
        runs = [session.run(self.outputs, {name: feed[name][at : at + most] for name in self.inputs}) for at in range(0, rows, most)]
        return [np.concatenate(parts) for parts in zip(*runs, strict=True)]

    def _respond(self, request: pb_utils.InferenceRequest, answers: Sequence[Array]) -> pb_utils.InferenceResponse:
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, answer) for name, answer in zip(self.outputs, answers, strict=True) if name in wanted]
        )

    def _fixed_batches(
        self, config: Mapping[str, Any], sizes: Sequence[int], new_session: Callable[[], ort.InferenceSession], device: tuple[str, int]
    ) -> list[FixedBatch]:
        """The batches of `sizes`, planned, smallest first. The first session is the largest one's; each other gets one of its own."""
        inputs = {tensor["name"]: (pb_utils.triton_string_to_numpy(tensor["data_type"]), tensor["dims"]) for tensor in config["input"]}
        batches: list[FixedBatch] = []
        for size in reversed(sizes):
            try:
                session = self.session if size == sizes[-1] else new_session()
                batches.insert(0, FixedBatch(session, size, inputs, self.outputs, device))
            except Exception as error:  # noqa: BLE001 - for want of memory perhaps; the model answers without this size, though slower
                pb_utils.Logger.log_warn(f"{config['name']}: a batch of {size} cannot be planned: {_one_line(error)}")
        if batches:
            planned = ", ".join(str(batch.size) for batch in batches)
            pb_utils.Logger.log_info(f"{config['name']}: asked in batches of {planned} alone, on {':'.join(map(str, device))}")
        return batches

    def _join(self, name: str, parts: Sequence[Array]) -> Array:
        """Concatenate along the batch, into memory that is kept: fresh memory costs a page fault every 4 KiB."""
        total, first = sum(map(len, parts)), parts[0]
        memory = self.joined.get(name)
        if memory is None or len(memory) < total or memory.shape[1:] != first.shape[1:]:
            memory = self.joined[name] = np.empty((max(total, self.max_batch_size), *first.shape[1:]), first.dtype)
        return np.concatenate(parts, out=memory[:total])


def _give_memory_back() -> None:
    """Let glibc return to the system what is free: the model's file, what it was parsed into, what the warm-up needed (malloc_trim(3))."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _providers(args: Mapping[str, str], config: Mapping[str, Any]) -> list[object]:
    if args["model_instance_kind"] != "GPU":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pb_utils.Logger.log_warn(f"{config['name']}: this onnxruntime has no CUDA provider (onnxruntime-gpu has): {ON_THE_CPU}")
        return ["CPUExecutionProvider"]
    # CUDA and cuDNN that were installed as wheels lie where no loader looks.
    ort.preload_dlls()
    return [("CUDAExecutionProvider", {"device_id": int(args["model_instance_device_id"]), **CUDA_OPTIONS}), "CPUExecutionProvider"]


def _agree(what: str, actual: Sequence[ort.NodeArg], configured: Sequence[Mapping[str, Any]], max_batch_size: int) -> None:
    """Hold the ONNX file to the config: the same tensors, of the same type, with shapes that can meet."""
    in_file = {tensor.name: tensor for tensor in actual}
    names = {tensor["name"] for tensor in configured}
    # An output may be left unused; an input may not.
    if not names <= set(in_file) or (what == "input" and names != set(in_file)):
        _refuse(f"config.pbtxt has the {what}s {', '.join(sorted(names)) or '(none)'}; the ONNX file has {', '.join(sorted(in_file))}")
    for promised in configured:
        name, tensor = promised["name"], in_file[promised["name"]]
        kind = ONNX_TYPES.get(tensor.type, tensor.type)
        if kind != promised["data_type"]:
            _refuse(f"{what} {name} is {promised['data_type']} in config.pbtxt, but {kind} in the ONNX file")
        shape = [int(side) for side in promised["dims"]]
        shape = [-1, *shape] if max_batch_size > 0 else shape
        sides = [side if isinstance(side, int) else -1 for side in tensor.shape]
        if max_batch_size > 1 and sides[:1] != [-1]:
            _refuse(f"{what} {name} has the fixed shape {sides} in the ONNX file, but max_batch_size is {max_batch_size} in config.pbtxt")
        if len(shape) != len(sides) or any(-1 not in (a, b) and a != b for a, b in zip(shape, sides, strict=True)):
            _refuse(f"{what} {name} has the shape {shape} in config.pbtxt, but {sides} in the ONNX file (-1 is any)")


def _one_line(error: Exception) -> str:
    """An exception's message on one line, without ONNX Runtime's number for it."""
    return re.sub(r"^(\[ONNXRuntimeError\] : \d+ : |Error in execution: )", "", " ".join(str(error).split()))[:500] or type(error).__name__


def _refuse(reason: str) -> NoReturn:
    raise pb_utils.TritonModelException(reason) from None
