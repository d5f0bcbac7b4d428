"""The images cannot be built here. What can be known without building them is: each path, command, option and promise in the files."""

import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from sightline_serving.process.installation import CONTAINER, find_triton
from sightline_serving.process.ports import Ports
from sightline_serving.selection.plan_selection import ALLOW_CODE, BACKEND, LIBRARY
from sightline_serving.server import RESTRICTED, _command

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("Dockerfile.*"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
HADOLINT = Path(sys.executable).with_name("hadolint")

of_each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.suffix[1:])
of_each_service = pytest.mark.parametrize("name", SERVICES)


def instructions(file: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments, lines joined and comments left out."""
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def last_stage(file: Path) -> list[tuple[str, str]]:
    steps = instructions(file)
    return steps[max(at for at, (word, _) in enumerate(steps) if word == "FROM") :]


def last(file: Path, wanted: str) -> str:
    return [rest for word, rest in last_stage(file) if word == wanted][-1]


def parse(arguments: list[str]) -> None:
    """Let the program's own parser read the command line of `sightline`, and do nothing. Raises click's errors."""
    name, *rest = arguments
    if name == "--help":
        return
    module, _, attribute = PROJECT["entry-points"]["sightline.commands"][name].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    if rest != ["--help"]:
        command.make_context(name, list(rest))


def commands_in(text: str) -> list[list[str]]:
    """The command lines of our program that a text shows: `sightline …`, or what a service whose entry point it is, is given."""
    misplaced = [
        shlex.split(line, comments=True)
        for line in re.findall(r"(?<![\w/.`-])sightline ((?:[a-z]+|--help)(?: [^\n`|>]*)?)(?=\n|$|`|\|)", text)
    ]
    misplaced += [shlex.split(line, comments=True) for line in re.findall(r" run --rm client ([^\n]+)", text)]
    return misplaced


# hadolint


@of_each_file
def test_hadolint_finds_nothing(file: Path) -> None:
    done = subprocess.run([HADOLINT, "--no-color", file], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp && sudo apt-get install curl\n")
    done = subprocess.run([HADOLINT, "--no-color", tmp_path / "Dockerfile"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert {"DL3003", "DL3004", "DL3006"} <= set(re.findall(r"DL\d+", done.stdout))


# Images


def test_there_is_one_file_for_each_role() -> None:
    assert [file.suffix for file in FILES] == [".client", ".finalize", ".serve", ".train"]


@of_each_file
def test_every_base_image_has_a_version(file: Path) -> None:
    bases = [rest.split()[0] for word, rest in instructions(file) if word == "FROM"]
    for base in bases:
        assert re.fullmatch(r"[\w./-]+:\d[\w.-]+", base), base
    if file.suffix in (".serve", ".finalize"):
        assert bases[-1] == CONTAINER


@of_each_file
def test_every_copied_path_is_there_and_let_through(file: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    copied = 0
    for word, rest in instructions(file):
        if word == "COPY" and "--from" not in rest:
            *sources, _ = rest.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored, f"{source} is not let through by .dockerignore"
                copied += 1
    assert copied > 5


def test_nothing_that_does_not_belong_into_an_image_is_let_through() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert not {"data", "runs", "model_repository", ".git", "tests", ".venv"} & set(allowed)
    assert all((ROOT / path).exists() for path in allowed)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {Path(package).parts[0] for package in wheel} <= set(allowed)


@of_each_file
def test_nobody_is_root(file: Path) -> None:
    user = last(file, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    after = [word for word, _ in last_stage(file)[[word for word, _ in last_stage(file)].index("USER") :]]
    assert "RUN" not in after


@of_each_file
def test_every_command_is_one_that_the_program_knows(file: Path) -> None:
    entry = json.loads(last(file, "ENTRYPOINT")) if any(word == "ENTRYPOINT" for word, _ in last_stage(file)) else []
    start = [*entry, *json.loads(last(file, "CMD"))]
    assert start[0] == "sightline"
    parse(start[1:])
    for word, rest in instructions(file):
        for command in commands_in(rest.replace(" > /dev/null", "\n")) if word == "RUN" else []:
            parse(command)


@of_each_file
def test_extras_and_modules_that_are_named_are_there(file: Path) -> None:
    text = "\n".join(rest for word, rest in instructions(file) if word == "RUN")
    assert set(re.findall(r"\[(\w+)\]", text)) <= set(PROJECT["optional-dependencies"])
    for module in re.findall(r"-m (sightline[\w.]*)", text):
        assert importlib.util.find_spec(module)
    constrained = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    if " psutil" in text:
        assert "psutil" in constrained
    assert "--constraint /tmp/constraints.txt" in text


def test_what_serves_and_what_finalizes_asks_the_same_tensorrt() -> None:
    libraries = re.findall(r"/opt/tritonserver/backends/(\S+\.so)\)", (DOCKER / "Dockerfile.finalize").read_text())
    assert libraries == [f"{BACKEND}/{LIBRARY}"]


def test_a_library_that_needs_no_tensorrt_fails_the_build_with_a_sentence() -> None:
    for file, sentence in ((sys.executable, "needs no TensorRT"), ("/none", "No such file or directory")):
        done = subprocess.run([sys.executable, "-m", "sightline.host.gpu", file], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert sentence in done.stderr
        assert done.stdout == ""


@of_each_file
def test_a_server_says_whether_it_is_well_and_a_job_says_that_it_does_not(file: Path) -> None:
    check = last(file, "HEALTHCHECK")
    if file.suffix != ".serve":
        assert check == "NONE"
        return
    program = json.loads(check[check.index("CMD ") + 4 :])
    assert program[-1] == "http://127.0.0.1:8000/v2/health/ready"
    assert "--fail" in program
    assert last(file, "EXPOSE").split() == ["8000", "8001", "8002"]


def test_serving_listens_in_the_container_and_gives_models_time_to_be_built() -> None:
    from sightline_serving.commands.serve import serve

    _, *arguments = json.loads(last(DOCKER / "Dockerfile.serve", "CMD"))
    settings = serve.make_context("serve", arguments[1:]).params
    assert (settings["address"], settings["http_port"], settings["grpc_port"], settings["metrics_port"]) == ("0.0.0.0", 8000, 8001, 8002)
    assert settings["repository"] == Path("/models")
    assert (settings["plans"], settings["version_compatible"], settings["outdated_beyond_loopback"]) == (True, False, False)
    assert settings["startup_timeout_s"] >= 600


# The flags that Triton is started with


@pytest.mark.triton
def test_tritonserver_knows_every_flag_that_it_is_started_with(tmp_path: Path) -> None:
    triton = find_triton(tmp_path)
    command = _command(triton, tmp_path, tmp_path, IPv4Address("127.0.0.1"), Ports(8000, 8001, 8002), "token", 5.0)
    help_text = subprocess.run([triton.binary, "--help"], env=triton.environment(), capture_output=True, text=True, check=False, timeout=60)
    known = set(re.findall(r"--[a-z-]+", help_text.stdout + help_text.stderr))
    assert len(known) > 50
    flags = {argument.partition("=")[0] for argument in command[1:]} | {f"--backend-config={ALLOW_CODE}".partition("=")[0]}
    assert flags <= known


def test_the_flags_close_what_the_readme_says_is_closed(tmp_path: Path) -> None:
    triton = find_triton(tmp_path)
    command = _command(triton, tmp_path, tmp_path, IPv4Address("127.0.0.1"), Ports(8000, 8001, 8002), "token", 5.0)
    assert {"--model-control-mode=none", "--disable-auto-complete-config", "--allow-sagemaker=false", "--allow-vertex-ai=false"} <= set(
        command
    )
    assert RESTRICTED.split(",") == ["shared-memory", "model-repository", "trace", "logging"]
    for flag in ("--http-restricted-api", "--grpc-restricted-protocol"):
        assert len([argument for argument in command if argument.startswith(f"{flag}={RESTRICTED}:")]) == 1


# compose.yaml


@of_each_service
def test_every_service_is_closed(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)
    assert service.get("network_mode") in (None, "none")
    assert not str(service.get("user", "")).startswith("0")
    for port in service.get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)


@of_each_service
def test_every_service_is_built_from_its_file_in_the_root(name: str) -> None:
    build = SERVICES[name]["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]) == DOCKER / f"Dockerfile.{name}"


@of_each_service
def test_every_mount_is_one_that_the_image_knows(name: str) -> None:
    known = json.loads(last(DOCKER / f"Dockerfile.{name}", "VOLUME"))
    for volume in SERVICES[name]["volumes"]:
        assert volume["target"] in known or Path(volume["target"]).parent.as_posix() in known, volume
        if volume["type"] == "volume":
            assert volume["source"] in COMPOSE["volumes"]


def test_what_is_served_cannot_be_written_by_the_server() -> None:
    assert [volume["read_only"] for volume in SERVICES["serve"]["volumes"] if volume["target"] == "/models"] == [True]
    assert [volume.get("read_only", False) for volume in SERVICES["finalize"]["volumes"] if volume["target"] == "/models"] == [False]


@of_each_service
def test_whoever_computes_has_the_gpu(name: str) -> None:
    devices = SERVICES[name].get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices")
    wanted = None if name == "client" else [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert devices == wanted


@of_each_service
def test_whoever_waits_for_health_waits_for_a_service_that_tells_it(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert last(DOCKER / f"Dockerfile.{other}", "HEALTHCHECK") != "NONE"


# What people type


@pytest.mark.parametrize("page", ["docker/README.md", "docker/compose.yaml", "docs/tensorrt.md"])
def test_every_command_that_a_page_shows_is_one_that_the_program_knows(page: str) -> None:
    commands = commands_in((ROOT / page).read_text())
    assert len(commands) >= 3
    for command in commands:
        parse(command)


def test_services_that_are_named_are_there() -> None:
    for page in ("docker/README.md", "docker/compose.yaml"):
        text = (ROOT / page).read_text()
        assert set(re.findall(r"(?:run --rm|up) (\w+)", text)) <= set(SERVICES)


def test_the_page_says_that_the_images_were_not_built() -> None:
    assert "**None of these images was built or run by us**" in (DOCKER / "README.md").read_text()
    for file in FILES:
        assert "Not built by us yet" in file.read_text()
