"""Triton's `config.pbtxt`, complete and through NVIDIA's own protobuf message: nothing is left for Triton to guess.

Quotes, line breaks and other alphabets in the card come back as they were, since the message's own writer escapes them. The ONNX
Runtime settings are parameters of NVIDIA's C++ backend (github.com/triton-inference-server/onnxruntime_backend, README).
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sightline.card import CARD_KEY, ModelCard, seal, unseal
from sightline.errors import ContractError

BACKEND: Final = "onnxruntime"
MODEL_FILE: Final = "model.onnx"
LABELS_FILE: Final = "labels.txt"
THREADS: Final = "intra_op_thread_count"
THREADS_BETWEEN: Final = "inter_op_thread_count"

WARM_UP_FILE: Final = "golden"
"""In the folder `warmup` beside `config.pbtxt`: where Triton looks (model_config.proto, ModelWarmup.Input.input_data_file)."""
WARM_UP_FLOP: Final = 100_000_000_000
"""A full batch is warmed up with if it takes no more: a second or two of two CPU cores."""

SMALL_FLOP: Final = 10_000_000
LARGE_FLOP: Final = 1_000_000_000


@dataclass(frozen=True)
class Shape:
    """How a model is spread over a machine's cores. On a GPU, instances share it and threads mean little."""

    instances: int
    """Copies of the model that work at the same time; on a machine with GPUs, on each of them."""
    threads: int
    """Of one copy; 0 is one for every core."""
    queue_delay_us: int | None = 0
    """How long a request may wait for others to be answered together with; None lets no two be answered together."""


def shape_for(flop: int) -> Shape:
    """The shape for a network of `flop` floating-point operations an image (a multiplication and an addition are two).

    From requests/s measured on two CPU cores: an MLP of 1.3 MFLOP was fastest as one instance of one thread, a CNN of some 30 MFLOP
    as two of one thread, VGG16 (31 GFLOP) as one with both cores; a wrong shape cost up to half.
    """
    if flop < SMALL_FLOP:
        return Shape(instances=1, threads=1)
    return Shape(instances=2, threads=1) if flop < LARGE_FLOP else Shape(instances=1, threads=0)


def give_shape(config: Any, shape: Shape) -> None:
    """Write `shape` into a ModelConfig message."""
    del config.instance_group[:]
    # AUTO is GPU where Triton finds one and CPU elsewhere, so one file serves both.
    config.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_AUTO, count=shape.instances)
    config.ClearField("dynamic_batching")
    if config.max_batch_size > 1 and shape.queue_delay_us is not None:
        # Without preferred sizes: whatever waits while the model works is its next batch, and, with no delay, a lone request does not
        # wait for company. (NVIDIA advises preferred sizes only where single sizes are much faster than their neighbours.)
        config.dynamic_batching.max_queue_delay_microseconds = shape.queue_delay_us
        config.dynamic_batching.SetInParent()
    config.parameters[THREADS].string_value = str(shape.threads)


def shape_in(config: Any) -> Shape:
    """What `give_shape` wrote; Triton's own defaults for what is not there."""
    instances = sum(max(1, group.count) for group in config.instance_group) or 1
    threads = config.parameters[THREADS].string_value if THREADS in config.parameters else "0"
    batching = config.dynamic_batching.max_queue_delay_microseconds if config.HasField("dynamic_batching") else None
    return Shape(instances, int(threads) if threads.isdecimal() else 0, batching)


