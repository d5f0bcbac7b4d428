"""Summarises Triton's log: the line or two that say why it ended, not the two hundred around them."""

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sightline.errors import MachineError
from sightline.host.files import reason_of
from sightline.host.text import one_line

TAIL_BYTES: Final = 1024 * 1024
MAX_LOG_BYTES: Final = 16 * 1024 * 1024
"""Of a start, which are looked through; a verbose one has some hundred kilobytes."""
MAX_LETTERS: Final = 2000
ON_THE_CPU: Final = "it runs on the CPU"
"""How such a warning ends (backend/model.py)."""

LINE: Final = re.compile(r"^(?P<level>[IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w.]+:\d+\] +(?P<message>.*)$")
FAILED_LOAD: Final = re.compile(r"^failed to load '(?P<model>[^']+)' version (?P<version>\d+): (?P<reason>.*)$", re.DOTALL)
POLLED: Final = re.compile(r"^Poll failed for model directory '(?P<model>[^']+)': (?P<reason>.*)$", re.DOTALL)
KIND: Final = re.compile(r"^(Internal|Invalid argument|Not found|Unavailable|Unsupported|Unknown): ")
NOISE: Final = (
    "CUDA driver version is insufficient for CUDA runtime version",
    "unable to create cuda memory pool",
    "CudaDriverHelper has not been initialized",
    "Failed to initialize NVML",
    "creating server: Internal - failed to load all models",
)
"""What Triton calls an error and is none: it logs it on every machine without a GPU, or repeats another error."""


@dataclass(frozen=True)
class TritonLog:
    """The part of a log file that one Triton wrote."""

    file: Path
    start_byte: int

    def from_now_on(self) -> "TritonLog":
        """Return the part of the log that is still to be written."""
        return TritonLog(self.file, self.file.stat().st_size)

    def on_the_cpu(self) -> list[str]:
        """Return the backend's warnings of models that were meant for a GPU and run on the CPU, each once."""
        with self.file.open("rb") as file:
            file.seek(self.start_byte)
            lines = filter(None, map(_parsed, file.read(MAX_LOG_BYTES).decode("utf-8", "replace").splitlines()))
        return list(
            dict.fromkeys(one_line(message, MAX_LETTERS) for level, message in lines if level == "W" and message.endswith(ON_THE_CPU))
        )

    def summary(self, *, errors_only: bool = False) -> str:
        """Return why Triton ended, in one line.

        That is the models that failed to load, and why; else Triton's last errors; else, unless `errors_only`, its last lines.
        """
        with self.file.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(self.start_byte, size - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode("utf-8", "replace")
        lines = [line for line in map(_parsed, text.splitlines()) if line and not any(noise in line[1] for noise in NOISE)]
        errors = [message for level, message in lines if level in "EF"]
        failed = dict.fromkeys(filter(None, map(_failed_load, errors)))
        if failed:
            return one_line("; ".join(failed), MAX_LETTERS)
        if errors or errors_only:
            return one_line("; ".join(dict.fromkeys(errors[-3:])), MAX_LETTERS)
        return one_line(" / ".join(message for _, message in lines[-3:]), MAX_LETTERS) or "(it is empty)"


def open_log(file: Path) -> TritonLog:
    """Return the log that a Triton is about to append to `file`. Raises MachineError if it cannot be written."""
    try:
        with file.open("ab") as opened:
            return TritonLog(file, opened.tell())
    except OSError as error:
        raise MachineError(f"the log file {file} cannot be written: {reason_of(error)}") from None


def _parsed(line: str) -> tuple[str, str] | None:
    """Level (I, W, E, F) and message of a line of Triton's log; None for blank lines and rows of its tables."""
    line = line.strip()
    if not line or line[0] in "+|":
        return None
    entry = LINE.match(line)
    if not entry:
        return ("E", line.removeprefix("error: ")) if line.startswith("error: ") else ("I", line)
    message = entry["message"]
    with contextlib.suppress(ValueError):
        # Triton writes a message as a JSON string, line breaks and all.
        message = str(json.loads(message))
    return entry["level"], message


def _failed_load(message: str) -> str | None:
    for pattern in (FAILED_LOAD, POLLED):
        if failure := pattern.match(message):
            # A Python worker's reason ends with a traceback that begins with "At:".
            reason = KIND.sub("", failure["reason"].partition("\n\nAt:")[0].strip())
            version = f" version {failure['version']}" if "version" in pattern.groupindex else ""
            return f"model {failure['model']}{version}: {reason.removeprefix('TritonModelException: ')}"
    return None
