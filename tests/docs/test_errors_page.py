"""The help page of errors is held to the tree of errors, and its sentences to those of the program."""

import ast
import re
from functools import cache

import pytest

from sightline import errors
from support.readme import ROOT

PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
TREE = {name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.SightlineError)}
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
SENTENCES = re.findall(r"^> (.+)$", PAGE, re.MULTILINE)


@cache
def messages() -> list[str]:
    """Every text in the four packages; what an f-string puts in is an ellipsis."""
    texts = []
    for folder in ("clients", "training", "export", "serving"):
        for source in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    texts.append("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return texts


def test_every_class_of_the_tree_has_a_section_in_which_its_exit_code_comes_first() -> None:
    assert set(SECTIONS) == set(TREE)
    for name, text in SECTIONS.items():
        assert text.lstrip().startswith(f"Exit code {TREE[name].exit_code}."), name


def test_the_table_lists_every_class_with_its_exit_code() -> None:
    rows = re.findall(r"^\| (\d+) \| \[`(\w+)`\]\(#(\w+)\) \|", PAGE, re.MULTILINE)
    assert {name: int(code) for code, name, _ in rows} == {name: value.exit_code for name, value in TREE.items()}
    assert all(anchor == name.lower() for _, name, anchor in rows)
    assert [int(code) for code, _, _ in rows] == sorted(int(code) for code, _, _ in rows)


def test_a_child_in_the_tree_is_called_so_in_its_section() -> None:
    for name, value in TREE.items():
        parent = value.__bases__[0].__name__
        assert (f"A child of `{parent}`" in SECTIONS[name]) == (parent not in ("Exception", "SightlineError")), name


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_on_the_page_is_one_that_the_program_says(sentence: str) -> None:
    # The name of what a sentence is about may be put before it elsewhere.
    parts = [re.escape(part) for part in sentence.removeprefix("…: ").split("…")]
    pattern = re.compile(".*".join(parts), re.DOTALL)
    assert any(pattern.search(message) for message in messages()), sentence


def test_there_are_sentences_to_hold() -> None:
    assert len(SENTENCES) > 30
