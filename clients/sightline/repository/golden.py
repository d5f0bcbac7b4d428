"""Golden images: a few real ones that travel with a version, with the answers expected for them, so that anyone can check any server."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from sightline.card import ModelCard
from sightline.errors import ImageError, RepositoryError
from sightline.host.files import read_text, reason_of
from sightline.reformatting import reformat
from sightline.repository.layout import FILE_NAME, GOLDEN_FOLDER, GOLDEN_INDEX, MAX_TEXT_BYTES
from sightline.repository.read import ModelVersion
from sightline.repository.report import Part, json_text, parse_document

COUNT: Final = 8
MAX_IMAGES: Final = 4 * COUNT
"""That are read back; a hostile index could list a million."""

LONGEST_SIDE: Final = 1024
"""Larger images are made smaller first: a version is copied around, and these are examples."""

PNG_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
ORIENTATION: Final = 0x0112


Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]


class GoldenImage(Part):
    """One image of the index, and what is expected of it."""

    file: str
    sha256: str
    pixels_sha256: str
    """Of the bytes that `sightline.reformat` makes of it."""
    label: str | None
    """None where nobody knows what it shows."""
    probabilities: tuple[float, ...]
    """The published answer, to this image alone."""


class GoldenIndex(Part):
    """`golden.json`."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    card_sha256: str
    tolerance: float
    """Largest |Δp| that another answer may have."""
    images: Annotated[tuple[GoldenImage, ...], Field(alias="pictures")]


@dataclass(frozen=True)
class GoldenSet:
    """Golden images as the network sees them."""

    pixels: Pixels
    """uint8 [n, height, width, channels]."""
    labels: npt.NDArray[np.int64]
    """int64 [n], -1 where nobody knows."""
    probabilities: Probabilities
    """float32 [n, classes], the published answers, each to its image alone."""
    tolerance: float
    """Largest |Δp| that another answer may have."""


def golden_files(
    card: ModelCard,
    open_image: Callable[[int], Image.Image],
    labels: npt.NDArray[np.int64],
    answer: Callable[[Pixels], Probabilities],
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
    entries: list[GoldenImage] = []
    for index in by_turns(labels, 4 * count):
        original = open_image(index)
        content = _as_png(original)
        if content is None:
            continue
        pixels = reformat(content, card.preprocess)
        if max(original.size) <= LONGEST_SIDE and not np.array_equal(pixels, reformat(original, card.preprocess)):
            continue
        name = f"{len(entries):02}.png"
        files[f"{GOLDEN_FOLDER}/{name}"] = content
        entries.append(
            GoldenImage(
                file=name,
                sha256=hashlib.sha256(content).hexdigest(),
                pixels_sha256=hashlib.sha256(pixels.tobytes()).hexdigest(),
                label=card.labels[int(labels[index])] if labels[index] >= 0 else None,
                # One by one: that is how a client without a batch asks, and batches are the gate's business.
                probabilities=tuple(float(p) for p in answer(pixels[None])[0]),
            )
        )
        if len(entries) == count:
            break
    if not entries:
        raise RepositoryError(f"none of the images that {card.name} was tried on can be written as PNG with the same pixels")
    index_of_images = GoldenIndex(schema_=1, card_sha256=card.sha256, tolerance=tolerance, images=tuple(entries))
    files[f"{GOLDEN_FOLDER}/{GOLDEN_INDEX}"] = json_text(index_of_images.model_dump(mode="json", by_alias=True)).encode()
    return files


def read_golden(version: ModelVersion, card: ModelCard) -> GoldenSet:
    """Read the golden images of a version whose files were checked. Raises RepositoryError if they are not `card`'s."""
    file = version.folder / GOLDEN_FOLDER / GOLDEN_INDEX
    try:
        index = parse_document(GoldenIndex, read_text(file, MAX_TEXT_BYTES), "no index of golden images of schema 1")
    except (OSError, RepositoryError) as error:
        reason = f"cannot be read ({reason_of(error)})" if isinstance(error, OSError) else f"is {error}"
        raise RepositoryError(f"{file} {reason}: export the model again") from None
    try:
        if index.card_sha256 != card.sha256:
            raise RepositoryError(f"{file} belongs to another card: export the model again")
        images = index.images[:MAX_IMAGES]
        if not images or any("/" in image.file or not FILE_NAME.fullmatch(image.file) for image in images):
            raise RepositoryError(f"{file} lists no images of the version: export the model again")
        labels = [card.labels.index(image.label) if image.label is not None else -1 for image in images]
        if any(len(image.probabilities) != len(card.labels) for image in images):
            raise RepositoryError(f"{file} holds answers of another number of classes than {len(card.labels)}: export the model again")
        pixels = np.stack([reformat(version.folder / GOLDEN_FOLDER / image.file, card.preprocess) for image in images])
    except (ValueError, ImageError) as error:
        raise RepositoryError(f"{file} cannot be used ({error}): export the model again") from None
    probabilities = np.array([image.probabilities for image in images], np.float32)
    return GoldenSet(pixels, np.array(labels, np.int64), probabilities, index.tolerance)


def first_image(files: dict[str, bytes]) -> bytes:
    """Return the first of the images that `golden_files` chose."""
    return files[f"{GOLDEN_FOLDER}/00.png"]


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
