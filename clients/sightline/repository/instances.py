"""How a model is spread over a machine's cores: instances, threads and the delay of batching."""

from dataclasses import dataclass, replace
from typing import Final

from sightline.errors import UsageError
from sightline.repository.config import InstanceGroup, ModelConfig, WarmUp, WarmUpTensor

THREADS: Final = "intra_op_thread_count"
THREADS_BETWEEN: Final = "inter_op_thread_count"
"""Parameters of the ONNX Runtime backend (github.com/triton-inference-server/onnxruntime_backend, README)."""
LARGEST_RUN: Final = "largest_run"
LONE_THREADS: Final = "lone_thread_count"
"""Parameters of Sightline's own backend, which others pass over."""
FIRST_GROUP: Final = "first"
MORE_GROUP: Final = "more"
"""Names of the instance groups of a model with several instances."""
LAST: Final = 1_000_000
"""The priority of all instances but the first: while that is idle, it is asked (Triton's `--rate-limit=execution_count`). If they took
turns, each would be woken from a longer sleep with colder caches: a CNN of 30 MFLOP answered a lone client 0.83 times as often."""
GOLDEN: Final = "golden picture, batch of "
"""Begins the names of the warm-ups that are made of a golden image."""
SET_ON_CORES: Final = "set_on_cores"
"""A parameter that no backend reads: somebody set instances and threads, by `tune` or by hand, on a machine with so many cores."""


@dataclass(frozen=True)
class InstanceSettings:
    """How a model is spread over a machine's cores. On a GPU, instances share it and threads mean little."""

    instances: int
    """Copies of the model that work at the same time; on a machine with GPUs, on each of them."""
    threads: int
    """Of one copy; 0 is one for every core."""
    queue_delay_us: int | None = 0
    """How long a request may wait for others to be answered together with; None lets no two be answered together."""
    largest_run: int = 0
    """Images that the network computes at once on a CPU, however many were asked for together: what it needs of memory grows with them.
    0 is all."""
    lone_threads: int | None = None
    """Threads of the first instance while no other works; 0 is one for every core, None is no more than at other times."""

    def __str__(self) -> str:
        """For people: `2 instances of 1 thread, delay 0 µs`."""
        threads = "all threads" if self.threads == 0 else f"{self.threads} thread{'s' * (self.threads > 1)}"
        delay = "no batching" if self.queue_delay_us is None else f"delay {self.queue_delay_us} µs"
        run = f", {self.largest_run} image{'s' * (self.largest_run > 1)} a run" if self.largest_run else ""
        lone = {None: "", 0: ", all threads for a lone request"}.get(self.lone_threads, f", {self.lone_threads} threads for a lone request")
        return f"{self.instances} instance{'s' * (self.instances > 1)} of {threads}, {delay}{run}{lone}"


@dataclass(frozen=True)
class InstanceChanges:
    """The part of `InstanceSettings` that somebody wants to change; None keeps what there is."""

    instances: int | None = None
    threads: int | None = None
    queue_delay_us: int | None = None
    no_batching: bool = False

    def __post_init__(self) -> None:
        """Raise UsageError for a delay without batching."""
        if self.no_batching and self.queue_delay_us is not None:
            raise UsageError("a queue delay is a setting of batching: choose one of the two")

    def __bool__(self) -> bool:
        """Whether there is anything to change."""
        return self != InstanceChanges()

    def applied_to(self, settings: InstanceSettings) -> InstanceSettings:
        """Return `settings` with the changes."""
        delay_us = settings.queue_delay_us if self.queue_delay_us is None else self.queue_delay_us
        return InstanceSettings(
            settings.instances if self.instances is None else self.instances,
            settings.threads if self.threads is None else self.threads,
            None if self.no_batching else delay_us,
            settings.largest_run,
            settings.lone_threads,
        )


def with_instances(config: ModelConfig, settings: InstanceSettings) -> ModelConfig:
    """Return `config` with these settings; the batches that a published model is warmed up with follow them."""
    own = {LARGEST_RUN: str(settings.largest_run)} if settings.largest_run else {}
    if settings.lone_threads is not None and settings.instances > 1:
        own[LONE_THREADS] = str(settings.lone_threads)
    others = {name: value for name, value in config.parameters.items() if name not in (LARGEST_RUN, LONE_THREADS)}
    return replace(
        config,
        instance_groups=_groups(settings.instances),
        queue_delay_us=settings.queue_delay_us if config.max_batch_size > 1 else None,
        parameters={**others, THREADS: str(settings.threads), **own},
        warm_ups=_warm_ups(config, settings),
    )


def _groups(instances: int) -> tuple[InstanceGroup, ...]:
    if instances == 1:
        return (InstanceGroup("KIND_AUTO", 1),)
    return (InstanceGroup("KIND_AUTO", 1, name=FIRST_GROUP, priority=1), InstanceGroup("KIND_AUTO", instances - 1, (), MORE_GROUP, LAST))


def warm_up_sizes(settings: InstanceSettings, max_batch_size: int) -> tuple[int, ...]:
    """Return the sizes of batch that allocate what the model needs: one image, and a whole run."""
    return tuple(dict.fromkeys((1, min(max(1, settings.largest_run), max(1, max_batch_size)))))


def warm_up(size: int, tensor: WarmUpTensor) -> WarmUp:
    """Return the warm-up of a published model with a batch of `size`."""
    return WarmUp(f"{GOLDEN}{size}", size, (tensor,))


def _warm_ups(config: ModelConfig, settings: InstanceSettings) -> tuple[WarmUp, ...]:
    """Those of `config`, where export wrote them, at the sizes of `settings` if these have another run; what is somebody else's stays."""
    ours = bool(config.warm_ups) and all(each.name.startswith(GOLDEN) and len(each.inputs) == 1 for each in config.warm_ups)
    if not ours or settings.largest_run == instances_of(config).largest_run:
        return config.warm_ups
    return tuple(warm_up(size, config.warm_ups[0].inputs[0]) for size in warm_up_sizes(settings, config.max_batch_size))


def instances_of(config: ModelConfig) -> InstanceSettings:
    """Return the settings that `with_instances` wrote; Triton's own defaults for what is not there."""
    instances = sum(max(1, group.count) for group in config.instance_groups) or 1
    threads, run = (config.parameters.get(name, "0") for name in (THREADS, LARGEST_RUN))
    lone = config.parameters.get(LONE_THREADS)
    return InstanceSettings(instances, _whole(threads), config.queue_delay_us, _whole(run), None if lone is None else _whole(lone))


def with_count(config: ModelConfig, instances: int) -> ModelConfig:
    """Return `config` with so many instances where its first ones are, and nothing else changed."""
    first = config.instance_groups[0] if config.instance_groups else InstanceGroup("KIND_CPU")
    return replace(config, instance_groups=(replace(first, count=instances),))


def marked_as_set(config: ModelConfig, cores: int) -> ModelConfig:
    """Return `config` with the remark that somebody chose its settings on a machine with so many cores."""
    return replace(config, parameters={**config.parameters, SET_ON_CORES: str(cores)})


def set_on_cores(config: ModelConfig) -> int | None:
    """Return the cores of the machine on which somebody set instances and threads; None where they are as they were exported."""
    return _whole(config.parameters[SET_ON_CORES]) if SET_ON_CORES in config.parameters else None


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
