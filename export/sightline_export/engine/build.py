"""The one place that touches TensorRT: builds a plan, inspects it, and asks it. Not yet run on TensorRT hardware.

Written against the Python API of TensorRT 10.16 and 11.4. torch holds the tensors on the GPU: the gate needs it anyway, and it brings
the CUDA runtime, so that no second package for memory and streams is needed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch

from sightline.card import ModelCard
from sightline.errors import MissingExtra, RepositoryError
from sightline.repository.tensorrt_plan import Hardware, Profile
from sightline_export.gate.compare import Answer, Pixels, Probabilities

LEVELS: Final[dict[Hardware, str]] = {
    "none": "NONE",
    "ampere-plus": "AMPERE_PLUS",
    "same-compute-capability": "SAME_COMPUTE_CAPABILITY",
}
"""Of `tensorrt.HardwareCompatibilityLevel`."""
MOST_WORDS: Final = 20


@dataclass(frozen=True)
class Built:
    """What TensorRT made of an ONNX file."""

    plan: bytes
    timing_cache: bytes
    """The one that went in, with what was measured this time."""
    seconds: float


def tensorrt_version() -> str:
    """All four numbers of the TensorRT that builds here, `11.4.0.106`. Raises MissingExtra."""
    return str(_tensorrt().__version__)


def build(
    model: bytes,
    card: ModelCard,
    profile: Profile,
    *,
    hardware: Hardware = "none",
    version_compatible: bool = False,
    timing_cache: bytes = b"",
    notify: Callable[[str], None] = lambda _sentence: None,
) -> Built:
    """Build a strongly typed plan of the serialised ONNX `model`: every layer has the type that the file gives it, and TF32 is off.

    One profile, for the batches of `profile`. It is built on the first GPU that CUDA_VISIBLE_DEVICES shows. A timing cache of another
    TensorRT or GPU is left aside, and it is said. Raises MissingExtra without TensorRT, RepositoryError with its words if it refuses.
    """
    trt = _tensorrt()
    words: list[str] = []
    log = _log(trt, words)
    builder = _made(trt.Builder, log, words=words, what="the builder")
    # TensorRT 11 knows no other kind of network and ignores the flag.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        found = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise RepositoryError(f"TensorRT cannot read the ONNX file of {card.name}: {_said([*found, *words])}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, LEVELS[hardware])
    if version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    shapes = builder.create_optimization_profile()
    shapes.set_shape(card.input, *((batch, *card.preprocess.shape) for batch in (profile.minimum, profile.optimum, profile.maximum)))
    if config.add_optimization_profile(shapes) < 0:
        raise RepositoryError(f"TensorRT refuses batches of {profile.minimum} to {profile.maximum} for {card.name}: {_said(words)}")
    cache = config.create_timing_cache(timing_cache)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        notify("the timing cache is of another TensorRT or GPU: a new one is begun")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    start_s = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RepositoryError(f"TensorRT cannot build {card.name}: {_said(words)}")
    return Built(bytes(plan), bytes(config.get_timing_cache().serialize()), time.monotonic() - start_s)


@dataclass(frozen=True)
class Loaded:
    """A plan on the GPU."""

    answer: Answer
    """uint8 pixels [N, height, width, channels] → float32 probabilities [N, classes], N within the plan's profile."""
    layers: str
    """What the engine inspector says of it, as JSON text."""
    _keeps: tuple[Any, ...] = field(repr=False, compare=False)
    """An engine must not outlive its runtime, nor a context its engine."""


def load(plan: bytes, card: ModelCard, *, brings_code: bool = False) -> Loaded:
    """Load a plan onto the first GPU. A plan is code: give only bytes that were built here, or whose hash was checked.

    `brings_code` admits a version-compatible one. Raises MissingExtra, or RepositoryError if TensorRT refuses the plan or its tensors
    are not the card's.
    """
    trt = _tensorrt()
    words: list[str] = []
    runtime = _made(trt.Runtime, _log(trt, words), words=words, what="the runtime")
    runtime.engine_host_code_allowed = brings_code
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise RepositoryError(f"TensorRT does not load the plan of {card.name}: {_said(words)}")
    _check_tensors(trt, engine, card)
    context = engine.create_execution_context()
    if context is None:
        raise RepositoryError(f"TensorRT has no room for {card.name} on this GPU: {_said(words)}")
    layers = str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def answer(pixels: Pixels) -> Probabilities:
        with torch.cuda.stream(stream):
            sent = torch.from_numpy(np.ascontiguousarray(pixels)).to("cuda")
            given = torch.empty((len(pixels), len(card.labels)), dtype=torch.float32, device="cuda")
            done = (
                context.set_input_shape(card.input, tuple(sent.shape))
                and context.set_tensor_address(card.input, sent.data_ptr())
                and context.set_tensor_address(card.output, given.data_ptr())
                and context.execute_async_v3(stream.cuda_stream)
            )
            stream.synchronize()
        if not done:
            raise RepositoryError(f"the plan of {card.name} does not answer a batch of {len(pixels)}: {_said(words)}")
        answered: Probabilities = given.cpu().numpy()
        return answered

    return Loaded(answer, layers, (runtime, engine, context))


def _tensorrt() -> Any:
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        why = "is not installed in this Python" if isinstance(error, ModuleNotFoundError) else f"does not load ({error})"
        raise MissingExtra(
            f"`sightline finalize` needs TensorRT's Python module, which {why}: run it in the image of docker/Dockerfile.finalize, or "
            "install the tensorrt wheels of the very version that Triton has"
        ) from None
    return tensorrt


def _log(trt: Any, words: list[str]) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc] # TensorRT is known at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                words.append(msg)
                del words[:-MOST_WORDS]

    return Log()


def _made(kind: Callable[..., Any], log: Any, *, words: list[str], what: str) -> Any:
    try:
        return kind(log)
    except TypeError:
        # pybind11's way to say that TensorRT gave none: without a GPU it gives no builder.
        raise RepositoryError(f"TensorRT does not start {what}: {_said(words)}") from None


def _check_tensors(trt: Any, engine: Any, card: ModelCard) -> None:
    there = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        there[name] = (engine.get_tensor_mode(name), engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name)))
    wanted = {
        card.input: (trt.TensorIOMode.INPUT, trt.DataType.UINT8, (-1, *card.preprocess.shape)),
        card.output: (trt.TensorIOMode.OUTPUT, trt.DataType.FLOAT, (-1, len(card.labels))),
    }
    if there != wanted:
        raise RepositoryError(f"the plan of {card.name} has the tensors {there}, and the card wants {wanted}")


def _said(words: list[str]) -> str:
    told = " ".join("; ".join(dict.fromkeys(words)).split())
    return told[:1000] if told else "it does not say why"
