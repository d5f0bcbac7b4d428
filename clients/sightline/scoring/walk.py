"""Walks a tree of images, on this machine or far away: sorted, one folder in memory at a time, never into a circle.

A pattern with `*` and `**` is walked in the same way, and only where it can still match.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Final, Literal, Protocol

from sightline.errors import UsageError
from sightline.host.files import reason_of
from sightline.host.text import one_line, printable
from sightline.image import ImageInput, is_image_file
from sightline.scoring.entries import NEVER, Entry, PassedOver, Problem

DEEPEST: Final = 200
"""Folders below one another that are walked; deeper ones are a row with an error."""

WILD: Final = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True)
class Child:
    """What a folder holds."""

    name: str
    kind: Literal["file", "folder", "link to a folder"]
    size: int = -1
    stamp: str = ""


class Tree(Protocol):
    """Folders of files, here or elsewhere. A path is the names below the root, joined by `/`; the root's own is empty."""

    @property
    def root(self) -> str:
        """What errors call it."""
        ...

    def children(self, path: str) -> list[Child]:
        """List a folder. Raises OSError."""
        ...

    def is_image(self, path: str) -> bool:
        """Return whether a row is due for a file."""
        ...

    def image(self, path: str, child: Child) -> tuple[ImageInput, int, str]:
        """Return what is to be read for a file, its size in bytes, and its stamp."""
        ...


class LocalTree:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.root = str(folder)
        """The folder's path."""
        # Paths are joined as text, some four times as fast as by pathlib, and read as pathlib writes them.
        self._before = "" if self.root == "." else os.path.join(self.root, "")

    def children(self, path: str) -> list[Child]:
        """List a folder; what is a link to itself, or leads nowhere, counts as a file that cannot be read."""
        with os.scandir(self._before + path or ".") as found:
            return [Child(entry.name, _kind_of(entry)) for entry in found]

    def is_image(self, path: str) -> bool:
        """Judge by the content, or by the name."""
        return is_image_file(self._before + path)

    def image(self, path: str, child: Child) -> tuple[ImageInput, int, str]:  # noqa: ARG002 - what a far listing says already
        """Return the path, and ask for size and time of the last change."""
        file = self._before + path
        return file, *stamp_of(file)


def stamp_of(file: str) -> tuple[int, str]:
    """Return a file's size in bytes and its last change in nanoseconds; -1 and the reason where the system says neither."""
    try:
        status = os.stat(file)
    except (OSError, ValueError) as error:
        return -1, reason_of(error) if isinstance(error, OSError) else str(error)
    return status.st_size, str(status.st_mtime_ns)


def _kind_of(entry: os.DirEntry[str]) -> Literal["file", "folder", "link to a folder"]:
    try:
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        return "link to a folder" if entry.is_dir() else "file"
    except OSError:
        return "file"


