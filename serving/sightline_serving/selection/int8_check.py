"""Whether this machine computes what a published version was held to: 8-bit integers are not the same everywhere."""

import json
from pathlib import Path
from typing import Any, Final

from sightline.host.cpu import EXACT, called

MAX_REPORT_BYTES: Final = 64 * 1024 * 1024
GPUS: Final = "/dev/nvidia[0-9]*"


def unfit(version: Path, here: tuple[str, ...]) -> str | None:
    """Why the version in the folder `version` would not answer here as it did for the gate, as the end of a sentence; None if it does.

    `here` are this processor's instructions, as `sightline.host.cpu.integer_instructions` gives them. A file in 8-bit integers that was
    held to the gate where products are added up in 32 bits loses accuracy where they are added up in 16; one with 7-bit weights, and any
    on a GPU, does not.
    """
    conversion = _conversion(version)
    calibrated = conversion.get("integer_instructions")
    if not isinstance(calibrated, list) or not calibrated or conversion.get("seven_bits") or here:
        return None
    if any(Path(GPUS).parent.glob(Path(GPUS).name)):
        return None
    return (
        f"it is INT8, calibrated and tried on a processor with {', '.join(map(str, calibrated[:4]))[:80]}, and this one ({called()}) has "
        f"none of {', '.join(EXACT)}: its sums would overflow and the answers be worse"
    )


def _conversion(version: Path) -> dict[str, Any]:
    """What the version's report says of how it was made; nothing, if there is no report or none that can be read."""
    report = version / "report.json"
    try:
        with report.open("rb") as opened:
            content = json.loads(opened.read(MAX_REPORT_BYTES))
        conversion = content.get("conversion")
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    return conversion if isinstance(conversion, dict) and content.get("precision") == "int8" else {}
