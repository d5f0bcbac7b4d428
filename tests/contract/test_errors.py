"""The error tree is what its drawing says, and a script can tell every kind of failure by its exit code."""

import re

import pytest

import sightline
from sightline import errors

TREE = {name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.SightlineError)}
DRAWN = re.findall(r"^([│├└─ ]*)(\w+) +(\d+)(?: +\S.*)?$", errors.__doc__ or "", re.MULTILINE)


def test_every_class_stands_in_the_drawing_with_its_exit_code() -> None:
    assert {name: int(code) for _, name, code in DRAWN} == {name: value.exit_code for name, value in TREE.items()}


def test_the_branches_of_the_drawing_are_the_bases_of_the_classes() -> None:
    above: list[str] = []
    for branch, name, _ in DRAWN:
        depth = len(branch) // 4
        del above[depth:]
        assert TREE[name].__bases__ == ((TREE[above[-1]],) if above else (Exception,)), name
        above.append(name)


def test_exit_codes_are_unique_and_no_code_of_a_shell_or_a_signal() -> None:
    codes = [value.exit_code for value in TREE.values()]
    assert len(set(codes)) == len(codes)
    assert all(1 <= code <= 125 for code in codes)


@pytest.mark.parametrize("name", TREE)
def test_an_error_class_says_what_it_means_and_sets_its_own_code(name: str) -> None:
    assert TREE[name].__doc__
    assert "exit_code" in vars(TREE[name])
    assert str(TREE[name]("what, where, what to do")) == "what, where, what to do"


@pytest.mark.parametrize("name", TREE)
def test_an_error_class_is_importable_from_the_top(name: str) -> None:
    assert name in sightline.__all__
    assert getattr(sightline, name) is TREE[name]


def test_every_name_that_the_package_exports_exists_and_is_listed_once() -> None:
    assert len(set(sightline.__all__)) == len(sightline.__all__)
    assert [name for name in sightline.__all__ if not hasattr(sightline, name)] == []
