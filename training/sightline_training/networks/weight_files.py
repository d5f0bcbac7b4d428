"""Reads tensors from a file that a stranger may have written, safetensors or a state dict of `torch.save`; nothing is unpickled."""

import hashlib
import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sightline.errors import DataError
from sightline.host.files import read_bytes, reason_of
from sightline.host.text import one_line

MAX_WEIGHTS_BYTES: Final = 4 * 1024**3
"""The largest of torchvision's files (RegNet Y 128GF) has 2.4 GiB."""

_ADVICE: Final = "Save `model.state_dict()` alone."


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return names and tensors of a safetensors file or of a state dict that `torch.save` wrote, and the file's sha256 (hexadecimal).

    Nothing in the file is executed. Raises DataError if it is missing, too large, damaged or holds anything but tensors.
    """
    content = read_weights(path)
    return tensors_in(content, path), hashlib.sha256(content).hexdigest()


def read_weights(path: Path) -> bytes:
    """Return the bytes of a file of weights. Raises DataError if it is missing or too large."""
    try:
        return read_bytes(path, MAX_WEIGHTS_BYTES)
    except FileNotFoundError:
        raise DataError(f"there is no file or run folder {path} to take weights from.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}.") from None


def tensors_in(content: bytes, path: Path) -> dict[str, Tensor]:
    """Return names and tensors of a file's bytes, of either kind. Raises DataError as `read_tensors` does."""
    try:
        # A safetensors file begins with the length of its header, and the header is a JSON object.
        tensors: object = safetensors.torch.load(content) if content[8:9] == b"{" else _state_dict_in(content, path)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - torch raises nearly anything on a damaged file
        reason = one_line(error)
        if isinstance(error, pickle.UnpicklingError):
            reason = "it is damaged, or holds more than tensors and could run code when it is opened"
        raise DataError(f"{path}: neither a safetensors file nor a state dict of torch ({reason}). {_ADVICE}") from None
    if not isinstance(tensors, Mapping) or not tensors or not all(isinstance(name, str) for name in tensors):
        raise DataError(f"{path}: {type(tensors).__name__} where names with tensors were expected. {_ADVICE}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not _is_plain(tensor, len(content)):
            raise DataError(f"{path}: {name!r:.80} is no plain tensor. {_ADVICE}")
    return dict(tensors)


def _is_plain(tensor: Tensor, limit_bytes: int) -> bool:
    """Return whether its elements stand one by one in a file of `limit_bytes`: a view that repeats one may claim any number."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= limit_bytes


def _state_dict_in(content: bytes, path: Path) -> object:
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_WEIGHTS_BYTES:
            raise DataError(f"{path}: {unpacked:,} bytes unpacked, more than the {MAX_WEIGHTS_BYTES:,} that weights may have.")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
