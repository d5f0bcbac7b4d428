"""Files that are either whole or not there, and JSON from disk that is read only up to a bound."""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Final

from sightline.errors import DataError

MAX_JSON_BYTES: Final = 64 * 1024 * 1024
"""A report with the confusion matrix of 1,000 classes has 3 million bytes."""


NUMBERS: Final = re.compile(r"\[\n\s+([-+.0-9eE]+(?:,\n\s+[-+.0-9eE]+)*)\n\s*\]")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write beside `path`, flush to the disk, rename: a kill leaves the old file or the new one, never a part."""
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp's 0600 would hide the run from everyone else; what the umask allows is what `open` would have given.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(beside, 0o666 & ~mask)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as readable JSON, whole; a list of numbers, such as a row of a matrix, stands on one line."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    # No string of JSON holds a line break, so that what is matched here is no string.
    write_whole(path, NUMBERS.sub(lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises DataError, naming the file, if it is missing, too large, no JSON or no object."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_JSON_BYTES:
        raise DataError(f"{path}: larger than {MAX_JSON_BYTES // 1024**2} MiB, the most that such a file may have")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({str(error)[:200]})") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: a JSON {type(found).__name__} where an object was expected")
    return found
