"""A version is published whole or not at all, never over another, whatever dies on the way."""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.card import ModelCard, seal
from sightline.errors import RepositoryError
from sightline.repository.card_config import config_for
from sightline.repository.config import ModelConfig
from sightline.repository.config_text import config_text
from sightline.repository.golden import golden_files
from sightline.repository.instances import InstanceSettings
from sightline.repository.layout import LOCK_FILE, STAGING_FOLDER, version_numbers
from sightline.repository.publish import agreed_card, publish
from sightline.repository.read import check_files, read_published, read_version
from sightline.repository.report import VersionReport
from sightline.repository.samples import check_samples, key_of, sample_of, samples_in, with_sample
from support.digits import DIGITS
from support.forking import fresh
from support.killed_publisher import hold_lock, in_process, killer, publish_several, publish_without_room, published
from support.reports import as_json

CONFIG: ModelConfig = config_for(DIGITS, InstanceSettings(1, 1))
GOLDEN = golden_files(
    DIGITS,
    lambda _: Image.linear_gradient("L").resize((8, 8)),
    np.zeros(1, np.int64),
    lambda pixels: np.full((len(pixels), 10), 0.1, np.float32),
    1e-4,
)
FILES = {"model.onnx": bytes(range(256)) * 40, **GOLDEN}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def card_with(**fields: Any) -> ModelCard:
    return ModelCard.model_validate({**DIGITS.model_dump(), **fields})


def unspoken(_sentence: str) -> None: ...


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "model_repository"


