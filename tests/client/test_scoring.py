"""Batch scoring against the fake transport: which files are rows, in which order, and what an interruption leaves."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline import Classifier
from sightline.errors import ModelError, ServerError, ServerUnavailable, UsageError
from sightline.remarks import FLAT
from sightline.scoring import Row, ScoreProgress, ScoreSettings, rows_of, score
from sightline.testing import FakeTransport
from sightline.transport import InferResult, ServedVersion
from support.fake_network import brightest, card
from support.score_formats import SUFFIXES

COLOURS = {"red": "red", "lime": "green", "blue": "blue"}
ALL_FORMATS = pytest.mark.parametrize("suffix", SUFFIXES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 good images in nested folders, 3 broken ones, 2 files that are no images, a hidden one."""
    for number in range(40):
        colour = list(COLOURS)[number % 3]
        place = tmp_path / "in" / f"part{number % 4}"
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), colour).save(place / f"{number:03}_{colour}.png")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no")
    (tmp_path / "in" / "part1" / "empty.PNG").write_bytes(b"")
    (tmp_path / "in" / "text.png").write_text("text")
    (tmp_path / "in" / "readme.txt").write_text("text")
    (tmp_path / "in" / "labels.csv").write_text("text")
    (tmp_path / "in" / ".hidden.png").write_text("text")
    return tmp_path / "in"


def classifier() -> Classifier:
    return Classifier("colours", transport=FakeTransport(card(), brightest))


def colour_of(row: Row) -> str:
    return row.image.rpartition("_")[2].removesuffix(".png")


