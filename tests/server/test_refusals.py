"""What cannot be served is refused with one clear sentence, as the user reads it, and with the exit code of who is at fault."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from sightline.cli import run
from sightline.errors import ContractError, MachineError, ServerStartError, SightlineError, UsageError
from sightline_serving.process.installation import OUR_BACKEND, PYTHON, find_triton
from sightline_serving.process.log_summary import ON_THE_CPU, open_log
from sightline_serving.selection.preflight import SelectedModel, select_models
from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS
from support.cards import tiny_card
from support.tiny_models import About, publish_tiny, tiny_onnx


def refusal(repository: Path, **settings: object) -> SightlineError:
    with pytest.raises(SightlineError) as caught, start_server(repository, replace(FREE_PORTS, **settings)):  # type: ignore[arg-type]
        pytest.fail("it started")
    return caught.value


def said(repository: Path, kind: type[SightlineError] = ServerStartError, **settings: object) -> str:
    error = refusal(repository, **settings)
    assert type(error) is kind
    message = str(error)
    assert "\n" not in message
    assert "Traceback" not in message
    return message.replace(str(repository), "REPOSITORY")


def reconfigure(repository: Path, change: Callable[[pb.ModelConfig], object], model: str = "tiny") -> None:
    file = repository / model / "config.pbtxt"
    config = text_format.Parse(file.read_text(encoding="utf-8"), pb.ModelConfig())
    change(config)
    file.write_text(text_format.MessageToString(config, as_utf8=True), encoding="utf-8")


# Before Triton starts


def test_a_missing_repository(tmp_path: Path) -> None:
    assert said(tmp_path / "none").startswith("there is no model repository at ")


def test_a_repository_with_nothing_but_its_readme(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    assert said(tmp_path) == "the model repository REPOSITORY holds no model: publish one there with `sightline export`"


def test_a_models_folder_instead_of_its_repository(repository: Path) -> None:
    assert said(repository / "tiny") == f"REPOSITORY is the folder of one model: name the model repository around it, {repository}"


def test_a_model_without_a_version(repository: Path) -> None:
    shutil.rmtree(repository / "tiny" / "1")
    for name in ("01", "0", "incoming", "1.5"):
        (repository / "tiny" / name).mkdir()
    assert said(repository) == "model tiny has no version (1/, 2/ …) in REPOSITORY/tiny: export it, or serve other models"


def test_a_model_without_a_config(repository: Path) -> None:
    (repository / "tiny" / "config.pbtxt").unlink()
    assert said(repository) == "model tiny has no config.pbtxt in REPOSITORY/tiny: export it again, or serve other models"


def test_a_broken_config_with_the_place(repository: Path) -> None:
    (repository / "tiny" / "config.pbtxt").write_text('name: "tiny"\nmax_batch_size: many\n')
    assert said(repository) == (
        "config.pbtxt of model tiny in REPOSITORY: no model configuration: 2:17 : 'max_batch_size: many': Couldn't parse integer: many. "
        "Restore the file that was published"
    )


def test_a_config_of_another_model(repository: Path) -> None:
    reconfigure(repository, lambda config: setattr(config, "name", "big"))
    assert said(repository) == "REPOSITORY/tiny/config.pbtxt names the model big, its folder tiny: the two must be the same"


def test_a_policy_that_asks_for_a_version_that_is_not_there(repository: Path) -> None:
    reconfigure(repository, lambda config: config.version_policy.specific.versions.extend([7, 8]))
    assert said(repository) == "the version_policy in REPOSITORY/tiny/config.pbtxt asks for version 7, 8, but there is only 1"


def test_a_name_that_no_model_has(repository: Path) -> None:
    assert said(repository, models=("tinny",)) == "the model repository REPOSITORY has no model tinny: it has tiny"


def test_versions_are_chosen_as_triton_chooses_them(repository: Path) -> None:
    for version in (2, 3, 10):
        publish_tiny(repository, version=version, seed=version)
    (repository / "tiny" / "011").mkdir()
    assert select_models(repository).models == (SelectedModel("tiny", (10,)),)
    reconfigure(repository, lambda config: setattr(config.version_policy.latest, "num_versions", 2))
    assert select_models(repository).models == (SelectedModel("tiny", (3, 10)),)
    reconfigure(repository, lambda config: config.version_policy.all.SetInParent())
    assert select_models(repository).models == (SelectedModel("tiny", (1, 2, 3, 10)),)
    reconfigure(repository, lambda config: config.version_policy.specific.versions.extend([2, 1]))
    assert select_models(repository).models == (SelectedModel("tiny", (1, 2)),)


# Files that are not those that were published

DAMAGED = "tiny version 1 is not served: version 1 of model tiny in REPOSITORY is damaged: "


def report(version: Path, files: dict[str, str]) -> None:
    (version / "report.json").write_text(json.dumps({"schema": 1, "model": "tiny", "version": 1, "files": files}))


def test_a_changed_model_file_is_refused_by_name(repository: Path) -> None:
    file = repository / "tiny" / "1" / "model.onnx"
    published = hashlib.sha256(file.read_bytes()).hexdigest()
    onnx.save(tiny_onnx(tiny_card(), seed=9), file)
    changed = hashlib.sha256(file.read_bytes()).hexdigest()
    assert said(repository, ContractError) == (
        "tiny version 1 is not served: version 1 of model tiny in REPOSITORY is damaged: model.onnx was changed after it was published "
        f"(sha256 {changed[:12]}…, published {published[:12]}…). Restore its files, or delete its folder and export again"
    )


def test_a_changed_golden_image_is_refused_by_name(repository: Path) -> None:
    version = repository / "tiny" / "1"
    (version / "golden").mkdir()
    (version / "golden" / "0.png").write_bytes(b"one")
    report = json.loads((version / "report.json").read_text())
    report["files"]["golden/0.png"] = hashlib.sha256(b"two").hexdigest()
    (version / "report.json").write_text(json.dumps(report))
    assert said(repository, ContractError).startswith(f"{DAMAGED}golden/0.png was changed after it was published")


def test_a_missing_file_is_refused_by_name(repository: Path) -> None:
    (repository / "tiny" / "1" / "model.onnx").unlink()
    assert said(repository, ContractError).startswith(f"{DAMAGED}model.onnx is missing. Restore its files")


def test_a_report_that_forgets_the_model_is_refused(repository: Path) -> None:
    version = repository / "tiny" / "1"
    report(version, {"labels.txt": hashlib.sha256(b"").hexdigest()})
    (version / "labels.txt").touch()
    assert said(repository, ContractError) == (
        "tiny version 1 is not served: REPOSITORY/tiny/1/report.json does not list model.onnx. Export the model again"
    )


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname"])
def test_a_report_that_points_elsewhere_is_refused(repository: Path, name: str) -> None:
    report(repository / "tiny" / "1", {"model.onnx": "ab" * 32, name: "ab" * 32})
    assert said(repository, ContractError).startswith(f"{DAMAGED}report.json is no report of schema 1 (files.{name}")


def test_a_link_to_elsewhere_is_no_file_of_a_version(repository: Path) -> None:
    version = repository / "tiny" / "1"
    (version / "link").symlink_to("/etc/hostname")
    report(version, {"link": hashlib.sha256(Path("/etc/hostname").read_bytes()).hexdigest()})
    assert said(repository, ContractError).startswith(f"{DAMAGED}link is missing. ")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": [1]}', "[" * 100_000])
def test_a_damaged_report_is_refused(repository: Path, text: str) -> None:
    (repository / "tiny" / "1" / "report.json").write_text(text)
    assert said(repository, ContractError).startswith(f"{DAMAGED}report.json is no")


def test_only_versions_that_will_be_served_are_checked(repository: Path) -> None:
    publish_tiny(repository, version=2)
    (repository / "tiny" / "1" / "model.onnx").write_bytes(b"old and broken")
    assert select_models(repository).models == (SelectedModel("tiny", (2,)),)


# Addresses


@pytest.mark.parametrize(("option", "what"), [("http", "HTTP"), ("grpc", "gRPC"), ("metrics", "metrics")])
def test_a_taken_port_is_named_with_who_has_it(repository: Path, option: str, what: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = said(repository, **{f"{option}_port": port})
    taken_by = f"port {port} ({what}) at 127.0.0.1 is taken by "
    assert message.startswith(taken_by)
    assert message.endswith(f"(process {os.getpid()}): stop it, or choose another {what} port (0 picks a free one)")


def test_a_port_that_is_taken_on_every_network_is_taken_here_too(repository: Path) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as other:
        assert "is taken by" in said(repository, http_port=other.getsockname()[1])


def test_one_port_for_two_protocols_makes_no_sense(repository: Path) -> None:
    message = said(repository, UsageError, http_port=18123, grpc_port=18123)
    assert message == "HTTP, gRPC and metrics need three different ports, not 18123, 18123 and 0"


def test_a_port_that_does_not_exist(repository: Path) -> None:
    assert said(repository, UsageError, http_port=70000) == "70000 is no port: HTTP takes 0 (any free one) to 65535"


@pytest.mark.parametrize("address", ["example", "::1", "127.0.0.1:8000", ""])
def test_an_address_that_is_none(repository: Path, address: str) -> None:
    assert said(repository, UsageError, address=address).startswith(f"{address} is no IPv4 address to listen on: ")


def test_an_address_of_another_machine(repository: Path) -> None:
    assert said(repository, address="192.0.2.1", outdated_beyond_loopback=True) == (
        "no network of this machine has the address 192.0.2.1: 127.0.0.1 is this machine alone, 0.0.0.0 every network"
    )


def test_the_wheels_old_triton_refuses_to_listen_on_a_network_and_says_why(repository: Path) -> None:
    message = said(repository, UsageError, address="0.0.0.0")
    assert message.startswith(
        "refused to listen at 0.0.0.0. The wheel's Triton 2.51 (24.10) is old: NVIDIA's bulletins to 2026-08-18 name at "
    )
    assert "name at least 56 vulnerabilities fixed in later releases" in message
    assert message.endswith(
        "serve with NVIDIA's container nvcr.io/nvidia/tritonserver:26.07-py3, or insist on it (outdated-beyond-loopback)"
    )


def test_a_log_file_that_cannot_be_written(repository: Path, tmp_path: Path) -> None:
    message = said(repository, MachineError, log_file=tmp_path / "none" / "triton.log")
    assert message == f"the log file {tmp_path}/none/triton.log cannot be written: No such file or directory"


# No Triton


def test_without_any_triton_it_says_how_to_run_the_container(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a Python that has no nvidia-pytriton, and with nothing on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    message = said(repository)
    assert message.startswith("there is no tritonserver on PATH and none in this Python: pip install 'sightline[serve]', or run NVIDIA's ")
    assert "-v REPOSITORY:/models:ro nvcr.io/nvidia/tritonserver:26.07-py3 tritonserver --model-repository=/models" in message


def test_tests_of_triton_fail_where_there_is_none(tmp_path: Path) -> None:
    """They must not pass because they were skipped. Asked of pytest itself, in a Python from which the wheel is hidden."""
    (tmp_path / "hide_triton.py").write_text(
        "import importlib.util\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'pytriton' else real(name, *more)\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "hide_triton",
        "-q",
        "-k",
        "what_a_client_needs",
        str(Path(__file__).with_name("test_closed_doors.py")),
    ]
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1, ended.stdout
    assert "there is no tritonserver on PATH and none in this Python" in ended.stdout
    assert re.search(r"\n\d+ deselected, 1 error", ended.stdout)


def test_a_numpy_with_which_the_wheels_triton_answers_nothing_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline_serving.process.installation.version", lambda _: "2.5.2")
    sentence = r"^the wheel's Triton was made for numpy 1, and answers nothing with numpy 2\.5\.2: pip install 'numpy<2'$"
    with pytest.raises(ServerStartError, match=sentence):
        find_triton(repository)


def test_a_model_that_was_meant_for_a_gpu_and_runs_on_the_cpu_is_named(tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    log.write_text("of an earlier start: it runs on the CPU\n")
    opened = open_log(log)
    warning = (
        'W1127 20:29:19.492662 928 model.py:144] "{}: this onnxruntime has no CUDA provider (onnxruntime-gpu has): it runs on the CPU"\n'
    )
    with log.open("a") as file:
        file.write('I1127 20:29:18.843198 928 cuda_memory_manager.cc:107] "CUDA memory pool is created on device 0"\n')
        file.writelines(warning.format(model) for model in ("resnet50", "vgg16", "resnet50"))
    assert opened.on_the_cpu() == [
        f"{model}: this onnxruntime has no CUDA provider (onnxruntime-gpu has): it runs on the CPU" for model in ("resnet50", "vgg16")
    ]
    # Both ends of the sentence, one of which runs where nothing of Sightline is installed.
    assert f'ON_THE_CPU: Final = "{ON_THE_CPU}"' in OUR_BACKEND.read_text(encoding="utf-8")


def test_a_python_without_its_shared_library_is_told_so(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As with Pythons that were built without --enable-shared: here the worker asks for a library that no machine has."""
    wheel = find_triton(repository)
    worker = wheel.stub.read_bytes()
    library = f"libpython{PYTHON}.so.1.0".encode()
    assert library in worker
    missing = library.replace(b"libpython3", b"libpython9")
    (tmp_path / wheel.stub.name).write_bytes(worker.replace(library, missing))
    (tmp_path / wheel.stub.name).chmod(0o755)
    monkeypatch.setattr("sightline_serving.server.find_triton", lambda _: replace(wheel, stub=tmp_path / wheel.stub.name))
    assert said(repository) == (
        f"{missing.decode()} is missing: this Python ({sys.executable}) was built without its shared library, which Triton's worker needs. "
        f"Install it (Debian: apt install libpython{PYTHON}) or use a Python built with --enable-shared, "
        "or NVIDIA's container nvcr.io/nvidia/tritonserver:26.07-py3"
    )


