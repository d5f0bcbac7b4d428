"""`--from huggingface:DIR`: a folder that `save_pretrained` wrote, or that was fetched from the hub; nothing in it is run or unpickled."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from sightline.errors import DataError, SightlineError, UsageError
from sightline.host.files import read_json, reason_of
from sightline.host.text import one_line
from sightline_export.sources.hf_image_processor import ProcessorPreprocess, processor_preprocess
from sightline_export.sources.imported_model import ImportedModel, ImportRequest, demand_float32, seeded
from sightline_export.sources.labels import demand_label_count, distinct_labels
from sightline_export.sources.libraries import library
from sightline_export.sources.settled_preprocess import PreprocessClaim, SettledPreprocess, settle
from sightline_export.sources.timm_config import read_config
from sightline_export.sources.timm_folder import TimmFolder, model_in, weights_in
from sightline_training.networks.weights import sha256_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CONFIG, PROCESSOR, WEIGHTS, INDEX = "config.json", "preprocessor_config.json", "model.safetensors", "model.safetensors.index.json"

FOREIGN: Final = ("auto_map", "quantization_config")
"""Keys of config.json under which a folder brings code of its own, or weights that are no float32."""


ADVICE: Final = "Fetch the folder again, or save it anew with save_pretrained"

MAX_JSON_BYTES: Final = 64 * 1024 * 1024


class Logits(nn.Module):
    """Normalised float32 [N, 3, H, W] → logits [N, classes]: what transformers' model says, without what else it gives."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, planes: Tensor) -> Tensor:
        """As the class says."""
        logits: Tensor = self.model(pixel_values=planes).logits
        return logits


def from_huggingface(request: ImportRequest) -> ImportedModel:
    """Import the image classifier in a folder: config.json, preprocessor_config.json, safetensors unless the weights are `random`.

    A folder of a network of timm's, whose config.json says how it sees an image, is imported as from timm. Raises DataError if the
    folder is incomplete or damaged, UsageError for what cannot be imported, MissingExtra without transformers.
    """
    folder, weights, labels = Path(request.named), request.weights, request.labels
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: huggingface:DIR names one with {CONFIG}, {PROCESSOR} and {WEIGHTS} in it")
    if weights not in (None, "random"):
        raise UsageError(f"the weights of huggingface:{folder} lie in it, as {WEIGHTS}: name none, or `random`")
    content = _json_of(folder / CONFIG)
    if (timm_config := read_config(folder / CONFIG)) is not None:
        return model_in(TimmFolder(f"timm:{folder.resolve().name}", timm_config, weights_in(folder)), request)
    if request.weights_key is not None:
        raise UsageError("an entry of a checkpoint is named, but the weights of a folder of transformers lie in safetensors")
    for key in FOREIGN:
        if content.get(key) is not None:
            raise UsageError(
                f"{folder / CONFIG}: {key} is not supported: only float32 networks that transformers itself knows can be imported"
            )
    if content.get("problem_type") == "multi_label_classification":
        raise UsageError(f"{folder / CONFIG}: problem_type is multi_label_classification, whose answers do not sum to 1")
    processor, settled = _settled(folder, content, request)
    transformers = library("transformers", "huggingface")
    config = _config(transformers, folder)
    classes = int(config.num_labels or 0)
    if classes < 2 or getattr(config, "num_channels", 3) != 3:
        raise UsageError(
            f"{folder / CONFIG}: {classes} classes and {getattr(config, 'num_channels', 3)} channels; a card needs two or more, and 3"
        )
    demand_label_count(labels, classes, str(folder / CONFIG))
    all_labels, notes = (labels, ()) if labels is not None else _labels(content, classes, folder)
    _same_size(config, settled, folder)
    model = _network(transformers, config, folder, weights)
    demand_float32(model, str(folder))
    return ImportedModel(
        source=f"huggingface:{folder.resolve().name}",
        body=Logits(model),
        preprocess=settled,
        labels=all_labels,
        weights=weights or f"{type(model).__name__} in safetensors",
        weights_sha256=sha256_of(model.state_dict()),
        settings={} if processor is None else processor.settings,
        versions={"transformers": transformers.__version__},
        notes=(*notes, *(() if processor is None else processor.notes)),
    )


def _json_of(path: Path) -> dict[str, object]:
    try:
        return read_json(path, MAX_JSON_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}") from None


