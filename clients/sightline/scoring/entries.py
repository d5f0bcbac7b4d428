"""What a listing consists of: an `Entry` for each image, with what tells whether it is still the same one when a job is resumed."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from threading import Event
from typing import Final, Protocol

from sightline.image import ImageInput

NEVER: Final = Event()
"""Is not set: a count that nobody stops."""


@dataclass(frozen=True)
class Problem:
    """Stands in the place of an image where the listing itself met something that cannot be read. Reading it says so."""

    name: str
    """What the error calls it."""
    kind: str
    """The row's error_kind."""
    reason: str

    def read(self, _size: int = -1, /) -> bytes:
        """Raise OSError with the reason."""
        raise OSError(0, self.reason)


@dataclass(frozen=True)
class Entry:
    """One image of a listing, or what could not be listed."""

    name: str
    """What its row is called: relative to what was listed, with `/`; in a list what the line says."""
    image: ImageInput
    """The path of a file of this machine, or an object that can be pickled with `name` and `read(size)` for what lies far away. Not
    opened yet."""
    size: int = -1
    """Bytes; -1 where the listing does not say."""
    stamp: str = ""
    """Changes when the content does: the time of the last change in nanoseconds, an ETag; empty where the listing does not say."""
    truth: str | None = None
    """The class that the listing says it has; None where it says none."""

    @property
    def is_far(self) -> bool:
        """Whether its content is fetched from elsewhere."""
        return not isinstance(self.image, (str, PathLike, Problem))


@dataclass
class PassedOver:
    """What a walk met that gets no row; counted while the listing is read."""

    files: int = 0
    """No images, neither by their names nor by their content."""
    links: int = 0
    """To folders, which are not followed: they may lead into a circle."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.files + self.links


class Listing(Protocol):
    """Where a job's images come from. Lazy: one folder, or one line, in memory at a time; always in the same order."""

    @property
    def source(self) -> str:
        """What was named, as it was named."""
        ...

    @property
    def has_truth(self) -> bool:
        """Whether its entries can say which class they have."""
        ...

    def entries(self, passed_over: PassedOver) -> Iterator[Entry]:
        """Give the images, and count in `passed_over` what is none. Raises UsageError if nothing can be listed at all."""
        ...

    def count(self, stop: Event = NEVER) -> int | None:
        """Return how many entries there are; None if only listing them would tell, or `stop` was set meanwhile."""
        ...


class ListingHash:
    """A rolling sha256 of a listing: what an entry is called, how large it is, when it changed."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, entry: Entry) -> None:
        """Take one more entry in."""
        texts = (entry.name, str(entry.size), entry.stamp, "-" if entry.truth is None else f"+{entry.truth}")
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]
        self._sha256.update(b"".join([piece for part in parts for piece in (len(part).to_bytes(8, "little"), part)]))

    def hexdigest(self) -> str:
        """Return the hash of the entries so far."""
        return self._sha256.hexdigest()