def test_a_python_for_which_the_wheel_has_no_worker_is_told_so(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = find_triton(repository)
    monkeypatch.setattr("sightline_serving.server.find_triton", lambda _: replace(wheel, stub=tmp_path / "none"))
    assert said(repository).startswith(f"the nvidia-pytriton wheel has no Python worker for Python {PYTHON} (")


# What Triton itself finds


@pytest.mark.triton
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"garbage" * 100, r"INVALID_PROTOBUF : .*Protobuf parsing failed\."),
        (b"", r"INVALID_ARGUMENT : .*No graph was found in the protobuf\."),
    ],
    ids=["garbage", "empty"],
)
def test_a_broken_model_file_is_named_with_the_reason(repository: Path, about: About, content: bytes, reason: str) -> None:
    (repository / "tiny" / "1" / "model.onnx").write_bytes(content)
    error = refusal(repository, verify_hashes=False)
    assert type(error) is ServerStartError
    assert error.exit_code == 8
    expected = rf"Triton did not start: model tiny version 1: model\.onnx is no model that ONNX Runtime \S+ can load: {reason}"
    assert re.fullmatch(expected, str(error)), str(error)
    assert about(repository) == []


CONTRADICTIONS: dict[str, tuple[Callable[[pb.ModelConfig], object], str]] = {
    "another size": (
        lambda config: config.input[0].dims.__setitem__(0, 7),
        "input pixels has the shape [-1, 7, 5, 3] in config.pbtxt, but [-1, 6, 5, 3] in the ONNX file (-1 is any)",
    ),
    "another number of classes": (
        lambda config: config.output[0].dims.__setitem__(0, 5),
        "output probabilities has the shape [-1, 5] in config.pbtxt, but [-1, 4] in the ONNX file (-1 is any)",
    ),
    "another input": (
        lambda config: setattr(config.input[0], "name", "image"),
        "config.pbtxt has the inputs image; the ONNX file has pixels",
    ),
    "another output": (
        lambda config: setattr(config.output[0], "name", "logits"),
        "config.pbtxt has the outputs logits; the ONNX file has probabilities",
    ),
    "another type": (
        lambda config: setattr(config.input[0], "data_type", pb.TYPE_FP32),
        "input pixels is TYPE_FP32 in config.pbtxt, but TYPE_UINT8 in the ONNX file",
    ),
    "threads that are no number": (
        lambda config: setattr(config.parameters["intra_op_thread_count"], "string_value", "many"),
        "parameter intra_op_thread_count in config.pbtxt is 'many': expected an integer",
    ),
    "a backend that this Triton has not": (
        lambda config: setattr(config, "backend", "tensorrt"),
        "unable to find backend library for backend 'tensorrt', try specifying runtime on the model configuration.",
    ),
}


