"""The configuration of a published model follows from its card: how it is made, and whether one that was read still fits."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from sightline.card import CARD_KEY, SAMPLE_KEY, ModelCard, seal, unseal
from sightline.errors import ContractError
from sightline.repository.config import ModelConfig, Tensor, VersionPolicy, WarmUpTensor
from sightline.repository.config_text import differing_settings
from sightline.repository.instances import THREADS_BETWEEN, InstanceSettings, warm_up, with_instances
from sightline.repository.layout import CARD_FILE, LABELS_FILE, ONNX_FILE, WARM_UP_FILE

BACKEND: Final = "onnxruntime"
ARENA: Final = "enable_mem_arena"
"""Whether ONNX Runtime keeps the memory of its largest run on a CPU: glibc keeps it as well, and MobileNetV2 was as fast and held less."""


def config_for(card: ModelCard, settings: InstanceSettings, warm_up_batches: Sequence[int] = ()) -> ModelConfig:
    """Return the complete configuration of `card`'s model: nothing is left for Triton to guess.

    `warm_up_batches` are sizes of batch that Triton sends, each filled with the image in `warmup/`, before it says that the model is
    ready: memory is then allocated, and a GPU's kernels are chosen.
    """
    shape = card.preprocess.shape
    config = ModelConfig(
        name=card.name,
        backend=BACKEND,
        default_file=ONNX_FILE,
        max_batch_size=card.max_batch_size,
        inputs=(Tensor(card.input, "TYPE_UINT8", shape),),
        outputs=(Tensor(card.output, "TYPE_FP32", (len(card.labels),), LABELS_FILE),),
        policy=VersionPolicy("latest", 1),
        # The graph is one chain of layers: nothing in it could run beside something else.
        parameters={THREADS_BETWEEN: "1", ARENA: "0", CARD_KEY: seal(card)},
    )
    image = WarmUpTensor(card.input, "TYPE_UINT8", shape, WARM_UP_FILE)
    return replace(with_instances(config, settings), warm_ups=tuple(warm_up(size, image) for size in warm_up_batches))


def card_in(config: ModelConfig, where: str) -> ModelCard:
    """Return the card that a configuration holds. Raises ContractError if it holds none, or contradicts it; `where` names the file."""
    if CARD_KEY not in config.parameters:
        raise ContractError(f"{where}: it holds no model card (parameters[{CARD_KEY!r}]). Restore the file that was published")
    card = unseal(config.parameters[CARD_KEY], where)
    if differing := contradictions(config, card):
        raise ContractError(f"{where} contradicts the model card in it: {'; '.join(differing)}. Restore the file that was published")
    return card


def contradictions(config: ModelConfig, card: ModelCard) -> list[str]:
    """Return where a configuration differs from the card, one phrase each; settings that change no answer are its own business."""
    stated = {
        "name": config.name,
        "backend": config.backend,
        "max_batch_size": config.max_batch_size,
        "input": [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in config.inputs],
        "output": [(tensor.name, tensor.data_type, list(tensor.dims), tensor.label_file) for tensor in config.outputs],
    }
    wanted = {
        "name": card.name,
        "backend": BACKEND,
        "max_batch_size": card.max_batch_size,
        "input": [(card.input, "TYPE_UINT8", list(card.preprocess.shape))],
        "output": [(card.output, "TYPE_FP32", [len(card.labels)], LABELS_FILE)],
    }
    return [f"its {field} is {stated[field]}, the card says {wanted[field]}" for field in wanted if stated[field] != wanted[field]]


def notices_of_kept(kept: ModelConfig, where: str, number: int, new: ModelConfig) -> Iterator[str]:
    """Give what the owner of a configuration that was `kept` should know after version `number` was added, which would have had `new`."""
    # Samples are of versions, and no settings.
    settings = {key: value for key, value in kept.parameters.items() if not key.startswith(SAMPLE_KEY)}
    if differing := [name for name in differing_settings(replace(kept, parameters=settings), new) if name != "version_policy"]:
        yield f"{where} was kept as it is; a new one would differ in {', '.join(differing)}"
    if kept.policy.kind == "specific" and number not in kept.policy.versions:
        pinned = ", ".join(map(str, kept.policy.versions))
        yield f"version {number} is published but not served: version_policy in {where} says {pinned}"


def shared_files(card: ModelCard) -> dict[str, str]:
    """Return name and content of the files beside `config.pbtxt` that follow from the card."""
    return {CARD_FILE: seal(card), LABELS_FILE: labels_text(card)}


def labels_text(card: ModelCard) -> str:
    """Return the content of `labels.txt`: a label a line, in the order of the outputs."""
    return "".join(f"{label}\n" for label in card.labels)
