"""The preprocessing specification: how an image becomes a network's input, one model for each version of it.

`version` decides how a specification is read, written and carried out. To add a version: a model here and its entry in `VERSIONS`, a
function in `sightline.reformatting`, and in the tests its specifications, golden images and oracle. What an earlier version says never
changes.
"""

from collections.abc import Hashable, Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StrictFloat,
    StrictInt,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema, to_json

MAX_SCALED_SIDE: Final = 8192
"""Pixels: the longest side that `crop` may ask for before it cuts; its square still fits what one image may have."""

Mode = Literal["L", "RGB"]
Fit = Literal["stretch", "crop", "pad"]
Polarity = Literal["as-is", "light-on-dark"]
Resample = Literal["nearest", "box", "bilinear", "bicubic", "lanczos"]

Side = Annotated[StrictInt, Field(ge=1, le=4096)]
Byte = Annotated[StrictInt, Field(ge=0, le=255)]
Unit = Annotated[StrictFloat, Field(ge=0.0, le=1.0)]
Deviation = Annotated[StrictFloat, Field(ge=1e-6, le=1000.0)]


def _an_integer(value: object) -> object:
    """Refuse true and 1.0, which Python holds to be equal to 1."""
    if type(value) is not int:
        raise ValueError("Input should be an integer")
    return value


Version = BeforeValidator(_an_integer)
"""Annotates the `version` of a member: `Annotated[Literal[1], Version]`."""


def _colour_or_auto(value: object) -> object:
    """Refuse with one sentence in place of one for each member of the union."""
    if value == "auto":
        return value
    levels = tuple(value) if isinstance(value, (list, tuple)) else ()
    if not levels or any(type(level) is not int or not 0 <= level <= 255 for level in levels):
        raise ValueError("Input should be 'auto' or a list of whole numbers from 0 to 255, one a channel")
    return levels


class StrictModel(BaseModel):
    """A model that is read strictly, refuses unknown fields and cannot be changed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


class Preprocess(StrictModel):
    """What every version of the specification says; a version adds its own fields. A field that changes pixels has no default.

    Read by version through `AnyPreprocess`, made as `PreprocessV1(…)`: this base is no version and cannot be made itself.
    """

    version: Annotated[int, Version]
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
    polarity: Polarity
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

    @property
    def pads(self) -> bool:
        """Whether the result may have bars of `background` beside the image."""
        return self.fit == "pad"

    def with_fields(self, **changes: object) -> Self:
        """Return the same specification with these fields changed, checked like any other. Raises pydantic's ValidationError."""
        return type(self).model_validate({**dict(self), **changes})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if VERSIONS.get(self.version) is not type(self):
            raise ValueError(f"{type(self).__name__} is not the specification's version {self.version}")
        for field in ("background", "mean", "std"):
            if len(getattr(self, field)) != self.channels:
                raise ValueError(f"{field} needs {self.channels} value(s), one for each channel of mode {self.mode}")
        if self.fit != "crop" and self.crop_fraction != 1.0:
            raise ValueError(f"crop_fraction must be 1.0 when fit is {self.fit}")
        if round(max(self.size) / self.crop_fraction) > MAX_SCALED_SIDE:
            raise ValueError(f"size / crop_fraction is more than {MAX_SCALED_SIDE} pixels")
        return self


class PreprocessV1(Preprocess):
    """How an image becomes pixels, version 1. `sightline.reformat` is its reference; a field that changes pixels has no default.

    Fixed by version 1: the first frame of an animation; 16-bit samples keep their high byte; palette, CMYK and alpha become
    RGB first; embedded colour profiles are not applied; the width is scaled before the height, to whole bytes each time;
    geometry before anything that depends on the pixels' values.
    """

    version: Annotated[Literal[1], Version]
    """Version of this specification. A text with another version is refused."""


