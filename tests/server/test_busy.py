"""What instances of one model know of each other's work."""

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from sightline_serving.backend import busy
from sightline_serving.backend.busy import ALONE_AFTER_S, FOLDER, Busy, busy_file

GROUPS = {"instance_group": [{"name": "first", "count": 1}, {"name": "more", "count": 2}], "name": "fruit"}


def test_an_instance_is_alone_until_another_works_and_again_some_time_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(busy, "time", types.SimpleNamespace(monotonic_ns=lambda: int(now_s * 1e9)))
    first, second = Busy(tmp_path / "fruit", 0, 2), Busy(tmp_path / "fruit", 1, 2)
    assert (first.is_first, second.is_first) == (True, False)
    assert first.enter()
    assert not second.enter()
    first.leave()
    now_s += ALONE_AFTER_S / 2
    assert not second.enter()
    now_s += ALONE_AFTER_S
    assert second.enter()
    assert not first.enter()


def test_an_instance_that_starts_anew_leaves_what_the_others_wrote(tmp_path: Path) -> None:
    first = Busy(tmp_path / "fruit", 0, 2)
    first.enter()
    assert not Busy(tmp_path / "fruit", 1, 2).enter()
    assert not first.enter()
    assert Busy(tmp_path / "other", 1, 2).enter()


def test_processes_see_each_other(tmp_path: Path) -> None:
    first = Busy(tmp_path / "fruit", 0, 2)
    assert first.enter()
    first.leave()
    time.sleep(2 * ALONE_AFTER_S)
    folder = Path(busy.__file__).parent
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); import busy, pathlib; "
    program += f"busy.Busy(pathlib.Path({str(tmp_path / 'fruit')!r}), 1, 2).enter()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert not first.enter()


@pytest.mark.parametrize(
    ("name", "config", "folder", "mapped"),
    [
        ("first_0", GROUPS, True, True),
        ("more_1", GROUPS, True, True),
        ("first_0", GROUPS, False, False),
        ("fruit_0_0", {"instance_group": [{"count": 2}], "name": "fruit"}, True, False),
        ("first_0", {"instance_group": [{"name": "first", "count": 2}, {"name": "more", "count": 2}], "name": "fruit"}, True, False),
        ("first_0", {"instance_group": [{"name": "first", "count": 1}], "name": "fruit"}, True, False),
    ],
)
def test_only_the_groups_that_are_published_share_a_file(
    name: str, config: dict[str, object], folder: bool, mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path)) if folder else monkeypatch.delenv(FOLDER, raising=False)
    file = busy_file({"model_instance_name": name, "model_version": "3"}, config)
    assert (file is not None) == mapped
    assert os.listdir(tmp_path) == (["fruit-3"] if mapped else [])


def test_a_folder_that_cannot_be_written_is_no_reason_not_to_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "missing"))
    assert busy_file({"model_instance_name": "first_0", "model_version": "1"}, GROUPS) is None
