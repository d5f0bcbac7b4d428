"""Writes Lightning's checkpoints in one step, so that a kill or a full disk leaves the last one as it was.

Lightning itself writes to the system's temporary folder and moves the file: across file systems that is a copy, and half a copy is what
a kill leaves.
"""

import io
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from sightline.errors import MachineError
from sightline.host.files import replacing
from sightline.host.text import one_line

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer


class AtomicCheckpoints(TorchCheckpointIO):
    """What Lightning asks to save a checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, object], path: str | Path, storage_options: object | None = None) -> None:
        """Replace the file at `path`. Raises OSError, and it is as it was."""
        if storage_options is not None:
            raise TypeError("a checkpoint is a file on this machine, and has no options of a storage")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as file:
            noticing = _Noticing(file)
            try:
                torch.save(checkpoint, cast("IO[bytes]", noticing))
            except RuntimeError as error:
                # What torch's writer makes of an error of the disk, without its number.
                raise (noticing.error or MachineError(f"{path}: torch cannot write the checkpoint ({one_line(error)})")) from None


class _Noticing(io.RawIOBase):
    """A file to write that remembers what the disk refused."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, content: "Buffer") -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()
