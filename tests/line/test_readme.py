"""What the README and the docs tell a newcomer to type works as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sightline.cli import sightline
from sightline_serving.server import Server
from support.readme import ROOT, blocks

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])


def typed(program: str) -> list[tuple[str, str]]:
    """(page, line) of every line in a plain block that calls `program`."""
    return [
        (str(page.relative_to(ROOT)), line.partition("#")[0].removeprefix("$ ").strip())
        for page in PAGES
        for block in blocks(page, "")
        for line in block.splitlines()
        if line.removeprefix("$ ").startswith(f"{program} ")
    ]


@pytest.mark.parametrize(("page", "line"), typed("sightline"))
def test_every_sightline_command_in_the_docs_is_understood(page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, *arguments = shlex.split(line)[1:]
    monkeypatch.chdir(tmp_path)
    for text in (argument for argument in arguments if argument.endswith(".txt")):
        Path(text).write_text("one\ntwo\n", encoding="utf-8")  # what is read while a command is parsed
    if "--images-from" in arguments:
        Path(arguments[arguments.index("--images-from") + 1]).mkdir(parents=True)
    command = sightline.get_command(click.Context(sightline), name)
    assert command is not None, f"{page}: {line}"
    command.make_context(name, arguments)  # parses and checks, runs nothing


@pytest.mark.parametrize(("page", "line"), typed("make"))
def test_every_make_target_in_the_docs_exists(page: str, line: str) -> None:
    done = subprocess.run(["make", "--dry-run", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{page}: {line}: {done.stderr}"


def test_the_docs_are_searched_for_real() -> None:
    assert len(typed("sightline")) >= 10
    assert ("README.md", "make demo") in typed("make")


@pytest.mark.triton
@pytest.mark.parametrize("page", ["README.md", "docs/clients.md"])
def test_the_python_examples_run_against_a_server(page: str, server: Server, digit_files: list[Path], tmp_path: Path) -> None:
    examples = blocks(ROOT / page, "python")
    assert examples
    for name, file in {"a.png": digit_files[7], "b.png": digit_files[3]}.items():
        (tmp_path / name).write_bytes(file.read_bytes())
    (tmp_path / "runs" / "demo-images").mkdir(parents=True)
    for file in digit_files:
        (tmp_path / "runs" / "demo-images" / file.name).write_bytes(file.read_bytes())
    for example in examples:
        here = example.replace("grpc://localhost:8001", server.grpc_url).replace("http://localhost:8000", server.http_url)
        assert here != example or "Classifier" not in example
        done = subprocess.run([sys.executable, "-c", here], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip(), "an example that prints nothing shows nothing"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_in_the_docs_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
