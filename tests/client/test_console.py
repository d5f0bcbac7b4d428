"""What is printed on a pipe: whole rows, and no blanks behind them."""

import io
import sys

import pytest

from sightline.console import messages, results, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_rows_of_a_table_on_a_pipe_have_no_trailing_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table("name", "count", "words", left=1)
    rows.add_row("a", "1", "x" * 150)
    rows.add_row("long name", "2", "")
    results().print(rows)
    messages().print("a sentence  ")
    printed = capsys.readouterr()
    heading, first, second = printed.out.splitlines()
    assert heading.split() == ["name", "count", "words"]
    assert first.split() == ["a", "1", "x" * 150]
    assert second.split() == ["long", "name", "2"]
    assert [row for row in (heading, first, second) if row != row.rstrip()] == []
    assert len(second) < 20
    assert printed.err == "a sentence\n"


def test_what_is_printed_bit_by_bit_arrives_whole(capsys: pytest.CaptureFixture[str]) -> None:
    console = results()
    for part in ("one", " two  ", "\n", "three\n"):
        console.print(part, end="")
    assert capsys.readouterr().out.splitlines() == ["one two  ", "three"]


def test_a_terminal_is_left_to_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    results().print("text")
    assert terminal.getvalue() == "text\n"


def test_a_label_between_colons_is_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table("label")
    rows.add_row(":dog:")
    results().print(rows)
    messages().print("photos/:dog:/1.png")
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1] == ":dog:"
    assert printed.err == "photos/:dog:/1.png\n"
