"""Triton's `config.pbtxt` as a frozen value: the settings that Sightline reads or writes.

Fields are those of `model_config.proto` (github.com/triton-inference-server/common, protobuf). `sightline.repository.config_text` reads
and writes the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

InstanceKind = Literal["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"]
"""Where instances work. AUTO is GPU where Triton finds one and CPU elsewhere, so one file serves both."""


@dataclass(frozen=True)
class Tensor:
    """An input or an output, without the batch's dimension."""

    name: str
    data_type: str
    """`TYPE_UINT8`, `TYPE_FP32`, `TYPE_STRING` …"""
    dims: tuple[int, ...]
    label_file: str = ""
    """Of an output: the file beside `config.pbtxt` that names its classes."""
    optional: bool = False
    """Of an input: whether a request may come without it."""


@dataclass(frozen=True)
class VersionPolicy:
    """Which versions Triton serves (its user guide, "Version Policy")."""

    kind: Literal["latest", "all", "specific"] = "latest"
    count: int = 0
    """Of `latest`: so many of the newest; 0 is Triton's default, one."""
    versions: tuple[int, ...] = ()
    """Of `specific`."""

    def served(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """Return those of the versions `numbers` (oldest first) that Triton serves."""
        match self.kind:
            case "all":
                return tuple(numbers)
            case "specific":
                return tuple(number for number in numbers if number in self.versions)
            case "latest":
                return tuple(numbers[-max(1, self.count) :])


@dataclass(frozen=True)
class InstanceGroup:
    """Instances of a model that work at the same time."""

    kind: InstanceKind = "KIND_AUTO"
    count: int = 0
    """0 is Triton's default, one; on GPUs, on each of them."""
    gpus: tuple[int, ...] = ()
    """Indices of the GPUs; none is all of them."""
    name: str = ""
    """Empty is Triton's default; instances are called after it."""
    priority: int = 0
    """Of idle instances, one of priority 1 is asked N times as often as one of priority N (`--rate-limit=execution_count`); 0 is 1."""


@dataclass(frozen=True)
class WarmUpTensor:
    """One input of a warm-up request."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    file: str = ""
    """In the folder `warmup`; empty sends zeros."""


@dataclass(frozen=True)
class WarmUp:
    """A request that Triton sends a model before it calls it ready."""

    name: str
    batch_size: int
    inputs: tuple[WarmUpTensor, ...]


@dataclass(frozen=True)
class Accelerator:
    """An execution accelerator of ONNX Runtime, such as TensorRT's provider."""

    name: str
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class EnsembleStep:
    """One model of an ensemble; version -1 is the newest that is served."""

    model: str
    version: int
    inputs: tuple[tuple[str, str], ...]
    """(the model's tensor, the ensemble's)."""
    outputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What a `config.pbtxt` says, as far as Sightline reads or writes it."""

    name: str
    backend: str = ""
    platform: str = ""
    default_file: str = ""
    """The model's file in a version's folder; empty is the backend's default."""
    max_batch_size: int = 0
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    policy: VersionPolicy = field(default_factory=VersionPolicy)
    instance_groups: tuple[InstanceGroup, ...] = ()
    queue_delay_us: int | None = None
    """How long a request may wait for others to be answered together with; None lets no two be answered together."""
    warm_ups: tuple[WarmUp, ...] = ()
    gpu_accelerators: tuple[Accelerator, ...] = ()
    plan_files: Mapping[str, str] = field(default_factory=dict)
    """Compute capability → the plan's file name (`cc_model_filenames`)."""
    steps: tuple[EnsembleStep, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    unknown_settings: str = field(default="", compare=False)
    """What the message's own parser says of settings that only a newer Triton knows; empty if there are none."""
    source: bytes = field(default=b"", repr=False, compare=False)
    """The message that it was read from, serialised: settings that are no field here are kept from it."""


def decisive_differences(config: ModelConfig, expected: ModelConfig) -> list[str]:
    """Return the fields that decide an answer and are not the expected ones; how many instances there are, and how they batch, is free."""
    free = {"instance_groups", "queue_delay_us", "warm_ups", "source", "unknown_settings"}
    alike = replace(config, **{name: getattr(expected, name) for name in free})
    return [name for name in ModelConfig.__dataclass_fields__ if getattr(alike, name) != getattr(expected, name)]
