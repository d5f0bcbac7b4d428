"""The model card: what a model eats, what it answers, and how an image becomes its input. It travels with the weights.

The card is written as one *sealed* text, canonical JSON `{"card": {…}, "sha256": "…"}`, in three places: beside the model
(`card.json`), in Triton's `config.pbtxt` (`parameters["model_card"]`) and in the ONNX file's metadata. `seal` is the only
function that writes it, `unseal` the only one that reads it, and a text whose hash does not fit its card is refused.
"""

import hashlib
import json
import math
import unicodedata
from typing import Annotated, Any, Final, Literal, NoReturn, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, StrictFloat, StrictInt, ValidationError, model_validator

from sightline.errors import ContractError

CARD_KEY: Final = "model_card"
"""The key of the sealed card in `config.pbtxt`'s parameters and in the ONNX metadata."""

PICTURES_OF: Final = "pictures_of"
"""The key of the sealed card in the parameters of the models that take encoded images for the card's own (`sightline.in_triton`)."""

MAX_SEALED_BYTES: Final = 16 * 1024 * 1024
"""A longer text is refused unread; 100,000 labels of 100 bytes still fit."""

MAX_MEMBERS: Final = 100
"""Of one object in the text: every unknown member costs an error of its own, and a hostile text could hold a million."""

MAX_SCALED_SIDE: Final = 8192
"""Pixels: the longest side that `crop` may ask for before it cuts; its square still fits what one image may have."""

Mode = Literal["L", "RGB"]
Fit = Literal["stretch", "crop", "pad"]
Resample = Literal["nearest", "box", "bilinear", "bicubic", "lanczos"]

Side = Annotated[StrictInt, Field(ge=1, le=4096)]
Byte = Annotated[StrictInt, Field(ge=0, le=255)]
Unit = Annotated[StrictFloat, Field(ge=0.0, le=1.0)]
Deviation = Annotated[StrictFloat, Field(ge=1e-6, le=1000.0)]
TensorName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


def _an_integer(value: object) -> object:
    """Refuses true and 1.0, which Python holds to be equal to 1."""
    if type(value) is not int:
        raise ValueError("Input should be an integer")
    return value


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


class Preprocess(_Frozen):
    """How an image becomes pixels, version 1. `sightline.reformat` is its reference; a field that changes pixels has no default.

    Fixed by version 1: the first frame of an animation; 16-bit samples keep their high byte; palette, CMYK and alpha become
    RGB first; embedded colour profiles are not applied; the width is scaled before the height, to whole bytes each time;
    geometry before anything that depends on the pixels' values.
    """

    version: Annotated[Literal[1], BeforeValidator(_an_integer)]
    """Version of this specification. A text with another version is refused."""
    mode: Mode
    """Pillow mode of the pixels, one channel a letter: `L` is one channel of luma (ITU-R 601-2), `RGB` three."""
    size: tuple[Side, Side]
    """Height and width in pixels."""
    fit: Fit
    """`stretch` ignores the aspect ratio; `crop` scales until the image covers `size / crop_fraction` and takes the centre;
    `pad` scales until it fits inside and fills the rest with `background`."""
    crop_fraction: Annotated[StrictFloat, Field(ge=0.1, le=1.0)]
    """Side of the crop as a fraction of the scaled image's shorter side (timm's `crop_pct`); 1.0 unless `fit` is `crop`."""
    resample: Resample
    """Pillow's filter of that name, antialiased when it shrinks. Not torchvision's tensor path: the two are not bit-equal."""
    background: tuple[Byte, ...]
    """Colour, one byte a channel, that lies under transparent pixels and fills the padding."""
    exif: Literal["apply", "ignore"]
    """Whether the camera's orientation tag turns the image upright first."""
    polarity: Literal["as-is", "light-on-dark"]
    """`light-on-dark` inverts an image whose border has a median above 127 (ink on paper becomes chalk on slate)."""
    mean: tuple[Unit, ...]
    """Per channel, for pixels scaled to 0..1; subtracted inside the network."""
    std: tuple[Deviation, ...]
    """Per channel, for pixels scaled to 0..1; divided by inside the network."""

    @property
    def channels(self) -> int:
        """1 for `L`, 3 for `RGB`."""
        return len(self.mode)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image's pixels."""
        return (*self.size, self.channels)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for field in ("background", "mean", "std"):
            if len(getattr(self, field)) != self.channels:
                raise ValueError(f"{field} needs {self.channels} value(s), one for each channel of mode {self.mode}")
        if self.fit != "crop" and self.crop_fraction != 1.0:
            raise ValueError(f"crop_fraction must be 1.0 when fit is {self.fit}")
        if round(max(self.size) / self.crop_fraction) > MAX_SCALED_SIDE:
            raise ValueError(f"size / crop_fraction is more than {MAX_SCALED_SIDE} pixels")
        return self


