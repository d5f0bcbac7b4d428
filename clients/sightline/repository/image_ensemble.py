"""Images in: beside each model `<model>_image`, which takes encoded images, for clients that cannot reformat by themselves.

It is a Triton ensemble of two steps. `<model>_reformat`, a Python model, calls the same `sightline.reformat` as the Python client; its
pixels go to whatever version of the model is served. Neither changes when a version is published or rolled back, since all versions of a
model share one card.
"""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from PIL import Image

from sightline.card import PICTURES_OF, ModelCard, seal
from sightline.errors import ContractError, PublishError
from sightline.host.files import read_bytes
from sightline.in_triton import ENCODED, IMAGE, REFORMAT
from sightline.repository.card_config import labels_text
from sightline.repository.config import EnsembleStep, InstanceGroup, ModelConfig, Tensor, WarmUp, WarmUpTensor, decisive_differences
from sightline.repository.config_text import config_text, parse_config
from sightline.repository.layout import CONFIG_FILE, LABELS_FILE, MAX_TEXT_BYTES, PYTHON_FILE, REPORT_FILE, WARM_UP_FOLDER
from sightline.repository.publish import locked, put_model
from sightline.repository.report import VersionReport, report_text

NEWEST: Final = -1
"""The version of a step that is the newest served one (ensemble_scheduling in model_config.proto)."""
WARM_UP_FORMATS: Final = ("JPEG", "PNG")
"""Pillow loads a decoder when it first meets its format."""
PYTHON: Final = '''"""Encoded pictures to pixels. The Python of this Triton must have the package sightline (pip install sightline)."""

from sightline.in_triton import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


def check_image_ensemble(repository: Path, card: ModelCard) -> None:
    """Raise PublishError if a folder in `repository` has one of the names and is anything else."""
    for name, (shared, version) in _models(card).items():
        if (repository / name).exists():
            # All but the images to warm up with, which are encoded anew each time.
            _demand_same(repository / name, {**shared, **{f"1/{file}": content for file, content in version.items()}})


def publish_image_ensemble(repository: Path, card: ModelCard) -> tuple[str, ...]:
    """Publish the two models that let `card`'s model take encoded images, as far as they are missing; return the names of the new ones.

    The ensemble comes last, since Triton does not start with one whose steps are not there. Raises PublishError if a folder of such a
    name holds anything else; the model itself is published by then.
    """
    published = []
    with locked(repository, lambda _sentence: None):
        check_image_ensemble(repository, card)
        for name, (shared, version) in _models(card).items():
            if not (repository / name).exists():
                beside = {**shared, **(_warm_up_files() if name.endswith(REFORMAT) else {})}
                # The report also keeps the ensemble's version folder, which holds nothing else, from being lost in a copy.
                put_model(repository, name, beside, {**version, REPORT_FILE: _report(name, beside, version)})
                published.append(name)
    return tuple(published)


def _models(card: ModelCard) -> dict[str, tuple[dict[str, bytes], dict[str, bytes]]]:
    """Name → the files of the model's folder and those of its version 1."""
    reformat, ensemble = image_configs(card).values()
    return {
        reformat.name: ({CONFIG_FILE: config_text(reformat).encode()}, {PYTHON_FILE: PYTHON.encode()}),
        ensemble.name: ({CONFIG_FILE: config_text(ensemble).encode(), LABELS_FILE: labels_text(card).encode()}, {}),
    }


def image_configs(card: ModelCard) -> dict[str, ModelConfig]:
    """Return the configurations of the two models that take encoded images for `card`'s, by their names: reformatting, and ensemble."""
    return {config.name: config for config in (_reformat_config(card), _ensemble_config(card))}


def _reformat_config(card: ModelCard) -> ModelConfig:
    return ModelConfig(
        name=card.name + REFORMAT,
        backend="python",
        default_file=PYTHON_FILE,
        max_batch_size=card.max_batch_size,
        inputs=(Tensor(ENCODED, "TYPE_STRING", (1,)),),
        outputs=(Tensor(card.input, "TYPE_UINT8", card.preprocess.shape),),
        # One process, whose threads decode; requests that wait are taken together.
        instance_groups=(InstanceGroup("KIND_CPU", 1),),
        queue_delay_us=0 if card.max_batch_size > 1 else None,
        warm_ups=tuple(WarmUp(f"a {name}", 1, (WarmUpTensor(ENCODED, "TYPE_STRING", (1,), name),)) for name in WARM_UP_FORMATS),
        parameters={PICTURES_OF: seal(card)},
    )


def _ensemble_config(card: ModelCard) -> ModelConfig:
    return ModelConfig(
        name=card.name + IMAGE,
        platform="ensemble",
        max_batch_size=card.max_batch_size,
        inputs=(Tensor(ENCODED, "TYPE_STRING", (1,)),),
        outputs=(Tensor(card.output, "TYPE_FP32", (len(card.labels),), LABELS_FILE),),
        steps=(
            EnsembleStep(card.name + REFORMAT, NEWEST, ((ENCODED, ENCODED),), ((card.input, card.input),)),
            EnsembleStep(card.name, NEWEST, ((card.input, card.input),), ((card.output, card.output),)),
        ),
        parameters={PICTURES_OF: seal(card)},
    )


def _warm_up_files() -> dict[str, bytes]:
    """Small images as Triton reads them for an input of bytes: the length in four bytes, little-endian, and the file."""
    files = {}
    for name in WARM_UP_FORMATS:
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), (200, 100, 50)).save(buffer, name)
        content = buffer.getvalue()
        files[f"{WARM_UP_FOLDER}/{name}"] = len(content).to_bytes(4, "little") + content
    return files


def _report(name: str, beside: Mapping[str, bytes], version: Mapping[str, bytes]) -> bytes:
    files, shared = (
        {file: hashlib.sha256(content).hexdigest() for file, content in contents.items() if file != CONFIG_FILE}
        for contents in (version, beside)
    )
    return report_text(VersionReport().published_as(name, 1, files, shared)).encode()


def _demand_same(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        try:
            same = _same(name, read_bytes(folder / name, MAX_TEXT_BYTES), content)
        except OSError:
            same = False
        if not same:
            raise PublishError(
                f"{folder} is there and is not what takes encoded images for a model of this card: {name} differs. "
                "Delete the folder and export again, give the model another name, or leave the ensemble out"
            )


def _same(name: str, actual: bytes, published: bytes) -> bool:
    """Whether a file is the published one; in a configuration, what decides no answer (`sightline tune` sets it) may be another."""
    if name != CONFIG_FILE or actual == published:
        return actual == published
    try:
        configs = [parse_config(content.decode(), CONFIG_FILE) for content in (actual, published)]
    except (ContractError, UnicodeDecodeError):
        return False
    return not decisive_differences(*configs)
