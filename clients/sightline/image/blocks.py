"""Keeps Pillow's memory between images while many are read: to return 48 MB and fetch them anew for each photo costs half of decoding it.

Every page of fresh memory is a fault in the kernel, and threads of one process wait for one another there. Pillow can keep blocks of 16 MB
(`PIL.Image.core.set_blocks_max`), and does not unless it is told to. That is a setting of the whole process, so it is taken back.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from PIL.Image import core  # type: ignore[attr-defined]  # Pillow's documented block allocator

MOST_BLOCKS: Final = 12
"""192 MB: three photos of 16 megapixels."""

_lock = threading.Lock()
_holders = 0
_before: int = 0


@contextmanager
def blocks_kept() -> Iterator[None]:
    """Within the block, Pillow keeps up to MOST_BLOCKS blocks of memory that images gave back. Blocks of several threads may overlap."""
    global _holders, _before  # noqa: PLW0603 - as Pillow's own setting is one of the process
    with _lock:
        if not _holders:
            _before = core.get_blocks_max()
            core.set_blocks_max(max(_before, MOST_BLOCKS))
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                core.set_blocks_max(_before)  # frees what is above it


def keep_blocks(count: int) -> None:
    """Let Pillow keep up to `count` blocks in this process from now on."""
    core.set_blocks_max(count)
