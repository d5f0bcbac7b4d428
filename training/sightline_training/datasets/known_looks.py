"""Remembers what files look like from one command to the next: decoding every image of a folder is minutes, reading it is seconds."""

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from sightline_training.datasets.duplicates import LOOK, VERSION, Looks
from sightline_training.files import write_whole

MAX_BYTES: Final = 1024**3
"""A larger file is none of ours: a million images take 260 million bytes."""

_ROW: Final = np.dtype([("file", np.uint8, (32,)), ("look", LOOK)])


def known_looks(folder: Path) -> dict[bytes, Looks]:
    """sha256 of a file's bytes → look, as `remember` kept them for `folder`; empty if it did not, or if the file is damaged."""
    try:
        with _place(folder).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        digest, body = content[:32], content[32:]
        if hashlib.sha256(body).digest() != digest:
            return {}
        rows = np.load(io.BytesIO(body), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return {}
    return {row["file"].tobytes(): row["look"] for row in rows} if rows.dtype == _ROW else {}


def remember(folder: Path, files: Sequence[bytes], looks: Looks) -> None:
    """Keep looks (N,) with the sha256 of their files. It only saves time, so that a disk that is full or read-only is no error."""
    rows = np.empty(len(files), _ROW)
    rows["file"] = np.frombuffer(b"".join(files), np.uint8).reshape(-1, 32)
    rows["look"] = looks
    body = io.BytesIO()
    np.save(body, rows, allow_pickle=False)
    place = _place(folder)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, hashlib.sha256(body.getvalue()).digest() + body.getvalue())
    except OSError:
        return


def _place(folder: Path) -> Path:
    from importlib.metadata import version

    from sightline_training.loop.feature_cache import default_cache

    # Another decoder or another hash sees other images.
    made_by = f"{VERSION} pillow {version('pillow')} imagehash {version('imagehash')}"
    name = hashlib.sha256(made_by.encode() + b"\0" + os.fsencode(folder.resolve())).hexdigest()[:32]
    return default_cache().with_name("looks") / f"{name}.looks"
