"""One module knows the names of a repository's files; the others import them."""

import ast
from pathlib import Path

import pytest

from sightline.repository.layout import model_folders, version_numbers

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("clients/sightline", "training/sightline_training", "export/sightline_export", "serving/sightline_serving")
LAYOUT = ROOT / "clients/sightline/repository/layout.py"
NAMES = {"config.pbtxt", "report.json", "card.json", "model.onnx"}

ALONE = {
    # Triton's worker loads it from its file, where nothing of Sightline is imported.
    ROOT / "serving/sightline_serving/backend/model.py": {"model.onnx"},
}


def literals(file: Path) -> set[str]:
    """Every whole string literal of a module."""
    return {
        node.value
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_module_writes_a_file_name_of_the_repository(package: str) -> None:
    files = [file for file in sorted((ROOT / package).rglob("*.py")) if file != LAYOUT]
    assert len(files) > 10
    written = {str(file.relative_to(ROOT)): sorted(literals(file) & NAMES - ALONE.get(file, set())) for file in files}
    assert {file: names for file, names in written.items() if names} == {}


def test_versions_are_the_folders_that_triton_takes_for_versions(tmp_path: Path) -> None:
    for name in ("1", "2", "10", "01", "0", "1.5", "incoming", "-3", "9" * 19):
        (tmp_path / name).mkdir()
    (tmp_path / "4").touch()
    assert version_numbers(tmp_path) == [1, 2, 10]


def test_models_are_folders_with_a_configuration_or_a_version(tmp_path: Path) -> None:
    for name in ("b/1", "a", "empty", ".hidden/1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "config.pbtxt").touch()
    (tmp_path / "file").touch()
    assert [folder.name for folder in model_folders(tmp_path)] == ["a", "b"]
