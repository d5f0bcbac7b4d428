"""Versions and the way back: what is listed is what Triton serves, and a rollback changes nothing but which version that is."""

import json
import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sightline.cli import run as sightline
from sightline.errors import RepositoryError, UsageError
from sightline.repository.card_config import config_for
from sightline.repository.config import VersionPolicy
from sightline.repository.history import VersionSummary, rollback, serve_newest, version_summaries
from sightline.repository.instances import InstanceSettings
from sightline.repository.publish import publish
from sightline.repository.read import read_published
from sightline.repository.report import VersionReport
from support.digits import Trained
from support.killed_publisher import published


@pytest.fixture
def repository(trained: Trained, tmp_path: Path) -> Path:
    """Three versions of digits; the ONNX files differ in nothing that matters here."""
    folder = tmp_path / "models"
    for number in (1, 2, 3):
        published(
            folder,
            trained.card,
            config_for(trained.card, InstanceSettings(1, 1)),
            {"model.onnx": trained.model + b"", "note": b"%d" % number},
            "",
        )
    return folder


def served(repository: Path) -> list[int]:
    return [summary.version for summary in version_summaries(repository, "digits") if summary.served]


def test_the_newest_version_is_served_until_a_rollback_and_each_one_goes_back_one_more(repository: Path) -> None:
    before = {file: file.read_bytes() for file in repository.rglob("*") if file.is_file() and file.name != "config.pbtxt"}
    assert served(repository) == [3]
    assert rollback(repository, "digits") == 2
    assert served(repository) == [2]
    assert rollback(repository, "digits") == 1
    assert served(repository) == [1]
    with pytest.raises(RepositoryError, match=r"digits in .* has no version before 1: there is 1, 2, 3$"):
        rollback(repository, "digits")
    assert served(repository) == [1]
    assert rollback(repository, "digits", to=3) == 3
    assert serve_newest(repository, "digits") == 3
    assert {file: file.read_bytes() for file in before} == before


def test_the_rest_of_the_configuration_stays_as_it_is(repository: Path) -> None:
    file = repository / "digits" / "config.pbtxt"
    config = text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
    config.instance_group[0].count = 7
    file.write_text(text_format.MessageToString(config))
    rollback(repository, "digits")
    changed = text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
    assert list(changed.version_policy.specific.versions) == [2]
    changed.version_policy.CopyFrom(config.version_policy)
    assert changed == config
    model = read_published(repository / "digits")
    assert model is not None
    assert model.config.policy == VersionPolicy("specific", versions=(2,))


def test_settings_that_would_be_lost_are_left_alone(repository: Path) -> None:
    file = repository / "digits" / "config.pbtxt"
    file.write_text(file.read_text() + "setting_of_tomorrow: 1\n")
    before = file.read_text()
    with pytest.raises(RepositoryError, match="settings of a newer Triton than this program knows"):
        rollback(repository, "digits")
    assert file.read_text() == before


def test_what_is_published_after_a_rollback_waits_and_says_so(repository: Path, trained: Trained) -> None:
    rollback(repository, "digits")
    notices: list[str] = []
    publish(
        repository,
        trained.card,
        config_for(trained.card, InstanceSettings(1, 1)),
        {"model.onnx": trained.model},
        VersionReport(),
        notices.append,
    )
    assert served(repository) == [2]
    assert any(sentence.startswith("version 4 is published but not served: version_policy in ") for sentence in notices)
    assert serve_newest(repository, "digits") == 4
    assert served(repository) == [4]


@pytest.mark.parametrize("to", [None, 2])
def test_no_way_back_to_a_version_whose_file_was_changed(to: int | None, repository: Path) -> None:
    file = repository / "digits" / "2" / "model.onnx"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RepositoryError, match=r"version 2 of model digits in .* is damaged: model.onnx was changed after it was published"):
        rollback(repository, "digits", to)
    assert served(repository) == [3]


@pytest.mark.parametrize("name", ["fruit", "..", "", "digits/1", "/"])
def test_an_unknown_model_is_named_with_those_that_there_are(name: str, repository: Path) -> None:
    for ask in (version_summaries, rollback, serve_newest):
        with pytest.raises(RepositoryError, match=r"^there is no model .* in .*: it has digits$"):
            ask(repository, name)


def test_a_version_that_is_not_there_is_named_with_those_that_are(repository: Path) -> None:
    with pytest.raises(RepositoryError, match="has no version 9: there is 1, 2, 3"):
        rollback(repository, "digits", to=9)


def test_a_kill_before_the_rename_leaves_the_old_configuration_and_the_next_rollback_works(repository: Path) -> None:
    (repository / "digits" / ".sightline.config.pbtxt").write_text("half of a config")
    assert rollback(repository, "digits") == 2
    assert not (repository / "digits" / ".sightline.config.pbtxt").exists()


def test_the_commands_show_and_change_what_is_served(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["digits", "--repository", str(repository)]
    sightline(["versions", *options])
    assert [line.split()[-1] == "served" for line in capsys.readouterr().out.splitlines()[1:]] == [False, False, True]
    sightline(["rollback", *options])
    captured = capsys.readouterr()
    assert captured.out == "digits version 2 is the one that is served, as soon as the server is started again\n"
    assert "`sightline rollback digits --newest`" in captured.err
    sightline(["rollback", *options, "--newest"])
    assert capsys.readouterr().out.startswith("digits version 3 ")
    with pytest.raises(UsageError, match="exclude each other"):
        sightline(["rollback", *options, "--newest", "--to", "1"])


def test_the_list_names_a_damaged_version_and_ends_with_an_error(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(repository / "digits" / "1")
    (repository / "digits" / "1").mkdir()
    with pytest.raises(RepositoryError, match=r"digits/1/report\.json cannot be read"):
        sightline(["versions", "digits", "--repository", str(repository)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[0] == "1"
    assert lines[1].endswith("damaged")
    assert lines[3].split()[-1] == "served"


def test_the_list_is_a_json_document_for_scripts(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rollback(repository, "digits")
    sightline(["versions", "digits", "--json", "--repository", str(repository)])
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == "digits"
    rows = [(entry["version"], entry["served"], entry["damage"]) for entry in document["versions"]]
    assert rows == [(1, False, ""), (2, True, ""), (3, False, "")]
    assert set(document["versions"][0]) == set(VersionSummary.model_fields)
    (repository / "digits" / "1" / "report.json").unlink()
    with pytest.raises(RepositoryError, match=r"digits/1/report\.json cannot be read: No such file or directory$"):
        sightline(["versions", "digits", "--json", "--repository", str(repository)])
    assert "cannot be read" in json.loads(capsys.readouterr().out)["versions"][0]["damage"]
