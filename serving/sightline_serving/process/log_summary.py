"""What Triton's log says about why it ended: the line or two that matter, not the two hundred around them."""

import contextlib
import json
import re
from pathlib import Path
from typing import Final

TAIL_BYTES: Final = 1024 * 1024
LONGEST: Final = 2000

LINE: Final = re.compile(r"^(?P<level>[IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w.]+:\d+\] +(?P<message>.*)$")
FAILED_LOAD: Final = re.compile(r"^failed to load '(?P<model>[^']+)' version (?P<version>\d+): (?P<reason>.*)$", re.DOTALL)
POLLED: Final = re.compile(r"^Poll failed for model directory '(?P<model>[^']+)': (?P<reason>.*)$", re.DOTALL)
KIND: Final = re.compile(r"^(Internal|Invalid argument|Not found|Unavailable|Unsupported|Unknown): ")
NOISE: Final = (
    "CudaDriverHelper has not been initialized",
    "Failed to initialize NVML",
    "creating server: Internal - failed to load all models",
)
"""What Triton calls an error and is none: it says so on every machine without a GPU, or repeats what was said before."""


def last_words(log: Path, start: int = 0, *, errors_only: bool = False) -> str:
    """The reason in the log from byte `start` on, in one line.

    That is the models that failed to load, and why; else Triton's last errors; else, unless `errors_only`, its last lines.
    """
    with log.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(start, size - TAIL_BYTES))
        text = opened.read(TAIL_BYTES).decode("utf-8", "replace")
    lines = [line for line in map(_parsed, text.splitlines()) if line and not any(noise in line[1] for noise in NOISE)]
    errors = [message for level, message in lines if level in "EF"]
    failed = dict.fromkeys(filter(None, map(_failed_load, errors)))
    if failed:
        return _short("; ".join(failed))
    if errors or errors_only:
        return _short("; ".join(dict.fromkeys(errors[-3:])))
    return _short(" / ".join(message for _, message in lines[-3:])) or "(it said nothing)"


def _parsed(line: str) -> tuple[str, str] | None:
    """Level (I, W, E, F) and message of a line of Triton's log; None for blank lines and rows of its tables."""
    line = line.strip()
    if not line or line[0] in "+|":
        return None
    found = LINE.match(line)
    if not found:
        return ("E", line.removeprefix("error: ")) if line.startswith("error: ") else ("I", line)
    message = found["message"]
    with contextlib.suppress(ValueError):
        # Triton writes a message as a JSON string, line breaks and all.
        message = str(json.loads(message))
    return found["level"], message


def _failed_load(message: str) -> str | None:
    for pattern in (FAILED_LOAD, POLLED):
        if found := pattern.match(message):
            # A Python worker's reason ends with a traceback that begins with "At:".
            reason = KIND.sub("", found["reason"].partition("\n\nAt:")[0].strip())
            version = f" version {found['version']}" if "version" in pattern.groupindex else ""
            return f"model {found['model']}{version}: {reason.removeprefix('TritonModelException: ')}"
    return None


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
