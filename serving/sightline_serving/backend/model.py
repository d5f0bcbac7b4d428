"""Serves ONNX models inside the PyPI Triton, which has no C++ ONNX Runtime backend: a Python-based backend of the same name.

Triton loads this file for every model with `backend: "onnxruntime"`. It reads the same `config.pbtxt` as NVIDIA's C++ backend,
parameters included (github.com/triton-inference-server/onnxruntime_backend, README), so that one repository serves in both.
It runs alone in Triton's worker process: nothing of Sightline is imported here.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

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
    # The default tries all algorithms for each new size of a batch, and dynamic batching shows it all of them: seconds each.
    "cudnn_conv_algo_search": "HEURISTIC",
}

GRAPH_LEVELS: Final = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
"""`optimization { graph { level } }` as the C++ backend understands it."""


class TritonPythonModel:
    """One instance of one model version: an ONNX Runtime session and the names, types and shapes that the config promises."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the model and hold it to its config. Raises TritonModelException, whose text Triton logs as the reason."""
        config = json.loads(args["model_config"])
        file = Path(args["model_repository"], args["model_version"], config.get("default_model_filename") or "model.onnx")
        if not file.is_file():
            _refuse(f"there is no {file.name} in the version folder")
        try:
            options = _session_options(config)
            providers = _providers(args, config)
            self.session = ort.InferenceSession(file, options, providers=providers)
        except pb_utils.TritonModelException:
            raise
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's classes share no narrower base
            _refuse(f"{file.name} is no model that ONNX Runtime {ort.__version__} can load: {_one_line(error)}")
        if len(providers) > 1 and "CUDAExecutionProvider" not in self.session.get_providers():
            # ONNX Runtime says so in its own log only, and goes on without.
            pb_utils.Logger.log_warn(f"{config['name']}: ONNX Runtime cannot use the GPU (see the lines above): {ON_THE_CPU}")
        self.max_batch_size = int(config["max_batch_size"])
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        _agree("input", self.session.get_inputs(), config["input"], self.max_batch_size)
        _agree("output", self.session.get_outputs(), config["output"], self.max_batch_size)
        self.joined: dict[str, Array] = {}
        # What a run needs of memory is kept for the next one, and grows with its images.
        on_cpu = args["model_instance_kind"] != "GPU" and self.max_batch_size > 0
        self.largest_run = _integer(_parameters(config), "largest_run", 0) if on_cpu else 0

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer a batch of requests: join them once, run once, hand each its rows. One alone is not copied at all."""
        feeds = [{name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs} for request in requests]
        joint_answers = self._answer_together(feeds) if len(feeds) > 1 and self.max_batch_size > 0 else None
        if joint_answers is None:
            return [self._answer_alone(request, feed) for request, feed in zip(requests, feeds, strict=True)]
        return [self._respond(request, answers) for request, answers in zip(requests, joint_answers, strict=True)]

    def _answer_together(self, feeds: Sequence[Mapping[str, Array]]) -> list[list[Array]] | None:
        """The answers to each, as views of one run's; None if that fails: one bad request must not fail its neighbours."""
        ends = list(itertools.accumulate(len(feed[self.inputs[0]]) for feed in feeds))
        try:
            answers = self._run({name: self._join(name, [feed[name] for feed in feeds]) for name in self.inputs})
        except Exception:  # noqa: BLE001 - each is asked again, alone, and then says what is wrong with it
            return None
        if any(len(answer) != ends[-1] for answer in answers):
            return None
        return [[answer[start:end] for answer in answers] for start, end in itertools.pairwise([0, *ends])]

    def _answer_alone(self, request: pb_utils.InferenceRequest, feed: Mapping[str, Array]) -> pb_utils.InferenceResponse:
        try:
            return self._respond(request, self._run(feed))
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to this request
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"ONNX Runtime cannot answer: {_one_line(error)}"))

    def _run(self, feed: Mapping[str, Array]) -> list[Array]:
        """What the network answers, computed in runs of at most `largest_run` images."""
        count, most = len(feed[self.inputs[0]]), self.largest_run
        if not 0 < most < count:
            return list(self.session.run(self.outputs, feed))
        runs = [self.session.run(self.outputs, {name: feed[name][at : at + most] for name in self.inputs}) for at in range(0, count, most)]
        return [np.concatenate(parts) for parts in zip(*runs, strict=True)]

    def _respond(self, request: pb_utils.InferenceRequest, answers: Sequence[Array]) -> pb_utils.InferenceResponse:
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, answer) for name, answer in zip(self.outputs, answers, strict=True) if name in wanted]
        )

    def _join(self, name: str, parts: Sequence[Array]) -> Array:
        """Concatenate along the batch, into memory that is kept: fresh memory costs a page fault every 4 KiB."""
        total, first = sum(map(len, parts)), parts[0]
        memory = self.joined.get(name)
        if memory is None or len(memory) < total or memory.shape[1:] != first.shape[1:]:
            memory = self.joined[name] = np.empty((max(total, self.max_batch_size), *first.shape[1:]), first.dtype)
        return np.concatenate(parts, out=memory[:total])


def _parameters(config: Mapping[str, Any]) -> dict[str, str]:
    return {key: value["string_value"] for key, value in config.get("parameters", {}).items()}


def _session_options(config: Mapping[str, Any]) -> ort.SessionOptions:
    parameters = _parameters(config)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = GRAPH_LEVELS.get(level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    parallel = _integer(parameters, "execution_mode", 0)
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if parallel else ort.ExecutionMode.ORT_SEQUENTIAL
    instances = sum(int(group.get("count", 1)) for group in config.get("instance_group", [])) or 1
    # 0 or nothing lets the C++ backend's one process take every core; here each instance is a process of its own.
    options.intra_op_num_threads = _integer(parameters, "intra_op_thread_count", 0) or max(1, _cores() // instances)
    options.inter_op_num_threads = _integer(parameters, "inter_op_thread_count", 0) or 1
    options.enable_cpu_mem_arena = _boolean(parameters, "enable_mem_arena", default=True)
    # A pattern is remembered for every batch size seen, and dynamic batching shows them all.
    options.enable_mem_pattern = _boolean(parameters, "enable_mem_pattern", default=False)
    # A spinning thread takes the core on which Triton's own threads and the other instances wait.
    options.add_session_config_entry("session.intra_op.allow_spinning", parameters.get("session.intra_op.allow_spinning", "0"))
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


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


def _integer(parameters: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(parameters.get(name, default))
    except ValueError:
        _refuse(f"parameter {name} in config.pbtxt is {parameters[name]!r}: expected an integer")


def _boolean(parameters: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = parameters.get(name, str(default)).strip().lower()
    if value not in ("0", "1", "true", "false"):
        _refuse(f"parameter {name} in config.pbtxt is {value!r}: expected 1 or 0")
    return value in ("1", "true")


def _cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container (cgroup v2, `cpu.max`)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def _one_line(error: Exception) -> str:
    """An exception's message on one line, without ONNX Runtime's number for it."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", " ".join(str(error).split()))[:500] or type(error).__name__


def _refuse(reason: str) -> NoReturn:
    raise pb_utils.TritonModelException(reason) from None
