"""Keeps a spreadsheet from running what a file is called: a cell of CSV that would be a formula begins with an apostrophe.

After OWASP's "CSV Injection" (owasp.org/www-community/attacks/CSV_Injection): what begins with = + - @, a tab, a carriage return or a
line feed, or with the full-width form of one of the four signs.
"""

import re
from typing import Final

_FORMULA: Final = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""Apostrophes in front count too, so that taking one off gives back exactly what was there."""


def guarded(cell: str) -> str:
    """Return the cell, with an apostrophe in front if a spreadsheet could take it for a formula."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """Return what `guarded` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
