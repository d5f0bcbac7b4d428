"""The commands of an application's author, of a batch job and of a measurement, against a real model on a real server."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sightline import Classifier, cli, reformat
from sightline.bench import find_perf_analyzer
from sightline.errors import ImageError, ModelNotFound, RowsFailed, UsageError
from sightline.remarks import FLAT
from sightline.seen import MARGIN, SIDE
from sightline_serving.server import Server
from support.line import Line

pytestmark = pytest.mark.triton


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, server: Server) -> str:
    return server.grpc_url if request.param == "grpc" else server.http_url


def test_classify_answers_for_each_image_in_order(url: str, digit_files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["classify", "mnist", *map(str, digit_files), "--url", url])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [Path(line[0]) for line in lines] == digit_files
    assert sum(line[1] == Path(line[0]).stem for line in lines) >= 8  # trained for four epochs only
    assert all(0 < float(line[2]) <= 1 for line in lines)


def test_classify_shows_as_many_classes_as_were_asked_for_and_speaks_json(
    url: str, digit_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(["classify", "mnist", str(digit_files[0]), "--url", url, "--json", "--top", "3"])
    document = json.loads(capsys.readouterr().out)
    assert (document["image"], document["model"], document["version"]) == (str(digit_files[0]), "mnist", "1")
    assert [candidate["probability"] for candidate in document["top"]] == sorted((c["probability"] for c in document["top"]), reverse=True)
    assert len(document["top"]) == 3


def test_an_image_that_cannot_be_read_gets_no_label_and_the_others_are_still_answered(
    url: str, digit_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(digit_files[0].read_bytes()[:60])
    with pytest.raises(ImageError, match=r"^1 of 3 images could not be read; they got no label$"):
        cli.run(["classify", "mnist", str(digit_files[0]), str(broken), str(digit_files[1]), "--url", url])
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()] == [str(digit_files[0]), str(digit_files[1])]
    assert printed.err.startswith(f"error: {broken}: damaged image (")


def test_ink_on_paper_photographed_sideways_is_the_same_digit(url: str, digit_files: list[Path], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    photos = []
    for file in digit_files:
        photos.append(tmp_path / f"{file.stem}.png")
        paper = ImageOps.invert(Image.open(file).convert("L")).convert("RGB")
        paper.transpose(Image.Transpose.ROTATE_90).save(photos[-1], exif=exif)
    with Classifier("mnist", url) as classifier:
        assert [guess.label for guess in classifier.classify(photos)] == [guess.label for guess in classifier.classify(digit_files)]
        # Arrays have no EXIF.
        turned_wrongly = [np.asarray(Image.open(photo).convert("L")) for photo in photos]
        assert (classifier.probabilities(turned_wrongly) != classifier.probabilities(digit_files)).any()


def test_an_empty_sheet_is_nothing_to_read_and_no_sure_digit(
    url: str, digit_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.jpg"
    Image.new("RGB", (300, 400), "white").save(sheet)
    cli.run(["classify", "mnist", str(sheet), "--url", url])
    printed = capsys.readouterr()
    assert printed.out == f"{sheet}  nothing to read here\n"
    assert printed.err.startswith(f"note: {sheet}: {FLAT}: ")
    cli.run(["classify", "mnist", str(sheet), str(digit_files[0]), "--url", url, "--json"])
    empty, digit = map(json.loads, capsys.readouterr().out.splitlines())
    assert (empty["remark"], digit["remark"]) == (FLAT, "")
    assert empty["top"][0]["label"] in "0123456789"


def test_show_draws_what_the_model_gets_and_its_answer(
    url: str, digit_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "seen.png"
    cli.run(["show", "mnist", str(digit_files[7]), "--out", str(out), "--url", url])
    with Classifier("mnist", url) as classifier:
        (guess,) = classifier.classify(digit_files[7])
        pixels = reformat(digit_files[7], classifier.card.preprocess)
    assert capsys.readouterr().out == f"{out}: {digit_files[7]} as mnist gets it: {guess.label}  {guess.probability:.4f}\n"
    with Image.open(out) as sheet:
        panel = np.asarray(sheet)[MARGIN : MARGIN + 28 * 16, SIDE + 2 * MARGIN : SIDE + 2 * MARGIN + 28 * 16]
    assert (panel[8::16, 8::16] == pixels).all()


def test_models_lists_what_is_served_with_its_input_and_card(url: str, line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["models", "--url", url])
    title, row, *_ = capsys.readouterr().out.splitlines()
    card = json.loads((line.repository / "mnist" / "card.json").read_text())
    assert title.split() == ["model", "version", "input", "classes", "labels", "card", "answered"]
    assert row.split()[:5] == ["mnist", "1", "28×28×1", "L", "10"]
    assert card["sha256"][:12] in row
    cli.run(["models", "--url", url, "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[0])["card"] == card["card"]


def test_a_model_that_is_not_there_is_a_sentence_that_says_how_to_list_them(url: str, digit_files: list[Path]) -> None:
    with pytest.raises(ModelNotFound) as refusal:
        cli.run(["classify", "fruit", str(digit_files[0]), "--url", url])
    assert "'fruit' is not found" in str(refusal.value)
    assert str(refusal.value).endswith(f"(`sightline models --url {url}` lists what it has)")


def test_score_writes_a_row_for_every_image_the_broken_ones_too(
    url: str, digit_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    for number in range(30):
        place = folder / str(number % 3)
        place.mkdir(parents=True, exist_ok=True)
        for file in digit_files:
            shutil.copy(file, place / f"{number:02}_{file.name}")
    (folder / "1" / "cut.png").write_bytes(digit_files[0].read_bytes()[:50])
    with pytest.raises(RowsFailed, match=r"^1 of 301 images could not be read: their rows in .*rows.csv say why$"):
        cli.run(["score", "mnist", str(folder), "--out", str(tmp_path / "rows.csv"), "--url", url])
    assert capsys.readouterr().out.startswith(
        f"301 rows in {tmp_path / 'rows.csv'} (1 with an error; 0 with a remark; 0 other files passed over; version 1, card "
    )
    with (tmp_path / "rows.csv").open(newline="") as file_of_rows:
        rows = list(csv.DictReader(file_of_rows))
    with Classifier("mnist", url) as classifier:
        expected = {file.name: guess.label for file, guess in zip(digit_files, classifier.classify(digit_files), strict=True)}
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)
    assert all(row["label"] == expected[row["image"].partition("_")[2]] for row in rows if not row["error"])
    assert [row["image"] for row in rows if row["error"]] == ["1/cut.png"]


def test_bench_says_what_is_missing(line: Line, server: Server, tmp_path: Path) -> None:
    find_perf_analyzer()  # `make test` installs it, so its absence is a failure and no reason to skip
    with pytest.raises(UsageError, match=r"there are no golden images of this model: say which images to send with --images FOLDER$"):
        cli.run(["bench", "mnist", "--repository", str(tmp_path), "--grpc-url", server.grpc_url])
    with pytest.raises(UsageError, match=r"the batch must be between 1 and 256, the model's largest, not 999$"):
        cli.run(["bench", "mnist", "--repository", str(line.repository), "--grpc-url", server.grpc_url, "--batch", "999"])
