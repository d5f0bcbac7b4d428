"""The sha256 of published files, each read once within a command."""

import hashlib
from pathlib import Path


class FileHashes:
    """Remembers the sha256 of files, so that none is read twice within one command."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def of(self, file: Path) -> str:
        """Return the hexadecimal sha256 of a file. Raises OSError."""
        if file not in self._known:
            self._known[file] = file_sha256(file)
        return self._known[file]


def file_sha256(file: Path) -> str:
    """Return the hexadecimal sha256 of a file, read in pieces. Raises OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
