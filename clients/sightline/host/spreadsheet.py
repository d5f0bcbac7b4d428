"""Keeps a spreadsheet from running what a file or a label is called: a cell of CSV that would be a formula begins with an apostrophe.

After OWASP's "CSV Injection" (owasp.org/www-community/attacks/CSV_Injection): a cell that begins with = + - @, with the full-width form of
one of these, or with a tab, a carriage return or a line feed may be run as a formula.
"""

from typing import Final

RUN_AS_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet may take for the beginning of a formula."""

GUARD: Final = "'"
"""Spreadsheets show the rest of such a cell as text."""


def spreadsheet_safe(text: str) -> str:
    """Return the text for a cell of CSV: with an apostrophe in front if it could be run as a formula, or begins with an apostrophe."""
    return GUARD + text if text.startswith((*RUN_AS_FORMULA, GUARD)) else text


def spreadsheet_original(cell: str) -> str:
    """Return what `spreadsheet_safe` was given. Only for cells that it made: one that was written raw would lose its apostrophe."""
    return cell.removeprefix(GUARD)
