"""Names and limits of a model repository. No other module of the project writes one of these names.

    <repository>/.sightline.lock
    <repository>/<model>/config.pbtxt  card.json  labels.txt
    <repository>/<model>/signature.json                    if somebody signed it
    <repository>/<model>/warmup/golden
    <repository>/<model>/<version>/model.onnx  report.json
    <repository>/<model>/<version>/golden/golden.json  00.png …
    <repository>/<model>/plans/<version>/<identity>/model.plan  layers.json  plan.json
    <repository>/<model>_reformat/config.pbtxt  1/model.py  1/report.json  warmup/JPEG  warmup/PNG
    <repository>/<model>_image/config.pbtxt  labels.txt  1/report.json

Which folders are versions follows Triton's rules (its user guide, "Model Repository"): whole numbers without a leading zero.
"""

import re
from pathlib import Path
from typing import Final

from sightline.host.files import MIB

CONFIG_FILE: Final = "config.pbtxt"
CARD_FILE: Final = "card.json"
LABELS_FILE: Final = "labels.txt"
REPORT_FILE: Final = "report.json"
ONNX_FILE: Final = "model.onnx"
PYTHON_FILE: Final = "model.py"

SIGNATURE_FILE: Final = "signature.json"
"""In a model's folder; Triton ignores it there."""

GOLDEN_FOLDER: Final = "golden"
GOLDEN_INDEX: Final = "golden.json"

WARM_UP_FOLDER: Final = "warmup"
"""Where Triton looks for the files that a `model_warmup` names (model_config.proto, ModelWarmup.Input.input_data_file)."""
WARM_UP_FILE: Final = "golden"

PLANS_FOLDER: Final = "plans"
"""Inside a model's folder, where Triton ignores whatever is no number."""
PLAN_FILE: Final = "model.plan"
LAYERS_FILE: Final = "layers.json"
RECORD_FILE: Final = "plan.json"

LOCK_FILE: Final = ".sightline.lock"
"""Triton loads folders; a file in a repository's root is nothing to it."""
PROBE_FILE: Final = ".sightline.probe"
STAGING_FOLDER: Final = ".sightline.staging"
NEW_CONFIG_FILE: Final = ".sightline.config.pbtxt"
"""The new configuration until it is renamed; Triton reads `config.pbtxt` alone."""

MAX_TEXT_BYTES: Final = 64 * MIB
"""Of a text that is read here: a card of 16 MiB, escaped, still fits."""
MAX_RECORD_BYTES: Final = 4 * MIB
"""Of a plan's record."""
MAX_PLANS: Final = 1_000
"""Of one version, that are looked at."""

VERSION_NAME: Final = re.compile(r"[1-9][0-9]{0,17}")
"""Folder names that Triton takes for versions, up to what fits its 64 bits."""
FILE_NAME: Final = re.compile(r"(?!\.)[A-Za-z0-9._-]+(/(?!\.)[A-Za-z0-9._-]+)*")
"""Names of files inside a version's folder."""
SHA256: Final = re.compile(r"[0-9a-f]{64}")


def version_numbers(model: Path) -> list[int]:
    """Return the numbers of the versions in a model's folder, oldest first. Raises OSError."""
    return sorted(int(entry.name) for entry in model.iterdir() if VERSION_NAME.fullmatch(entry.name) and entry.is_dir())


def golden_folders(model: Path) -> list[Path]:
    """Return the folders of golden images in a model's folder, those of the oldest version first; none if there is no such model."""
    numbers = version_numbers(model) if model.is_dir() else []
    return [folder for number in numbers if (folder := model / str(number) / GOLDEN_FOLDER).is_dir()]


def is_model_folder(folder: Path) -> bool:
    """Return whether Triton would load the folder as a model: it has a configuration or a version. Raises OSError."""
    return (folder / CONFIG_FILE).is_file() or bool(version_numbers(folder))


def model_folders(repository: Path) -> list[Path]:
    """Return the folders of a repository's models, by name; what is hidden is none. Raises OSError."""
    folders = sorted(entry for entry in repository.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return [folder for folder in folders if is_model_folder(folder)]
