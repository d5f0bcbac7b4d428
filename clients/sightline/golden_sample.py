"""The golden sample of a version: one reformatted image with the answer published for it, which lets a client check a server by itself.

It travels in `config.pbtxt` (`parameters["golden_sample_<version>"]`), since that is what a server hands out, as one *sealed* text:
canonical JSON `{"sample": {…}, "sha256": "…"}`, as the card does. The pixels are a PNG of what `sightline.reformat` made, so that nothing
is reformatted twice. The answer is float32, little-endian. Sealed it takes half a kB for a digit, 29 to 154 kB for a photo of 224 × 224 × 3
(photos of fruit and dogs).
"""

import base64
import binascii
import hashlib
import io
import json
from dataclasses import dataclass
from typing import Annotated, Final, NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sightline.card import ModelCard, ModelName
from sightline.errors import ContractError, ImageError
from sightline.host.text import first_problem
from sightline.image import open_image

MAX_SAMPLE_BYTES: Final = 1024 * 1024
"""Of a sealed sample. What would be longer is not written, and a longer one is refused unread."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class GoldenSample:
    """An image as the network gets it, and what the version of the model must answer."""

    model: str
    version: int
    card_sha256: str
    pixels: npt.NDArray[np.uint8]
    """uint8 [height, width, channels]."""
    probabilities: npt.NDArray[np.float32]
    """float32 [classes]: the published answer, to this image alone."""
    tolerance: float
    """Largest |Δp| that a server's answer may have."""


class _Sample(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: ModelName
    version: Annotated[int, Field(ge=1, lt=10**18)]
    card_sha256: Sha256
    png: str
    probabilities: str
    tolerance: Annotated[float, Field(gt=0, le=1)]


class _Sealed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sample: _Sample
    sha256: Sha256


def seal_sample(sample: GoldenSample) -> str:
    """Return the one text in which a sample travels."""
    written = _Sample(
        model=sample.model,
        version=sample.version,
        card_sha256=sample.card_sha256,
        png=_text(_png(sample.pixels)),
        probabilities=_text(np.ascontiguousarray(sample.probabilities, "<f4").tobytes()),
        tolerance=sample.tolerance,
    )
    return _canonical({"sample": written.model_dump(), "sha256": _digest(written)})


def unseal_sample(text: str, card: ModelCard, version: int, where: str) -> GoldenSample:
    """Return the sample of a sealed text, that of `version` of `card`'s model. `where` opens every error message.

    Raises ContractError if the text is none, if its sha256 does not fit, or if it belongs to another model, version or card.
    """
    if len(text) > MAX_SAMPLE_BYTES:
        _refuse(where, f"the text is {len(text):,} letters long, more than the {MAX_SAMPLE_BYTES:,} that a sample may have")
    try:
        sealed = _Sealed.model_validate_json(text)
    except ValidationError as error:
        _refuse(where, first_problem(error))
    written = sealed.sample
    if sealed.sha256 != _digest(written):
        _refuse(where, "it was changed after it was written: the sha256 beside it is not its own")
    if (written.model, written.version, written.card_sha256) != (card.name, version, card.sha256):
        _refuse(where, f"it belongs to {written.model} version {written.version}, or to another card of it")
    try:
        pixels = np.asarray(open_image(_bytes(written.png), max_pixels=card.preprocess.shape[0] * card.preprocess.shape[1]))
        probabilities = np.frombuffer(_bytes(written.probabilities), "<f4").astype(np.float32)
    except (ImageError, ValueError) as error:
        _refuse(where, str(error))
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    if pixels.shape != card.preprocess.shape or pixels.dtype != np.uint8 or probabilities.shape != (len(card.labels),):
        _refuse(where, f"it holds {pixels.dtype} {pixels.shape} and {len(probabilities)} numbers, which the card contradicts")
    return GoldenSample(written.model, written.version, written.card_sha256, pixels, probabilities, written.tolerance)


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64 ({error})") from None


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _digest(sample: _Sample) -> str:
    return hashlib.sha256(_canonical(sample.model_dump()).encode()).hexdigest()


def _refuse(where: str, reason: str) -> NoReturn:
    advice = "Export the model again, or restore the copy that was published"
    raise ContractError(f"{where}: no valid golden sample: {reason}. {advice}") from None
