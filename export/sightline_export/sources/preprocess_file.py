"""Reads a preprocessing specification from a file: the specification alone, a model card, or what timm or Hugging Face wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from sightline.card import MAX_SEALED_BYTES, unseal
from sightline.errors import UsageError
from sightline.host.files import read_bytes, read_json, reason_of
from sightline.host.text import first_problem
from sightline.preprocess import VERSIONS, AnyPreprocess, Preprocess
from sightline_export.sources.hf_image_processor import processor_preprocess
from sightline_export.sources.timm_config import is_timm, preprocess_in

KINDS: Final = "a preprocessing specification, a card.json, timm's config.json or Hugging Face's preprocessor_config.json"

OF_PROCESSORS: Final = frozenset(("image_processor_type", "feature_extractor_type", "image_mean", "do_normalize", "do_resize"))
"""Keys that tell Hugging Face's file."""


def read_preprocess(path: Path) -> Preprocess:
    """Return the specification in a file. Raises UsageError if it holds none or cannot be read, ContractError for a damaged card."""
    try:
        content = read_json(path, MAX_SEALED_BYTES)
        if set(content) == {"card", "sha256"}:
            return unseal(read_bytes(path, MAX_SEALED_BYTES), str(path)).preprocess
    except OSError as error:
        raise UsageError(f"{path}: the preprocessing cannot be read: {reason_of(error)}") from None
    if "version" in content and "fit" in content:
        return _specification(content, path)
    if is_timm(content):
        return preprocess_in(content, str(path))
    if OF_PROCESSORS & content.keys():
        # Without the network's own config.json beside it, a file that names no class may be any.
        return processor_preprocess(content, "").preprocess
    raise UsageError(f"{path} states no preprocessing: it is none of {KINDS}")


def _specification(content: Mapping[str, object], path: Path) -> Preprocess:
    adapter: TypeAdapter[Preprocess] = TypeAdapter(AnyPreprocess)
    try:
        return adapter.validate_json(json.dumps(content))
    except ValidationError as error:
        raise UsageError(f"{path} states no preprocessing: {first_problem(error)} (versions: {', '.join(map(str, VERSIONS))})") from None
