"""Reads what `config.pbtxt` says of how a model is computed: options of ONNX Runtime, and sizes of batch.

The parameters are those of NVIDIA's C++ backend, and two of our own, which that backend reads over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort

BATCH_SIZES: Final = "batch_sizes"
LARGEST_RUN: Final = "largest_run"
LONE_THREADS: Final = "lone_thread_count"

GRAPH_LEVELS: Final = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
"""`optimization { graph { level } }` as the C++ backend understands it."""


def session_options(config: Mapping[str, Any]) -> ort.SessionOptions:
    """Return the options of ONNX Runtime that the config states. Raises ValueError, with a sentence, for a value that makes no sense."""
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
    # glibc keeps what memory a run needed as well as ONNX Runtime's arena does, and gives it back when it is asked to.
    options.enable_cpu_mem_arena = _boolean(parameters, "enable_mem_arena", default=False)
    # A pattern is remembered for every batch size seen, and dynamic batching shows them all.
    options.enable_mem_pattern = _boolean(parameters, "enable_mem_pattern", default=False)
    # A spinning thread takes the core on which Triton's own threads and the other instances wait.
    options.add_session_config_entry("session.intra_op.allow_spinning", parameters.get("session.intra_op.allow_spinning", "0"))
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def largest_run(config: Mapping[str, Any]) -> int:
    """Return how many images a run on the CPU holds at most; 0 is no bound. Raises ValueError, with a sentence, for what is no integer."""
    return _integer(_parameters(config), LARGEST_RUN, 0) if int(config["max_batch_size"]) > 0 else 0


def lone_threads(config: Mapping[str, Any]) -> int:
    """Return how many threads the first instance takes while no other works; 0 if the config does not say it, all cores if it says 0.

    Raises ValueError, with a sentence, for what is no integer.
    """
    parameters = _parameters(config)
    return (_integer(parameters, LONE_THREADS, 0) or _cores()) if LONE_THREADS in parameters else 0


def stated_batch_sizes(config: Mapping[str, Any]) -> list[int]:
    """Return the sizes of batch that the parameter `batch_sizes` states, smallest first, `max_batch_size` among them.

    `auto` states those of `default_batch_sizes`; without the parameter there are none. Raises ValueError, with a sentence, for a value
    that makes no sense.
    """
    stated, largest = _parameters(config).get(BATCH_SIZES), int(config["max_batch_size"])
    if stated is None:
        return []
    if stated == "auto":
        return default_batch_sizes(config)
    parameter = f"parameter {BATCH_SIZES} in config.pbtxt is {stated!r}"
    try:
        sizes = {int(size) for size in stated.split(",")}
    except ValueError:
        raise ValueError(f"{parameter}: expected auto, or numbers with commas between them") from None
    if min(sizes) < 1 or max(sizes) > largest:
        raise ValueError(f"{parameter}: expected sizes from 1 to max_batch_size, which is {largest}")
    if not _has_fixed_dims(config):
        raise ValueError(f"{parameter}, but some dims are -1: what has no fixed dims cannot be planned")
    return sorted({*sizes, largest})


def default_batch_sizes(config: Mapping[str, Any]) -> list[int]:
    """Return the powers of two below `max_batch_size`, and it: less than half of a batch is then padding. None if it has no fixed dims."""
    largest = int(config["max_batch_size"])
    if largest < 1 or not _has_fixed_dims(config):
        return []
    return [*(1 << bits for bits in range((largest - 1).bit_length())), largest]


def _has_fixed_dims(config: Mapping[str, Any]) -> bool:
    return all(int(side) > 0 for tensor in (*config["input"], *config["output"]) for side in tensor["dims"])


def _parameters(config: Mapping[str, Any]) -> dict[str, str]:
    return {key: value["string_value"] for key, value in config.get("parameters", {}).items()}


def _integer(parameters: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(parameters.get(name, default))
    except ValueError:
        raise ValueError(f"parameter {name} in config.pbtxt is {parameters[name]!r}: expected an integer") from None


def _boolean(parameters: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = parameters.get(name, str(default)).strip().lower()
    if value not in ("0", "1", "true", "false"):
        raise ValueError(f"parameter {name} in config.pbtxt is {value!r}: expected 1 or 0")
    return value in ("1", "true")


def _cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container (cgroup v2, `cpu.max`)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores
