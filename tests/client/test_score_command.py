"""`sightline score`: what it prints while it works and at its end."""

import io
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from sightline import cli
from sightline.commands import score_progress
from sightline.commands.score_progress import Display
from sightline.errors import ServerUnavailable, UsageError
from sightline.scoring import listing
from sightline.scoring.settings import ScoreProgress

IMAGES = 3000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Many names of one image, in two folders."""
    for place in ("cat", "dog"):
        (tmp_path / "in" / place).mkdir(parents=True)
    first = tmp_path / "in" / "cat" / "00000.png"
    Image.linear_gradient("L").resize((5, 6)).convert("RGB").save(first)
    for number in range(1, IMAGES):
        (first.parents[1] / ("cat" if number % 2 == 0 else "dog") / f"{number:05}.png").hardlink_to(first)
    return tmp_path / "in"


def display_of(folder: Path, text: io.StringIO) -> Display:
    return Display(listing(folder), Console(file=text, force_terminal=False, soft_wrap=True))


def test_lines_say_how_many_rows_how_fast_and_how_long_still(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_progress, "LINE_S", 0.2)
    text, clock = io.StringIO(), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with display_of(folder, text) as display:
        assert display.line().startswith("0")
        while f" of {IMAGES:,} rows" not in display.line():
            threading.Event().wait(0.01)
        clock[0] = 110.0
        display.progress(ScoreProgress(rows=1500, resumed_rows=1000, broken=0))
        assert display.line() == "1,500 of 3,000 rows, 50 a second, 30 s left"
        clock[0] = 116.0
        assert display.line() == "1,500 of 3,000 rows, 50 a second, 30 s left; waiting: no answer for 6 s"
        display.waiting(ServerUnavailable("no Triton server answers"), 6.4)
        assert display.line() == "1,500 of 3,000 rows, 50 a second, 30 s left; the server is away since 6 s: no Triton server answers"
        while "the server is away" not in text.getvalue():
            threading.Event().wait(0.01)
        display.progress(ScoreProgress(rows=1508, resumed_rows=1000, broken=0))
        assert display.line() == "1,508 of 3,000 rows, 32 a second, 47 s left"
    assert not [thread for thread in threading.enumerate() if thread.name == "show"]


def test_until_the_images_are_counted_nobody_says_how_many_are_left(tmp_path: Path) -> None:
    display = Display(listing("-"), Console(file=io.StringIO()))
    display.progress(ScoreProgress(rows=15, resumed_rows=0, broken=0))
    assert display.line().startswith("15 rows, ")
    assert "left" not in display.line()


def test_options_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refusal:
        cli.run(["score", "tiny", str(tmp_path), "--out", "rows.csv", "--resume", "--overwrite"])
    assert str(refusal.value).startswith("a job that was begun is resumed or overwritten, not both")
