"""Cards: of a tiny model, sealed as somebody else would write them, and the formula that a network must begin with."""

import hashlib
import json
from typing import Any

import numpy as np

from sightline.card import ModelCard
from sightline.preprocess import Preprocess, PreprocessV1

LABELS = ("ape", 'bear "brown"', "cat, house", "dög")


def tiny_card(name: str = "tiny", *, max_batch_size: int = 8) -> ModelCard:
    """A card with every kind of letter that could be lost on the way through config.pbtxt."""
    return ModelCard(
        name=name,
        description='Quotes " and \\ and\nnew lines, ümläuts, 漢字.',
        labels=LABELS,
        preprocess=PreprocessV1(
            version=1,
            mode="RGB",
            size=(6, 5),
            fit="stretch",
            crop_fraction=1.0,
            resample="bilinear",
            background=(0, 0, 0),
            exif="apply",
            polarity="as-is",
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
        ),
        max_batch_size=max_batch_size,
    )


def resealed(content: object) -> str:
    """What an attacker writes who knows how the hash is made."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps({"card": content, "sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()})


def differs_from_the_formula(layer: Any, specification: Preprocess) -> bool:
    """Whether any byte of any channel comes out more than 1e-6 of its size (or of 1) away from the formula in double precision."""
    import torch

    channels = specification.channels
    pixels = np.stack([np.arange(256).astype(np.uint8)] * channels, axis=-1).reshape(1, 16, 16, channels)
    pixels[..., -1] = pixels[:, ::-1, :, -1]  # so that no channel looks like another
    expected = (pixels / 255.0 - np.array(specification.mean)) / np.array(specification.std)
    expected = expected.transpose(0, 3, 1, 2)
    answer = layer(torch.from_numpy(pixels)).numpy()
    return bool((np.abs(answer - expected) > 1e-6 * np.maximum(1.0, np.abs(expected))).any())