def _settled(folder: Path, content: Mapping[str, object], request: ImportRequest) -> tuple[ProcessorPreprocess | None, SettledPreprocess]:
    """Return what preprocessor_config.json says, which a complete statement can do without, and how images are seen."""
    try:
        processor = processor_preprocess(_json_of(folder / PROCESSOR), str(content.get("model_type")))
    except SightlineError as error:
        return None, settle(PreprocessClaim(None, PROCESSOR, refusal=error), request.stated)
    settled = settle(PreprocessClaim(processor.preprocess, PROCESSOR), request.stated)
    return (processor if settled.preprocess == processor.preprocess else None), settled


def _config(transformers: ModuleType, folder: Path) -> "PreTrainedConfig":
    try:
        config: PreTrainedConfig = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - of a stranger's config.json, transformers raises nearly anything
        raise DataError(f"{folder / CONFIG}: transformers cannot read it: {_words(error)}. {ADVICE}") from None
    if type(config) not in transformers.AutoModelForImageClassification._model_mapping:
        raise UsageError(f"{folder / CONFIG}: transformers has no image classifier of the model_type {config.model_type!r:.40}")
    return config


def _network(transformers: ModuleType, config: "PreTrainedConfig", folder: Path, weights: str | None) -> nn.Module:
    """Return the network with its weights in float32. Raises DataError if one is missing, which transformers would fill at random."""
    transformers.utils.logging.disable_progress_bar()
    classifier = transformers.AutoModelForImageClassification
    if weights == "random":
        try:
            network: nn.Module = seeded(lambda: classifier.from_config(config, dtype=torch.float32, trust_remote_code=False))
        except Exception as error:  # noqa: BLE001 - as above
            raise DataError(f"{folder / CONFIG}: transformers cannot build the network: {_words(error)}. {ADVICE}") from None
        return network
    if not (folder / WEIGHTS).is_file() and not (folder / INDEX).is_file():
        pickled = ", ".join(sorted(file.name for file in folder.glob("*.bin"))[:3])
        raise DataError(
            f"{folder} holds no {WEIGHTS}{f', and {pickled} could run code when it is opened' if pickled else ''}: save it as safetensors"
        )
    model: nn.Module
    try:
        model, loading = classifier.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            # Otherwise it raises an error that says "look at the above report"; as it is, the tensor is named below.
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # noqa: BLE001 - as above
        raise DataError(f"{folder}: transformers cannot build the network and load its weights: {_words(error)}. {ADVICE}") from None
    whose = f"in {type(model).__name__}: these are weights of another network, or {CONFIG} is another one's"
    for name, *shapes in sorted(map(tuple, loading.get("mismatched_keys") or ())):
        stored, wanted = (list(shape) for shape in shapes)
        raise DataError(f"{folder}: the tensor {name:.120} has the shape {stored} and needs {wanted} {whose}")
    for kind, reason in (("missing_keys", "is missing"), ("unexpected_keys", "has no place")):
        for name in sorted(map(str, loading.get(kind) or ())):
            raise DataError(f"{folder}: the tensor {name:.120} {reason} {whose}")
    return model


def _words(error: Exception) -> str:
    """Say what went wrong in a library: words such as `list index out of range` mean something to who wrote it only."""
    if isinstance(error, (LookupError, TypeError, AttributeError, ZeroDivisionError, AssertionError)):
        return f"its values do not fit together ({type(error).__name__}: {one_line(error)})"
    return one_line(error).rstrip(".")


def _labels(content: Mapping[str, object], classes: int, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels of `id2label`; what transformers makes up where there are none is not taken."""
    labels = content.get("id2label")
    if (
        not isinstance(labels, dict)
        or set(labels) != {str(number) for number in range(classes)}
        or not all(isinstance(label, str) for label in labels.values())
    ):
        raise UsageError(f"{folder / CONFIG}: id2label does not name the {classes:,} classes: name them in a text file, a label a line")
    return distinct_labels([labels[str(number)] for number in range(classes)])


def _same_size(config: "PreTrainedConfig", settled: SettledPreprocess, folder: Path) -> None:
    """Raise UsageError if the network is made for another size of image than it would get."""
    size = settled.preprocess.size
    wanted = getattr(config, "image_size", None)
    wanted = (wanted, wanted) if isinstance(wanted, int) else tuple(wanted) if isinstance(wanted, list | tuple) else size
    # Networks of convolutions note a size and take any.
    if wanted != size and getattr(config, "patch_size", None) is not None:
        raise UsageError(
            f"{folder}: {PROCESSOR if 'size' not in settled.stated else 'what was stated'} makes images of {size[0]} x {size[1]} pixels, "
            f"the network takes {' x '.join(map(str, wanted))}",
            settings=("preprocess",),
        )
