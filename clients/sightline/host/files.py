"""Reads files up to a bound, and writes them whole or not at all.

The one place for both: whoever reads a file that somebody else may have written names the most bytes that it may have, and whoever
replaces a file leaves the old or the new one behind, never a part.
"""

import errno
import glob
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from sightline.host.text import one_line

MIB: Final = 1024 * 1024

READING: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)

FAULTS_OF_MACHINE: Final = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EFBIG", "EMFILE", "ENFILE", "EIO")
    if hasattr(errno, name)  # Windows has no EDQUOT
)
"""No room, no right to write, too many open files, a failing disk."""


class FileRefused(OSError):
    """A file that is there and is not read: no regular file, larger than allowed, or not the text that it should be.

    It is an OSError with `strerror`, so that one `except OSError` tells everything that keeps a file from being read.
    """

    def __init__(self, reason: str, path: str | os.PathLike[str]) -> None:
        super().__init__(0, reason, os.fspath(path))


class FileTooLarge(FileRefused):
    """A file that has more bytes than whoever reads it allows."""


def read_bytes(path: str | os.PathLike[str], limit_bytes: int) -> bytes:
    """Return the content of the regular file `path`.

    Raises OSError if it cannot be read, and its children FileTooLarge if it is longer than `limit_bytes` and FileRefused if it is a
    pipe, a socket or a device. Opening never waits: a named pipe that nobody writes to is refused like any other.
    """
    # Python's own file objects take several times as long as reading a small file does.
    descriptor = _open_without_waiting(path, READING)
    try:
        status = os.fstat(descriptor)
        _demand_regular(status, path)
        content = b""
        if status.st_size <= limit_bytes:
            content = os.read(descriptor, status.st_size + 1)
            # A file that grows meanwhile, that does not tell its size, as in /proc, or that comes in parts: read to its end.
            if not content or len(content) != status.st_size:
                content += _read(descriptor, limit_bytes + 1 - len(content))
    finally:
        os.close(descriptor)
    if max(len(content), status.st_size) > limit_bytes:
        raise FileTooLarge(f"larger than {size_text(limit_bytes)}, the most that such a file may have", path)
    return content


def read_head(path: str | os.PathLike[str], count_bytes: int) -> bytes:
    """Return the first bytes of the regular file `path`, at most `count_bytes`. Raises OSError as `read_bytes` does."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        _demand_regular(os.fstat(file.fileno()), path)
        return file.read(count_bytes)


def read_text(path: str | os.PathLike[str], limit_bytes: int) -> str:
    """Return the content of a UTF-8 file. Raises OSError as `read_bytes` does, FileRefused if it is not UTF-8."""
    try:
        return read_bytes(path, limit_bytes).decode("utf-8")
    except UnicodeDecodeError:
        raise FileRefused("not UTF-8 text", path) from None


def read_json(path: str | os.PathLike[str], limit_bytes: int) -> dict[str, object]:
    """Return the JSON object that a file holds. Raises OSError as `read_bytes` does, FileRefused if it holds no JSON object."""
    try:
        content = json.loads(read_bytes(path, limit_bytes))
    except (ValueError, RecursionError) as error:
        raise FileRefused(f"not JSON ({one_line(error)})", path) from None
    if not isinstance(content, dict):
        raise FileRefused(f"a JSON {type(content).__name__} where an object was expected", path)
    return content


def reason_of(error: OSError) -> str:
    """Return why a file could not be read or written, for the end of a sentence: `No such file or directory`."""
    return error.strerror or str(error) or type(error).__name__


def is_fault_of_machine(error: OSError) -> bool:
    """Return whether the machine is to blame and not what was asked of it: no room on the disk, or no right to write there."""
    return error.errno in FAULTS_OF_MACHINE


def size_text(size_bytes: int) -> str:
    """Return `64 MiB`, or `1,000 bytes` where the size is no whole number of MiB."""
    return f"{size_bytes // MIB:,} MiB" if size_bytes and size_bytes % MIB == 0 else f"{size_bytes:,} bytes"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` in one step by a file with this content, as `replacing` does."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Give a new file to write, which replaces `path` in one step when the block ends well. Raises OSError, and `path` is as it was.

    The file is written beside `path`, so that both are on one file system, and flushed to the disk before it is renamed; it has the
    permissions that `open` would have given it. Whoever is killed meanwhile leaves it there: see `remove_leftovers`.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    temporary = Path(name)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp's 0600 would hide the file from everyone else.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left beside `path` when they were about to replace it. Only for who alone writes there."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}-*"):
        leftover.unlink(missing_ok=True)


def write_new(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file that must not exist yet, down to the disk. Raises OSError, FileExistsError among them; a link is not followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in `folder` survive a power cut. Windows has no such call, and needs none for NTFS."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_without_waiting(path: str | os.PathLike[str], flags: int) -> int:
    # Windows has no O_NONBLOCK, and no named pipes in the file system.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _demand_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise FileRefused("not a file but a pipe, a socket or a device", path)


def _read(descriptor: int, most_bytes: int) -> bytes:
    """Read up to the end, or so many bytes."""
    content = os.read(descriptor, most_bytes)
    parts, missing = [content], most_bytes - len(content)
    # Linux gives no more than 2 GiB at a time, a network file system less.
    while parts[-1] and missing > 0:
        parts.append(os.read(descriptor, missing))
        missing -= len(parts[-1])
    return content if len(parts) == 2 and not parts[1] else b"".join(parts)
