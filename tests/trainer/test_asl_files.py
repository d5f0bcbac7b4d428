"""Sign Language MNIST from CSV: every cell checked, the first wrong line named, fetched through kagglehub, never split at random."""

import gzip
import hashlib
import http.server
import io
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from kagglesdk import kaggle_env

from sightline.errors import DataError
from sightline_training.datasets import asl, fetch
from sightline_training.datasets.asl import HANDLE, HEADER, LETTERS, open_asl, read_csv

TRAIN, TEST = "sign_mnist_train.csv", "sign_mnist_test.csv"
Rows = list[list[object]]


def rows_of(count: int, seed: int = 7) -> Rows:
    """Good rows: each letter in turn, random pixels of one, two and three digits."""
    numbers = [ord(letter) - ord("A") for letter in LETTERS]
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 784))
    return [[numbers[at % 24], *pixels[at].tolist()] for at in range(count)]


def csv_of(rows: Rows, end: bytes = b"\n") -> bytes:
    return end.join([HEADER, *(",".join(map(str, row)).encode() for row in rows)]) + end


@pytest.fixture
def small_asl(tmp_path: Path) -> Path:
    """A data folder with two good files: 60 training rows, gzipped, and 30 test rows, plain."""
    folder = tmp_path / "asl"
    folder.mkdir()
    (folder / f"{TRAIN}.gz").write_bytes(gzip.compress(csv_of(rows_of(60)), 1))
    (folder / TEST).write_bytes(csv_of(rows_of(30, seed=8)))
    return tmp_path


def test_gzipped_and_plain_files_give_their_images_and_letters(small_asl: Path) -> None:
    dataset = open_asl(small_asl)
    assert [(images.split, len(images)) for images in dataset.splits] == [("train", 60), ("test", 30)]
    last = rows_of(30, seed=8)[29]
    assert dataset.judged.open(29).mode == "L"
    assert np.asarray(dataset.judged.open(29)).ravel().tolist() == last[1:]
    assert [LETTERS[index] for index in dataset.judged.labels[:12]] == list("ABCDEFGHIKLM")
    assert dataset.judged.labels.tolist() == [at % 24 for at in range(30)]


def test_no_validation_split_is_made_of_the_training_file_and_nothing_reported_chooses_an_epoch(small_asl: Path) -> None:
    dataset = open_asl(small_asl)
    assert dataset.valid is None
    assert dataset.choosing is None
    assert dataset.judged is dataset.test


def test_windows_line_ends_and_a_last_line_without_an_end_are_read_alike(tmp_path: Path) -> None:
    rows, path = rows_of(30), tmp_path / "a.csv"
    path.write_bytes(csv_of(rows))
    planes, labels = read_csv(path)
    for content in (csv_of(rows, b"\r\n"), csv_of(rows).removesuffix(b"\n")):
        path.write_bytes(content)
        again = read_csv(path)
        assert np.array_equal(again[0], planes)
        assert np.array_equal(again[1], labels)


def test_a_line_is_read_alike_wherever_the_blocks_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(csv_of(rows_of(20), b"\r\n"))
    content = read_csv(path)
    for size in (997, 3001, 8192):
        monkeypatch.setattr(asl, "BLOCK_BYTES", size)
        cut = read_csv(path)
        assert np.array_equal(cut[0], content[0])
        assert np.array_equal(cut[1], content[1])


