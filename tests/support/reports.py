"""A version's report as the JSON that lies in the repository."""

from typing import Any

from sightline.repository.report import VersionReport


def as_json(report: VersionReport) -> dict[str, Any]:
    return report.model_dump(mode="json", by_alias=True, exclude_unset=True)
