"""Images that lie far away, through fsspec: object stores, web servers, and whatever else it has a file system for.

A far file is a small object that can be pickled; a thread that reads images fetches it, within a bound of bytes, seconds and attempts.
"""

import posixpath
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Final, Protocol, TypeVar, cast
from urllib.parse import urlsplit

from sightline.errors import MissingExtra, SightlineError, UsageError
from sightline.host.text import one_line
from sightline.image import MAX_BYTES, SUFFIXES, ImageInput
from sightline.scoring.walk import Child

Value = TypeVar("Value")

FETCH_S: Final = 60.0
"""One attempt to fetch a file, or to list a folder, may take so long where the file system can be interrupted."""
ATTEMPTS: Final = 3
FIRST_PAUSE_S: Final = 0.5
"""Before the second attempt; doubled before the next."""

EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""Scheme → the extra that brings its file system; others need `score`."""
WEB: Final = ("http", "https")
PERMANENT: Final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError, ValueError)
"""What another attempt would not mend."""


class FileSystem(Protocol):
    """What is called of fsspec's file systems."""

    async_impl: bool
    loop: object

    def ls(self, path: str, detail: bool) -> list[dict[str, object]]:
        """List a folder."""
        ...

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        """Return a part of a file."""
        ...

    def open(self, path: str, mode: str, **options: object) -> IO[bytes]:
        """Open a file."""
        ...


class FarFile:
    """A file behind a URL: what `Classifier` takes as an open file. It is fetched when it is read, and can be pickled before."""

    def __init__(self, url: str) -> None:
        self.name = url
        self._fetched = False

    def read(self, size: int = -1, /) -> bytes:
        """Fetch the file and return its first `size` bytes; then it is at its end. Raises OSError, also for what its server broke."""
        if self._fetched:
            return b""
        content = _patiently(lambda: _fetched(self.name, MAX_BYTES + 1 if size < 0 else size))
        self._fetched = True
        return content

    def __reduce__(self) -> tuple[type["FarFile"], tuple[str]]:
        return FarFile, (self.name,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FarFile) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True)
class FarTree:
    """A folder behind a URL. A `Tree`."""

    root: str

    def children(self, path: str) -> list[Child]:
        """List a folder. Raises OSError."""
        file_system, top = _located(self.root)
        folder = posixpath.join(top, path) if path else top
        children = []
        listed = cast("list[dict[str, object]]", _patiently(lambda: _call(file_system, "ls", folder, detail=True)))
        for found in listed:
            name = str(found["name"])
            below = name.rstrip("/").removeprefix(f"{folder.rstrip('/')}/")
            if name.rstrip("/") == folder.rstrip("/") and found["type"] != "directory":
                continue  # the empty object that stands for the folder itself
            if not below or "/" in below or name.rstrip("/") == folder.rstrip("/"):
                raise OSError(0, f"it holds {name}//…, and a name without letters cannot be walked")
            size = found.get("size")
            stamp = next((str(found[key]) for key in ("ETag", "etag", "md5Hash", "mtime", "created") if found.get(key)), "")
            kind = cast("str", found["type"])
            children.append(Child(below, "folder" if kind == "directory" else "file", size if isinstance(size, int) else -1, stamp))
        return children

    def is_image(self, path: str) -> bool:
        """Judge by the name, since to look into it costs a request: a suffix of images, or no suffix at all."""
        suffix = posixpath.splitext(path)[1].lower()
        return suffix in SUFFIXES or not suffix

    def image(self, path: str, child: Child) -> tuple[ImageInput, int, str]:
        """Return the far file, and what the listing said of it."""
        return FarFile(f"{self.root.rstrip('/')}/{path}"), child.size, child.stamp


def is_url(text: str) -> bool:
    """Return whether a text names something far away: `scheme://…`."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme.replace("+", "").replace("-", "").isalnum()


def demand_url(url: str) -> None:
    """Demand a URL that can be read here. Raises UsageError for one that cannot, MissingExtra where a package is missing."""
    _file_system(urlsplit(url).scheme)
    if any(not letter.isprintable() for letter in url):
        raise UsageError(f"{one_line(repr(url))} is no URL: it holds what cannot be printed")


@contextmanager
def opened(url: str) -> Iterator[IO[bytes]]:
    """Give a far file to be read as a stream. Raises OSError, also for what its server broke."""
    file_system, path = _located(url)
    with _errors():
        options: dict[str, object] = {"block_size": 0} if url.startswith(WEB) else {}
        with file_system.open(path, "rb", **options) as file:
            yield file


@lru_cache(maxsize=16)
def _file_system(scheme: str) -> FileSystem:
    try:
        import fsspec
    except ModuleNotFoundError:
        raise MissingExtra(_missing(scheme, "fsspec")) from None
    # Listings are read once: fsspec would keep them all.
    options: dict[str, object] = {"use_listings_cache": False, "skip_instance_cache": True}
    if scheme in ("s3", "s3a"):
        options["config_kwargs"] = {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 2}}
    if scheme in WEB:
        import aiohttp

        options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(total=FETCH_S, connect=10)}
    try:
        return cast("FileSystem", fsspec.filesystem(scheme, **options))
    except ImportError as error:
        raise MissingExtra(_missing(scheme, error.name or one_line(error))) from None
    except ValueError as error:
        raise UsageError(f"{scheme}:// is no address that images are read from: {one_line(error)}") from None


def _missing(scheme: str, package: str) -> str:
    return f"{scheme}:// needs {package}: pip install 'sightline[{EXTRAS.get(scheme, 'score')}]'"


def _located(url: str) -> tuple[FileSystem, str]:
    scheme, _, rest = url.partition("://")
    return _file_system(scheme), url if scheme in WEB else ("/" + rest.lstrip("/") if scheme == "memory" else rest)


def _fetched(url: str, most_bytes: int) -> bytes:
    file_system, path = _located(url)
    if not url.startswith(WEB):
        return cast("bytes", _call(file_system, "cat_file", path, start=0, end=most_bytes))
    # A web server may ignore that a part was asked for: what comes is read up to the bound.
    with opened(url) as file:
        parts, missing = [], most_bytes
        while missing and (part := file.read(missing)):
            parts.append(part)
            missing -= len(part)
    return b"".join(parts)


def _call(file_system: FileSystem, method: str, *arguments: object, **options: object) -> object:
    with _errors():
        if not file_system.async_impl:
            return getattr(file_system, method)(*arguments, **options)
        from fsspec.asyn import sync

        return sync(file_system.loop, getattr(file_system, f"_{method}"), *arguments, timeout=FETCH_S, **options)


@contextmanager
def _errors() -> Iterator[None]:
    """Make whatever a file system raises an OSError with one sentence; each has errors of its own."""
    try:
        yield
    except SightlineError:
        raise
    except TimeoutError:
        raise OSError(0, f"no answer within {FETCH_S:g} s") from None
    except OSError as error:
        words = one_line(error.strerror or error)
        # Some say no more than the path.
        error.strerror = "No such file or directory" if isinstance(error, FileNotFoundError) and " " not in words else words
        raise
    except PERMANENT as error:
        raise FileNotFoundError(2, one_line(error)) from None
    except Exception as error:  # noqa: BLE001 - botocore's, aiohttp's, google's …
        raise OSError(0, one_line(error)) from None


def _patiently(call: Callable[[], Value]) -> Value:
    pause_s = FIRST_PAUSE_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except PERMANENT:
            raise
        except OSError:
            if attempt == ATTEMPTS:
                raise
        time.sleep(pause_s)
        pause_s *= 2
    raise AssertionError("unreachable")