@pytest.mark.triton
def test_every_config_that_contradicts_its_model_is_named_with_the_contradiction(tmp_path: Path) -> None:
    """All at once: one start fails for all of them."""
    for what, (change, _) in CONTRADICTIONS.items():
        publish_tiny(tmp_path, what.replace(" ", "-"))
        reconfigure(tmp_path, change, what.replace(" ", "-"))
    message = said(tmp_path)
    for what, (_, reason) in CONTRADICTIONS.items():
        assert f"model {what.replace(' ', '-')} version 1: {reason}" in message, what


@pytest.mark.triton
def test_a_batch_that_was_frozen_at_export_is_refused(repository: Path) -> None:
    onnx.save(tiny_onnx(tiny_card(), batch=1), repository / "tiny" / "1" / "model.onnx")
    assert said(repository, verify_hashes=False) == (
        "Triton did not start: model tiny version 1: input pixels has the fixed shape [1, 6, 5, 3] in the ONNX file, "
        "but max_batch_size is 8 in config.pbtxt"
    )


@pytest.mark.triton
def test_one_broken_model_among_good_ones_stops_all_and_is_the_one_that_is_named(repository: Path) -> None:
    (publish_tiny(repository, "broken") / "model.onnx").write_bytes(b"x")
    message = said(repository, verify_hashes=False)
    assert message.startswith("Triton did not start: model broken version 1: model.onnx is no model that ONNX Runtime ")
    assert "tiny" not in message.replace("REPOSITORY", "")


@pytest.mark.triton
def test_a_start_that_takes_too_long_is_given_up(repository: Path, about: About) -> None:
    message = said(repository, startup_timeout_s=0.05)
    assert message.startswith("Triton was not ready after 0.05 s; a longer startup timeout gives it more. The end of its log: ")
    assert about(repository) == []


# As a user meets them


def test_the_command_ends_with_one_sentence_and_exit_code_8(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "sightline"), "serve", "--repository", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 8
    assert ended.stdout == ""
    assert ended.stderr == f"error: the model repository {tmp_path} holds no model: publish one there with `sightline export`\n"


def test_the_command_refuses_a_changed_file_with_exit_code_4(repository: Path) -> None:
    (repository / "tiny" / "1" / "model.onnx").write_bytes(b"changed")
    with pytest.raises(ContractError) as caught:
        run(["serve", "--repository", str(repository)])
    assert caught.value.exit_code == 4
