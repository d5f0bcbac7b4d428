"""Promises of the package itself: what it imports, what its commands say, how they end."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sightline import cli
from sightline.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMMANDS = PROJECT["project"]["entry-points"]["sightline.commands"]
FRAMEWORKS = ("torch", "torchvision", "lightning", "onnx", "onnxruntime", "onnxscript", "pytriton", "sklearn", "matplotlib", "psutil")

# Makes every framework as absent as it is after `pip install sightline`.
WITHOUT_FRAMEWORKS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {frameworks}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = ["sightline", *{arguments}]
from sightline.cli import main
main()
"""


def sightline(*arguments: str, without_frameworks: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    start = ["-m", "sightline.cli", *arguments]
    if without_frameworks:
        start = ["-c", WITHOUT_FRAMEWORKS.format(frameworks=set(FRAMEWORKS), arguments=list(arguments))]
    return subprocess.run(
        [sys.executable, *start], capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **environment}
    )


def test_the_sdk_imports_no_framework_and_not_even_tritonclient() -> None:
    code = "import json, sys, sightline; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert not {*FRAMEWORKS, "tritonclient", "grpc", "gevent"} & set(loaded)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_loads_no_framework(command: str) -> None:
    done = sightline(command, "--help", without_frameworks=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: sightline {command} ")


def test_the_list_of_commands_is_shown_without_any_framework() -> None:
    done = sightline("--help", without_frameworks=True)
    assert done.returncode == 0, done.stderr
    assert all(re.search(rf"^  {command}\s+\S", done.stdout, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "mnist"], "error: `sightline train` needs PyTorch: pip install 'sightline[train]'"),
        (["export", "runs/mnist"], "error: `sightline export` needs PyTorch: pip install 'sightline[export]'"),
        (["verify", "mnist"], "error: `sightline verify` needs PyTorch: pip install 'sightline[export]'"),
        (["serve"], "error: `sightline serve` needs psutil: pip install 'sightline[serve]'"),
    ],
)
def test_a_missing_extra_is_one_sentence_that_says_what_to_install(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = sightline(*arguments, without_frameworks=True, SIGHTLINE_DATA=str(tmp_path))
    assert done.returncode == 15, done.stderr
    assert done.stderr.startswith(sentence), done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["clasify"], "error: No such command 'clasify'"),
        (["classify", "mnist"], "error: Missing argument 'IMAGES...'"),
        (["classify", "mnist", "x.png", "--top", "0"], "error: Invalid value for '--top': 0 is not in the range x>=1"),
        (["classify", "mnist", "x.png", "--url", "localhost:8001"], "error: 'localhost:8001' is no server address: write grpc://host:8001"),
        (["classify", "mnist", "x.png", "--version", "two"], "error: a model's version is a whole number, not 'two'"),
        ([], "error: a command is missing"),
    ],
)
def test_a_mistyped_command_line_is_one_sentence_and_exit_code_2(arguments: list[str], sentence: str) -> None:
    done = sightline(*arguments)
    assert done.returncode == UsageError.exit_code
    assert done.stderr.splitlines()[-1].startswith(sentence), done.stderr
    assert "Traceback" not in done.stderr


def test_run_is_the_twin_of_main_that_raises() -> None:
    with pytest.raises(UsageError, match=r"^No such command 'clasify'"):
        cli.run(["clasify"])


def test_every_command_stands_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [command for command in COMMANDS if f"sightline {command}" not in readme] == []


def test_every_extra_that_an_error_names_exists() -> None:
    assert set(cli.EXTRAS.values()) <= set(PROJECT["project"]["optional-dependencies"])


def test_the_constraints_hold_exact_versions_and_no_address() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) > 50
    exact = r"[a-z0-9][a-z0-9._-]*==[0-9][A-Za-z0-9.+]*( ; python_version (<|>=) '3\.13')?"
    assert [line for line in lines if not re.fullmatch(exact, line)] == []


def test_the_lower_bounds_are_met_by_the_constraints() -> None:
    from packaging.requirements import Requirement

    pinned = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    groups = [
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
        *PROJECT["dependency-groups"].values(),
    ]
    wanted = [Requirement(text) for group in groups for text in group if isinstance(text, str)]
    missed = []
    for python in ("3.11", "3.12", "3.13"):
        here = {"python_version": python, "sys_platform": "linux", "platform_machine": "x86_64"}
        exact = {pin.name: next(iter(pin.specifier)).version for pin in pinned if pin.marker is None or pin.marker.evaluate(here)}
        applying = [one for one in wanted if one.name != "sightline" and (one.marker is None or one.marker.evaluate(here))]
        missed += [f"{one} on Python {python}" for one in applying if exact[one.name] not in one.specifier]
    assert missed == []


def test_bench_without_perf_analyzer_is_one_sentence_that_says_how_to_get_it(tmp_path: Path) -> None:
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    code = f"import sys; sys.executable = {str(link)!r}; sys.argv = ['sightline', 'bench', 'mnist']; from sightline.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, "PATH": str(tmp_path)}
    )
    assert done.returncode == 15
    assert done.stderr == (
        "error: `sightline bench` measures with NVIDIA's perf_analyzer, which is not installed: `make perf-analyzer` gets it, "
        "and the containers nvcr.io/nvidia/tritonserver:<release>-py3-sdk bring it\n"
    )


def test_preprocessing_constants_stand_in_one_source_file_only() -> None:
    pytest.importorskip("torch")
    from sightline_training.recipes import RECIPES

    sources = [path for folder in ("clients", "training", "export", "serving", "scripts") for path in (ROOT / folder).rglob("*.py")]
    for recipe in RECIPES.values():
        if recipe.transfer is not None:
            continue  # mean and deviation come with the backbone's weights
        for constant in (*recipe.card.preprocess.mean, *recipe.card.preprocess.std):
            homes = [path.name for path in sources if re.search(rf"\b{re.escape(str(constant))}\b", path.read_text(encoding="utf-8"))]
            assert len(homes) == 1, f"{recipe.name}: {constant} stands in {homes}"
