"""What the docs name of the code is there: modules, files, and every wing of the house."""

import ast
import importlib.util
import re
import runpy
from pathlib import Path

import pytest

from support.readme import ROOT

PACKAGES = {
    "sightline": ROOT / "clients" / "sightline",
    "sightline_training": ROOT / "training" / "sightline_training",
    "sightline_export": ROOT / "export" / "sightline_export",
    "sightline_serving": ROOT / "serving" / "sightline_serving",
}
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")])
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

NOT_MODULES = {"sightline.staging", "sightline.lock"}
"""Files in a repository: `.sightline.lock`."""


def defined_in(module: Path) -> set[str]:
    """Every name that a module defines or imports, those inside its classes too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return names


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module of ours, or a name in one."""
    package, *parts = dotted.split(".")
    folder = PACKAGES[package]
    while parts and (folder / parts[0]).is_dir():
        folder /= parts.pop(0)
    if not parts:
        return True
    module = folder / f"{parts[0]}.py"
    if module.exists():
        parts.pop(0)
    else:
        module = folder / "__init__.py"
    return module.exists() and all(name in defined_in(module) for name in parts)


@each_page
def test_every_dotted_name_of_the_packages_exists(page: Path) -> None:
    text = re.sub(r"parameters\[.*?\]", "", page.read_text(encoding="utf-8"))
    dotted = set(re.findall(r"(?<![\w/.-])(sightline(?:_training|_export|_serving)?(?:\.[A-Za-z_]\w*)+)", text)) - NOT_MODULES
    assert sorted(name for name in dotted if not exists(name)) == []


@each_page
def test_every_source_file_that_is_named_with_its_folder_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    files = re.findall(
        r"(?<![\w/.<-])((?:clients|training|export|serving|tests|docs|scripts|docker|examples)/[\w./-]*\.(?:py|md|sh|json|npz))\b", text
    )
    assert sorted({file for file in files if not (ROOT / file).exists()}) == []


@each_page
def test_nobody_is_told_to_import_what_is_not_there(page: Path) -> None:
    for module, names in re.findall(r"^from (sightline[\w.]*) import ([\w, ]+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        assert importlib.util.find_spec(module), module
        assert [name for name in names.split(", ") if not exists(f"{module}.{name}")] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "api").glob("*.md")), ids=lambda page: page.stem)
def test_every_member_that_an_api_page_shows_exists(page: Path) -> None:
    entries = re.findall(r"^::: (\S+)\n(?:    options:\n      members: \[(.*?)\])?", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert entries
    names = [f"{module}.{name}" if name else module for module, members in entries for name in (members or "").split(", ")]
    assert [name for name in names if not exists(name)] == []


def test_the_picture_of_the_house_is_drawn_from_the_contracts_of_today() -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "make_architecture.py"))["picture"]()
    assert (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8") == drawn, "run: python docs/make_architecture.py"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_wing_has_its_sentence_on_the_architecture_page(package: str) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("## The wings")[2].partition("\n## ")[0].partition(f"**`{package}`**")[2].partition("\n**`")[0]
    described = {name for row in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    wings = {
        path.stem
        for path in PACKAGES[package].iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists() or path.name == "backend"
    }
    assert wings - {"__init__", "commands"} <= described | {"commands"}
    assert described <= wings


def test_the_check_of_names_would_notice_one_that_is_not_there() -> None:
    assert exists("sightline.reformatting.reformat")
    assert exists("sightline.errors.ImageError")
    assert exists("sightline_serving.server.start_server")
    assert not exists("sightline.reformatting.refarmat")
    assert not exists("sightline_export.brought")