@pytest.mark.parametrize("most", [1, 4])
@ALL_FORMATS
def test_every_image_is_a_row_in_the_order_of_the_paths_and_broken_ones_say_why(
    folder: Path, tmp_path: Path, suffix: str, most: int
) -> None:
    transport = FakeTransport(card(max_batch_size=most), brightest)
    done = score(Classifier("colours", transport=transport), folder, tmp_path / f"rows.{suffix}")
    rows = list(rows_of(done.out))
    assert (done.rows, done.broken, done.passed_over, done.resumed_rows, done.version) == (43, 3, 2, 0, "1")
    assert len(rows) == 43
    names = [row.image for row in rows]
    assert names == sorted(names, key=lambda name: name.split("/"))
    for row in rows:
        assert row.label == COLOURS.get(colour_of(row), "")
        assert bool(row.error) == (colour_of(row) not in COLOURS) == (row.probability is None) == bool(row.error_kind)
        assert row.version == ("" if row.error else "1")
        assert row.truth is None
    errors = {row.image: (row.error_kind, row.error) for row in rows if row.error}
    assert errors["part1/empty.PNG"] == ("empty", f"{folder}/part1/empty.PNG: the file is empty")
    assert {kind for kind, _ in errors.values()} == {"empty", "image"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", f"rows.{suffix}"]


def test_the_rows_are_the_same_in_every_format(folder: Path, tmp_path: Path) -> None:
    settings = ScoreSettings(top=2, labelled=True)
    rows = [list(rows_of(score(classifier(), folder, tmp_path / f"rows.{suffix}", settings).out)) for suffix in SUFFIXES]
    assert all(each == rows[0] for each in rows)
    assert {len(row.top) for row in rows[0]} == {0, 2}
    assert {row.truth for row in rows[0]} == {None, "part0", "part1", "part2", "part3"}


@ALL_FORMATS
@pytest.mark.parametrize(("readers", "requests"), [(1, 1), (3, 2), (16, 16)])
def test_the_file_is_the_same_for_any_number_of_threads(folder: Path, tmp_path: Path, suffix: str, readers: int, requests: int) -> None:
    first = score(classifier(), folder, tmp_path / f"a.{suffix}", ScoreSettings(top=2)).out.read_bytes()
    settings = ScoreSettings(top=2, readers=readers, requests=requests)
    assert score(classifier(), folder, tmp_path / f"b.{suffix}", settings).out.read_bytes() == first


def test_each_request_has_as_many_images_as_the_model_takes(folder: Path, tmp_path: Path) -> None:
    transport = FakeTransport(card(), brightest)
    score(Classifier("colours", transport=transport), folder, tmp_path / "rows.csv")
    assert {len(pixels) for pixels in transport.requests} == {4}


def test_a_row_holds_as_many_classes_as_were_asked_for_but_no_more_than_there_are(folder: Path, tmp_path: Path) -> None:
    out = score(classifier(), folder, tmp_path / "rows.csv", ScoreSettings(top=9)).out
    header = "image,label,probability,label_2,probability_2,label_3,probability_3,version,error,remark,error_kind\n"
    assert out.read_text().startswith(header)
    assert {len(row.top) for row in rows_of(out)} == {0, 3}


def test_the_row_of_an_image_of_one_colour_holds_its_label_and_says_that_there_is_nothing_to_read(folder: Path, tmp_path: Path) -> None:
    Image.linear_gradient("L").convert("RGB").save(folder / "lit.png")
    done = score(classifier(), folder, tmp_path / "rows.csv")
    assert (done.rows, done.broken, done.remarked) == (44, 3, 40)
    for row in rows_of(done.out):
        assert row.remark == (FLAT if colour_of(row) in COLOURS else "")
        assert row.label == COLOURS.get(colour_of(row), "red" if row.image == "lit.png" else "")


@ALL_FORMATS
def test_a_file_name_that_is_no_utf8_or_holds_quotes_still_is_one_row(folder: Path, tmp_path: Path, suffix: str) -> None:
    image = next(folder.rglob("000_red.png")).read_bytes()
    names = ['a "quoted",\nname.png', "carriage\rreturn.png", "ünïcode 名.png", "tab\t.png", "back\\slash.png"]
    for name in names:
        (folder / name).write_bytes(image)
    with open(bytes(folder) + b"/b\xff.png", "wb") as file:
        file.write(image)
    labels = {row.image: row.label for row in rows_of(score(classifier(), folder, tmp_path / f"rows.{suffix}").out)}
    assert {name: labels[name] for name in [*names, "b\\udcff.png"]} == dict.fromkeys([*names, "b\\udcff.png"], "red")


class Dies(FakeTransport):
    """Answers a few requests, then is gone."""

    def infer(self, *arguments: Any) -> InferResult:
        if len(self.requests) >= 5:
            raise ServerUnavailable("no Triton server answers at fake://")
        return super().infer(*arguments)


@ALL_FORMATS
def test_when_the_server_dies_the_rows_so_far_are_kept_and_the_job_goes_on_to_the_same_file(
    folder: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"rows.{suffix}"
    dead = Classifier("colours", transport=Dies(card(), brightest), wait_s=0)
    with pytest.raises(ServerUnavailable) as failure:
        score(dead, folder, out, ScoreSettings(requests=1))
    assert not out.exists()
    assert (
        str(failure.value) == f"no Triton server answers at fake:// (20 rows are safe in {out}.part: the job can be resumed)"
        or str(failure.value) == f"no Triton server answers at fake:// (24 rows are safe in {out}.part: the job can be resumed)"
    )
    assert isinstance(failure.value, ServerError)
    assert failure.value.settings == ("resume",)
    done = score(classifier(), folder, out, ScoreSettings(resume=True))
    assert done.rows == 43
    assert done.resumed_rows in (20, 24)
    assert (done.broken, done.passed_over, done.remarked) == (3, 2, 40)
    assert out.read_bytes() == score(classifier(), folder, tmp_path / f"clean.{suffix}").out.read_bytes()


def test_an_existing_file_is_not_overwritten_unless_asked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    out.write_text("precious")
    with pytest.raises(UsageError) as refusal:
        score(classifier(), folder, out)
    assert str(refusal.value) == f"{out}: the file exists already: choose another name, or overwrite it"
    assert refusal.value.settings == ("overwrite",)
    assert out.read_text() == "precious"
    assert score(classifier(), folder, out, ScoreSettings(overwrite=True)).rows == 43


def test_a_file_that_somebody_makes_meanwhile_is_kept(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"

    def intrude(_progress: ScoreProgress) -> None:
        out.write_text("precious")

    with pytest.raises(UsageError) as refusal:
        score(classifier(), folder, out, progress=intrude)
    assert str(refusal.value) == (
        f"{out}: somebody made this file while the job ran: move it away, and resume the job "
        f"(43 rows are safe in {out}.part: the job can be resumed)"
    )
    assert out.read_text() == "precious"
    out.unlink()
    assert score(classifier(), folder, out, ScoreSettings(resume=True)).resumed_rows == 43


@pytest.mark.parametrize(
    ("place", "out", "sentence"),
    [
        ("nowhere", "rows.csv", "nowhere: there is no such folder of images, and no such list"),
        ("in", "rows.xlsx", "rows are written as CSV, JSON lines or Parquet, so the file's name must end with .csv, .jsonl or .parquet"),
        ("in", "no/such/rows.csv", "no/such: there is no such folder to write rows.csv in"),
    ],
)
def test_a_job_that_cannot_work_is_refused_before_it_begins(folder: Path, tmp_path: Path, place: str, out: str, sentence: str) -> None:
    assert folder.is_dir()
    with pytest.raises(UsageError) as refusal:
        score(classifier(), tmp_path / place, tmp_path / out)
    assert str(refusal.value).endswith(sentence)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"top": 0}, "the number of classes to write must be at least 1, not 0"),
        ({"readers": 0}, "readers must be between 1 and 256, not 0"),
        ({"resume": True, "overwrite": True}, "a job that was begun is resumed or overwritten, not both"),
        ({"checkpoint_s": -1.0}, "the time between checkpoints must be 0 s or more, not -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as refusal:
        ScoreSettings(**settings)
    assert str(refusal.value) == sentence


def test_memory_holds_a_few_batches_not_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    content = Image.new("RGB", (4, 4), "red")
    content.save(folder / "0.png")
    for number in range(1, 600):
        (folder / f"{number}.png").hardlink_to(folder / "0.png")
    transport = FakeTransport(card(), brightest)
    at_once = rows = 0

    def progress(progress: ScoreProgress) -> None:
        nonlocal at_once, rows
        at_once, rows = max(at_once, sum(map(len, transport.requests)) - progress.rows), progress.rows

    score(Classifier("colours", transport=transport), folder, tmp_path / "rows.csv", ScoreSettings(requests=4), progress)
    assert rows == 600
    assert at_once <= (4 + 1) * 4
    assert np.concatenate(transport.requests).shape == (600, 8, 6, 3)


def test_a_file_is_a_row_by_its_content_whatever_it_is_called(folder: Path, tmp_path: Path) -> None:
    red = next(folder.rglob("000_red.png")).read_bytes()
    (folder / "no suffix").write_bytes(red)
    (folder / "photo.HEIC").write_bytes(red)
    (folder / "photo.jif").write_bytes(red)
    (folder / "scan.pbm").write_bytes(b"P1 2 1 0 1")
    (folder / "picture.dat").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40))
    (folder / "drawing.svg").write_text("<svg></svg>")
    done = score(classifier(), folder, tmp_path / "rows.csv")
    rows = {row.image: row for row in rows_of(done.out)}
    assert [rows[name].label for name in ("no suffix", "photo.HEIC", "photo.jif")] == ["red"] * 3
    assert rows["scan.pbm"].error == ""
    assert rows["picture.dat"].error == f"{folder}/picture.dat: JPEG XL is not read here: save it as JPEG or PNG"
    assert rows["picture.dat"].error_kind == "unsupported"
    assert "drawing.svg" not in rows
    assert (done.rows, done.broken, done.passed_over) == (48, 4, 3)


