"""A value that a type allows to be missing and a test expects."""

from typing import TypeVar

T = TypeVar("T")


def present(value: T | None) -> T:
    """The value, which is there: a test that gets None fails here."""
    assert value is not None
    return value
