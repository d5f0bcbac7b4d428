"""A report on labelled images counts every row once, drops no truth, and says what is in no figure."""

import builtins
import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.errors import DataError, MachineError, MissingExtra, UsageError
from sightline.labelled import LabelledReport, LabelledRow, demand_reportable, labelled_report, show_report, write_report
from sightline.labelled.figure import confusion_figure, confusion_png
from sightline.labelled.report import MOST_MISTAKES
from sightline.labelled.tables import accuracy_lines, notes
from sightline.labelled.truths import MOST_UNKNOWN, Truths

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")

LABELS = ("apple", "maple leaf", "=pear")


def answered(truth: str, label: str, probability: float = 0.5, image: str = "") -> LabelledRow:
    return LabelledRow(image or f"{truth}/{label}.png", truth, label, probability, "")


def unreadable(truth: str) -> LabelledRow:
    return LabelledRow(f"{truth}/broken.png", truth, "", 0.0, f"{truth}/broken.png: the file is empty")


ROWS = [
    *[answered("apple", "apple")] * 6,
    answered("apple", "=pear", 0.7, "apple/1.png"),
    answered("apple", "=pear", 0.9, "apple/2.png"),
    *[answered("maple leaf", "maple leaf")] * 3,
    answered("maple leaf", "apple", 0.8, "maple leaf/1.png"),
    *[unreadable("maple leaf")] * 2,
    *[answered("Maple_Leaf", "maple leaf")] * 3,
    unreadable("Maple_Leaf"),
    answered("zebra", "apple"),
    answered("", "apple"),
    unreadable(""),
]


def report_of(rows: list[LabelledRow] = ROWS) -> LabelledReport:
    return labelled_report(rows, LABELS)


def cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_every_row_is_counted_once_and_the_parts_make_the_whole() -> None:
    report = report_of()
    assert (report.answered, report.correct, report.unreadable, report.unknown_images, report.without_truth) == (12, 9, 2, 5, 2)
    assert report.images == len(ROWS) == 12 + 2 + 5 + 2
    assert report.accuracy == 9 / 12
    assert report.accuracy_with_unreadable == 9 / 14
    assert report.interval_95 == pytest.approx((0.4677, 0.9111), abs=1e-4)
    assert report.interval_with_unreadable_95 == pytest.approx((0.3876, 0.8366), abs=1e-4)
    assert report.confusion == {(0, 0): 6, (0, 2): 2, (1, 1): 3, (1, 0): 1}
    assert report.mistakes_count == 3


def test_the_figures_of_a_class_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    labels = tuple(f"class {number}" for number in range(7))
    pairs = [(labels[random.integers(6)], labels[random.choice([0, 1, 2, 3, 5, 6])]) for _ in range(300)]
    report = labelled_report([answered(truth, label) for truth, label in pairs], labels)
    expected = metrics.precision_recall_fscore_support(*zip(*pairs, strict=True), labels=labels, zero_division=np.nan)
    nothing = float("nan")
    figures = [
        [nothing if value is None else value for value in (each.precision, each.recall, each.f1, each.support)] for each in report.classes
    ]
    np.testing.assert_allclose(np.array(figures, float), np.array(expected, float).T)
    assert (report.classes[4].precision, report.classes[4].f1) == (None, 0.0)  # never answered
    assert (report.classes[6].recall, report.classes[6].f1) == (None, 0.0)  # never shown
    truths, answers = zip(*pairs, strict=True)
    assert report.balanced_accuracy == pytest.approx(metrics.recall_score(truths, answers, labels=labels[:6], average="macro"))
    assert report.macro_f1 == pytest.approx(metrics.f1_score(truths, answers, labels=labels[:6], average="macro"))


def test_a_truth_that_is_no_label_is_told_with_the_nearest_label() -> None:
    report = report_of()
    assert notes(report) == [
        "'Maple_Leaf' is no label of the model (4 images): is 'maple leaf' meant?",
        "'zebra' is no label of the model (1 image)",
        "of 2 images nobody says what they show",
    ]
    first = report.unknown_truths[0]
    assert (first.truth, first.images, first.unreadable, first.nearest, first.answers) == (
        "Maple_Leaf",
        4,
        1,
        "maple leaf",
        {"maple leaf": 3},
    )


