"""Lists of images: a text file with a path or URL a line, JSON objects a line, or a CSV file; here, far away, or on stdin."""

import csv
import itertools
import json
import os
import posixpath
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO, Final

from sightline.errors import UsageError
from sightline.host.files import MIB, reason_of, size_text
from sightline.host.text import one_line, printable
from sightline.image import ImageInput
from sightline.scoring.entries import NEVER, Entry, PassedOver, Problem
from sightline.scoring.remote import FarFile, demand_url, is_url, opened
from sightline.scoring.walk import stamp_of

STDIN: Final = "-"
MAX_LINE_BYTES: Final = 16 * 1024
"""Of a list: longer than any path or signed URL."""
MAX_LIST_BYTES: Final = 1024 * MIB
"""Of a list that is fetched, and of what stdin holds: as much room is needed in the folder of temporary files."""
IN_MEMORY_BYTES: Final = 16 * MIB


@dataclass(frozen=True)
class _Line:
    """What one line of a list says."""

    image: str
    truth: str | None = None


Reader = Callable[[Iterator[bytes], str], Iterator[_Line | str]]
"""Lines and what the list is called → what each line says, or why it says nothing."""


def _text_lines(lines: Iterator[bytes], _where: str) -> Iterator[_Line | str]:
    for line in lines:
        # A file's name may hold bytes that are no UTF-8; os.fsencode gives them back.
        if name := line.rstrip(b"\r\n"):
            yield _Line(name.decode("utf-8", "surrogateescape"))


def _json_lines(lines: Iterator[bytes], _where: str) -> Iterator[_Line | str]:
    for line in lines:
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield f"not JSON ({one_line(error)})"
            continue
        image, truth = (said.get("image"), said.get("truth")) if isinstance(said, dict) else (None, None)
        if isinstance(image, str) and image and isinstance(truth, (str, type(None))):
            yield _Line(image, truth)
        else:
            yield 'no JSON object with "image" (and perhaps "truth") as text'


def _csv_lines(lines: Iterator[bytes], where: str) -> Iterator[_Line | str]:
    texts = (line.decode("utf-8", "surrogateescape") for line in lines)
    try:
        reader = csv.DictReader(texts, strict=True)
        if "image" not in (reader.fieldnames or ()):
            raise UsageError(f"{where}: the first line of a list as CSV names its columns, and one of them must be image")
        for row in reader:
            yield _Line(row["image"], row.get("truth")) if row["image"] else "no name in the column image"
    except csv.Error as error:
        raise UsageError(f"{where}: not CSV: {one_line(error)}") from None


READERS: Final[dict[str, Reader]] = {
    ".txt": _text_lines,
    ".lst": _text_lines,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv_lines,
}
"""How a list is read, by the end of its name."""


@dataclass(frozen=True)
class ListedImages:
    """The images that a list names, in its order; every line that is not empty is a row. A `Listing`.

    A path is taken from the current folder, as `find` prints it; in a list that was fetched, from the list's own address, and paths of
    this machine are refused there.
    """

    source: str
    suffix: str
    """One of READERS."""

    @property
    def has_truth(self) -> bool:
        """Whether a line can name a class: not in a text file, where it is a path and nothing else."""
        return READERS[self.suffix] is not _text_lines

    def entries(self, passed_over: PassedOver) -> Iterator[Entry]:  # noqa: ARG002 - every line is a row
        """Give an entry for each line. Raises UsageError if the list cannot be read, or a line of it is endless."""
        with self._opened() as file:
            for number, said in enumerate(READERS[self.suffix](self._lines(file), self._where), 1):
                yield self._entry(number, said)

    def count(self, stop: Event = NEVER) -> int | None:
        """Count the lines of a list that lies here."""
        if self.source == STDIN or is_url(self.source):
            return None
        with self._opened() as file:
            count = 0
            for _ in READERS[self.suffix](self._lines(file), self._where):
                if stop.is_set():
                    return None
                count += 1
        return count

    @property
    def _where(self) -> str:
        return "stdin" if self.source == STDIN else self.source

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        try:
            if self.source == STDIN:
                yield sys.stdin.buffer
            elif is_url(self.source):
                # Read as a whole first: the job may take hours, and no server holds a connection for so long.
                with opened(self.source) as far, tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as copy:
                    for part in iter(lambda: far.read(MIB), b""):
                        copy.write(part)
                        if copy.tell() > MAX_LIST_BYTES:
                            raise UsageError(f"{self.source}: the list is longer than {size_text(MAX_LIST_BYTES)}")
                    copy.seek(0)
                    yield copy
            else:
                with open(self.source, "rb") as file:
                    yield file
        except OSError as error:
            raise UsageError(f"{self._where}: the list cannot be read: {one_line(reason_of(error))}") from None

    def _lines(self, file: IO[bytes]) -> Iterator[bytes]:
        for number in itertools.count(1):
            line = file.readline(MAX_LINE_BYTES + 1)
            if not line:
                return
            if len(line) > MAX_LINE_BYTES:
                raise UsageError(f"{self._where}: line {number} is longer than {MAX_LINE_BYTES:,} bytes, which no path and no URL is")
            yield line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line

    def _entry(self, number: int, said: _Line | str) -> Entry:
        if isinstance(said, str):
            return Entry(f"line {number}", Problem(f"{self._where}, line {number}", "list", said))
        far = is_url(self.source)
        try:
            if is_url(said.image) and not said.image.startswith("file://"):
                demand_url(said.image)
                return Entry(said.image, FarFile(said.image), truth=said.truth)
            if far:
                return Entry(said.image, self._beside(said.image), truth=said.truth)
        except UsageError as refusal:
            return Entry(said.image, Problem(printable(said.image), "list", str(refusal)), truth=said.truth)
        path = str(Path(path_of_file_url(said.image)))
        return Entry(said.image, path, *stamp_of(path), truth=said.truth)

    def _beside(self, name: str) -> ImageInput:
        """Return the file that a list far away names relative to itself."""
        if name.startswith(("/", "file:")) or ".." in name.split("/") or any(not letter.isprintable() for letter in name):
            raise UsageError("a list from elsewhere names URLs, or paths below its own folder")
        folder = posixpath.dirname(self.source.partition("?")[0])
        return FarFile(f"{folder}/{name}")


def path_of_file_url(text: str) -> str:
    """Return the path that `file:///a/b.jpg` names, and any other text as it is."""
    if not text.startswith("file://"):
        return text
    from urllib.request import url2pathname

    return url2pathname(text.removeprefix("file://"))


def is_list(name: str) -> bool:
    """Return whether a name is that of a list."""
    return os.path.splitext(name.partition("?")[0] if is_url(name) else name)[1].lower() in READERS
