"""What report.json of a run says, as one typed value: written here, read back here, and handed on to whoever shows or publishes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from sightline.errors import DataError
from sightline.host.files import read_bytes, reason_of, write_atomically
from sightline.host.text import first_problem
from sightline_training.datasets.image_set import Split
from sightline_training.environment import Hardware
from sightline_training.networks.backbones import Part
from sightline_training.run.json_text import json_text

SCHEMA: Final = 1
"""Of the reports that are written here. Those without a number are of the same schema."""

MAX_REPORT_BYTES: Final = 64 * 1024 * 1024
"""A report with the confusion matrix of 1,000 classes has 3 million bytes."""


class _Part(BaseModel):
    """A part of the report. Keys that are not known here stay, so that a report is written again as it was read."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class Accuracy(_Part):
    """How often the network is right on one set of images."""

    n: int
    correct: int
    accuracy: float
    """correct / n."""
    interval_95: tuple[float, float]
    """Wilson's."""
    loss: float
    """Mean cross-entropy."""


class Target(_Part):
    """What the recipe promises for its own dataset."""

    accuracy: float | None
    reached: bool | None


class Duplicates(_Part):
    """Judged images that are also in another split."""

    seen: int
    compared: str
    near: int


class ClassFigures(_Part):
    """One class among the judged images."""

    label: str
    n: int
    recall: float | None
    """None without an image of the class."""
    precision: float | None
    """None if the class was never answered."""


class Confusion(_Part):
    """Counts of the judged images by true class and answer."""

    rows: str
    columns: str
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class TrainingFigures(_Part):
    """What the training took. Seconds are those of all epochs, those before a kill included."""

    epochs: int
    kept_stage: int
    kept_epoch: int
    seconds: float
    cpu_seconds: float
    precision: tuple[str, ...]
    """Of products, a stage each."""


class SplitFigures(_Part):
    """One split of the dataset."""

    n: int
    fingerprint: str
    """Hexadecimal sha256, as `ImageSet.fingerprint`."""


class DatasetFigures(_Part):
    """The images that the run learned from and was judged on."""

    name: str
    splits: Mapping[Split, SplitFigures]


class BackboneFigures(_Part):
    """The pre-trained network that the run is built on."""

    name: str
    part: Part
    source: str
    sha256: str


class RunSettings(_Part):
    """All that decides the result. settings.json holds the same, so that an interrupted run is continued with the same."""

    recipe: str
    augmented: bool
    dataset: str
    seed: int
    stages: tuple[Mapping[str, JsonValue], ...]
    """The fields of each `Stage`."""
    augmentation: str | None
    backbone: BackboneFigures | None
    card_sha256: str
    fingerprints: Mapping[str, str] = {}
    """Split → fingerprint; empty until the images were read."""


class Process(_Part):
    """What the last process took: reading images, features of a frozen trunk and the evaluation count too."""

    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    resumed: bool


class RunReport(_Part):
    """report.json of a run."""

    schema_number: int = Field(default=SCHEMA, alias="schema")
    recipe: str
    written: str
    """ISO 8601, UTC."""
    judged_on: Split
    chosen_on: Split | None
    accuracy: Mapping[str, Accuracy | None]
    """By split; None where nobody knows what the images show. `without_seen` and `without_near_duplicates` are of the judged split."""
    gap: float | None
    """Accuracy on the training images less that on the judged ones."""
    target: Target
    duplicates: Duplicates
    remarks: tuple[str, ...]
    per_class: tuple[ClassFigures, ...]
    confusion: Confusion | None
    seed: int
    training: TrainingFigures
    dataset: DatasetFigures
    backbone: BackboneFigures | None
    settings: RunSettings
    card_sha256: str
    weights_sha256: str
    versions: Mapping[str, str]
    hardware: Hardware
    process: Process

    @field_validator("schema_number")
    @classmethod
    def _known(cls, number: int) -> int:
        if number != SCHEMA:
            raise ValueError(f"{number} is not known here, only {SCHEMA}: it was written by another version of Sightline")
        return number

    @property
    def judged_accuracy(self) -> Accuracy | None:
        """The accuracy on the judged images; None if nobody knows what they show."""
        return self.accuracy[self.judged_on]


def read_report(path: Path) -> RunReport:
    """Read a run's report. Raises DataError, naming the file and the first field that is wrong."""
    try:
        report = RunReport.model_validate_json(read_bytes(path, MAX_REPORT_BYTES))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}.") from None
    except ValidationError as error:
        raise DataError(f"{path}: no report of a run: {first_problem(error)}.") from None
    if report.judged_on not in report.dataset.splits or report.judged_on not in report.accuracy:
        raise DataError(f"{path}: dataset.splits or accuracy does not hold judged_on, {report.judged_on}.")
    return report


def write_report(path: Path, report: RunReport) -> None:
    """Write a run's report, whole. Raises OSError."""
    write_atomically(path, json_text(report.model_dump(mode="json", by_alias=True)))
