"""TensorRT's timing cache: what was measured of kernels on this GPU, kept so that the next plan is built in a fraction of the time."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sightline.errors import UsageError
from sightline.repository.tensorrt_plan import Fingerprint

MOST_CACHE_BYTES: Final = 256 * 1024 * 1024


def default_timing_cache(here: Fingerprint) -> Path:
    """Where this machine's timing cache lies if nobody says: one file for each TensorRT and kind of GPU, in the user's cache folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kind = hashlib.sha256(f"{here.gpu}\n{here.driver}\n{here.cuda}".encode()).hexdigest()[:12]
    return base / "sightline" / f"timing-{here.tensorrt}-{kind}.cache"


def read_cache(file: Path) -> bytes:
    """The timing cache, or an empty one if there is none. Raises UsageError."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_CACHE_BYTES + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UsageError(f"the timing cache {file} cannot be read: {error.strerror or error}") from None
    if len(content) > MOST_CACHE_BYTES:
        raise UsageError(f"{file} is larger than {MOST_CACHE_BYTES:,} bytes: that is no timing cache. Delete it, or name another")
    return content


def write_cache(file: Path, content: bytes, notify: Callable[[str], None]) -> None:
    """Keep what was measured; a plan that was built is not lost for want of it."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(content)
        new.replace(file)
    except OSError as error:
        notify(f"the timing cache {file} was not written: {error.strerror or error}")