def changed(line: int, change: Callable[[list[object]], object]) -> bytes:
    """A good file but for one change in that line (the header is line 1)."""
    rows = rows_of(40)
    change(rows[line - 2])
    return csv_of(rows)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (changed(7, lambda row: row.pop()), "line 7: expected 785 values, a label and 784 pixels; found 784."),
        (changed(2, lambda row: row.append(3)), "line 2: expected 785 values, a label and 784 pixels; found 786."),
        (changed(9, lambda row: row.clear()), "line 9: expected 785 values, a label and 784 pixels; found 0."),
        (changed(5, lambda row: row.insert(3, "1\n2")), "line 5: expected 785 values, a label and 784 pixels; found 4."),
        (changed(41, lambda row: row.__setitem__(0, 9)), "line 41: label 9 is no letter; expected 0 to 24 (A to Y) without 9 (J)."),
        (changed(12, lambda row: row.__setitem__(0, 25)), "line 12: label 25 is no letter; expected 0 to 24 (A to Y) without 9 (J)."),
        (changed(12, lambda row: row.__setitem__(0, "B")), "line 12: label B is no letter; expected 0 to 24 (A to Y) without 9 (J)."),
        (changed(12, lambda row: row.__setitem__(0, "")), "line 12: label '' is no letter; expected 0 to 24 (A to Y) without 9 (J)."),
        (changed(3, lambda row: row.__setitem__(5, 256)), "line 3: pixel5 is 256; expected a whole number from 0 to 255."),
        (changed(3, lambda row: row.__setitem__(784, -1)), "line 3: pixel784 is -1; expected a whole number from 0 to 255."),
        (changed(3, lambda row: row.__setitem__(1, "1.5")), "line 3: pixel1 is 1.5; expected a whole number from 0 to 255."),
        (changed(3, lambda row: row.__setitem__(1, "")), "line 3: pixel1 is ''; expected a whole number from 0 to 255."),
        (changed(3, lambda row: row.__setitem__(1, " 7")), "line 3: pixel1 is ' 7'; expected a whole number from 0 to 255."),
        (changed(3, lambda row: row.__setitem__(1, "1234")), "line 3: pixel1 is 1234; expected a whole number from 0 to 255."),
        (changed(3, lambda row: row.__setitem__(1, "9" * 5000)), "line 3: pixel1 is 99999999999999999999; expected a whole number"),
        (changed(3, lambda row: row.__setitem__(1, "\x1b[2J")), r"line 3: pixel1 is '\x1b[2J'; expected a whole number from 0 to 255."),
    ],
)
def test_a_wrong_row_is_refused_with_its_line_and_what_was_expected(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_csv(path)
    assert str(refused.value).startswith(f"{path}, {sentence}")


def test_of_several_wrong_lines_the_first_is_named_even_in_a_later_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asl, "BLOCK_BYTES", 4096)
    rows = rows_of(40)
    rows[33][0], rows[30][700], rows[35] = 9, 300, [1]
    path = tmp_path / "a.csv"
    path.write_bytes(csv_of(rows))
    with pytest.raises(DataError) as refused:
        read_csv(path)
    assert str(refused.value) == f"{path}, line 32: pixel700 is 300; expected a whole number from 0 to 255."


