"""What a published version says of itself: `report.json`, typed as far as somebody reads it.

Keys and their order are part of the format; a field whose name here differs from its key says so with an alias. Members that this
program does not know are kept, since a newer one may have written more. A field that is missing was not said: older reports and those of
the models for encoded images say less.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from sightline.errors import RepositoryError
from sightline.host.text import first_problem

SCHEMA: Final = 1
"""Of `report.json`. Another number is refused."""

FROM: Final = "from"
"""The key of a report's provenance under which a model that was not trained here says where it comes from."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$")]
"""Inside a version's folder: no part begins with a point, none leads out of it."""
Document = TypeVar("Document", bound=BaseModel)
Measured = int | float | str
"""A figure; as text where JSON has no number for it (NaN, infinity), or where it is none."""


class Part(BaseModel):
    """A frozen part of a JSON document of the repository."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=(), populate_by_name=True, use_attribute_docstrings=True)


class CheckReport(Part):
    """One check of the gate."""

    name: str
    measured: Measured
    relation: Literal["at most", "at least", "exactly", "for the record"]
    threshold: Measured
    passed: bool


class ComparedImages(Part):
    """The images that the gate compared on."""

    name: str
    split: str
    fingerprint: str


class AccuracyReport(Part):
    """How often the exported file is right on the images of the gate whose class is known."""

    n: Annotated[int, Field(ge=1)]
    correct: Annotated[int, Field(ge=0)]
    interval_95: tuple[float, float]
    """Wilson's, of the share; for other images of the same kind."""


class GateReport(Part):
    """What the gate found."""

    precision: str
    images: Annotated[int, Field(alias="pictures", ge=0)]
    passed: bool
    checks: tuple[CheckReport, ...]
    data: ComparedImages | None = None
    accuracy: AccuracyReport | None = None
    """None where nobody knows what the images show, and in reports of earlier programs."""

    def measured(self, name: str) -> Measured | None:
        """Return what the check called `name` measured; None if it was not made."""
        return next((check.measured for check in self.checks if check.name == name), None)


class CalibrationReport(Part):
    """The images that INT8 was calibrated with."""

    source: str
    sha256: Sha256


class ConversionReport(Part):
    """How another precision was made of the FP32 file."""

    from_sha256: Sha256
    calibration: CalibrationReport | None = None
    way: str = ""
    """Which of the ways to calibrate was taken."""
    tried: tuple[dict[str, JsonValue], ...] = ()
    weights: str = ""
    activations: str = ""
    calibration_images: Annotated[int, Field(alias="calibration_pictures")] = 0
    held_out_images: Annotated[int, Field(alias="held_out_pictures")] = 0
    processor: str = ""
    integer_instructions: tuple[str, ...] = ()
    """Of the processor that it was calibrated on, see `sightline.host.cpu`."""
    seven_bits: bool = False
    """Whether weights keep a bit free, so that sums of products fit 16 bits on every processor."""


class SpeedReport(Part):
    """One size of batch, measured in process, side by side with FP32."""

    batch: int
    threads: int
    images_per_second: Annotated[dict[str, float], Field(alias="pictures_per_second")]
    ratio: dict[str, float]


class Fp32Comparison(Part):
    """Size and speed against the FP32 file."""

    bytes: int
    speed: tuple[SpeedReport, ...]


class RunReport(Part):
    """One size of run."""

    images: Annotated[int, Field(ge=1)]
    images_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """By one core's time."""


class ShapeReport(Part):
    """How fast the file is on a core of the machine that exported it, in ONNX Runtime in process: what its settings were chosen by."""

    cores: Annotated[int, Field(ge=1)]
    """That could be used, by affinity and by the quota of a container."""
    runs: Annotated[tuple[RunReport, ...], Field(min_length=1)]

    def on(self, cores: int) -> "ShapeReport":
        """Return the same figures on a machine with so many cores."""
        return self.model_copy(update={"cores": cores})


class PreprocessOrigin(Part):
    """How it is known in which way a network that was not trained here sees an image."""

    source: str
    """For people: `config.json beside mine.safetensors`, `as timm's resnet50.a1_in1k sees them`."""
    assumed: bool = False
    """Whether nobody said it of these very weights, so that it may be wrong."""
    published_versions: int = 1
    """Of the network, by its library, where it is assumed."""
    different_ways: int = 1
    """In which those see an image, as far as it was not stated."""
    stated: tuple[str, ...] = ()
    """The fields of the specification that were stated by who exported it."""


class VersionReport(Part):
    """`report.json` of a version. `publish` completes schema, model, version and files."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    model: str = ""
    version: int = 0
    created: str = ""
    """ISO 8601, UTC."""
    precision: str = ""
    conversion: ConversionReport | None = None
    """None of FP32."""
    against_fp32: Fp32Comparison | None = None
    opset: int = 0
    card_sha256: str = ""
    provenance: dict[str, JsonValue] = {}
    """Where the network comes from: the run, or the library and the weights. No paths."""
    preprocess_origin: PreprocessOrigin | None = None
    """None of a run, and in reports of earlier programs."""
    gate: GateReport | None = None
    shape: ShapeReport | None = None
    """None in reports of earlier programs."""
    model_bytes: int = 0
    parameters: int = 0
    flop_per_image: Annotated[int, Field(alias="flop_per_picture")] = 0
    tools: dict[str, str] = {}
    files: dict[FileName, Sha256] = {}
    """Name inside of the version's folder → sha256, as published."""
    shared: dict[FileName, Sha256] = {}
    """Name inside of the model's folder → sha256, of the files beside the versions that never change."""
    sha256: Sha256 | None = None
    """Of this document without this member, as `json_text` writes it. Reports that an earlier program wrote have none."""

    def published_as(self, model: str, version: int, files: Mapping[str, str], shared: Mapping[str, str]) -> "VersionReport":
        """Return the report of a version of `model` with these files, sealed with its own hash."""
        update = {"schema_": SCHEMA, "model": model, "version": version, "files": dict(files), "shared": dict(shared)}
        complete = self.model_copy(update=update)
        return complete.model_copy(update={"sha256": _digest(_content(complete))})


def report_text(report: VersionReport) -> str:
    """Write a `report.json`: what was set, in the order of the fields."""
    return json_text(_content(report))


def parse_report(text: str) -> VersionReport:
    """Read a `report.json`. Raises RepositoryError with the reason alone, for `sightline.repository.read` to name the version."""
    report = parse_document(VersionReport, text, f"no report of schema {SCHEMA}")
    # The two came together: a report that names files beside its version has its own hash too.
    if report.sha256 is not None or "shared" in report.model_fields_set:
        # What the text says, and not what was read of it: nothing in it may have changed.
        content = json.loads(text)
        content.pop("sha256", None)
        if report.sha256 != _digest(content):
            raise RepositoryError("not what was published: its own sha256 is another one")
    return report


def _content(report: VersionReport) -> dict[str, JsonValue]:
    return report.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _digest(content: Mapping[str, JsonValue]) -> str:
    return hashlib.sha256(json_text(content).encode()).hexdigest()


def parse_document(kind: type[Document], text: str, otherwise: str) -> Document:
    """Read a JSON document. Raises RepositoryError: `not JSON`, or `otherwise` with the first problem behind it."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
            raise RepositoryError("not JSON") from None
        raise RepositoryError(f"{otherwise} ({first_problem(error)})") from None


def json_text(content: object) -> str:
    """Write a JSON document of the repository, the same for the same content. Raises ValueError for NaN and infinity."""
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
