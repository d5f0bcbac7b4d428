"""What instances of one model know of each other's work."""

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from sightline.repository import instances
from sightline_serving.backend import busy, config_settings
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


def test_the_backend_which_stands_alone_and_the_repository_call_things_alike() -> None:
    assert (busy.FIRST_GROUP, busy.MORE_GROUP) == (instances.FIRST_GROUP, instances.MORE_GROUP)
    assert (config_settings.LONE_THREADS, config_settings.LARGEST_RUN) == (instances.LONE_THREADS, instances.LARGEST_RUN)


@pytest.mark.parametrize(
    ("stated", "threads"), [({}, 0), ({"lone_thread_count": "0"}, config_settings._cores()), ({"lone_thread_count": "3"}, 3)]
)
def test_threads_for_a_lone_request_are_those_that_the_config_states(stated: dict[str, str], threads: int) -> None:
    parameters = {name: {"string_value": value} for name, value in stated.items()}
    assert config_settings.lone_threads({"parameters": parameters}) == threads


@pytest.mark.parametrize("rows", [1, 4])
def test_how_many_threads_compute_an_answer_changes_none_of_its_bits(rows: int) -> None:
    chance = np.random.default_rng(0)
    weights = {
        "w1": chance.normal(size=(64, 3, 3, 3)),
        "w2": chance.normal(size=(96, 64, 3, 3)),
        "w3": chance.normal(size=(96, 40)),
        "b3": chance.normal(size=40),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w1"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "w2"], ["c"], strides=[2, 2]),
            helper.make_node("GlobalAveragePool", ["c"], ["d"]),
            helper.make_node("Flatten", ["d"], ["e"]),
            helper.make_node("Gemm", ["e", "w3", "b3"], ["f"]),
            helper.make_node("Softmax", ["f"], ["y"]),
        ],
        "convolutions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 40])],
        [numpy_helper.from_array((0.05 * value).astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    pixels = chance.normal(size=(rows, 3, 64, 64)).astype(np.float32)
    answers = []
    for threads in ("1", "2", "4"):
        options = config_settings.session_options({"parameters": {"intra_op_thread_count": {"string_value": threads}}})
        answers.append(ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(["y"], {"x": pixels})[0].tobytes())
    assert answers[0] == answers[1] == answers[2]