class ModelCard(_Frozen):
    """Everything that a client must know to ask a model about an image and to read the answer."""

    name: ModelName
    """The model's name on the server and in the repository."""
    description: Annotated[str, Field(max_length=4000)]
    """For people: what the model was made for, in a sentence or two. No control characters but line ends and tabs, since it is printed."""
    labels: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(min_length=2, max_length=100_000), FailFast()]
    """Class names in the order of the output."""
    preprocess: Preprocess
    """How an image becomes the input."""
    input: TensorName = "pixels"
    """Name of the input tensor: UINT8, [N, height, width, channels]."""
    output: TensorName = "probabilities"
    """Name of the output tensor: FP32, [N, classes]; each row sums to 1."""
    max_batch_size: Annotated[StrictInt, Field(ge=1, le=4096)]
    """The most images that one request may hold."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if any(unicodedata.category(letter) == "Cc" and letter not in "\n\t" for letter in self.description):
            raise ValueError("description holds a control character, which could change what a terminal shows")
        if self.input == self.output:
            raise ValueError(f"input and output need two names, not {self.input} twice")
        seen: dict[str, int] = {}
        for at, label in enumerate(self.labels):
            if label != label.strip() or any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in label):
                raise ValueError(f"labels[{at}] must be one line of text without spaces around it, since labels.txt holds a line a label")
            if label in seen:
                raise ValueError(f"labels[{at}] repeats labels[{seen[label]}]: two classes cannot share a name")
            seen[label] = at
        return self

    @property
    def sha256(self) -> str:
        """Hexadecimal sha256 of the card's canonical JSON: the card's identity."""
        return _sha256(self.model_dump(mode="json"))


def seal(card: ModelCard) -> str:
    """The one text in which a card travels: canonical JSON of the card and its sha256."""
    content = card.model_dump(mode="json")
    return _canonical({"card": content, "sha256": _sha256(content)})


def unseal(text: str | bytes, where: str) -> ModelCard:
    """Read a sealed card. `where` names the copy ("config.pbtxt of model mnist") and opens every error message.

    Raises ContractError if the text is not a sealed card, if a field is unknown, missing or out of range (the message names
    it), or if the sha256 does not fit.
    """
    size = len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else len(text)
    if size > MAX_SEALED_BYTES:
        _refuse(where, f"the text is {size:,} bytes long, more than the {MAX_SEALED_BYTES:,} that a card may have")
    try:
        envelope = json.loads(text, object_pairs_hook=_members, parse_int=_bounded_int)
    except RecursionError:
        _refuse(where, "not JSON that a card may have (nested too deeply)")
    except ValueError as error:
        _refuse(where, f"not JSON ({_printable(str(error))})")
    if not isinstance(envelope, dict) or set(envelope) != {"card", "sha256"}:
        _refuse(where, 'expected an object with exactly the members "card" and "sha256"')
    try:
        card = ModelCard.model_validate(envelope["card"])
    except ValidationError as error:
        _refuse(where, _first_problem(error))
    # A default is for who writes a card in Python; what `seal` wrote leaves nothing out.
    for name in ModelCard.model_fields:
        if name not in card.model_fields_set:
            _refuse(where, f"card.{name}: Field required")
    if envelope["sha256"] != card.sha256:
        written = _shown(envelope["sha256"])
        _refuse(where, f"it was changed after it was written: the sha256 beside it is {written}, the card's own is {card.sha256[:12]}…")
    return card


def json_schema() -> dict[str, Any]:
    """The JSON schema of the member `card` of a sealed text, generated from the classes above."""
    return ModelCard.model_json_schema(mode="serialization")


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _sha256(content: object) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_MEMBERS:
        raise ValueError(f"an object of {len(pairs):,} members, more than the {MAX_MEMBERS} that one in a card may have")
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f'the member "{name}" of an object is given twice')
        members[name] = tuple(value) if isinstance(value, list) else value
    return members


def _bounded_int(digits: str) -> int | float:
    # No field takes infinity, so the refusal names the field; int() of a million digits would take its time.
    return int(digits) if len(digits) <= 20 else math.inf


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False)
    # Of another version, anything may differ: the version is what the reader must hear of.
    first = next((problem for problem in problems if problem["loc"] == ("preprocess", "version")), problems[0])
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ").replace("tuple", "list").replace("Tuple", "List")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"card{_printable(place)}: {_printable(reason)}{more}"


def _shown(value: object) -> str:
    return f"{_printable(value[:12])}…" if isinstance(value, str) else f"a {type(value).__name__}"


def _printable(text: str) -> str:
    """At most 200 characters of a stranger's text, without what would steer a terminal or cannot be printed."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[:200])


def _refuse(where: str, reason: str) -> NoReturn:
    advice = "Export the model again, or restore the copy that was published."
    raise ContractError(f"{where}: no valid model card: {reason}. {advice}") from None