@pytest.mark.parametrize(
    ("truth", "nearest"),
    [("aple", "apple"), ("APPLE", "apple"), ("maple-leaf", "maple leaf"), ("pear", "=pear"), ("x" * 9000, ""), ("\udcff", "")],
)
def test_the_nearest_label_is_the_one_that_was_meant(truth: str, nearest: str) -> None:
    truths = Truths(LABELS)
    assert truths.index_of(truth) is None
    assert truths.nearest(truth) == nearest


def test_a_folder_whose_letters_a_mac_decomposed_is_the_label() -> None:
    truths = Truths(("Br\u00f6tchen", "Br\u00f6tche"))
    assert truths.index_of("Bro\u0308tchen") == 0
    assert truths.index_of("br\u00f6tchen") is None
    two_forms = Truths(("\u00f6", "o\u0308"))
    assert (two_forms.index_of("\u00f6"), two_forms.index_of("o\u0308")) == (0, 1)


def test_the_mistakes_are_listed_surest_first_and_equally_sure_ones_in_the_order_of_the_rows() -> None:
    rows = [*ROWS, answered("apple", "=pear", 0.9, "apple/3.png")]
    assert [row.image for row in report_of(rows).mistakes] == ["apple/2.png", "apple/3.png", "maple leaf/1.png", "apple/1.png"]


def test_a_million_rows_take_the_memory_of_their_classes_and_the_surest_mistakes_are_kept() -> None:
    def rows() -> Iterator[LabelledRow]:
        for number in range(60_000):
            yield answered("apple", "maple leaf", number / 60_000, f"apple/{number}.png")

    tracemalloc.start()
    report = labelled_report(rows(), LABELS)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (report.mistakes_count, len(report.mistakes)) == (60_000, MOST_MISTAKES)
    assert [report.mistakes[at].image for at in (0, -1)] == ["apple/59999.png", f"apple/{60_000 - MOST_MISTAKES}.png"]
    assert most_bytes < 10_000_000


def test_of_very_many_truths_that_are_no_label_the_images_are_still_counted() -> None:
    report = labelled_report((answered(f"folder {number}", "apple") for number in range(MOST_UNKNOWN + 50)), LABELS)
    assert (len(report.unknown_truths), report.unlisted_truths_images, report.unknown_images) == (MOST_UNKNOWN, 50, MOST_UNKNOWN + 50)
    assert notes(report)[-1] == f"{MOST_UNKNOWN + 50 - 30:,} more images have other truths that are no label of the model"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (answered("apple", "plum"), "apple/plum.png: the row's answer 'plum' is no label of the model: another model wrote these rows"),
        (answered("apple", ""), "apple/.png: the row has neither a label nor an error: it was not written by `sightline score`"),
        (answered("apple", "apple", float("nan")), "apple/apple.png: the row's probability is nan, not between 0 and 1"),
        (answered("zebra", "apple", 1.5), "zebra/apple.png: the row's probability is 1.5, not between 0 and 1"),
    ],
)
def test_a_row_that_this_model_did_not_make_is_refused(row: LabelledRow, sentence: str) -> None:
    with pytest.raises(DataError) as refusal:
        report_of([*ROWS, row])
    assert str(refusal.value) == sentence


