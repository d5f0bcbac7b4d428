"""What is read from a model repository is not trusted: damage is found and named, names stay inside, sizes are bounded."""

import json
from pathlib import Path
from typing import Any

import pytest

from sightline.errors import RepositoryError
from sightline.repository import read as reading
from sightline.repository.card_config import config_for
from sightline.repository.config import VersionPolicy
from sightline.repository.instances import InstanceSettings
from sightline.repository.publish import publish
from sightline.repository.read import check_files, read_published, read_version
from sightline.repository.report import VersionReport
from support.digits import DIGITS

FILES = {"model.onnx": b"network", "golden/00.png": b"image"}


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = publish(tmp_path / "models", DIGITS, config_for(DIGITS, InstanceSettings(1, 1)), FILES, VersionReport()).folder
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def rewrite(folder: Path, **fields: Any) -> None:
    file = folder / "report.json"
    content = {**json.loads(file.read_text()), **fields}
    # As an earlier program wrote it, without the hash of itself: what else is wrong is to be found too.
    for added in ("shared", "sha256"):
        content.pop(added, None)
    file.write_text(json.dumps(content))


def damage(version: Path) -> str:
    with pytest.raises(RepositoryError) as error:
        check_files(read_version(version))
    opening = f"version {version.name} of model digits in {version.parent.parent} is damaged: "
    ending = ". Restore its files, or delete its folder and export again"
    assert str(error.value).startswith(opening)
    assert str(error.value).endswith(ending)
    return str(error.value).removeprefix(opening).removesuffix(ending)


def test_a_published_version_reads_back_and_its_files_are_those_that_were_published(version: Path) -> None:
    published = read_version(version)
    assert (published.number, published.folder, set(published.report.files)) == (1, version, set(FILES))
    check_files(published)
    model = read_published(version.parent)
    assert model is not None
    assert (model.card, model.config.policy) == (DIGITS, VersionPolicy("latest", 1))


def test_a_model_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_published(tmp_path / "nothing") is None


def test_one_changed_byte_is_found_and_the_file_named(version: Path) -> None:
    (version / "model.onnx").write_bytes(b"netw0rk")
    assert damage(version).startswith("model.onnx was changed after it was published (sha256 ")


def test_a_missing_file_is_found(version: Path) -> None:
    (version / "golden" / "00.png").unlink()
    assert damage(version) == "golden/00.png is missing"


def test_a_link_is_not_taken_for_a_file(version: Path, tmp_path: Path) -> None:
    (version / "model.onnx").rename(tmp_path / "elsewhere")
    (version / "model.onnx").symlink_to(tmp_path / "elsewhere")
    assert damage(version) == "model.onnx is missing"


def test_a_linked_folder_is_not_followed(version: Path, tmp_path: Path) -> None:
    (version / "golden").rename(tmp_path / "elsewhere")
    (version / "golden").symlink_to(tmp_path / "elsewhere")
    assert damage(version) == "golden/00.png is missing"


@pytest.mark.parametrize(
    "name",
    [
        "../2/model.onnx",
        "/etc/passwd",
        "golden/../../x",
        "golden//x",
        "",
        ".hidden",
        "golden/.x",
        "a\x00b",
        "a\nb",
        "ä",
        "x" * 200 + "/../y",
    ],
)
def test_a_report_that_lists_a_file_elsewhere_is_refused(name: str, version: Path) -> None:
    rewrite(version, files={name: "0" * 64})
    assert damage(version).startswith(f"report.json is no report of schema 1 (files.{name}.[key]: ")


@pytest.mark.parametrize("digest", ["", "0" * 63, "G" * 64, 7, None, ["0" * 64]])
def test_a_report_with_a_malformed_hash_is_refused(digest: object, version: Path) -> None:
    rewrite(version, files={"model.onnx": digest})
    assert damage(version).startswith("report.json is no report of schema 1 (files.model.onnx: ")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"schema": 2}, "report.json is no report of schema 1 (schema: Input should be 1)"),
        ({"version": 2}, "report.json belongs to another version"),
        ({"model": "letters"}, "report.json belongs to another version"),
        ({"files": {}}, "report.json lists no files"),
        ({"files": ["model.onnx"]}, "report.json is no report of schema 1 (files: Input should be an object)"),
    ],
)
def test_a_report_that_cannot_be_this_versions_is_refused(fields: dict[str, Any], reason: str, version: Path) -> None:
    rewrite(version, **fields)
    assert damage(version) == reason


def test_a_report_of_which_a_letter_was_changed_is_refused(version: Path) -> None:
    file = version / "report.json"
    text = file.read_text()
    file.chmod(0o644)
    file.write_text(text.replace('"created": "2', '"created": "3') if '"created": "2' in text else text.replace("digits", "digitt"))
    assert damage(version) == "report.json is not what was published: its own sha256 is another one"


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"schema": 1}'])
def test_a_report_that_is_no_report_is_refused(text: str, version: Path) -> None:
    (version / "report.json").write_text(text)
    assert damage(version).startswith("report.json ")


def test_a_report_that_is_not_text_is_refused(version: Path) -> None:
    (version / "report.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RepositoryError, match=r"report\.json cannot be read: not UTF-8 text$"):
        check_files(read_version(version))


def test_a_huge_report_is_not_read(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_TEXT_BYTES", 100)
    with pytest.raises(RepositoryError, match=r"report\.json cannot be read: larger than 100 bytes, the most that such a file may have$"):
        check_files(read_version(version))


def test_a_model_in_the_folder_of_another_is_refused(version: Path) -> None:
    version.parent.rename(version.parent.with_name("letters"))
    with pytest.raises(RepositoryError, match=r"it belongs to a model called digits\. Restore the file that was published$"):
        read_published(version.parent.with_name("letters"))
