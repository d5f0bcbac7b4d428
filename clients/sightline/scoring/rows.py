"""What a batch job says of one image: a `Row`, the same in every format that rows are written in."""

from dataclasses import dataclass
from typing import Final, get_args

from sightline.classifier import Guess
from sightline.errors import ImageError, ImageErrorKind
from sightline.host.text import encodable
from sightline.scoring.entries import Entry, Problem

Outcome = Guess | ImageError
"""What an engine gives for an entry."""

ERROR_KINDS: Final = (*get_args(ImageErrorKind), "unreadable-folder", "remote", "list")
"""The words of the column `error_kind`: those of an ImageError; a folder that cannot be listed; a far object that could not be fetched;
a line of a list that names no image."""


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
    truth = encodable(entry.truth) if labelled and entry.truth else None
    name = encodable(entry.name)
    if isinstance(outcome, ImageError):
        return Row(name, error_kind=_kind_of(entry, outcome), error=encodable(str(outcome)), truth=truth)
    top = tuple([Ranked(each.label, round(each.probability, 6)) for each in outcome.top])
    return Row(name, top, outcome.version, remark=outcome.remark, truth=truth)


def _kind_of(entry: Entry, error: ImageError) -> str:
    if isinstance(entry.image, Problem):
        return entry.image.kind
    return "remote" if error.kind == "unreadable-file" and entry.is_far else error.kind