def warm_batches(card: ModelCard, flop: int) -> tuple[int, ...]:
    """The sizes of batch that a model of `flop` floating-point operations an image is warmed up with: one, and as many as are cheap."""
    return tuple(dict.fromkeys((1, max(1, min(card.max_batch_size, WARM_UP_FLOP // max(1, flop))))))


def config_text(card: ModelCard, shape: Shape, warm_up: tuple[int, ...] = ()) -> str:
    """The text of `config.pbtxt`: ASCII, and the same for the same arguments.

    `warm_up` are sizes of batch that Triton sends, each filled with the image in `warmup/`, before it says that the model is ready:
    memory is then allocated, and a GPU's kernels are chosen.
    """
    config = model_config_pb2.ModelConfig(name=card.name, backend=BACKEND, default_model_filename=MODEL_FILE)
    config.max_batch_size = card.max_batch_size
    config.input.add(name=card.input, data_type=model_config_pb2.TYPE_UINT8, dims=card.preprocess.shape)
    config.output.add(name=card.output, data_type=model_config_pb2.TYPE_FP32, dims=[len(card.labels)], label_filename=LABELS_FILE)
    config.version_policy.latest.num_versions = 1
    give_shape(config, shape)
    for size in warm_up:
        sample = config.model_warmup.add(name=f"golden image, batch of {size}", batch_size=size)
        pixels = sample.inputs[card.input]
        pixels.data_type, pixels.input_data_file = model_config_pb2.TYPE_UINT8, WARM_UP_FILE
        pixels.dims.extend(card.preprocess.shape)
    # The graph is one chain of layers: nothing in it could run beside something else.
    config.parameters[THREADS_BETWEEN].string_value = "1"
    config.parameters[CARD_KEY].string_value = seal(card)
    text: str = text_format.MessageToString(config, as_utf8=False)
    return text


@dataclass(frozen=True)
class Published:
    """What an existing `config.pbtxt` says."""

    card: ModelCard
    policy: Literal["latest", "all", "specific"]
    served: tuple[int, ...]
    """The versions that a `specific` policy names."""
    message: Any


def read_config(text: str, where: str) -> Published:
    """Read a `config.pbtxt`. Raises ContractError if it is none, holds no card, or contradicts the card that it holds."""
    try:
        config = text_format.Parse(text, model_config_pb2.ModelConfig(), allow_unknown_field=True)
    except text_format.ParseError as error:
        raise ContractError(f"{where}: no model configuration: {error}. Restore the file that was published") from None
    if CARD_KEY not in config.parameters:
        raise ContractError(f"{where}: it holds no model card (parameters[{CARD_KEY!r}]). Restore the file that was published")
    card = unseal(config.parameters[CARD_KEY].string_value, where)
    if found := contradictions(config, card):
        raise ContractError(f"{where} contradicts the model card in it: {'; '.join(found)}. Restore the file that was published")
    return Published(
        card, config.version_policy.WhichOneof("policy_choice") or "latest", tuple(config.version_policy.specific.versions), config
    )


def contradictions(config: Any, card: ModelCard) -> list[str]:
    """Where a ModelConfig message differs from the card, one phrase each; settings that change no answer are its own business."""
    kinds = model_config_pb2.DataType
    said = {
        "name": config.name,
        "backend": config.backend,
        "max_batch_size": config.max_batch_size,
        "input": [(each.name, kinds.Name(each.data_type), list(each.dims)) for each in config.input],
        "output": [(each.name, kinds.Name(each.data_type), list(each.dims), each.label_filename) for each in config.output],
    }
    wanted = {
        "name": card.name,
        "backend": BACKEND,
        "max_batch_size": card.max_batch_size,
        "input": [(card.input, "TYPE_UINT8", list(card.preprocess.shape))],
        "output": [(card.output, "TYPE_FP32", [len(card.labels)], LABELS_FILE)],
    }
    return [f"its {field} is {said[field]}, the card says {wanted[field]}" for field in wanted if said[field] != wanted[field]]


def other_settings(published: Any, text: str) -> list[str]:
    """The fields, by name, in which the message `published` is not what `text` says."""
    mine = text_format.Parse(text, model_config_pb2.ModelConfig())
    return [field.name for field in mine.DESCRIPTOR.fields if getattr(mine, field.name) != getattr(published, field.name)]
