"""Whether this machine computes what a published version was held to: sums of 8-bit integers are not the same everywhere."""

from pathlib import Path
from typing import Final

from sightline.host.cpu import EXACT, called
from sightline.repository.read import ModelVersion

GPUS: Final = "/dev/nvidia[0-9]*"


def reason_not_fit(version: ModelVersion, instructions: tuple[str, ...]) -> str | None:
    """Return why the version would not answer here as it did for the gate, as the end of a sentence; None if it does.

    `instructions` are this processor's, as `sightline.host.cpu.integer_instructions` gives them. A file in 8-bit integers that was held to
    the gate where products are added up in 32 bits loses accuracy where they are added up in 16; one with 7-bit weights, and any on a GPU,
    does not. A version that says nothing of itself is taken as it is.
    """
    report = version.described
    if report is None or report.precision != "int8" or report.conversion is None:
        return None
    calibrated = report.conversion.integer_instructions
    if not calibrated or report.conversion.seven_bits or instructions:
        return None
    if any(Path(GPUS).parent.glob(Path(GPUS).name)):
        return None
    return (
        f"it is INT8, calibrated and tried on a processor with {', '.join(calibrated[:4])[:80]}, and this one ({called()}) has "
        f"none of {', '.join(EXACT)}: its sums would overflow and the answers be worse"
    )