@pytest.mark.parametrize(
    ("content", "begins"),
    [
        (b"", "''"),
        (b"3,107,118\n", "'3,107,118\\n'"),
        (b"\xef\xbb\xbf" + HEADER, "'\\xef\\xbb\\xbflabel,pixel1"),
        (HEADER + b",more\n", "'label,pix"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, content: bytes, begins: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_csv(path)
    assert str(refused.value).startswith(f"{path}, line 1: expected the header label,pixel1,pixel2,...,pixel784; it begins with {begins}")


def test_a_header_without_a_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + b"\n")
    with pytest.raises(DataError) as refused:
        read_csv(path)
    assert str(refused.value) == f"{path}: a header without a row."


@pytest.mark.parametrize("damage", ["cut", "changed", "no gzip at all"])
def test_a_damaged_gzip_file_is_refused_in_one_sentence(small_asl: Path, damage: str) -> None:
    path = small_asl / "asl" / f"{TRAIN}.gz"
    packed = bytearray(path.read_bytes())
    if damage == "cut":
        del packed[-2000:]
    elif damage == "changed":
        packed[len(packed) // 2] ^= 0x55
    else:
        packed[2:] = b"\xff" * 100
    path.write_bytes(packed)
    with pytest.raises(DataError) as refused:
        open_asl(small_asl)
    message = str(refused.value)
    # A changed byte may also unpack, and shows then in a line.
    assert message.startswith((f"{path}: damaged gzip file (", f"{path}, line "))
    assert "\n" not in message


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    with gzip.open(path, "wb", 1) as bomb:
        bomb.write(HEADER + b"\n")
        for _ in range(300):
            bomb.write(b"1" * 1024 * 1024)
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"line 2: expected 785 values, a label and 784 pixels; found 1\.$"):
        read_csv(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 50


def test_more_rows_than_such_a_file_may_have_are_refused(small_asl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asl, "MAX_ROWS", 59)
    path = small_asl / "asl" / f"{TRAIN}.gz"
    with pytest.raises(DataError) as refused:
        open_asl(small_asl)
    assert str(refused.value) == f"{path}: more than 59 rows, the most that such a file may have."


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        read_csv(tmp_path)
    assert str(refused.value) == f"{tmp_path}: cannot be read: Is a directory"


class Kaggle:
    """What a web server on this machine gives for a dataset. kagglehub, its cache and its client are the real ones."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []

    def bundle(self) -> bytes:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name, file in self.files.items():
                archive.writestr(name, file)
        return content.getvalue()


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kaggle]:
    """The server, in place of Kaggle's, publishing two small files and keeping to their checksums."""
    published = Kaggle()
    published.files = {TRAIN: csv_of(rows_of(60)), f"below/{TEST}": csv_of(rows_of(30, seed=8)), "a.png": b"image"}

    class Quiet(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            published.asked.append(self.path)
            content = published.bundle()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    sums = {TRAIN: published.files[TRAIN], TEST: published.files[f"below/{TEST}"]}
    monkeypatch.setattr(asl, "SHA256", {name: hashlib.sha256(content).hexdigest() for name, content in sums.items()})
    _no_account(tmp_path, monkeypatch)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _endpoint(monkeypatch, server.server_address[1])
        yield published
        server.shutdown()


def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_API_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "nobody"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))


def _endpoint(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, f"http://127.0.0.1:{port}")


def test_missing_files_are_fetched_once_wherever_in_the_dataset_they_lie(
    kaggle: Kaggle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    fetched = open_asl(here)
    assert [len(images) for images in fetched.splits] == [60, 30]
    assert sorted(path.name for path in (here / "asl").iterdir()) == [TEST, TRAIN]
    assert kaggle.asked == ["/v1/datasets.DatasetApiService/DownloadDataset"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"fetching Sign Language MNIST into {here / 'asl'} (2 of 2 files)\n"

    open_asl(here)
    assert len(kaggle.asked) == 1


def test_what_kagglehub_has_in_its_cache_is_not_downloaded_again(kaggle: Kaggle, tmp_path: Path) -> None:
    open_asl(tmp_path / "here")
    open_asl(tmp_path / "there")
    assert len(kaggle.asked) == 1
    assert (tmp_path / "cache" / "datasets" / HANDLE / TRAIN).is_file()


def test_a_copy_in_the_cache_that_is_damaged_is_downloaded_once_more(kaggle: Kaggle, tmp_path: Path) -> None:
    open_asl(tmp_path / "here")
    (tmp_path / "cache" / "datasets" / HANDLE / TRAIN).write_bytes(b"damaged")
    open_asl(tmp_path / "there")
    assert len(kaggle.asked) == 2


def test_a_file_that_is_there_is_kept_and_only_the_other_one_comes(kaggle: Kaggle, tmp_path: Path) -> None:
    folder = tmp_path / "here" / "asl"
    folder.mkdir(parents=True)
    (folder / f"{TEST}.gz").write_bytes(gzip.compress(csv_of(rows_of(5))))
    assert [len(images) for images in open_asl(folder.parent).splits] == [60, 5]
    assert sorted(path.name for path in folder.iterdir()) == [f"{TEST}.gz", TRAIN]
    assert len(kaggle.asked) == 1


def test_a_download_with_a_wrong_checksum_is_not_kept(kaggle: Kaggle, tmp_path: Path) -> None:
    kaggle.files[TRAIN] += b"1"
    with pytest.raises(DataError, match=rf"could not be fetched \(the dataset {HANDLE} holds no {TRAIN} with the expected sha256 "):
        open_asl(tmp_path)
    assert list((tmp_path / "asl").iterdir()) == []
    assert len(kaggle.asked) == 2


def test_an_answer_that_is_no_archive_is_an_error_of_the_download(kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kaggle, "bundle", lambda: b"<html>sorry</html>")
    with pytest.raises(DataError, match=r"could not be fetched \(Unsupported archive type\)\. Put "):
        open_asl(tmp_path)


def test_without_a_network_the_sentence_says_which_files_go_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_account(tmp_path, monkeypatch)
    _endpoint(monkeypatch, 9)
    folder = tmp_path / "asl"
    with pytest.raises(DataError) as refused:
        open_asl(tmp_path)
    assert str(refused.value) == (
        f"Sign Language MNIST is not in {folder} and could not be fetched (Connection refused). Put sign_mnist_train.csv and "
        f"sign_mnist_test.csv, gzipped or not, into {folder}; they are published on Kaggle as datamunge/sign-language-mnist."
    )


def test_a_server_that_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_account(tmp_path, monkeypatch)
    monkeypatch.setattr(fetch, "FETCH_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        _endpoint(monkeypatch, silent.getsockname()[1])
        began = time.monotonic()
        with pytest.raises(DataError, match=r"could not be fetched \(timed out\)"):
            open_asl(tmp_path)
    assert time.monotonic() - began < 10


@pytest.mark.realdata
def test_the_real_files_have_27455_and_7172_images_of_24_letters(data_folder: Path) -> None:
    began = time.process_time()
    dataset = open_asl(data_folder)
    # 1.3 s were measured; a busy machine's shared caches may double that.
    assert time.process_time() - began < 4
    assert [len(images) for images in dataset.splits] == [27_455, 7_172]
    assert np.bincount(dataset["train"].labels).tolist() == TRAIN_COUNTS
    assert np.bincount(dataset["test"].labels).tolist() == TEST_COUNTS
    assert {images.split: images.fingerprint[:16] for images in dataset.splits} == FINGERPRINTS


TRAIN_COUNTS = [
    *(1126, 1010, 1144, 1196, 957, 1204, 1090, 1013, 1162, 1114, 1241, 1055),
    *(1151, 1196, 1088, 1279, 1294, 1199, 1186, 1161, 1082, 1225, 1164, 1118),
]
TEST_COUNTS = [
    *(331, 432, 310, 245, 498, 247, 348, 436, 288, 331, 209, 394),
    *(291, 246, 347, 164, 144, 246, 248, 266, 346, 206, 267, 332),
]
FINGERPRINTS = {"train": "9081415522b80d26", "test": "9c33caee9d28b7ee"}
"""Of the files as they are published."""
