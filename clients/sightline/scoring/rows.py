"""What a batch job says of one image: a `Row`, the same in every format that rows are written in."""

import re
from dataclasses import dataclass
from typing import Final

from sightline.classifier import Guess
from sightline.errors import ImageError
from sightline.image import name_of
from sightline.scoring.entries import Entry, Problem

Outcome = Guess | ImageError
"""What an engine gives for an entry."""

ERROR_KINDS: Final = ("image", "unsupported", "too-large", "empty", "unreadable-file", "unreadable-folder", "remote", "list")
"""The words of the column `error_kind`: the content is damaged or no image; an image of a format that is not read here; more bytes or
pixels than allowed; no content; a file that cannot be read; a folder that cannot; a far object that could not be fetched; a line of a
list that names no image."""

_KINDS: Final = (
    (re.compile(r"cannot be read: "), "unreadable-file"),
    (re.compile(r"the file is empty$"), "empty"),
    (re.compile(r"(larger than .*, the most that one image|more than [\d,]+ pixels|\d+ x \d+ has a side of more than )"), "too-large"),
    (re.compile(r".*\b(not read here|no defined white)\b"), "unsupported"),
)
"""How the sentence after an image's name begins → its kind; what is in none of them is `image`."""


@dataclass(frozen=True)
class Ranked:
    """A class of one image."""

    label: str
    probability: float
    """0..1, rounded to six decimals."""


@dataclass(frozen=True)
class Row:
    """What was said of one image: the classes, or the error; never both, never neither."""

    image: str
    """Its name in the listing, always text that UTF-8 can hold."""
    top: tuple[Ranked, ...] = ()
    """The most probable classes, best first; empty where there is an error."""
    version: str = ""
    """Of the model that answered."""
    error_kind: str = ""
    """One of ERROR_KINDS; empty for a good row."""
    error: str = ""
    """Why there is no label, in a sentence."""
    remark: str = ""
    """Of a good row: that there is nothing to read on the image (`Guess.remark`)."""
    truth: str | None = None
    """The class that the listing says the image has; None where the job did not ask for it, or the listing does not say it."""

    @property
    def label(self) -> str:
        """The most probable class; empty where there is an error."""
        return self.top[0].label if self.top else ""

    @property
    def probability(self) -> float | None:
        """Of that class, 0..1; None where there is an error."""
        return self.top[0].probability if self.top else None


def row_of(entry: Entry, outcome: Outcome, *, labelled: bool) -> Row:
    """Return the row for an entry of the listing and what was answered."""
    truth = text_of(entry.truth) if labelled and entry.truth else None
    name = text_of(entry.name)
    if isinstance(outcome, ImageError):
        return Row(name, error_kind=_kind_of(entry, str(outcome)), error=text_of(str(outcome)), truth=truth)
    top = tuple(Ranked(each.label, round(each.probability, 6)) for each in outcome.top)
    return Row(name, top, outcome.version, remark=outcome.remark, truth=truth)


def text_of(name: str) -> str:
    r"""Return text that UTF-8 can hold: a byte of a file's name that is no UTF-8, 0xff say, becomes `\udcff`, as Python calls it."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _kind_of(entry: Entry, sentence: str) -> str:
    if isinstance(entry.image, Problem):
        return entry.image.kind
    words = sentence.removeprefix(f"{name_of(entry.image)}: ")
    kind = next((kind for pattern, kind in _KINDS if pattern.match(words)), "image")
    return "remote" if kind == "unreadable-file" and entry.is_far else kind
