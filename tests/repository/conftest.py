"""What is published here is the small network of the exporter's tests."""

import shutil
from pathlib import Path

import pytest

from support.digits import digits_run, trained

__all__ = ["digits_run", "trained"]


@pytest.fixture(scope="session")
def two_versions(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a model of two versions, FP32 and FP16, and the two models that take encoded images for it. Not to be changed."""
    from sightline_export.settings import ExportSettings
    from sightline_export.sources.run import export_run

    repository = tmp_path_factory.mktemp("models")
    export_run(digits_run, repository, ExportSettings(precisions=("fp32", "fp16"), images=20))
    return repository


@pytest.fixture
def copied(two_versions: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    return Path(shutil.copytree(two_versions, tmp_path / "models"))
