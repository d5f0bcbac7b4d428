"""Makes text from elsewhere fit into one sentence: errors of libraries, and file names that hold what cannot be printed."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def one_line(text: object, limit: int = 200) -> str:
    """Return `text` (an error's own words, a log's line) on one line of at most `limit` characters; an error without words by its class."""
    line = " ".join(str(text).split())
    if not line and isinstance(text, BaseException):
        return type(text).__name__
    return line if len(line) <= limit else line[: limit - 1] + "…"


def first_problem(error: "ValidationError") -> str:
    """Return the first problem that pydantic found, as `preprocess.mean: needs 3 values`. What the text held is left out."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    message = problem["msg"].removeprefix("Value error, ")
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {message}" if place else message


def printable(name: str | os.PathLike[str]) -> str:
    """Return a file's name with whatever cannot be printed escaped."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in os.fsdecode(name))


def encodable(text: str) -> str:
    r"""Return text that UTF-8 can hold: a byte of a file's name that is no UTF-8, 0xff say, becomes `\udcff`, as Python calls it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
