"""Reads tensors from a file that a stranger may have written, safetensors or a state dict of `torch.save`; nothing is unpickled."""

import argparse
import hashlib
import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sightline.errors import DataError
from sightline.host.files import read_bytes, reason_of
from sightline.host.text import one_line, printable

MAX_WEIGHTS_BYTES: Final = 4 * 1024**3
"""The largest of torchvision's files (RegNet Y 128GF) has 2.4 GiB."""

MAX_ENTRIES: Final = 100
"""Of a checkpoint, on each of two levels, that are looked into."""

Tensors = dict[str, Tensor]

_ADVICE: Final = "Save `model.state_dict()` alone."
_WITHIN: Final = "In the program that wrote it, save the tensors alone: `model.state_dict()`, or a checkpoint's `state_dict`."


def read_tensors(path: Path) -> tuple[Tensors, str]:
    """Return names and tensors of a safetensors file or of a state dict that `torch.save` wrote, and the file's sha256 (hexadecimal).

    Nothing in the file is executed. Raises DataError if it is missing, too large, damaged or holds anything but tensors.
    """
    content = read_weights(path)
    return tensors_in(content, path), hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, eq=False)
class WeightFile:
    """What a file holds of tensors, wherever they stand in it."""

    path: Path
    sha256: str
    """Hexadecimal."""
    size_bytes: int
    entries: Mapping[str, Tensors] = field(repr=False)
    """Place → names and tensors: the file's own under the empty name, those of `checkpoint["ema"]["module"]` under "ema.module"."""

    def plain(self, tensors: Tensors) -> Tensors:
        """Return the tensors. Raises DataError if one is no plain one: sparse, quantized, or larger than the file."""
        return _demand_tensors(tensors, self.size_bytes, self.path)


def read_entries(path: Path) -> WeightFile:
    """Read a safetensors file, a state dict, or a checkpoint that holds some, in mappings down to the second level.

    What is no tensor (an epoch, an optimizer's state, a program's arguments) is left out. Nothing in the file is executed. Raises
    DataError as `read_tensors` does.
    """
    content = read_weights(path)
    loaded = _loaded(content, path)
    entries: dict[str, Tensors] = {}
    if isinstance(loaded, Mapping):
        _collect(loaded, "", entries)
    if not any(entries.values()):
        # It says what is wrong with the file as a whole.
        entries[""] = _demand_tensors(loaded, len(content), path)
    return WeightFile(path, hashlib.sha256(content).hexdigest(), len(content), {place: some for place, some in entries.items() if some})


def read_weights(path: Path) -> bytes:
    """Return the bytes of a file of weights. Raises DataError if it is missing or too large."""
    try:
        return read_bytes(path, MAX_WEIGHTS_BYTES)
    except FileNotFoundError:
        raise DataError(f"there is no file or run folder {path} to take weights from.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}.") from None


def tensors_in(content: bytes, path: Path) -> Tensors:
    """Return names and tensors of a file's bytes, of either kind. Raises DataError as `read_tensors` does."""
    return _demand_tensors(_loaded(content, path), len(content), path)


def _loaded(content: bytes, path: Path) -> object:
    """What a file's bytes hold. Raises DataError if they are damaged, or would run code."""
    try:
        # A safetensors file begins with the length of its header, and the header is a JSON object.
        loaded: object = safetensors.torch.load(content) if content[8:9] == b"{" else _unpacked(content, path)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - torch raises nearly anything on a damaged file
        reason, advice = one_line(error), _ADVICE
        if isinstance(error, pickle.UnpicklingError):
            reason = "it is damaged, or holds more than tensors and could run code when it is opened"
            if classes := _refused_classes(content):
                reason, advice = f"besides tensors it holds {classes}, which could run code when it is opened", _WITHIN
        raise DataError(f"{path}: neither a safetensors file nor a state dict of torch ({reason}). {advice}") from None
    return loaded


def _unpacked(content: bytes, path: Path) -> object:
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_WEIGHTS_BYTES:
            raise DataError(f"{path}: {unpacked:,} bytes unpacked, more than the {MAX_WEIGHTS_BYTES:,} that weights may have.")
    # Checkpoints of many programs, timm's among them, hold their command line; a Namespace has no code that its making would run.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _refused_classes(content: bytes) -> str:
    """The names of up to three classes or functions that opening the file would have called; empty if they cannot be told."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content))
    except Exception:  # noqa: BLE001 - of a damaged file, or one of torch's former format, it cannot tell
        return ""
    listed = ", ".join(printable(one_line(name, 60)) for name in sorted(names)[:3])
    return f"{listed} and {len(names) - 3} more" if len(names) > 3 else listed


def _collect(loaded: Mapping[object, object], place: str, entries: dict[str, Tensors]) -> None:
    """Add the tensors that stand in a mapping, and in mappings in it down to the second level, under their places."""
    entries[place] = {name: value for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if place.count(".") < 1:
        inner = [(name, value) for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Mapping)]
        for name, value in inner[:MAX_ENTRIES]:
            _collect(value, f"{place}.{name}" if place else name, entries)


def _demand_tensors(tensors: object, limit_bytes: int, path: Path) -> Tensors:
    """Return names and tensors. Raises DataError if it is anything else, or if a tensor is larger than the file."""
    if not isinstance(tensors, Mapping) or not tensors or not all(isinstance(name, str) for name in tensors):
        raise DataError(f"{path}: {type(tensors).__name__} where names with tensors were expected. {_ADVICE}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not _is_plain(tensor, limit_bytes):
            raise DataError(f"{path}: {name!r:.80} is no plain tensor. {_ADVICE}")
    return dict(tensors)


def _is_plain(tensor: Tensor, limit_bytes: int) -> bool:
    """Return whether its elements stand one by one in a file of `limit_bytes`: a view that repeats one may claim any number."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= limit_bytes
