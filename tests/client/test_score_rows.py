"""The formats of rows: what is written is what is read back, in every format and for every text, and damage is noticed."""

import csv
import io
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline import Classifier, reformat
from sightline.errors import DataError, ImageError, ImageErrorKind, MissingExtra, UsageError
from sightline.host.spreadsheet import spreadsheet_original, spreadsheet_safe
from sightline.host.text import encodable
from sightline.image import MAX_BYTES
from sightline.scoring import ERROR_KINDS, Ranked, Row, ScoreSettings, rows_of, score
from sightline.scoring.entries import Entry
from sightline.scoring.formats import RowFormat
from sightline.scoring.parquet import write_parquet
from sightline.scoring.rows import row_of
from sightline.testing import FakeTransport
from support.fake_network import brightest, card
from support.score_formats import SUFFIXES

CORPUS = Path(__file__).resolve().parents[1] / "contract" / "corpus"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
dangerous = st.builds("{}{}{}".format, st.sampled_from(["", "'", "''"]), st.sampled_from(list("=+-@\t\r\n＝＋－＠")), texts)
words = st.one_of(texts, dangerous)
probabilities = st.integers(0, 1_000_000).map(lambda millionths: millionths / 1_000_000)
good = st.builds(
    Row,
    image=words,
    top=st.lists(st.builds(Ranked, words.filter(bool), probabilities), min_size=2, max_size=2).map(tuple),
    version=st.just("3"),
    remark=words,
    truth=st.one_of(st.none(), words.filter(bool)),
)
broken = st.builds(Row, image=words, error_kind=st.sampled_from(ERROR_KINDS), error=words.filter(bool), truth=st.none())
rows_strategy = st.lists(st.one_of(good, broken), max_size=6)


def written(rows: list[Row], out: Path, *, raw_cells: bool = False) -> Path:
    row_format = RowFormat("csv" if out.suffix == ".csv" else "jsonl", 2, labelled=True, raw_cells=raw_cells)
    content = row_format.header() + b"".join(row_format.encoded(row)[0] for row in rows)
    if out.suffix == ".parquet":
        part = out.with_suffix(".part")
        part.write_bytes(content)
        write_parquet(part, out, row_format)
    else:
        out.write_bytes(content)
    return out


@settings(max_examples=40, deadline=None)
@given(rows_strategy)
def test_rows_are_read_back_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    for name in (f"a.{suffix}" for suffix in SUFFIXES):
        assert list(rows_of(written(rows, folder / name))) == rows, name
    assert list(rows_of(written(rows, folder / "raw.csv", raw_cells=True))) == rows


@given(words)
def test_a_guard_is_taken_off_to_the_letter(cell: str) -> None:
    harmless = spreadsheet_safe(cell)
    assert spreadsheet_original(harmless) == cell
    assert not harmless or harmless[0] not in "=+-@\t\r\n＝＋－＠"


def test_cells_that_are_formulas_are_made_harmless_and_it_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["=HYPERLINK(1).png", "+1.png", "-1.png", "@SUM.png", "\tx.png", "'=quoted.png", "plain.png", "a=b.png"]
    for name in names:
        (folder / name).write_bytes(b"no image")
    with Classifier("colours", transport=FakeTransport(card(), brightest)) as classifier:
        done = score(classifier, folder, tmp_path / "rows.csv")
        raw = score(classifier, folder, tmp_path / "raw.csv", ScoreSettings(raw_cells=True))
        assert (done.guarded, raw.guarded) == (6, 0)
        lines = score(classifier, folder, tmp_path / "rows.jsonl").out.read_text().splitlines()
    with done.out.open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [
            "'\tx.png",
            "''=quoted.png",
            "'+1.png",
            "'-1.png",
            "'=HYPERLINK(1).png",
            "'@SUM.png",
            "a=b.png",
            "plain.png",
        ]
    with raw.out.open(newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == set(names)
    assert {row.image for row in rows_of(done.out)} == {row.image for row in rows_of(raw.out)} == set(names)
    assert {json.loads(line)["image"] for line in lines} == set(names)


def test_the_bytes_of_each_format_are_these(tmp_path: Path) -> None:
    rows = [
        Row("a/1.png", (Ranked("cat", 1.0), Ranked("dog, big", 0.000001)), "3", remark="even", truth="cat"),
        Row("b.png", error_kind="empty", error="b.png: the file is empty"),
    ]
    assert written(rows, tmp_path / "a.csv").read_text() == (
        "image,label,probability,label_2,probability_2,version,error,remark,error_kind,truth\n"
        'a/1.png,cat,1.000000,"dog, big",0.000001,3,,even,,cat\n'
        "b.png,,,,,,b.png: the file is empty,,empty,\n"
    )
    assert written(rows, tmp_path / "a.jsonl").read_text() == (
        '{"image": "a/1.png", "label": "cat", "probability": 1.000000, "top": [{"label": "cat", "probability": 1.000000}, '
        '{"label": "dog, big", "probability": 0.000001}], "version": "3", "error_kind": null, "error": null, "remark": "even", '
        '"truth": "cat"}\n'
        '{"image": "b.png", "label": null, "probability": null, "top": [], "version": null, "error_kind": "empty", '
        '"error": "b.png: the file is empty", "remark": null, "truth": null}\n'
    )
    pq = pytest.importorskip("pyarrow.parquet", reason="the base install has no Parquet")
    table = pq.read_table(written(rows, tmp_path / "a.parquet"))
    assert {field.name: str(field.type) for field in table.schema} == {
        "image": "string",
        "label": "string",
        "probability": "double",
        "top": "list<element: struct<label: string, probability: double>>",
        "version": "string",
        "error_kind": "string",
        "error": "string",
        "remark": "string",
        "truth": "string",
    }
    assert table.column("probability").to_pylist() == [1.0, None]
    assert table.column("error_kind").to_pylist() == [None, "empty"]
    assert pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"", "row 1 is none that a job writes: the first line does not name the columns of a job"),
        ("a.csv", b"name,class\n", "row 1 is none that a job writes: the first line does not name the columns of a job"),
        (
            "a.csv",
            b"image,label,probability,version,error,remark,error_kind\na,b\n",
            "row 1 is none that a job writes: 2 cells instead of 7",
        ),
        ("a.csv", b"image,label,probability,version,error,remark,error_kind\n\xff", "row 1 is none that a job writes: 'utf-8' codec"),
        ("a.jsonl", b"{}\n", "row 1 is none that a job writes: image: Field required"),
        ("a.jsonl", b"[" * 100_000, "row 1 is none that a job writes: Invalid JSON: recursion limit exceeded"),
        ("a.jsonl", b"x" * 1_100_000, "row 1 is none that a job writes: a line of more than 1,048,576 characters"),
        ("a.parquet", b"PAR1", "row 1 is none that a job writes: Parquet file size is 4 bytes"),
    ],
)
def test_what_no_job_wrote_is_an_error_that_names_the_row(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="the base install has no Parquet")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as failure:
        list(rows_of(tmp_path / name))
    assert str(failure.value).startswith(f"{tmp_path}/{name}: {sentence}")


