"""Sealed cards as somebody else would write them, and the formula that a network must begin with."""

import hashlib
import json

import numpy as np
import torch

from sightline.preprocess import Preprocess


def resealed(content: object) -> str:
    """What an attacker writes who knows how the hash is made."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps({"card": content, "sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()})


def differs_from_the_formula(layer: torch.nn.Module, specification: Preprocess) -> bool:
    """Whether any byte of any channel comes out more than 1e-6 of its size (or of 1) away from the formula in double precision."""
    channels = specification.channels
    pixels = np.stack([np.arange(256).astype(np.uint8)] * channels, axis=-1).reshape(1, 16, 16, channels)
    pixels[..., -1] = pixels[:, ::-1, :, -1]  # so that no channel looks like another
    expected = (pixels / 255.0 - np.array(specification.mean)) / np.array(specification.std)
    expected = expected.transpose(0, 3, 1, 2)
    answer = layer(torch.from_numpy(pixels)).numpy()
    return bool((np.abs(answer - expected) > 1e-6 * np.maximum(1.0, np.abs(expected))).any())
