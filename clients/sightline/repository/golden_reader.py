"""Reads a published version's golden images back: their pixels, and the answers that were published with them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sightline.card import ModelCard
from sightline.errors import ImageError, RepositoryError
from sightline.reformat import reformat
from sightline.repository.golden import COUNT, FOLDER, INDEX, SCHEMA
from sightline.repository.read import FILE_NAME, read_text


@dataclass(frozen=True)
class Golden:
    """Golden images as the network sees them."""

    pixels: npt.NDArray[np.uint8]
    """uint8 [n, height, width, channels]."""
    labels: npt.NDArray[np.int64]
    """int64 [n], -1 where nobody knows."""
    probabilities: npt.NDArray[np.float32]
    """float32 [n, classes], the published answers, each to its image alone."""
    tolerance: float
    """Largest |Δp| that another answer may have."""


def read_golden(version: Path, card: ModelCard) -> Golden:
    """Read the golden images in the folder of a `version`, whose files were checked. Raises RepositoryError if they are not `card`'s."""
    file = version / FOLDER / INDEX
    try:
        content = json.loads(read_text(file))
        if content["schema"] != SCHEMA or content["card_sha256"] != card.sha256:
            raise RepositoryError(f"{file} belongs to another card: export the model again")
        entries = list(content["pictures"])[: 4 * COUNT]
        names = [str(entry["file"]) for entry in entries]
        if not names or any("/" in name or not FILE_NAME.fullmatch(name) for name in names):
            raise RepositoryError(f"{file} lists no images of the version: export the model again")
        labels = [card.labels.index(entry["label"]) if entry["label"] is not None else -1 for entry in entries]
        probabilities = np.array([entry["probabilities"] for entry in entries], np.float32)
        tolerance = float(content["tolerance"])
        pixels = np.stack([reformat(version / FOLDER / name, card.preprocess) for name in names])
    except (ValueError, KeyError, TypeError, RecursionError, ImageError) as error:
        raise RepositoryError(f"{file} cannot be read ({type(error).__name__}: {error}): export the model again") from None
    if probabilities.shape != (len(names), len(card.labels)):
        raise RepositoryError(f"{file} holds answers of shape {probabilities.shape}: export the model again")
    return Golden(pixels, np.array(labels, np.int64), probabilities, tolerance)