def test_a_folder_without_images_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    with pytest.raises(UsageError) as refusal:
        score(classifier(), folder, tmp_path / "rows.csv")
    assert str(refusal.value) == f"{folder}: there is no image here"
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("text")
    with pytest.raises(UsageError) as refusal:
        score(classifier(), folder, tmp_path / "rows.csv")
    assert str(refusal.value) == f"{folder}: there is no image here (2 other files were passed over)"
    assert list(tmp_path.glob("*rows*")) == []


def test_the_most_pixels_that_an_image_may_have_are_the_classifiers(folder: Path, tmp_path: Path) -> None:
    with Classifier("colours", transport=FakeTransport(card(), brightest), max_pixels=80) as strict:
        done = score(strict, folder, tmp_path / "rows.csv")
    assert done.broken == done.rows == 43
    row = list(rows_of(done.out))[1]
    assert row.error.endswith("more than 80 pixels, the most that are decoded")
    assert row.error_kind == "too-large"
    with pytest.raises(UsageError) as refusal:
        Classifier("colours", transport=FakeTransport(card(), brightest), max_pixels=0)
    assert str(refusal.value) == "the most pixels that an image may have must be at least 1, not 0"


class Publishes(FakeTransport):
    """A newer version appears after three requests, and answers from then on where nobody asks for one."""

    def models(self) -> list[ServedVersion]:
        return [ServedVersion("colours", version, 0) for version in ("9", "10")]

    def infer(self, *arguments: Any) -> InferResult:
        answer = super().infer(*arguments)
        return InferResult(answer.values, "11" if len(self.requests) > 3 else "10")


