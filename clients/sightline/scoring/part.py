"""The rows of a job that is not finished: `OUT.part`, with its journal, held by one process at a time.

Rows reach the disk before the checkpoint that counts them. So whatever ends the job, and the machine with it, the journal's last whole
line says how much of the part is right; what follows there is cut off when the job is resumed.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from filelock import FileLock, Timeout

from sightline.errors import DataError, MachineError, UsageError
from sightline.host.files import MIB, read_text, reason_of, sync_folder
from sightline.scoring.journal import Checkpoint, Head, line_of


@dataclass(frozen=True)
class Files:
    """The files of a job."""

    out: Path

    @property
    def part(self) -> Path:
        """The rows while they grow."""
        return self.out.with_name(f"{self.out.name}.part")

    @property
    def journal(self) -> Path:
        """What the job is, and how far it has come."""
        return self.out.with_name(f"{self.out.name}.journal")

    @property
    def lock(self) -> Path:
        """Held while a process works on the job."""
        return self.out.with_name(f"{self.out.name}.lock")

    @property
    def begun(self) -> tuple[Path, ...]:
        """Those of a job that is not finished that are there."""
        return tuple(path for path in (self.part, self.journal) if path.exists())

    def remove(self) -> None:
        """Remove a job that is not finished: the journal last, without which nothing is believed."""
        self.part.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)


@contextlib.contextmanager
def held(files: Files) -> Iterator[None]:
    """Hold a job's files until the block ends, or the process does. Raises UsageError at once if another process holds them."""
    lock = FileLock(files.lock, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"{files.out}: {_holder(files.lock)} is writing this file: wait for it, or name another file") from None
    except OSError as error:
        raise MachineError(f"{files.out}: the rows cannot be written: {reason_of(error)}") from None
    try:
        with contextlib.suppress(OSError):
            files.lock.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        # While it is held: whoever waits for a lock that has gone asks for a new one.
        with contextlib.suppress(OSError):
            files.lock.unlink()
        lock.release()


def _holder(lock: Path) -> str:
    with contextlib.suppress(OSError):
        if (text := read_text(lock, 20)).isdecimal():
            return f"process {text}"
    return "another process"


class Part:
    """An open part with its journal. What is written counts from the next `save` after a `mark` on."""

    def __init__(self, part: IO[bytes], journal: IO[bytes], at: Checkpoint | None) -> None:
        self._part, self._journal = part, journal
        self._journal_bytes = journal.seek(0, os.SEEK_END)
        self._sha256 = hashlib.sha256()
        self.bytes = 0
        """Of the part."""
        self.saved = at
        """The last checkpoint that is on the disk."""
        self._marked = at

    @classmethod
    def begin(cls, files: Files, head: Head, header: bytes) -> Self:
        """Begin a job: the journal first, so that no part is without one. Raises OSError."""
        journal = files.journal.open("wb", buffering=0)
        journal.write(line_of(head))
        os.fsync(journal.fileno())
        part = cls(files.part.open("wb"), journal, None)
        sync_folder(files.out.parent)
        part.write(header)
        return part

    @classmethod
    def go_on(cls, files: Files, journal_bytes: int, at: Checkpoint) -> Self:
        """Go on after a checkpoint. Raises OSError, DataError if the part is not what the checkpoint says."""
        sha256 = demand_whole(files.part, at)
        file = files.part.open("r+b")
        file.truncate(at.bytes)
        journal = files.journal.open("r+b", buffering=0)
        journal.truncate(journal_bytes)
        part = cls(file, journal, at)
        part._sha256, part.bytes = sha256, file.seek(0, os.SEEK_END)
        return part

    def write(self, content: bytes) -> None:
        """Append to the part."""
        self._part.write(content)
        self._sha256.update(content)
        self.bytes += len(content)

    def sha256(self) -> str:
        """Return the hash of the part."""
        return self._sha256.hexdigest()

    def mark(self, checkpoint: Checkpoint) -> None:
        """Remember a place where the job may be resumed."""
        self._marked = checkpoint

    def save(self) -> None:
        """Bring the part to the disk, then the last mark, if it is a new one. Raises OSError."""
        if self._marked is None or self._marked is self.saved:
            return
        self._part.flush()
        os.fsync(self._part.fileno())
        line = line_of(self._marked)
        # At its place, and not at the end: a disk that was full may have taken half a line.
        self._journal.seek(self._journal_bytes)
        if self._journal.write(line) != len(line):
            raise OSError(0, "the journal could be written in part only")
        os.fsync(self._journal.fileno())
        self._journal_bytes += len(line)
        self.saved = self._marked

    def close(self) -> None:
        """Save, and close both files. Raises OSError."""
        try:
            self.save()
        finally:
            self._journal.close()
            self._part.close()


def demand_whole(part: Path, at: Checkpoint) -> "hashlib._Hash":
    """Demand that a part begins with what a checkpoint counts, and return its hash up to there. Raises DataError or OSError."""
    sha256, missing = hashlib.sha256(), at.bytes
    with part.open("rb") as file:
        while missing and (content := file.read(min(MIB, missing))):
            sha256.update(content)
            missing -= len(content)
    if missing:
        left = f"{at.bytes - missing:,} bytes are left of {at.bytes:,} that were on the disk"
        raise DataError(f"{part}: the rows are damaged: {left}", settings=("overwrite",))
    if sha256.hexdigest() != at.part_sha256:
        raise DataError(f"{part}: the rows are damaged: they were changed after they were written", settings=("overwrite",))
    return sha256
