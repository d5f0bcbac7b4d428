"""Keeps the hashes and looks of a folder's images from one command to the next: decoding every image is minutes, reading it is seconds."""

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from sightline.host.cache import cache_folder
from sightline.host.files import read_bytes, write_atomically
from sightline_training.datasets import look
from sightline_training.datasets.duplicates import HASH_DTYPE, VERSION, ImageHashes
from sightline_training.datasets.look import LOOK_DTYPE, Looks

MAX_BYTES: Final = 1024**3
"""A larger file is none of ours: a million images take 270 million bytes."""

_ROW: Final = np.dtype([("file", np.uint8, (32,)), ("hash", HASH_DTYPE), ("look", LOOK_DTYPE)])


def cached_hashes(folder: Path) -> dict[bytes, tuple[ImageHashes, Looks]]:
    """Return sha256 of a file's bytes → image hash and look, as `cache_hashes` kept them for `folder`.

    Empty if it did not, or if what it kept is damaged.
    """
    try:
        content = read_bytes(_path_for(folder), MAX_BYTES)
        digest, body = content[:32], content[32:]
        if hashlib.sha256(body).digest() != digest:
            return {}
        rows = np.load(io.BytesIO(body), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return {}
    return {row["file"].tobytes(): (row["hash"], row["look"]) for row in rows} if rows.dtype == _ROW else {}


def cache_hashes(folder: Path, digests: Sequence[bytes], hashes: ImageHashes, looks: Looks) -> None:
    """Keep image hashes (N,) and looks (N,) with the sha256 of their files.

    It only saves time, so that a disk that is full or read-only is no error.
    """
    rows = np.empty(len(digests), _ROW)
    rows["file"] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    rows["hash"] = hashes
    rows["look"] = looks
    body = io.BytesIO()
    np.save(body, rows, allow_pickle=False)
    path = _path_for(folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, hashlib.sha256(body.getvalue()).digest() + body.getvalue())
    except OSError:
        return


def _path_for(folder: Path) -> Path:
    from importlib.metadata import version

    # Another decoder or another hash sees other images.
    made_by = f"{VERSION}.{look.VERSION} pillow {version('pillow')} imagehash {version('imagehash')}"
    name = hashlib.sha256(made_by.encode() + b"\0" + os.fsencode(folder.resolve())).hexdigest()[:32]
    return cache_folder("image-hashes") / f"{name}.hashes"
