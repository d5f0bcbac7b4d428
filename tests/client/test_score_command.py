"""`sightline score`: what it prints while it works and at its end."""

import io
import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from sightline import Classifier, cli
from sightline.commands import progress
from sightline.commands.progress import Display
from sightline.errors import ServerUnavailable, UsageError
from sightline.scoring import listing, rows_of
from sightline.scoring.settings import ScoreProgress
from support.many_names import in_two_classes

if TYPE_CHECKING:
    from sightline_serving.server import Server

IMAGES = 3000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return in_two_classes(tmp_path / "in", IMAGES)


def display_of(folder: Path, text: io.StringIO) -> Display:
    return Display(listing(folder), Console(file=text, force_terminal=False, soft_wrap=True))


def test_lines_say_how_many_rows_how_fast_and_how_long_still(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_S", 0.2)
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


@pytest.mark.triton
def test_a_labelled_folder_gets_a_report_beside_its_rows(
    served: "tuple[Server, Path]", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, _ = served
    with Classifier("tiny", server.grpc_url) as classifier:
        labels, shape = classifier.card.labels, classifier.card.preprocess.size
        random = np.random.default_rng(0)
        images = [Image.fromarray(random.integers(0, 256, (*shape, 3), dtype=np.uint8)) for _ in range(12)]
        answers = [guess.label for guess in classifier.classify(images)]
    for number, (image, answer) in enumerate(zip(images, answers, strict=True)):
        truth = answer if number < 9 else "unheard of" if number == 9 else next(label for label in labels if label != answer)
        (tmp_path / "in" / truth).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "in" / truth / f"{number:02}.png")
    out, report = tmp_path / "rows.csv", tmp_path / "rows.csv.report"
    command = ["score", "tiny", str(tmp_path / "in"), "--out", str(out), "--labelled", "--url", server.grpc_url]
    cli.run(command)
    printed = capsys.readouterr().out
    assert "12 rows in" in printed
    assert f"the report is in {report}" in printed
    assert {path.name for path in report.iterdir()} == {"summary.json", "classes.csv", "confusion.csv", "mistakes.csv", "confusion.png"}
    summary = json.loads((report / "summary.json").read_text())
    assert summary["correct"] == 9
    assert [row.truth for row in rows_of(out)] == [row.image.split("/")[0] for row in rows_of(out)]
    before = (report / "summary.json").read_bytes()
    with pytest.raises(UsageError, match=r"there is a report already|the file exists already"):
        cli.run(command)
    cli.run([*command, "--resume"])
    assert "nothing was done" in capsys.readouterr().out
    assert (report / "summary.json").read_bytes() == before
