"""Golden images: a few real ones that travel with a version, with the answers expected for them, so that anyone can check any server."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from sightline.card import ModelCard
from sightline.errors import RepositoryError
from sightline.reformat import reformat

FOLDER: Final = "golden"
INDEX: Final = "golden.json"
SCHEMA: Final = 1
COUNT: Final = 8

LONGEST_SIDE: Final = 1024
"""Larger images are made smaller first: a version is copied around, and these are examples."""

PNG_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
ORIENTATION: Final = 0x0112


def golden_files(
    card: ModelCard,
    open_image: Callable[[int], Image.Image],
    labels: npt.NDArray[np.int64],
    answer: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]],
    tolerance: float,
    count: int = COUNT,
) -> dict[str, bytes]:
    """Choose up to `count` images, one of each class first; give the files of the golden folder (name → content).

    `open_image(i)` opens image i as its dataset gives it, `labels` int64 [n] are the images' classes, `answer` maps uint8 pixels
    [N, height, width, channels] to float32 probabilities [N, classes] and is the trained network. `tolerance` is the largest |Δp| that
    a server's answer may have. An image that PNG cannot hold as it is (16 bits, big-endian) makes room for the next one; raises
    RepositoryError if none is left.
    """
    files: dict[str, bytes] = {}
    entries: list[dict[str, Any]] = []
    for index in by_turns(labels, 4 * count):
        original = open_image(index)
        content = _as_png(original)
        if content is None:
            continue
        pixels = reformat(content, card.preprocess)
        if max(original.size) <= LONGEST_SIDE and not np.array_equal(pixels, reformat(original, card.preprocess)):
            continue
        name = f"{len(entries):02}.png"
        files[f"{FOLDER}/{name}"] = content
        entries.append(
            {
                "file": name,
                "sha256": hashlib.sha256(content).hexdigest(),
                "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
                "label": card.labels[int(labels[index])] if labels[index] >= 0 else None,
                # One by one: that is how a client without a batch asks, and batches are the gate's business.
                "probabilities": [float(p) for p in answer(pixels[None])[0]],
            }
        )
        if len(entries) == count:
            break
    if not entries:
        raise RepositoryError(f"none of the images that {card.name} was tried on can be written as PNG with the same pixels")
    golden: dict[str, Any] = {"schema": SCHEMA, "card_sha256": card.sha256, "tolerance": tolerance, "pictures": entries}
    files[f"{FOLDER}/{INDEX}"] = (json.dumps(golden, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    return files


def by_turns(labels: Sequence[int] | npt.NDArray[np.int64], count: int) -> list[int]:
    """Indices of up to `count` images: the first of each class, then the second of each, and so on."""
    seen: Counter[int] = Counter()
    turns = []
    for index, label in enumerate(labels):
        turns.append((seen[int(label)], int(label), index))
        seen[int(label)] += 1
    return [index for _, _, index in sorted(turns)[:count]]


def _as_png(image: Image.Image) -> bytes | None:
    """Encode as PNG, large images made smaller; None if Pillow cannot. Only the orientation is kept of EXIF data."""
    orientation = image.getexif().get(ORIENTATION)
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    try:
        if image.mode not in PNG_MODES:
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        if max(image.size) > LONGEST_SIDE:
            image = image.copy()
            image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        image.save(buffer, "PNG", exif=exif.tobytes() if orientation is not None else b"", icc_profile=None)
    except (ValueError, OSError):
        return None
    return buffer.getvalue()
