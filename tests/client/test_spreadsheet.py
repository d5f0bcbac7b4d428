"""A cell of CSV that a spreadsheet would run as a formula is text, and every text comes back as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.host.spreadsheet import spreadsheet_original, spreadsheet_safe


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ('=HYPERLINK("http://x","a").png', '\'=HYPERLINK("http://x","a").png'),
        ("+1.png", "'+1.png"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("\uff1d1", "'\uff1d1"),
        ("'quoted' 1.png", "'quoted' 1.png"),
        ("'=1", "''=1"),
        ("a=1.png", "a=1.png"),
        ("7", "7"),
        ("", ""),
    ],
)
def test_what_could_be_run_begins_with_an_apostrophe_and_nothing_else_changes(text: str, cell: str) -> None:
    assert spreadsheet_safe(text) == cell
    assert spreadsheet_original(cell) == text


@given(st.text(alphabet="'=+-@\t\r\n\uff1da1. ", max_size=6) | st.text(max_size=20))
def test_every_text_comes_back_as_it_was_and_no_cell_begins_as_a_formula(text: str) -> None:
    cell = spreadsheet_safe(text)
    assert spreadsheet_original(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
