"""TensorRT's timing cache: what was measured of kernels on this GPU, kept so that the next plan is built in a fraction of the time."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sightline.errors import MachineError
from sightline.host.cache import cache_folder
from sightline.host.files import read_bytes, reason_of, write_atomically
from sightline.repository.tensorrt_plan import Fingerprint

MOST_CACHE_BYTES: Final = 256 * 1024 * 1024


def default_timing_cache(machine: Fingerprint) -> Path:
    """Return where this machine's timing cache lies if nobody says: one file for each TensorRT and kind of GPU, in the cache folder."""
    kind = hashlib.sha256(f"{machine.gpu}\n{machine.driver}\n{machine.cuda}".encode()).hexdigest()[:12]
    return cache_folder("tensorrt") / f"timing-{machine.tensorrt}-{kind}.cache"


def read_cache(file: Path) -> bytes:
    """Return the timing cache, or an empty one if there is none. Raises MachineError if the file cannot be one."""
    try:
        return read_bytes(file, MOST_CACHE_BYTES)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise MachineError(f"the timing cache {file} cannot be read: {reason_of(error)}. Delete it, or name another") from None


def write_cache(file: Path, content: bytes, notify: Callable[[str], None]) -> None:
    """Keep what was measured; a plan that was built is not lost for want of it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
    except OSError as error:
        notify(f"the timing cache {file} was not written: {reason_of(error)}")