@dataclass(frozen=True)
class Walk:
    """The images below a tree's root: all, or those that a pattern matches. A `Listing`."""

    source: str
    tree: Tree
    pattern: tuple[str, ...] = ("**", "*")
    """The names below the root, one a level; `**` stands for any number of folders."""

    has_truth = True
    """The first folder below the root is an image's class."""

    def entries(self, passed_over: PassedOver) -> Iterator[Entry]:
        """Give the images in the order of their paths; a folder that cannot be read is an entry too."""
        for path, child in self._files(passed_over):
            name = "/".join(path)
            truth = path[0] if len(path) > 1 else None
            if isinstance(child, str):
                problem = Problem(printable(f"{self.tree.root}/{name}"), "unreadable-folder", f"the folder cannot be listed: {child}")
                yield Entry(f"{name}/", problem, stamp=child, truth=path[0])
            elif self.tree.is_image(name):
                yield Entry(name, *self.tree.image(name, child), truth=truth)
            else:
                passed_over.files += 1

    def count(self, stop: Event = NEVER) -> int | None:
        """Walk once more, without asking for sizes and times."""
        count = 0
        for path, child in self._files(PassedOver()):
            if stop.is_set():
                return None
            count += isinstance(child, str) or self.tree.is_image("/".join(path))
        return count

    def _files(self, passed_over: PassedOver) -> Iterator[tuple[tuple[str, ...], Child | str]]:
        """Give the path of each file that the pattern matches, and of each folder that cannot be listed the reason."""
        try:
            children = self.tree.children("")
        except OSError as error:
            raise UsageError(f"{self.tree.root}: the folder cannot be listed: {one_line(reason_of(error))}") from None
        yield from self._below((), children, self._steps.closed({0}), passed_over)

    def _below(
        self, folder: tuple[str, ...], children: Sequence[Child], reached: frozenset[int], passed_over: PassedOver
    ) -> Iterator[tuple[tuple[str, ...], Child | str]]:
        for child in sorted(children, key=lambda child: child.name):
            after = self._steps.after(reached, child.name)
            path = (*folder, child.name)
            if child.kind == "folder":
                if not self._steps.leads_on(after):
                    continue
                try:
                    if len(path) > DEEPEST:
                        raise OSError(0, f"more than {DEEPEST} folders lie one in the other")  # noqa: TRY301 - as the system would
                    inside = self.tree.children("/".join(path))
                except OSError as error:
                    yield path, one_line(reason_of(error))
                    continue
                yield from self._below(path, inside, after, passed_over)
            elif child.kind == "link to a folder":
                passed_over.links += bool(after)
            elif self._steps.is_end(after):
                yield path, child

    @cached_property
    def _steps(self) -> "_Steps":
        return _Steps(self.pattern)


class _Steps:
    """A pattern, and how far into it a path has come: the numbers of the parts that its next name may match."""

    def __init__(self, pattern: tuple[str, ...]) -> None:
        self._parts = [None if part == "**" else (re.compile(translate(part)), part.startswith(".")) for part in pattern]
        # Where any name will do, only whether it is hidden matters.
        self._known: dict[tuple[frozenset[int], bool], frozenset[int]] | None = {} if set(pattern) <= {"**", "*"} else None

    def closed(self, reached: set[int]) -> frozenset[int]:
        """Add the parts behind each `**`, which may stand for no folder at all."""
        for place in range(len(self._parts)):
            if place in reached and self._parts[place] is None:
                reached.add(place + 1)
        return frozenset(reached)

    def after(self, reached: frozenset[int], name: str) -> frozenset[int]:
        """Return what is reached by one more name; hidden ones are matched only where the pattern says so."""
        hidden = name.startswith(".")
        if self._known is None:
            return self._after(reached, name, hidden)
        if (reached, hidden) not in self._known:
            self._known[reached, hidden] = self._after(reached, name, hidden)
        return self._known[reached, hidden]

    def _after(self, reached: frozenset[int], name: str, hidden: bool) -> frozenset[int]:
        beyond: set[int] = set()
        for place in reached:
            part = self._parts[place] if place < len(self._parts) else ()
            if part is None and not hidden:
                beyond.add(place)
            elif part and part[0].match(name) and (part[1] or not hidden):
                beyond.add(place + 1)
        return self.closed(beyond)

    def leads_on(self, reached: frozenset[int]) -> bool:
        """Return whether something in a folder could match."""
        return any(place < len(self._parts) for place in reached)

    def is_end(self, reached: frozenset[int]) -> bool:
        """Return whether the pattern is used up."""
        return len(self._parts) in reached


def split_pattern(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the part of a pattern that holds no wildcard, and the parts from the first wildcard on. Raises UsageError.

    `a/b/**/*.jpg` → `a/b`, (`**`, `*.jpg`). What ends with `**` takes all files below.
    """
    parts = text.split("/")
    first = next(place for place, part in enumerate(parts) if WILD.search(part))
    pattern = tuple(part for part in parts[first:] if part not in ("", "."))
    if ".." in pattern:
        raise UsageError(f"{text}: a pattern cannot lead upwards after its first wildcard")
    return "/".join(parts[:first]) or ("/" if text.startswith("/") else "."), (*pattern, "*") if pattern[-1] == "**" else pattern
