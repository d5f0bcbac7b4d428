"""The versions of a published model: what each is, which of them Triton serves, and the way back to an earlier one."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sightline.errors import RepositoryError
from sightline.repository.config import VersionPolicy
from sightline.repository.edit import set_policy
from sightline.repository.publish import locked
from sightline.repository.read import ModelVersion, check_files, model_named
from sightline.repository.report import VersionReport

ACCURACY = "accuracy"
"""The gate's check that counts how often the exported file is right."""


class VersionSummary(BaseModel):
    """One version, as its report describes it: a row of `sightline versions`, and of its JSON."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    version: int
    created: str
    """ISO 8601, UTC."""
    precision: str
    accuracy: float | None
    """Of this file in ONNX Runtime on the images of the gate, 0..1; None if nobody knows what those show."""
    checks: int
    """How many checks the gate made."""
    images: int
    """On how many images."""
    bytes: int
    """Of the ONNX file."""
    served: bool
    """Whether Triton serves it from its next start on."""
    damage: str
    """Why it cannot be trusted; empty if nothing is wrong."""


def version_summaries(repository: Path, name: str) -> list[VersionSummary]:
    """Describe all versions of the model `name`, oldest first; the files of each are hashed. Raises RepositoryError if there is none."""
    model = model_named(repository, name)
    return [_summary(version, served=version.number in model.served) for version in model.versions]


def rollback(repository: Path, name: str, to: int | None = None) -> int:
    """Make an earlier version of `name` the one that is served: `to`, or the newest before the one that is served now.

    Nothing is deleted. `config.pbtxt` names the version afterwards, so what is published later is not served until `serve_newest`
    or another `rollback`. Returns the version. Raises RepositoryError if there is none, or if its files are not the published ones.
    """
    with locked(repository, lambda _sentence: None):
        model = model_named(repository, name)
        if to is None:
            now = max(model.served, default=0)
            earlier = [number for number in model.numbers if number < now]
            if not earlier:
                listed = ", ".join(map(str, model.numbers)) or "none"
                raise RepositoryError(f"{name} in {repository} has no version before {now or 'any'}: there is {listed}")
            to = earlier[-1]
        check_files(model.version(to))
        set_policy(model, VersionPolicy("specific", versions=(to,)))
    return to


def serve_newest(repository: Path, name: str) -> int:
    """Take a rollback back: from now on the newest version is served, whichever that is. Returns it. Raises RepositoryError."""
    with locked(repository, lambda _sentence: None):
        model = model_named(repository, name)
        if not model.versions:
            raise RepositoryError(f"{name} in {repository} has no version: export it")
        check_files(model.versions[-1])
        set_policy(model, VersionPolicy("latest", 1))
    return model.versions[-1].number


def _summary(version: ModelVersion, *, served: bool) -> VersionSummary:
    damage = ""
    try:
        check_files(version)
    except RepositoryError as error:
        damage = str(error)
    report = version.described or VersionReport()
    accuracy = report.gate.measured(ACCURACY) if report.gate is not None else None
    return VersionSummary(
        version=version.number,
        created=report.created,
        precision=report.precision,
        accuracy=accuracy if isinstance(accuracy, int | float) else None,
        checks=len(report.gate.checks) if report.gate is not None else 0,
        images=report.gate.images if report.gate is not None else 0,
        bytes=report.model_bytes,
        served=served,
        damage=damage,
    )