class PreprocessV2(Preprocess):
    """How an image becomes pixels, version 2: version 1, and what people's own images need. `sightline.reformat` is its reference.

    Fixed by version 2 is what version 1 fixes. With `alpha_background` equal to `background`, and `as-is`, `as-is` and `full`, the
    pixels are those of version 1, bit for bit.
    """

    version: Annotated[Literal[2], Version]
    """Version of this specification. A text with another version is refused."""
    background: tuple[Byte, ...]
    """Colour, one byte a channel, that fills the padding."""
    alpha_background: Annotated[tuple[Byte, ...] | Literal["auto"], BeforeValidator(_colour_or_auto)]
    """Colour, one byte a channel, that lies under transparent pixels; `auto`: white or black, whichever is further from the luma of what
    is visible, so that black strokes on a transparent canvas stay visible."""
    levels: Literal["as-is", "document"]
    """`document` makes an image of strokes on a ground even: the ground (paper, also unevenly lit) becomes one end of the scale and the
    strokes (ink) reach to the other. Colours become grey. An image without strokes becomes all ground."""
    frame: Literal["as-is", "ink-box"]
    """`ink-box` cuts out the strokes' bounding box, scales it into a box of 20/28 of `size` and puts their centre of mass in the centre,
    as MNIST's makers did; needs `levels` `document`, which finds the strokes, and `fit` `pad`."""
    decode: Literal["full", "dct"]
    """`dct` lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size while that is at least twice as large as needed: other pixels, but
    several times faster."""

    @property
    def pads(self) -> bool:
        """Whether the result may have bars of `background` beside the image. What lies around an ink box is its ground."""
        return self.fit == "pad" and self.frame == "as-is"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.alpha_background != "auto" and len(self.alpha_background) != self.channels:
            raise ValueError(f"alpha_background needs auto or {self.channels} value(s), one for each channel of mode {self.mode}")
        if self.frame == "ink-box" and self.levels != "document":
            raise ValueError("frame can be ink-box only when levels is document, which tells ink from paper")
        if self.frame == "ink-box" and self.fit != "pad":
            raise ValueError(f"frame can be ink-box only when fit is pad, not {self.fit}: the box keeps the strokes' aspect ratio")
        return self


VERSIONS: Final[dict[int, type[Preprocess]]] = {1: PreprocessV1, 2: PreprocessV2}
"""The members of the union, by their `version`."""


class _ByVersion:
    """Makes pydantic read a field with the member of VERSIONS that its `version` names, and write it as what it is."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(_read)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # With a name of its own each member is defined once, under $defs.
        named: dict[Hashable, CoreSchema] = {
            version: {**member.__pydantic_core_schema__, "ref": f"{member.__name__}:1"} for version, member in VERSIONS.items()
        }
        return handler(core_schema.tagged_union_schema(named, discriminator="version"))


AnyPreprocess = Annotated[Preprocess, _ByVersion]
"""The type of a field that holds a specification of any version in VERSIONS: a union, told apart by `version`."""


def _read(value: object, info: ValidationInfo) -> Preprocess:
    if isinstance(value, Preprocess):
        return value
    if not isinstance(value, dict):
        raise PydanticCustomError("model_type", "Input should be a valid dictionary or instance of Preprocess")
    version = value.get("version")
    member = VERSIONS.get(version) if type(version) is int else None
    if member is None:
        raise _version_refused(value)
    # JSON knows no tuples; only pydantic's reader of JSON takes a list for one.
    return member.model_validate_json(to_json(value, inf_nan_mode="constants")) if info.mode == "json" else member.model_validate(value)


def _version_refused(fields: Mapping[object, object]) -> ValidationError:
    problem = InitErrorDetails(type="missing", loc=("version",), input=fields)
    if "version" in fields:
        problem["input"] = fields["version"]
        if type(fields["version"]) is int:
            problem["type"] = PydanticCustomError("unknown_version", f"Input should be {' or '.join(map(str, VERSIONS))}")
        else:
            problem["type"] = PydanticCustomError("unknown_version", "Input should be an integer")
    return ValidationError.from_exception_data("Preprocess", [problem], hide_input=True)
