"""Lets a few processes reformat for all models that take encoded images, where each would have started one of its own.

A `<model>_reformat` is a Python process of some 32 MiB that takes half a second of a core to start. Where there are more of them than a few
processes can use cores, Triton is shown one model `sightline_reformatting` that has an input and an output for each, and `<model>_reformat`
as an ensemble of that one step. The repository never changes for it. A `<model>_reformat` that is not as it was published, for which `tune`
found more processes for example, keeps them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from sightline.card import PICTURES_OF, ModelCard, seal, unseal
from sightline.in_triton import ENCODED, IMAGE, REFORMAT, SHARED, SHARED_OF, shared_tensors
from sightline.repository.config import EnsembleStep, InstanceGroup, ModelConfig, Tensor
from sightline.repository.config_text import differing_settings
from sightline.repository.image_ensemble import NEWEST, image_configs
from sightline.repository.layout import CONFIG_FILE
from sightline.repository.read import ModelFolder

MOST_PROCESSES: Final = 4
"""Each has as many threads as there are cores, which decode without Python's lock; more processes only help what holds it."""


@dataclass(frozen=True)
class SharedReformatting:
    """What Triton is shown."""

    config: ModelConfig
    """Of the model that reformats for all."""
    files_of: str
    """The model whose files it is shown with: `model.py`, and the images to warm up with."""
    replaced: Mapping[str, ModelConfig]
    """The configurations of the models that now go through it."""


def share_reformatting(folders: Mapping[str, ModelFolder], cores: int) -> SharedReformatting | None:
    """Return how the selected models (by name) share what reformats; None if each keeps its own."""
    configs = {name: folder.config for name, folder in folders.items()}
    sealed = {name: config.parameters[PICTURES_OF] for name, config in configs.items() if PICTURES_OF in config.parameters}
    steps = [name for name in sealed if name.endswith(REFORMAT)]
    processes = min(cores, MOST_PROCESSES)
    if len(steps) <= processes or SHARED in folders:
        return None
    cards: dict[str, ModelCard] = {}
    replaced: dict[str, ModelConfig] = {}
    for step in steps:
        card = unseal(sealed[step], f"{CONFIG_FILE} of model {step}")
        published = image_configs(card)
        unchanged = [name for name in published if name in configs and not differing_settings(configs[name], published[name])]
        if step in unchanged:
            cards[step] = card
            # Also the ensemble, for which one within another would be a detour.
            replaced |= {name: _through_shared(published[name], card) for name in unchanged}
    if len(cards) <= processes:
        return None
    first = min(cards)
    return SharedReformatting(_shared(configs[first], list(cards.values()), processes), first, replaced)


def _shared(published: ModelConfig, cards: list[ModelCard], processes: int) -> ModelConfig:
    """The model that reformats for all `cards`, as one of theirs does for one."""
    tensors = [(card, *shared_tensors(card)) for card in cards]
    return replace(
        published,
        name=SHARED,
        max_batch_size=max(card.max_batch_size for card in cards),
        inputs=tuple(Tensor(taken, "TYPE_STRING", (1,), optional=True) for _, taken, _ in tensors),
        outputs=tuple(Tensor(given, "TYPE_UINT8", card.preprocess.shape) for card, _, given in tensors),
        instance_groups=(InstanceGroup("KIND_CPU", processes),),
        queue_delay_us=0,
        warm_ups=tuple(
            replace(warm_up, inputs=tuple(replace(tensor, name=tensors[0][1]) for tensor in warm_up.inputs))
            for warm_up in published.warm_ups
        ),
        parameters={f"{SHARED_OF}{card.name}": seal(card) for card in cards},
        source=b"",
    )


def _through_shared(config: ModelConfig, card: ModelCard) -> ModelConfig:
    """`<model>_reformat` or `<model>_image`, with the shared model as its first step."""
    taken, given = shared_tensors(card)
    first = EnsembleStep(SHARED, NEWEST, ((taken, ENCODED),), ((given, card.input),))
    if config.name.endswith(IMAGE):
        return replace(config, steps=(first, *config.steps[1:]))
    return replace(
        config,
        backend="",
        platform="ensemble",
        default_file="",
        instance_groups=(),
        queue_delay_us=None,
        warm_ups=(),
        steps=(first,),
        source=b"",
    )
