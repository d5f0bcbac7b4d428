"""The one place that touches TensorRT: builds a plan, inspects it, and asks it. Not yet run on TensorRT hardware.

Written against the Python API of TensorRT 10.16 and 11.4.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from sightline.batches import Pixels, Predict, Probabilities
from sightline.card import ModelCard
from sightline.errors import BuildError, MachineError, MissingExtra
from sightline.host.text import one_line
from sightline.repository.tensorrt_plan import Hardware, Profile
from sightline_export.engine.cuda_memory import CudaMemory
from sightline_export.settings import PlanSettings

if TYPE_CHECKING:
    from tensorrt import ICudaEngine, ILogger

Made = TypeVar("Made")

LEVELS: Final[dict[Hardware, str]] = {
    "none": "NONE",
    "ampere-plus": "AMPERE_PLUS",
    "same-compute-capability": "SAME_COMPUTE_CAPABILITY",
}
"""Of `tensorrt.HardwareCompatibilityLevel`."""
MOST_MESSAGES: Final = 20


@dataclass(frozen=True)
class Built:
    """What TensorRT made of an ONNX file."""

    plan: bytes = field(repr=False)
    timing_cache: bytes = field(repr=False)
    """The one that went in, with what was measured this time."""
    seconds: float


def tensorrt_version() -> str:
    """Return all four numbers of the TensorRT that builds here, `11.4.0.106`. Raises MissingExtra."""
    return str(_tensorrt().__version__)


def build(
    model: bytes,
    card: ModelCard,
    profile: Profile,
    settings: PlanSettings | None = None,
    *,
    timing_cache: bytes = b"",
    notify: Callable[[str], None] = lambda _sentence: None,
) -> Built:
    """Build a strongly typed plan of the serialised ONNX `model`: every layer has the type that the file gives it, and TF32 is off.

    One profile, for the batches of `profile`. It is built on the first GPU that CUDA_VISIBLE_DEVICES shows. A timing cache of another
    TensorRT or GPU is left aside, and `notify` is told. Raises MissingExtra without TensorRT, MachineError without a GPU, BuildError with
    TensorRT's messages if it refuses.
    """
    settings = settings or PlanSettings()
    trt = _tensorrt()
    messages: list[str] = []
    log = _log(trt, messages)
    builder = _create(trt.Builder, log, messages=messages, what="the builder")
    # TensorRT 11 knows no other kind of network and ignores the flag.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        parser_errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise BuildError(f"TensorRT cannot read the ONNX file of {card.name}: {_joined([*parser_errors, *messages])}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, LEVELS[settings.hardware])
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    shapes = builder.create_optimization_profile()
    shapes.set_shape(card.input, *((batch, *card.preprocess.shape) for batch in (profile.minimum, profile.optimum, profile.maximum)))
    if config.add_optimization_profile(shapes) < 0:
        raise BuildError(f"TensorRT refuses batches of {profile.minimum} to {profile.maximum} for {card.name}: {_joined(messages)}")
    cache = config.create_timing_cache(timing_cache)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        notify("the timing cache is of another TensorRT or GPU: a new one is begun")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    start_s = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"TensorRT cannot build {card.name}: {_joined(messages)}")
    return Built(bytes(plan), bytes(config.get_timing_cache().serialize()), time.monotonic() - start_s)


@dataclass(frozen=True)
class LoadedPlan:
    """A plan on the GPU."""

    predict: Predict = field(repr=False)
    """uint8 pixels [N, height, width, channels] → float32 probabilities [N, classes], N within the plan's profile."""
    layers: str = field(repr=False)
    """What the engine inspector says of it, as JSON text."""
    _alive: tuple[object, ...] = field(default=(), repr=False, compare=False)
    """An engine must not outlive its runtime, nor a context its engine."""


def load(plan: bytes, card: ModelCard, *, code_allowed: bool = False) -> LoadedPlan:
    """Load a plan onto the first GPU. A plan is code: give only bytes that were built here, or whose hash was checked.

    `code_allowed` admits a version-compatible one. Raises MissingExtra, MachineError without room on the GPU, or BuildError if TensorRT
    refuses the plan or its tensors are not the card's.
    """
    trt = _tensorrt()
    messages: list[str] = []
    runtime = _create(trt.Runtime, _log(trt, messages), messages=messages, what="the runtime")
    runtime.engine_host_code_allowed = code_allowed
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(f"TensorRT does not load the plan of {card.name}: {_joined(messages)}")
    _check_tensors(trt, engine, card)
    context = engine.create_execution_context()
    if context is None:
        raise MachineError(f"TensorRT has no room for {card.name} on this GPU: {_joined(messages)}")
    layers = str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))
    memory = CudaMemory()

    def predict(pixels: Pixels) -> Probabilities:
        pixels, shape = np.ascontiguousarray(pixels), (len(pixels), len(card.labels))
        with memory.buffer(pixels.nbytes) as source, memory.buffer(4 * math.prod(shape)) as target:
            memory.copy_to(source, pixels)
            done = (
                context.set_input_shape(card.input, tuple(pixels.shape))
                and context.set_tensor_address(card.input, source)
                and context.set_tensor_address(card.output, target)
                and context.execute_async_v3(memory.stream)
            )
            memory.synchronize()
            if not done:
                raise BuildError(f"the plan of {card.name} does not answer a batch of {len(pixels)}: {_joined(messages)}")
            return memory.copy_from(target, shape)

    return LoadedPlan(predict, layers, (runtime, engine, context))


def _tensorrt() -> ModuleType:
    try:
        import tensorrt
    except ModuleNotFoundError:
        raise MissingExtra(
            "`sightline finalize` needs TensorRT's Python module, which is not installed in this Python: run it in the image of "
            "docker/Dockerfile.finalize, or install the tensorrt wheels of the very version that Triton has"
        ) from None
    except (ImportError, OSError) as error:
        raise MachineError(f"TensorRT's Python module does not load here: {one_line(error)}") from None
    module: ModuleType = tensorrt
    return module


def _log(trt: ModuleType, messages: list[str]) -> "ILogger":
    class Log(trt.ILogger):  # type: ignore[misc, name-defined] # TensorRT is known at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                messages.append(msg)
                del messages[:-MOST_MESSAGES]

    return Log()


def _create(kind: Callable[[object], Made], log: object, *, messages: list[str], what: str) -> Made:
    try:
        return kind(log)
    except TypeError:
        # pybind11's way to say that TensorRT gave none: without a GPU it gives no builder.
        raise MachineError(f"TensorRT does not start {what}: {_joined(messages)}") from None


def _check_tensors(trt: ModuleType, engine: "ICudaEngine", card: ModelCard) -> None:
    tensors = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        tensors[name] = (engine.get_tensor_mode(name), engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name)))
    wanted = {
        card.input: (trt.TensorIOMode.INPUT, trt.DataType.UINT8, (-1, *card.preprocess.shape)),
        card.output: (trt.TensorIOMode.OUTPUT, trt.DataType.FLOAT, (-1, len(card.labels))),
    }
    if tensors != wanted:
        raise BuildError(f"the plan of {card.name} has the tensors {tensors}, and the card wants {wanted}")


def _joined(messages: list[str]) -> str:
    """Return TensorRT's messages, each once, for the end of a sentence."""
    return one_line("; ".join(dict.fromkeys(messages)), 1000) or "it does not say why"
