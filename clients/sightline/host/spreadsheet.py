"""Keeps a spreadsheet from running what a file or a label is called: a cell of CSV that would be a formula begins with an apostrophe.

After OWASP's "CSV Injection" (owasp.org/www-community/attacks/CSV_Injection): a cell that begins with = + - @, with the full-width form of
one of these, or with a tab, a carriage return or a line feed may be run as a formula.
"""

import re
from typing import Final

FORMULA: Final = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""Apostrophes in front count too, so that taking one off gives back exactly what was there."""

GUARD: Final = "'"
"""Spreadsheets show the rest of such a cell as text."""


def spreadsheet_safe(text: str) -> str:
    """Return the text for a cell of CSV: with an apostrophe in front if a spreadsheet could take it for a formula."""
    return GUARD + text if FORMULA.match(text) else text


def spreadsheet_original(cell: str) -> str:
    """Return what `spreadsheet_safe` was given."""
    return cell[1:] if cell.startswith(GUARD) and FORMULA.match(cell) else cell
