"""Batch scoring against the fake transport: which files are rows, in which order, and what an interruption leaves."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline import Classifier
from sightline.errors import ServerError, ServerUnavailable, UsageError
from sightline.remarks import FLAT
from sightline.scoring import ScoreSettings, score_folder
from sightline.testing import FakeTransport
from sightline.transport import InferResult
from support.fake_network import brightest, card

COLOURS = {"red": "red", "lime": "green", "blue": "blue"}


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


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_is_a_row_in_the_order_of_the_paths_and_broken_ones_say_why(folder: Path, tmp_path: Path) -> None:
    done = score_folder(classifier(), folder, tmp_path / "rows.csv")
    rows = rows_of(done.out)
    assert (done.rows, done.broken, done.passed_over) == (43, 3, 2)
    assert len(rows) == 43
    names = [row["image"] for row in rows]
    assert names == sorted(names, key=lambda name: name.split("/"))
    for row in rows:
        colour = row["image"].rpartition("_")[2].removesuffix(".png")
        assert row["label"] == COLOURS.get(colour, "")
        assert bool(row["error"]) == (colour not in COLOURS) == (row["probability"] == "")
    assert next(row for row in rows if row["image"] == "part1/empty.PNG")["error"].endswith("empty.PNG: the file is empty")


@pytest.mark.parametrize("workers", [1, 3, 16])
def test_the_file_is_the_same_for_any_number_of_workers(folder: Path, tmp_path: Path, workers: int) -> None:
    first = score_folder(classifier(), folder, tmp_path / "a.csv", ScoreSettings(workers=2, top=2)).out.read_bytes()
    assert score_folder(classifier(), folder, tmp_path / "b.csv", ScoreSettings(workers=workers, top=2)).out.read_bytes() == first


def test_a_row_holds_as_many_classes_as_were_asked_for_but_no_more_than_there_are(folder: Path, tmp_path: Path) -> None:
    rows = rows_of(score_folder(classifier(), folder, tmp_path / "rows.csv", ScoreSettings(top=9)).out)
    more = ["label_2", "probability_2", "label_3", "probability_3"]
    assert list(rows[0]) == ["image", "label", "probability", *more, "version", "error", "remark"]


def test_the_row_of_an_image_of_one_colour_holds_its_label_and_says_that_there_is_nothing_to_read(folder: Path, tmp_path: Path) -> None:
    Image.linear_gradient("L").convert("RGB").save(folder / "lit.png")
    done = score_folder(classifier(), folder, tmp_path / "rows.csv")
    rows = rows_of(done.out)
    assert (done.rows, done.broken, done.remarked) == (44, 3, 40)
    for row in rows:
        colour = row["image"].rpartition("_")[2].removesuffix(".png")
        assert row["remark"] == (FLAT if colour in COLOURS else "")
        assert row["label"] == COLOURS.get(colour, "red" if row["image"] == "lit.png" else "")


def test_a_file_name_that_is_no_utf8_or_holds_quotes_still_is_one_row(folder: Path, tmp_path: Path) -> None:
    image = next(folder.rglob("000_red.png")).read_bytes()
    (folder / 'a "quoted",\nname.png').write_bytes(image)
    with open(bytes(folder) + b"/b\xff.png", "wb") as file:
        file.write(image)
    names = {row["image"]: row["label"] for row in rows_of(score_folder(classifier(), folder, tmp_path / "rows.csv").out)}
    assert names['a "quoted",\nname.png'] == "red"
    assert names["b\\udcff.png"] == "red"


def test_links_to_folders_are_not_followed_into_a_circle(folder: Path, tmp_path: Path) -> None:
    (folder / "part0" / "circle").symlink_to(folder)
    assert score_folder(classifier(), folder, tmp_path / "rows.csv").rows == 43


class Dies(FakeTransport):
    """Answers a few requests, then is gone."""

    def infer(self, *arguments: Any) -> InferResult:
        if len(self.requests) >= 5:
            raise ServerUnavailable("no Triton server answers at fake://")
        return super().infer(*arguments)


def test_when_the_server_dies_the_rows_so_far_are_kept_and_the_result_does_not_exist(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    with pytest.raises(ServerUnavailable) as failure:
        score_folder(Classifier("colours", transport=Dies(card(), brightest)), folder, out, ScoreSettings(workers=1))
    assert not out.exists()
    kept = rows_of(tmp_path / "rows.csv.part")
    assert len(kept) >= 16
    assert str(failure.value) == f"no Triton server answers at fake:// ({len(kept)} rows were written before that; they are in {out}.part)"
    assert isinstance(failure.value, ServerError)


def test_an_existing_file_is_not_overwritten_unless_asked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    out.write_text("precious")
    with pytest.raises(UsageError, match="the file exists already: choose another name, or overwrite it"):
        score_folder(classifier(), folder, out)
    assert out.read_text() == "precious"
    assert score_folder(classifier(), folder, out, ScoreSettings(overwrite=True)).rows == 43


@pytest.mark.parametrize(
    ("place", "out", "sentence"),
    [
        ("nowhere", "rows.csv", "nowhere: there is no such folder of images"),
        ("in", "rows.parquet", "rows are written as CSV, so the file's name must end with .csv"),
        ("in", "no/such/rows.csv", "no/such: there is no such folder to write rows.csv in"),
    ],
)
def test_a_job_that_cannot_work_is_refused_before_it_begins(folder: Path, tmp_path: Path, place: str, out: str, sentence: str) -> None:
    assert folder.is_dir()
    with pytest.raises(UsageError) as refusal:
        score_folder(classifier(), tmp_path / place, tmp_path / out)
    assert str(refusal.value).endswith(sentence)


def test_memory_holds_a_few_batches_not_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    content = Image.new("RGB", (4, 4), "red")
    content.save(folder / "0.png")
    for number in range(1, 600):
        (folder / f"{number}.png").hardlink_to(folder / "0.png")
    waiting: list[int] = []
    transport = FakeTransport(card(), brightest)
    at_once = 0

    def progress(rows: int) -> None:
        nonlocal at_once
        waiting.append(rows)
        at_once = max(at_once, sum(map(len, transport.requests)) - sum(waiting))

    score_folder(Classifier("colours", transport=transport), folder, tmp_path / "rows.csv", ScoreSettings(workers=2), progress)
    assert sum(waiting) == 600
    assert at_once <= 2 * 2 * 4
    assert np.concatenate(transport.requests).shape == (600, 8, 6, 3)


def test_a_file_is_a_row_by_its_content_whatever_it_is_called(folder: Path, tmp_path: Path) -> None:
    red = next(folder.rglob("000_red.png")).read_bytes()
    (folder / "no suffix").write_bytes(red)
    (folder / "photo.HEIC").write_bytes(red)
    (folder / "photo.jif").write_bytes(red)
    (folder / "scan.pbm").write_bytes(b"P1 2 1 0 1")
    (folder / "picture.dat").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40))
    (folder / "drawing.svg").write_text("<svg></svg>")
    done = score_folder(classifier(), folder, tmp_path / "rows.csv")
    rows = {row["image"]: row for row in rows_of(done.out)}
    assert [rows[name]["label"] for name in ("no suffix", "photo.HEIC", "photo.jif")] == ["red"] * 3
    assert rows["scan.pbm"]["error"] == ""
    assert rows["picture.dat"]["error"] == f"{folder}/picture.dat: JPEG XL is not read here: save it as JPEG or PNG"
    assert "drawing.svg" not in rows
    assert (done.rows, done.broken, done.passed_over) == (48, 4, 3)


def test_a_folder_without_images_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    with pytest.raises(UsageError) as refusal:
        score_folder(classifier(), folder, tmp_path / "rows.csv")
    assert str(refusal.value) == f"{folder}: there is no image in this folder"
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("text")
    with pytest.raises(UsageError) as refusal:
        score_folder(classifier(), folder, tmp_path / "rows.csv")
    assert str(refusal.value) == f"{folder}: there is no image in this folder (2 other files were passed over)"
    assert list(tmp_path.glob("rows*")) == []


def test_the_most_pixels_that_an_image_may_have_are_the_classifiers(folder: Path, tmp_path: Path) -> None:
    with Classifier("colours", transport=FakeTransport(card(), brightest), max_pixels=80) as strict:
        done = score_folder(strict, folder, tmp_path / "rows.csv")
    assert done.broken == done.rows == 43
    assert rows_of(done.out)[1]["error"].endswith("more than 80 pixels, the most that are decoded")
    with pytest.raises(UsageError) as refusal:
        Classifier("colours", transport=FakeTransport(card(), brightest), max_pixels=0)
    assert str(refusal.value) == "the most pixels that an image may have must be at least 1, not 0"
