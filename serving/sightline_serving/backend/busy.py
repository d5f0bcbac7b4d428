"""Tells an instance of a model whether the others work: a number of each in one small file, which all of them have mapped.

Instances are processes of their own. One that knows that it works alone may take every core for a request; while others work as well,
each is best off with its share. A number that is read too early or too late costs some speed and nothing else, so there is no lock. That of
a process that was killed while it worked stays, and then the others keep to their share.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

FOLDER: Final = "SIGHTLINE_BUSY_FOLDER"
"""The environment variable that names the folder for such files; whoever starts Triton makes it and removes it."""
ALONE_AFTER_S: Final = 0.05
"""Between two requests an instance is idle for a moment. The others do not take its cores before it has been idle for so long."""
WORKING: Final = (1 << 63) - 1
NEVER: Final = 0
SLOT_BYTES: Final = 8
"""A signed integer: when the instance worked last, in ns of the clock that all processes of a machine share (CLOCK_MONOTONIC)."""
FIRST_GROUP: Final = "first"
MORE_GROUP: Final = "more"
"""Names of the instance groups of a model whose first instance is asked before the others."""


def busy_file(args: Mapping[str, str], config: Mapping[str, Any]) -> Busy | None:
    """Return the file of an instance's model version; None if there is no folder for it, or the model has one instance or other groups."""
    folder = os.environ.get(FOLDER, "")
    counts = {group.get("name", ""): int(group.get("count", 1)) for group in config.get("instance_group", [])}
    group, _, index = args["model_instance_name"].rpartition("_")
    if not folder or set(counts) != {FIRST_GROUP, MORE_GROUP} or counts[FIRST_GROUP] != 1 or group not in counts:
        return None
    instance = 0 if group == FIRST_GROUP else 1 + int(index)
    try:
        return Busy(Path(folder, f"{config['name']}-{args['model_version']}"), instance, 1 + counts[MORE_GROUP])
    except OSError:
        return None


class Busy:
    """When each instance of a model version worked last; this one writes its own time."""

    def __init__(self, file: Path, instance: int, instances: int) -> None:
        """Map `file`, which is made if it is missing; what the other instances wrote in it stays. Raises OSError."""
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, SLOT_BYTES * instances)
            self._slots = memoryview(mmap.mmap(descriptor, SLOT_BYTES * instances)).cast("q")
        finally:
            os.close(descriptor)
        self._instance = instance
        self._others = [other for other in range(instances) if other != instance]
        self._slots[instance] = NEVER

    @property
    def is_first(self) -> bool:
        """Whether this is the instance that Triton asks before the others."""
        return self._instance == 0

    def enter(self) -> bool:
        """Say that this instance works from now on, and return whether it is the only one."""
        self._slots[self._instance] = WORKING
        since_ns = time.monotonic_ns() - int(ALONE_AFTER_S * 1e9)
        return all(self._slots[other] < since_ns for other in self._others)

    def leave(self) -> None:
        """Say that this instance has done its work."""
        self._slots[self._instance] = time.monotonic_ns()