def test_rows_of_two_versions_are_never_in_one_file(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as failure:
        score(Classifier("colours", transport=Publishes(card(), brightest, "10")), folder, tmp_path / "rows.csv", ScoreSettings(requests=1))
    assert str(failure.value).startswith(
        "version 11 of colours answered in a job that was begun with version 10: ask for one version (12 rows"
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_the_second_job_on_an_output_is_refused_at_once_and_says_who_holds_it(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    refused: list[int] = []

    def second(_progress: ScoreProgress) -> None:
        if refused:
            return
        child = os.fork()
        if child == 0:
            try:
                score(classifier(), folder, out, ScoreSettings(resume=True))
            except UsageError as error:
                os._exit(
                    42 if str(error) == f"{out}: process {os.getppid()} is writing this file: wait for it, or name another file" else 1
                )
            os._exit(1)
        refused.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    assert score(classifier(), folder, out, progress=second).rows == 43
    assert refused == [42]


def test_what_an_interruption_leaves_is_resumed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"

    def interrupt(progress: ScoreProgress) -> None:
        if progress.rows == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(classifier(), folder, out, ScoreSettings(checkpoint_s=1000), interrupt)
    done = score(classifier(), folder, out, ScoreSettings(resume=True))
    assert (done.rows, done.resumed_rows) == (43, 12)
    assert out.read_bytes() == score(classifier(), folder, tmp_path / "clean.csv").out.read_bytes()


@ALL_FORMATS
def test_a_finished_job_is_not_done_again(folder: Path, tmp_path: Path, suffix: str, forbid: Callable[[], Classifier]) -> None:
    out = tmp_path / f"rows.{suffix}"
    before = score(classifier(), folder, out, ScoreSettings(resume=True)).out.read_bytes()
    done = score(forbid(), folder, out, ScoreSettings(resume=True))
    assert (done.rows, done.broken, done.resumed_rows, done.version) == (43, 3, 43, "")
    assert out.read_bytes() == before


@pytest.fixture
def forbid() -> Callable[[], Classifier]:
    """A classifier that must not be asked."""

    def fails(_pixels: Any) -> Any:
        pytest.fail("asked")

    return lambda: Classifier("colours", transport=FakeTransport(card(), fails))
