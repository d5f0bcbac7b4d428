"""Where results are kept that can be computed again. All of it may be deleted at any time."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """Return the folder `kind` in $SIGHTLINE_CACHE, else in $XDG_CACHE_HOME/sightline, else in ~/.cache/sightline. It is not made."""
    if named := os.environ.get("SIGHTLINE_CACHE"):
        return Path(named, kind)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sightline", kind)
