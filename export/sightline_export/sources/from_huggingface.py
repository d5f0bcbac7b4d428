"""`--from huggingface:DIR`: a folder that `save_pretrained` wrote, or that was fetched from the hub; nothing in it is run or unpickled."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from sightline.errors import DataError, UsageError
from sightline_export.sources.hf_image_processor import seen_by
from sightline_export.sources.imported_model import Brought, demand_float32, library, matching, seeded, told_apart
from sightline_training.files import read_json
from sightline_training.networks.weights import sha256_of

CONFIG, PROCESSOR, WEIGHTS, INDEX = "config.json", "preprocessor_config.json", "model.safetensors", "model.safetensors.index.json"

FOREIGN: Final = ("auto_map", "quantization_config")
"""Keys of config.json under which a folder brings code of its own, or weights that are no float32."""


class Logits(nn.Module):
    """Normalised float32 [N, 3, H, W] → logits [N, classes]: what transformers' model says, without what else it gives."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, planes: Tensor) -> Tensor:
        """As the class says."""
        logits: Tensor = self.model(pixel_values=planes).logits
        return logits


def from_huggingface(what: str, weights: str | None, labels: tuple[str, ...] | None) -> Brought:
    """The image classifier in the folder `what`: config.json, preprocessor_config.json, and safetensors unless `weights` is `random`.

    Raises DataError if the folder is incomplete or damaged, UsageError for what cannot be brought, MissingExtra without transformers.
    """
    folder = Path(what)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: huggingface:DIR names one with {CONFIG}, {PROCESSOR} and {WEIGHTS} in it")
    if weights not in (None, "random"):
        raise UsageError(f"the weights of huggingface:{folder} lie in it, as {WEIGHTS}: leave --weights out, or say `--weights random`")
    described = read_json(folder / CONFIG)
    for key in FOREIGN:
        if described.get(key) is not None:
            raise UsageError(
                f"{folder / CONFIG}: {key} is not supported: only float32 networks that transformers itself knows can be brought"
            )
    if described.get("problem_type") == "multi_label_classification":
        raise UsageError(f"{folder / CONFIG}: problem_type is multi_label_classification, whose answers do not sum to 1")
    seen = seen_by(read_json(folder / PROCESSOR), str(described.get("model_type")))
    transformers = library("transformers", "huggingface")
    config = _config(transformers, folder)
    classes = int(config.num_labels)
    if classes < 2 or getattr(config, "num_channels", 3) != 3:
        raise UsageError(
            f"{folder / CONFIG}: {classes} classes and {getattr(config, 'num_channels', 3)} channels; a card needs two or more, and 3"
        )
    matching(labels, classes, str(folder / CONFIG))
    told, notes = (labels, ()) if labels is not None else _labels(described, classes, folder)
    _same_size(config, seen.preprocess.size, folder)
    model = _made(transformers, config, folder, weights)
    demand_float32(model, str(folder))
    return Brought(
        source=f"huggingface:{folder.resolve().name}",
        body=Logits(model),
        preprocess=seen.preprocess,
        labels=told,
        weights=weights or f"{type(model).__name__} in safetensors",
        weights_sha256=sha256_of(model.state_dict()),
        settings=seen.settings,
        versions={"transformers": transformers.__version__},
        notes=(*notes, *seen.notes),
    )


def _config(transformers: Any, folder: Path) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - of a stranger's config.json, transformers raises nearly anything
        raise DataError(f"{folder / CONFIG}: transformers cannot read it: {_said(error)}") from None
    if type(config) not in transformers.AutoModelForImageClassification._model_mapping:
        raise UsageError(f"{folder / CONFIG}: transformers has no image classifier of the model_type {config.model_type!r:.40}")
    return config


def _made(transformers: Any, config: Any, folder: Path, weights: str | None) -> Any:
    """The network with its weights in float32. Raises DataError if one is missing, which transformers would fill with random numbers."""
    transformers.utils.logging.disable_progress_bar()
    classifier = transformers.AutoModelForImageClassification
    if weights == "random":
        return seeded(lambda: classifier.from_config(config, dtype=torch.float32, trust_remote_code=False))
    if not (folder / WEIGHTS).is_file() and not (folder / INDEX).is_file():
        there = ", ".join(sorted(each.name for each in folder.glob("*.bin"))[:3])
        raise DataError(
            f"{folder} holds no {WEIGHTS}{f', and {there} could run code when it is opened' if there else ''}: save it as safetensors"
        )
    try:
        model, found = classifier.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # noqa: BLE001 - as above
        raise DataError(f"{folder}: transformers cannot load the weights: {_said(error)}") from None
    for kind, reason in (("missing_keys", "is missing"), ("mismatched_keys", "has another shape"), ("unexpected_keys", "has no place")):
        for name in sorted(map(str, found.get(kind) or ())):
            raise DataError(f"{folder}: the tensor {name:.120} {reason} in {type(model).__name__}: these are weights of another network")
    return model


def _labels(described: Mapping[str, Any], classes: int, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels of `id2label`; what transformers makes up where there are none is not taken."""
    given = described.get("id2label")
    if (
        not isinstance(given, dict)
        or set(given) != {str(at) for at in range(classes)}
        or not all(isinstance(each, str) for each in given.values())
    ):
        raise UsageError(f"{folder / CONFIG}: id2label does not name the {classes:,} classes: name them with --labels FILE, a label a line")
    return told_apart([given[str(at)] for at in range(classes)])


def _same_size(config: Any, size: tuple[int, int], folder: Path) -> None:
    """Raise UsageError if the network is made for another size of image than the processor makes."""
    wanted = getattr(config, "image_size", None)
    wanted = (wanted, wanted) if isinstance(wanted, int) else tuple(wanted) if isinstance(wanted, list | tuple) else size
    # Networks of convolutions note a size and take any.
    if wanted != size and getattr(config, "patch_size", None) is not None:
        raise UsageError(
            f"{folder}: {PROCESSOR} makes images of {size[0]} x {size[1]} pixels, the network takes {' x '.join(map(str, wanted))}"
        )


def _said(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error))[:200] or type(error).__name__