def test_rows_of_a_file_that_is_not_there_or_of_no_such_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the rows cannot be read: No such file or directory"):
        list(rows_of(tmp_path / "none.csv"))
    with pytest.raises(UsageError, match=r"must end with \.csv, \.jsonl or \.parquet"):
        rows_of(tmp_path / "rows.txt")


def test_parquet_without_pyarrow_is_refused_before_the_job_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "a.png").write_bytes(b"")
    with Classifier("colours", transport=FakeTransport(card(), brightest)) as classifier, pytest.raises(MissingExtra) as missing:
        score(classifier, tmp_path, tmp_path / "rows.parquet")
    assert str(missing.value) == "rows as Parquet need pyarrow: pip install 'sightline[score]'"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def encoded(kind: str, size: tuple[int, int], mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return buffer.getvalue()


KINDS: list[tuple[bytes | None, ImageErrorKind]] = [
    (None, "unreadable-file"),
    (b"", "empty"),
    (bytes(MAX_BYTES + 1), "too-large"),
    (encoded("PNG", (40, 60)), "too-large"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "unsupported"),
    (encoded("TIFF", (5, 5), "F"), "unsupported"),
    (b"text", "image"),
    (encoded("JPEG", (20, 20))[:-100], "image"),
]


@pytest.mark.parametrize("name", ["a.png", "the file is empty", "x: cannot be read: y.png"])
@pytest.mark.parametrize(("content", "kind"), KINDS)
def test_each_error_has_its_kind_whatever_the_file_is_called(
    tmp_path: Path, content: bytes | None, kind: ImageErrorKind, name: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ImageError) as refusal:
        reformat(file, card().preprocess, max_pixels=1000)
    carried = pickle.loads(pickle.dumps(refusal.value))
    assert (refusal.value.kind, carried.kind, str(carried)) == (kind, kind, str(refusal.value))
    row = row_of(Entry(name, file), refusal.value, labelled=False)
    assert (row.error_kind, row.error) == (kind, str(refusal.value))
    assert row.error_kind in ERROR_KINDS


def test_the_corpus_of_odd_files_has_these_kinds_of_errors(tmp_path: Path) -> None:
    with Classifier("colours", transport=FakeTransport(card(), brightest)) as classifier:
        done = score(classifier, CORPUS, tmp_path / "rows.csv")
    kinds: dict[str, set[str]] = {}
    for row in rows_of(done.out):
        kinds.setdefault(row.error_kind, set()).add(row.image)
    assert {kind: sorted(images) for kind, images in kinds.items() if kind} == {
        "empty": ["empty.png"],
        "image": ["text.png", "truncated.jpg", "truncated.png", "wrong-checksum.png"],
        "too-large": ["3000x40000.png", "bomb.png", "too-long.png"],
        "unsupported": ["float.tif", "int32.tif"],
    }


def test_a_name_becomes_text_that_utf8_can_hold() -> None:
    assert encodable("a\udcff.png") == "a\\udcff.png"
    assert encodable("ünï 名") == "ünï 名"