def test_the_folder_of_a_report_holds_what_the_rows_say(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write_report(report_of(), folder, "fruit version 3 on photos")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert {
        name: summary[name] for name in ("schema", "subject", "images", "answered", "correct", "accuracy", "unreadable", "mistakes")
    } == {
        "schema": 1,
        "subject": "fruit version 3 on photos",
        "images": 21,
        "answered": 12,
        "correct": 9,
        "accuracy": 0.75,
        "unreadable": 2,
        "mistakes": 3,
    }
    assert summary["unknown_truths"] == [
        {"truth": "Maple_Leaf", "images": 4, "unreadable": 1, "nearest": "maple leaf"},
        {"truth": "zebra", "images": 1, "unreadable": 0, "nearest": None},
    ]
    assert summary["most_confused"][0] == {"truth": "apple", "answer": "=pear", "images": 2}
    assert cells(folder / "classes.csv") == [
        ["label", "support", "unreadable", "answered", "correct", "precision", "recall", "f1"],
        ["apple", "8", "0", "7", "6", "0.857143", "0.750000", "0.800000"],
        ["maple leaf", "4", "2", "3", "3", "1.000000", "0.750000", "0.857143"],
        ["'=pear", "0", "0", "2", "0", "0.000000", "", "0.000000"],
    ]
    assert cells(folder / "confusion.csv") == [
        ["truth", "truth_is_label", "answer", "images"],
        ["apple", "true", "apple", "6"],
        ["apple", "true", "'=pear", "2"],
        ["maple leaf", "true", "apple", "1"],
        ["maple leaf", "true", "maple leaf", "3"],
        ["maple leaf", "true", "", "2"],
        ["Maple_Leaf", "false", "maple leaf", "3"],
        ["Maple_Leaf", "false", "", "1"],
        ["zebra", "false", "apple", "1"],
    ]
    assert cells(folder / "mistakes.csv") == [
        ["image", "truth", "label", "probability"],
        ["apple/2.png", "apple", "'=pear", "0.900000"],
        ["maple leaf/1.png", "maple leaf", "apple", "0.800000"],
        ["apple/1.png", "apple", "'=pear", "0.700000"],
    ]
    assert Image.open(folder / "confusion.png").format == "PNG"
    assert sorted(path.name for path in folder.iterdir()) == [
        "classes.csv",
        "confusion.csv",
        "confusion.png",
        "mistakes.csv",
        "summary.json",
    ]


def test_every_member_of_the_summary_is_described(tmp_path: Path) -> None:
    write_report(report_of(), tmp_path / "report")
    page = (Path(__file__).resolve().parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
    section = page.partition("## A report on labelled images")[2].partition("\n## ")[0]
    assert [name for name in json.loads((tmp_path / "report" / "summary.json").read_text()) if f"`{name}`" not in section] == []


def test_the_figure_shows_each_count_and_the_rows_and_column_of_what_is_no_class() -> None:
    (axes,) = confusion_figure(report_of(), "fruit").axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [*LABELS, "Maple_Leaf (no label)", "zebra (no label)"]
    assert [text.get_text() for text in axes.get_xticklabels()] == [*LABELS, "unreadable"]
    shown = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "6", (0, 2): "2", (1, 0): "1", (1, 1): "3", (1, 3): "2", (3, 1): "3", (3, 3): "1", (4, 0): "1"}


def test_a_figure_of_many_classes_names_those_that_are_confused_most() -> None:
    labels = tuple(f"class {number}" for number in range(1000))
    rows = (
        [answered(label, label) for label in labels]
        + [answered("class 7", "class 900")] * 5
        + [answered("class 8", "class 9"), unreadable("class 7")]
    )
    figure = confusion_figure(labelled_report([*rows, answered("zebra", "class 1")], labels), "")
    heat, listed = figure.axes
    assert [text.get_text() for text in listed.get_yticklabels()] == ["class 7 → class 900", "class 8 → class 9"]
    assert heat.get_title() == "1,000 classes in the order of the labels; a square is 5 classes wide"
    assert figure.get_suptitle().splitlines()[1:] == [
        "1,006 images, and 1 unreadable",
        "images with truths that are no label, not drawn: 1",
    ]


@pytest.mark.parametrize("classes", [2, 10, 24, 31, 1000])
def test_the_figure_of_any_number_of_classes_fits_on_a_screen(classes: int) -> None:
    labels = tuple(f"class {number} of a long name" for number in range(classes))
    png = confusion_png(labelled_report([answered(label, labels[0]) for label in labels], labels), "a model")
    with Image.open(io.BytesIO(png)) as image:
        assert 400 < min(image.size) < max(image.size) < 2300


def test_labels_that_look_like_formulas_or_are_of_another_script_are_drawn_without_a_complaint(recwarn: pytest.WarningsRecorder) -> None:
    labels = ("$\\frac$", "漢字", "a_b^c", "\U0001f34e")
    for many in ((), tuple(f"class {number}" for number in range(40))):
        assert confusion_png(
            labelled_report([answered(labels[0], labels[1]), answered("$x", labels[2])], labels + many), "$\\sqrt"
        ).startswith(b"\x89PNG")
    assert [warning for warning in recwarn if "Glyph" in str(warning.message)] == []


def test_the_terminal_shows_accuracy_classes_and_mistakes_and_tells_what_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    show_report(report_of())
    printed = capsys.readouterr()
    lines = [line.split() for line in printed.out.splitlines()]
    assert printed.out.splitlines()[:2] == [
        "accuracy 75.00% (95 %: 46.77% to 91.11%) of 12 answered images",
        "with the 2 unreadable ones as wrong answers: 64.29% (95 %: 38.76% to 83.66%) of 14",
    ]
    assert ["maple", "leaf", "4", "75.00%", "100.00%", "85.71%", "2"] in lines
    assert ["=pear", "0", "–", "0.00%", "0.00%", "0"] in lines
    assert "confused 2 times: apple → =pear" in printed.out
    assert ["apple/2.png", "apple", "=pear", "0.9000"] in lines
    assert printed.err.splitlines() == [f"note: {sentence}" for sentence in notes(report_of())]


def test_rows_of_which_none_has_a_known_truth_have_no_accuracy(tmp_path: Path) -> None:
    report = report_of([answered("zebra", "apple"), unreadable("apple")])
    assert accuracy_lines(report) == ["no image that could be read shows a class of the model: there is no accuracy"]
    assert (report.accuracy, report.interval_95, report.macro_f1, report.balanced_accuracy) == (None, None, None, None)
    write_report(report, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert (summary["accuracy"], summary["interval_95"], summary["accuracy_with_unreadable"]) == (None, None, 0.0)
    write_report(labelled_report([], LABELS), tmp_path)


def test_a_folder_whose_name_is_no_utf8_is_written_as_python_calls_it(tmp_path: Path) -> None:
    write_report(report_of([answered("b\udcff", "apple"), answered("apple", "=pear", image="b\udcff.png")]), tmp_path, "on b\udcff")
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["unknown_truths"][0]["truth"] == "b\\udcff"
    assert cells(tmp_path / "mistakes.csv")[1][0] == "b\\udcff.png"
    assert cells(tmp_path / "confusion.csv")[2][0] == "b\\udcff"


def test_what_would_keep_a_report_from_being_written_is_told_before_the_job(tmp_path: Path) -> None:
    demand_reportable(tmp_path / "report")
    write_report(report_of(), tmp_path / "report")
    with pytest.raises(UsageError) as refusal:
        demand_reportable(tmp_path / "report")
    assert str(refusal.value) == f"{tmp_path}/report: there is a report already (summary.json): choose another folder, or overwrite it"
    assert refusal.value.settings == ("overwrite",)
    demand_reportable(tmp_path / "report", overwrite=True)
    (tmp_path / "file").write_text("text")
    with pytest.raises(UsageError, match="file: this is a file: name a folder for the report"):
        demand_reportable(tmp_path / "file")
    with pytest.raises(MachineError, match="the folder for the report cannot be made: No such file or directory"):
        demand_reportable(tmp_path / "no" / "report")


@pytest.mark.parametrize("package", ["scipy", "matplotlib"])
def test_a_missing_package_is_told_before_the_job(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def absent(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return imported(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtra) as refusal:
        demand_reportable(tmp_path / "report")
    assert str(refusal.value) == f"a report on labelled images needs {package}: pip install 'sightline[score]'"
    assert not (tmp_path / "report").exists()
