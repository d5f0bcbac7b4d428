"""`--from timm:NAME`: a classifier of timm, that sees as timm's own evaluation does (transforms_imagenet_eval).

NAME is one of timm's registry, a folder as timm's `save_for_hf` writes it, or one of the hub, `hf-hub:owner/name`.
"""

import difflib
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Final

from torch import nn

from sightline.errors import DataError, UsageError
from sightline.host.text import one_line
from sightline.preprocess import Preprocess
from sightline_export.sources import timm_hub
from sightline_export.sources.imported_model import ImportedModel, ImportRequest, demand_float32
from sightline_export.sources.labels import demand_label_count
from sightline_export.sources.libraries import library
from sightline_export.sources.settled_preprocess import SettledPreprocess, settle
from sightline_export.sources.timm_config import CONFIG, TimmConfig, labels_of, read_config
from sightline_export.sources.timm_folder import TimmFolder, built, claim_of, loaded, model_in, weights_in
from sightline_training.networks.weights import sha256_of

LOCAL: Final = "local-dir:"
"""What timm puts before a folder."""


def from_timm(request: ImportRequest) -> ImportedModel:
    """Import timm's classifier of that name, with its weights (None: published ones, or those in the folder; `random`; a file).

    Published weights are fetched from the Hugging Face hub unless they are in its cache. A file's config.json beside it is heeded if it
    is timm's and of the same network. A file, or random weights, may have as many classes as the labels are. Raises UsageError,
    DataError, or MissingExtra without timm.
    """
    timm = library("timm", "timm")
    if timm_hub.is_hub_name(request.named):
        return model_in(timm_hub.fetched(request.named, weights=request.weights is None), request)
    folder = Path(request.named.removeprefix(LOCAL))
    if request.named.startswith(LOCAL) or folder.is_dir():
        config = read_config(folder / CONFIG)
        if config is None:
            raise DataError(f"{folder} holds no {CONFIG} of timm's, which names an architecture and a pretrained_cfg")
        return model_in(TimmFolder(f"timm:{folder.resolve().name}", config, weights_in(folder)), request)
    config, tag = _published(timm, request.named)
    source = f"timm:{config.architecture}.{tag}" if tag else f"timm:{config.architecture}"
    if request.weights in (None, "random"):
        return _from_registry(timm, request, config, source)
    file = Path(str(request.weights))
    beside = read_config(file.parent / CONFIG)
    if "." not in request.named:
        # Whichever weights timm takes by default, these are others.
        source = f"timm:{config.architecture}"
    if beside is not None and beside.architecture == config.architecture:
        return model_in(_beside(beside, file, request, source), request)
    model = _from_registry(timm, request, config, source)
    if beside is None:
        return model
    return replace(model, notes=(*model.notes, f"{CONFIG} beside {file.name} is of {beside.architecture}, and was not heeded"))


def _beside(config: TimmConfig, file: Path, request: ImportRequest, source: str) -> TimmFolder:
    """A file of weights with the config.json that lies beside it, which may be the one of the weights that it was made from."""
    classes = config.num_classes if request.labels is None else len(request.labels)
    if classes == config.num_classes:
        return TimmFolder(source, config, None, f"{CONFIG} beside {file.name}")
    arguments = {key: value for key, value in config.model_args.items() if key != "num_classes"}
    return TimmFolder(
        source,
        replace(config, num_classes=classes, label_names=(), model_args=MappingProxyType(arguments)),
        None,
        f"{CONFIG} beside {file.name}",
        of=file.name,
        doubt=f"that {CONFIG} is of a network of {config.num_classes:,} classes. State the preprocessing if it was trained with another",
    )


def _from_registry(timm: ModuleType, request: ImportRequest, config: TimmConfig, source: str) -> ImportedModel:
    settled = _settled(timm, request, config, source)
    classes = config.num_classes if request.weights is None or request.labels is None else len(request.labels)
    if not classes:
        raise UsageError(f"{source} has no classes, only features: name a classifier, or a file of weights and their labels")
    demand_label_count(request.labels, classes, source)
    labels, notes, ids = (request.labels, (), ()) if request.labels is not None else labels_of(timm, config, source)
    sha256 = ""
    if request.weights is None:
        model, description = _fetched(timm, request.named, source), f"timm's {source.partition(':')[2]}"
    else:
        model, description = built(timm, replace(config, num_classes=classes), source), "random"
        if request.weights != "random":
            file = Path(request.weights)
            unwrapped, sha256 = loaded(model, file, request.weights_key, source)
            description = f"file {file.name}{f' ({unwrapped})' if unwrapped else ''}"
    demand_float32(model, source)
    return ImportedModel(
        source=source,
        body=model,
        preprocess=settled,
        labels=labels,
        weights=description,
        weights_sha256=sha256 or sha256_of(model.state_dict()),
        settings=config.settings,
        versions={"timm": timm.__version__},
        notes=notes,
        class_ids=ids,
    )


def _settled(timm: ModuleType, request: ImportRequest, config: TimmConfig, source: str) -> SettledPreprocess:
    """How the images are seen: as the tag says that was named, else as timm's default one, which a file need not heed."""
    tag = config.pretrained_cfg.get("tag")
    claim = claim_of(config.pretrained_cfg, source, f"as timm's {config.architecture}{f'.{tag}' if tag else ''} sees them")
    if request.weights not in (None, "random") and "." not in request.named:
        published: dict[str, Preprocess | None] = {}
        for tag in _tags(timm, config.architecture):
            other = asdict(timm.get_pretrained_cfg(f"{config.architecture}.{tag}"))
            published[tag] = claim_of(other, source, "").preprocess
        claim = replace(claim, of=Path(str(request.weights)).name, published=MappingProxyType(published))
    return settle(claim, request.stated)


def _published(timm: ModuleType, name: str) -> tuple[TimmConfig, str]:
    """Read what timm knows of the weights `name`, and their tag. Raises UsageError if it knows no such network or weights of it."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture.lower(), timm.list_models(), n=3, cutoff=0.5)
        advice = f" Did you mean {', '.join(near)}?" if near else ""
        if "/" in name:
            advice = f" A folder must be there; a name of the Hugging Face hub is written timm:hf-hub:{name}."
        raise UsageError(f"timm has no network {architecture!r:.80}.{advice}")
    tags = _tags(timm, architecture)
    if tag and tag not in tags:
        raise UsageError(f"timm has no weights {tag!r:.80} of {architecture}, only {', '.join(sorted(tags)) or 'none'}.")
    config = timm.get_pretrained_cfg(name)
    return (
        TimmConfig(
            architecture=architecture,
            pretrained_cfg=MappingProxyType(asdict(config)),
            num_classes=config.num_classes,
            label_names=tuple(map(str, config.label_names or ())),
            label_descriptions=MappingProxyType(dict(config.label_descriptions or {})),
        ),
        config.tag or "",
    )


def _tags(timm: ModuleType, architecture: str) -> list[str]:
    return [model.partition(".")[2] for model in timm.list_models(f"{architecture}.*", pretrained=True)]


def _fetched(timm: ModuleType, name: str, source: str) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:  # noqa: BLE001 - a dozen libraries are on the way to the hub
        raise DataError(
            f"the weights of {source} could not be fetched from the Hugging Face hub ({one_line(error)}). Fetch the file elsewhere and "
            "name it as the weights, or see whether everything runs with the weights `random`."
        ) from None
    return model