def test_the_first_version_brings_the_models_folder_with_it(repository: Path) -> None:
    done = publish(repository, DIGITS, CONFIG, FILES, VersionReport(precision="fp32"))
    assert (done.model, done.number, done.folder) == ("digits", 1, repository / "digits" / "1")
    there = tree(repository)
    assert set(there) == {
        LOCK_FILE,
        "digits/config.pbtxt",
        "digits/card.json",
        "digits/labels.txt",
        "digits/1/report.json",
        *(f"digits/1/{name}" for name in FILES),
    }
    assert there["digits/config.pbtxt"].decode() == config_text(with_sample(CONFIG, 1, sample_of(DIGITS, 1, FILES.__getitem__) or ""))
    assert there["digits/card.json"].decode() == seal(DIGITS)
    assert there["digits/labels.txt"] == b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"
    assert {name: there[f"digits/1/{name}"] for name in FILES} == FILES
    report = json.loads(there["digits/1/report.json"])
    assert report == as_json(done.report)
    assert (report["schema"], report["model"], report["version"], report["precision"]) == (1, "digits", 1, "fp32")
    assert report["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    assert sorted(path.name for path in repository.parent.iterdir()) == ["model_repository"]


def test_versions_count_on_and_the_earlier_ones_stay_as_they_were(repository: Path) -> None:
    publish(repository, DIGITS, CONFIG, FILES, VersionReport())
    before = tree(repository)
    (repository / "digits" / "7").mkdir()
    assert publish(repository, DIGITS, CONFIG, {"model.onnx": b"other"}, VersionReport()).number == 8
    after = tree(repository)
    assert {name: content for name, content in after.items() if not name.startswith("digits/8/")} == before
    assert version_numbers(repository / "digits") == [1, 7, 8]


def test_folders_that_are_no_version_do_not_count(repository: Path) -> None:
    publish(repository, DIGITS, CONFIG, FILES, VersionReport())
    for name in ("09", "incoming", "2.old", "-3", "0", "٣"):
        (repository / "digits" / name).mkdir()
    (repository / "digits" / "5").write_text("a file")
    assert version_numbers(repository / "digits") == [1]
    assert publish(repository, DIGITS, CONFIG, FILES, VersionReport()).number == 2


def test_a_version_made_by_hand_is_never_overwritten(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(repository, DIGITS, CONFIG, FILES, VersionReport())
    rename = os.rename

    def someone_is_faster(source: Any, target: Any) -> None:
        if Path(target).name == "2":
            Path(target).mkdir()
            Path(target, "model.onnx").write_bytes(b"mine")
        rename(source, target)

    monkeypatch.setattr(os, "rename", someone_is_faster)
    with pytest.raises(RepositoryError, match=r"Directory not empty\. Nothing was published in "):
        publish(repository, DIGITS, CONFIG, FILES, VersionReport())
    assert tree(repository / "digits" / "2") == {"model.onnx": b"mine"}


def test_published_files_cannot_be_written_by_accident_and_can_be_read(repository: Path) -> None:
    folder = publish(repository, DIGITS, CONFIG, FILES, VersionReport()).folder
    for path in folder.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o400, path
        if path.is_file():
            assert not mode & 0o222, path


SCENARIOS = ["no repository", "new model", "next version", "next version, lost card.json"]


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A workspace whose repository is in the state that the name says."""
    workspace = tmp_path / "before"
    workspace.mkdir()
    repository = workspace / "models"
    if request.param != "no repository":
        published(
            repository,
            card_with(name="neighbour"),
            config_for(card_with(name="neighbour"), InstanceSettings(1, 1)),
            {"model.onnx": b"1"},
            "other",
        )
    if request.param.startswith("next version"):
        published(repository, DIGITS, CONFIG, {**FILES, "model.onnx": b"first"}, "first")
    if request.param.endswith("lost card.json"):
        (repository / "digits" / "card.json").unlink()
    return workspace


def sound(repository: Path) -> dict[str, bytes]:
    """What Triton or anyone else can see; it must be complete. Files in the root and folders that are no number are not seen."""
    seen: dict[str, bytes] = {}
    for folder in sorted(repository.iterdir()) if repository.is_dir() else []:
        if not folder.is_dir():
            continue
        model = read_published(folder)
        assert model is not None
        assert version_numbers(folder), f"{folder} has no version"
        for number in version_numbers(folder):
            version = read_version(folder / str(number))
            check_files(version)
            assert set(tree(version.folder)) == {*version.report.files, "report.json"}
            seen.update({f"{folder.name}/{number}/{name}": content for name, content in tree(version.folder).items()})
        assert {key_of(number) for number in version_numbers(folder) if folder.name == "digits"} <= set(samples_in(model.config))
        check_samples(model, model.card)
    return seen


def outcomes_of_all_steps(killed_at: Callable[[int, Path, tuple[Any, ...]], int], scenario: Path, tmp_path: Path) -> Iterator[bool]:
    """Whether the new version is there after a kill at step 1, 2, …; everything else is asserted here."""
    old = sound(scenario / "models")
    number = max((int(name.split("/")[1]) for name in old if name.startswith("digits/")), default=0) + 1
    for step in range(1, 500):
        workspace = tmp_path / str(step)
        shutil.copytree(scenario, workspace)
        repository = workspace / "models"
        what = (repository, DIGITS, CONFIG, FILES, "new")
        code = killed_at(step, workspace, what)
        if code == 0:
            break
        assert code == -9
        seen = sound(repository)
        assert {name: content for name, content in seen.items() if name in old} == old
        new = {name: content for name, content in seen.items() if name not in old}
        if new:
            assert {name.removeprefix(f"digits/{number}/") for name in new} == {*FILES, "report.json"}
            assert all(new[f"digits/{number}/{name}"] == content for name, content in FILES.items())
        yield bool(new)
        assert published(*what) == number + bool(new)
        assert set(sound(repository)) >= {f"digits/{number + bool(new)}/{name}" for name in FILES}
        assert (repository / "digits" / "card.json").read_text() == seal(DIGITS)
        assert sorted(path.name for path in workspace.iterdir()) == ["models"]
        assert not [path for path in workspace.rglob("*") if "staging" in path.name or "probe" in path.name]
        shutil.rmtree(workspace)
    else:
        pytest.fail("the export never ended")


def test_killed_at_any_step_an_export_leaves_the_old_state_or_the_new_one_and_the_next_export_succeeds(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    with killer() as killed_at:
        outcomes = list(outcomes_of_all_steps(killed_at, scenario, tmp_path))
    assert len(outcomes) > 30
    # Once it is visible it stays: old, old, …, old, new, …, new.
    assert outcomes == sorted(outcomes)
    assert outcomes[0] is False
    assert outcomes[-1] is True


def test_exports_at_the_same_time_queue_and_lose_nothing(repository: Path) -> None:
    what = (repository, DIGITS, CONFIG, FILES, "together")
    processes = [fresh.Process(target=publish_several, args=(4, what)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert version_numbers(repository / "digits") == list(range(1, 17))
    assert len(sound(repository)) == 16 * 4


def test_an_export_waits_for_another_one_says_so_and_goes_on_when_that_one_is_killed(repository: Path) -> None:
    repository.mkdir()
    ours, theirs = fresh.Pipe()
    holder = fresh.Process(target=hold_lock, args=(str(repository), theirs))
    holder.start()
    assert ours.poll(30)
    assert ours.recv() == "held"
    notices: list[str] = []

    def notify(sentence: str) -> None:
        notices.append(sentence)
        waiting.set()

    waiting = threading.Event()
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(publish(repository, DIGITS, CONFIG, FILES, VersionReport(), notify).number))
    thread.start()
    assert waiting.wait(30)
    assert notices == [f"another export is publishing in {repository}: waiting until it is done"]
    assert results == []
    assert not (repository / "digits").exists()
    holder.kill()
    holder.join(30)
    thread.join(30)
    assert results == [1]


def test_a_full_disk_is_one_sentence_and_changes_nothing(repository: Path, tmp_path: Path) -> None:
    publish(repository, DIGITS, CONFIG, {"model.onnx": b"small"}, VersionReport())
    before = tree(repository)
    large = {"model.onnx": bytes(100_000)}
    assert in_process(publish_without_room, 20_000, str(tmp_path / "said"), (repository, DIGITS, CONFIG, large, "large")) == 17
    assert (tmp_path / "said").read_text() == f"{repository}: File too large. Nothing was published in {repository}"
    assert tree(repository) == before
    assert sorted(path.name for path in (repository / "digits").iterdir()) == ["1", "card.json", "config.pbtxt", "labels.txt"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"labels": tuple("abcdefghij")}, "another labels: ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'] there, ['a', 'b', 'c', "),
        ({"preprocess": {**DIGITS.preprocess.model_dump(), "mean": (0.31,)}}, "another preprocess.mean: [0.3] there, [0.31] here. "),
        (
            {"preprocess": {**DIGITS.preprocess.model_dump(), "resample": "box", "exif": "apply"}},
            "another preprocess.resample: 'bilinear' there, 'box' here (and preprocess.exif too). ",
        ),
        ({"input": "image"}, "another input: 'pixels' there, 'image' here. "),
        ({"output": "scores"}, "another output: 'probabilities' there, 'scores' here. "),
        ({"max_batch_size": 8}, "another max_batch_size: 16 there, 8 here. "),
    ],
)
def test_a_version_with_another_card_is_refused_and_the_field_is_named(fields: dict[str, Any], sentence: str, repository: Path) -> None:
    publish(repository, DIGITS, CONFIG, FILES, VersionReport())
    before = tree(repository)
    card = card_with(**fields)
    for refused in (lambda: agreed_card(repository, card, unspoken), lambda: publish(repository, card, CONFIG, FILES, VersionReport())):
        with pytest.raises(RepositoryError) as error:
            refused()
        assert str(error.value).startswith(f"digits is published in {repository} with {sentence}")
        assert str(error.value).endswith(
            "All versions of a model share one card: give the model another name, or publish in another repository"
        )
    assert tree(repository) == before


def test_the_description_stays_the_one_that_was_published_first_and_that_is_said(repository: Path) -> None:
    publish(repository, DIGITS, CONFIG, FILES, VersionReport())
    notices: list[str] = []
    assert agreed_card(repository, card_with(description="Reworded."), notices.append) == DIGITS
    assert notices == ["the description stays the one that digits was first published with: 'Handwritten digits, 8 × 8 pixels.'"]


def test_a_model_published_meanwhile_with_another_description_is_not_mixed_up(repository: Path) -> None:
    agreed = agreed_card(repository, card_with(description="Reworded."), unspoken)
    publish(repository, DIGITS, CONFIG, FILES, VersionReport())
    with pytest.raises(RepositoryError, match=f"^digits in {repository} was published by someone else meanwhile: export again$"):
        publish(repository, agreed, CONFIG, FILES, VersionReport())


def test_a_config_that_its_owner_tuned_is_kept_and_that_is_said(repository: Path) -> None:
    publish(repository, DIGITS, CONFIG, FILES, VersionReport())
    file = repository / "digits" / "config.pbtxt"
    tuned = "# ours\n" + file.read_text().replace("count: 1", "count: 4")
    file.write_text(tuned)
    notices: list[str] = []
    publish(repository, DIGITS, CONFIG, FILES, VersionReport(), notices.append)
    assert file.read_text().startswith(tuned)
    assert set(re.findall("golden_sample_[0-9]+", file.read_text().removeprefix(tuned))) == {"golden_sample_2"}
    assert notices == [f"{file} was kept as it is; a new one would differ in instance_group"]


def test_a_pinned_version_stays_the_served_one_and_that_is_said(repository: Path) -> None:
    publish(repository, DIGITS, CONFIG, FILES, VersionReport())
    file = repository / "digits" / "config.pbtxt"
    file.write_text(config_text(CONFIG).replace("latest {\n    num_versions: 1\n  }", "specific { versions: 1 }"))
    notices: list[str] = []
    publish(repository, DIGITS, CONFIG, FILES, VersionReport(), notices.append)
    assert notices == [f"version 2 is published but not served: version_policy in {file} says 1"]


@pytest.mark.parametrize("name", ["card.json", "labels.txt"])
def test_a_changed_file_of_the_model_is_found_and_a_lost_one_is_restored(name: str, repository: Path) -> None:
    publish(repository, DIGITS, CONFIG, FILES, VersionReport())
    file = repository / "digits" / name
    good = file.read_bytes()
    file.write_bytes(good.replace(b"3", b"4", 1))
    with pytest.raises(RepositoryError) as error:
        publish(repository, DIGITS, CONFIG, FILES, VersionReport())
    assert str(error.value) == (
        f"{file} does not hold what config.pbtxt beside it says: one of the two was changed after it was published. "
        "Restore it, or delete it and export again"
    )
    file.unlink()
    assert publish(repository, DIGITS, CONFIG, FILES, VersionReport()).number == 2
    assert file.read_bytes() == good


def test_a_folder_that_is_no_published_model_is_left_alone(repository: Path) -> None:
    (repository / "digits" / "1").mkdir(parents=True)
    (repository / "digits" / "1" / "model.onnx").write_bytes(b"precious")
    with pytest.raises(RepositoryError, match=r"digits/config\.pbtxt cannot be read: No such file or directory$"):
        publish(repository, DIGITS, CONFIG, FILES, VersionReport())
    assert tree(repository / "digits") == {"1/model.onnx": b"precious"}


def test_an_empty_folder_of_the_models_name_is_used(repository: Path) -> None:
    (repository / "digits").mkdir(parents=True)
    assert publish(repository, DIGITS, CONFIG, FILES, VersionReport()).number == 1


def test_a_repository_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(RepositoryError, match=r"models: File exists\. Nothing was published in "):
        agreed_card(tmp_path / "models", DIGITS, unspoken)


def test_a_mount_point_is_refused_before_the_work_with_what_to_do(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def across(_source: Any, _target: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "rename", across)
    with pytest.raises(RepositoryError) as error:
        agreed_card(repository, DIGITS, unspoken)
    assert str(error.value) == (
        f"{repository} is a mount point of its own, so that a new model cannot appear in it all at once: name a folder inside it, "
        f"such as {repository / 'models'}. Nothing was published"
    )
    assert sorted(path.name for path in repository.parent.iterdir()) == ["model_repository"]


def test_a_link_in_the_place_of_staging_is_not_followed(repository: Path, tmp_path: Path) -> None:
    publish(repository, DIGITS, CONFIG, FILES, VersionReport())
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "photo.png").write_bytes(b"only copy")
    (repository / "digits" / STAGING_FOLDER).symlink_to(precious)
    with pytest.raises(RepositoryError):
        publish(repository, DIGITS, CONFIG, FILES, VersionReport())
    assert tree(precious) == {"photo.png": b"only copy"}
