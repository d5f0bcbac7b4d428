"""Images in: beside each model `<model>_image`, which takes encoded images, for clients that cannot reformat by themselves.

It is a Triton ensemble of two steps. `<model>_reformat`, a Python model, calls the same `sightline.reformat` as the Python client; its
pixels go to whatever version of the model is served. Neither changes when a version is published or rolled back, since all versions of a
model share one card.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2

from sightline.card import PICTURES_OF, ModelCard, seal
from sightline.errors import RepositoryError
from sightline.in_triton import ENCODED, IMAGE, REFORMAT
from sightline.repository.config import LABELS_FILE
from sightline.repository.publish import locked, put_model
from sightline.repository.read import CONFIG_FILE, REPORT_FILE, SCHEMA, read_text

MODEL_FILE: Final = "model.py"
WARM_UP: Final = ("JPEG", "PNG")
MODEL: Final = '''"""Encoded pictures to pixels. The Python of this Triton must have the package sightline (pip install sightline)."""

from sightline.in_triton import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


def check_image_ensemble(repository: Path, card: ModelCard) -> None:
    """Raise RepositoryError if a folder in `repository` has one of the names and is anything else."""
    for name, (shared, version) in _models(card).items():
        if (repository / name).exists():
            # All but the images to warm up with, which are encoded anew each time.
            _demand_same(repository / name, {**shared, **{f"1/{file}": content for file, content in version.items()}})


def publish_image_ensemble(repository: Path, card: ModelCard) -> tuple[str, ...]:
    """Publish the two models that let `card`'s model take encoded images, as far as they are missing; give the names of the new ones.

    The ensemble comes last, since Triton does not start with one whose steps are not there. Raises RepositoryError if a folder of such a
    name holds anything else; the model itself is published by then.
    """
    made = []
    with locked(repository, lambda _sentence: None):
        check_image_ensemble(repository, card)
        for name, (shared, version) in _models(card).items():
            if not (repository / name).exists():
                put_model(repository, name, {**shared, **(_warm_up() if name.endswith(REFORMAT) else {})}, version)
                made.append(name)
    return tuple(made)


def _models(card: ModelCard) -> dict[str, tuple[dict[str, bytes], dict[str, bytes]]]:
    """Name → the files of the model's folder and those of its version 1."""
    first, ensemble = card.name + REFORMAT, card.name + IMAGE
    labels = "".join(f"{label}\n" for label in card.labels).encode()
    return {
        first: ({CONFIG_FILE: _text(_reformat(card))}, _with_report(first, {MODEL_FILE: MODEL.encode()})),
        # The report also keeps the version's folder, which holds nothing else, from being lost in a copy.
        ensemble: ({CONFIG_FILE: _text(_ensemble(card)), LABELS_FILE: labels}, _with_report(ensemble, {})),
    }


def _reformat(card: ModelCard) -> Any:
    config = model_config_pb2.ModelConfig(name=card.name + REFORMAT, backend="python", default_model_filename=MODEL_FILE)
    config.max_batch_size = card.max_batch_size
    config.input.add(name=ENCODED, data_type=model_config_pb2.TYPE_STRING, dims=[1])
    config.output.add(name=card.input, data_type=model_config_pb2.TYPE_UINT8, dims=card.preprocess.shape)
    # One process, whose threads decode; requests that wait are taken together.
    config.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_CPU, count=1)
    if card.max_batch_size > 1:
        config.dynamic_batching.SetInParent()
    for format_name in WARM_UP:
        # Pillow loads a decoder when it first meets its format.
        sample = config.model_warmup.add(name=f"a {format_name}", batch_size=1)
        image = sample.inputs[ENCODED]
        image.data_type, image.input_data_file = model_config_pb2.TYPE_STRING, format_name
        image.dims.append(1)
    config.parameters[PICTURES_OF].string_value = seal(card)
    return config


def _warm_up() -> dict[str, bytes]:
    """Small images as Triton reads them for an input of bytes: the length in four bytes, little-endian, and the file."""
    files = {}
    for format_name in WARM_UP:
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), (200, 100, 50)).save(buffer, format_name)
        content = buffer.getvalue()
        files[f"warmup/{format_name}"] = len(content).to_bytes(4, "little") + content
    return files


def _ensemble(card: ModelCard) -> Any:
    config = model_config_pb2.ModelConfig(name=card.name + IMAGE, platform="ensemble")
    config.max_batch_size = card.max_batch_size
    config.input.add(name=ENCODED, data_type=model_config_pb2.TYPE_STRING, dims=[1])
    config.output.add(name=card.output, data_type=model_config_pb2.TYPE_FP32, dims=[len(card.labels)], label_filename=LABELS_FILE)
    # -1 is the newest version that is served.
    first = config.ensemble_scheduling.step.add(model_name=card.name + REFORMAT, model_version=-1)
    first.input_map[ENCODED] = ENCODED
    first.output_map[card.input] = card.input
    second = config.ensemble_scheduling.step.add(model_name=card.name, model_version=-1)
    second.input_map[card.input] = card.input
    second.output_map[card.output] = card.output
    config.parameters[PICTURES_OF].string_value = seal(card)
    return config


def _text(config: Any) -> bytes:
    text: str = text_format.MessageToString(config, as_utf8=False)
    return text.encode()


def _with_report(name: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    sums = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    report = {"schema": SCHEMA, "model": name, "version": 1, "files": sums}
    return {**files, REPORT_FILE: (json.dumps(report, indent=1) + "\n").encode()}


def _demand_same(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        if not (folder / name).is_file() or read_text(folder / name).encode() != content:
            raise RepositoryError(
                f"{folder} is there and is not what takes encoded images for a model of this card: {name} differs. "
                "Delete the folder and export again, give the model another name, or export with --no-image"
            )
