"""JSON as a person reads it: indented, but a list of numbers, such as a row of a confusion matrix, stands on one line."""

import json
import re
from collections.abc import Mapping
from typing import Final

NUMBERS: Final = re.compile(r"\[\n\s+([-+.0-9eE]+(?:,\n\s+[-+.0-9eE]+)*)\n\s*\]")


def json_text(content: Mapping[str, object]) -> str:
    """Return `content` as JSON that ends with a line feed. Raises ValueError for numbers that are not finite."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    # No string of JSON holds a line break, so that what is matched here is no string.
    return NUMBERS.sub(lambda row: "[" + re.sub(r"\s+", " ", row[1]) + "]", text) + "\n"
