"""Listings of batch jobs: folders, lists, patterns and URLs, with whatever lies in them."""

import contextlib
import io
import json
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightline import Classifier
from sightline.errors import MissingExtra, UsageError
from sightline.scoring import Entry, ScoreSettings, images_below, listing, remote, rows_of, score
from sightline.scoring.entries import PassedOver, Problem
from sightline.scoring.remote import FarFile
from sightline.testing import FakeTransport
from support.fake_network import brightest, card


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images in three folders, one of them hidden."""
    for name in ("b.png", "a/1.png", "a/x/2.jpg", "a-b/3.png", "a/.hidden/4.png"):
        file = tmp_path / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(file)
    (tmp_path / "in" / "a" / "notes.txt").write_text("text")
    return tmp_path / "in"


@pytest.fixture
def bucket() -> Iterator[str]:
    """A file system in memory, with images, odd names and something else."""
    memory = pytest.importorskip("fsspec", reason="the base install has no URLs").filesystem("memory")
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    for name in ("cat/1.png", "cat/deep/2.png", "dog/3 %?#.png", "dog/nosuffix", "dog/ü.PNG", "notes.txt"):
        memory.pipe(f"/bucket/in/{name}", buffer.getvalue())
    memory.pipe("/bucket/in/dog/broken.png", b"broken")
    yield "memory://bucket/in"
    memory.rm("/bucket", recursive=True)


def entries_of(source: str | Path) -> list[Entry]:
    return list(listing(source).entries(PassedOver()))


def names_of(source: str | Path) -> list[str]:
    return [entry.name for entry in entries_of(source)]


def classifier() -> Classifier:
    return Classifier("colours", transport=FakeTransport(card(), brightest))


def test_a_folder_is_walked_in_the_order_of_its_paths(folder: Path) -> None:
    assert names_of(folder) == ["a/1.png", "a/x/2.jpg", "a-b/3.png", "b.png"]
    assert listing(folder).count() == 4
    assert [entry.truth for entry in entries_of(folder)] == ["a", "a", "a-b", None]
    assert all(entry.size > 0 and entry.stamp.isdigit() for entry in entries_of(folder))
    assert list(images_below(folder)) == [folder / name for name in ("a/1.png", "a/x/2.jpg", "a-b/3.png", "b.png")]


def test_a_folder_is_listed_only_when_its_turn_comes(folder: Path) -> None:
    walk = listing(folder).entries(PassedOver())
    assert next(walk).name == "a/1.png"
    Image.new("RGB", (4, 4)).save(folder / "a-b" / "later.png")
    assert "a-b/later.png" in [entry.name for entry in walk]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.png", ["b.png"]),
        ("*", ["b.png"]),
        ("**", ["a/1.png", "a/x/2.jpg", "a-b/3.png", "b.png"]),
        ("**/*.png", ["a/1.png", "a-b/3.png", "b.png"]),
        ("a/**/*.jpg", ["a/x/2.jpg"]),
        ("a*/*", ["a/1.png", "a-b/3.png"]),
        ("a?b/[0-9].png", ["a-b/3.png"]),
        ("*/x/**", ["a/x/2.jpg"]),
        ("a/.hid*/*.png", [".hidden/4.png"]),
        ("nothing*", []),
    ],
)
def test_a_pattern_takes_the_images_that_it_matches(folder: Path, pattern: str, names: list[str]) -> None:
    expected = [name.removeprefix("a/") if pattern.startswith("a/") else name for name in names]
    assert names_of(f"{folder}/{pattern}") == expected
    assert listing(f"{folder}/{pattern}").count() == len(expected)


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(folder: Path) -> None:
    odd = folder.parent / "in [2024] *"
    folder.rename(odd)
    assert names_of(str(odd)) == ["a/1.png", "a/x/2.jpg", "a-b/3.png", "b.png"]


def test_what_a_walk_meets_is_a_row_or_counted_and_the_job_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "circle").symlink_to(folder)
    (folder / "itself.png").symlink_to("itself.png")
    (folder / "itself").symlink_to("itself")
    (folder / "nowhere.png").symlink_to("not-there.png")
    (folder / "linked.png").symlink_to("b.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "folder.png" / "inside.png")
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        # Whoever runs the tests as root may read everything.
        if Path(path).name == "x":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    done = score(classifier(), folder, tmp_path / "rows.csv", ScoreSettings(labelled=True))
    errors = {row.image: (row.error_kind, row.error) for row in rows_of(done.out) if row.error}
    assert errors == {
        "a/x/": ("unreadable-folder", f"{folder}/a/x: cannot be read: the folder cannot be listed: Permission denied"),
        "itself.png": ("unreadable-file", f"{folder}/itself.png: cannot be read: Too many levels of symbolic links"),
        "nowhere.png": ("unreadable-file", f"{folder}/nowhere.png: cannot be read: No such file or directory"),
        "pipe.png": ("unreadable-file", f"{folder}/pipe.png: cannot be read: not a file but a pipe, a socket or a device"),
    }
    good = {row.image: row.truth for row in rows_of(done.out) if not row.error}
    assert good == {"a/1.png": "a", "a-b/3.png": "a-b", "b.png": None, "folder.png/inside.png": "folder.png", "linked.png": None}
    assert (done.broken, done.passed_over) == (4, 3)  # the circle, the link to itself that promises no image, the notes
    assert listing(folder).count() == done.rows == 9


def test_a_folder_that_vanishes_in_mid_walk_is_a_row(folder: Path) -> None:
    walk = listing(folder).entries(PassedOver())
    assert next(walk).name == "a/1.png"
    for file in (folder / "a-b").iterdir():
        file.unlink()
    (folder / "a-b").rmdir()
    vanished = next(entry for entry in walk if entry.name.startswith("a-b"))
    assert vanished.name == "a-b/"
    assert vanished.image == Problem(f"{folder}/a-b", "unreadable-folder", "the folder cannot be listed: No such file or directory")


def test_folders_in_one_another_without_end_are_a_row(tmp_path: Path) -> None:
    here = tmp_path / "in"
    here.mkdir()
    Image.new("RGB", (4, 4)).save(here / "z.png")
    before = Path.cwd()
    try:
        os.chdir(here)
        for _ in range(230):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(before)
    entries = entries_of(here)
    assert [entry.name for entry in entries] == ["/".join(["d"] * 201) + "/", "z.png"]
    assert isinstance(entries[0].image, Problem)
    assert entries[0].image.reason == "the folder cannot be listed: more than 200 folders lie one in the other"


def test_a_text_list_is_a_row_for_each_line_in_its_order(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with open(b"odd\xff.png", "wb") as odd:
        odd.write((folder / "b.png").read_bytes())
    content = b"\xef\xbb\xbfb.png\r\n\na/x/2.jpg\nb.png\n# comment.png\nodd\xff.png\nnot there.png\nnul\0byte.png\na\n" + b"file://"
    (tmp_path / "list.txt").write_bytes(content + bytes(folder / "b.png"))
    done = score(classifier(), tmp_path / "list.txt", tmp_path / "rows.jsonl")
    rows = [(row.image, row.error_kind) for row in rows_of(done.out)]
    assert rows == [
        ("b.png", ""),
        ("a/x/2.jpg", ""),
        ("b.png", ""),
        ("# comment.png", "unreadable-file"),
        ("odd\\udcff.png", ""),
        ("not there.png", "unreadable-file"),
        ("nul\0byte.png", "unreadable-file"),
        ("a", "unreadable-file"),
        (f"file://{folder}/b.png", ""),
    ]
    assert listing(tmp_path / "list.txt").count() == 9


def test_a_list_on_stdin_is_read_like_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{folder}/b.png\n{folder}/a/1.png".encode())))
    assert names_of("-") == [f"{folder}/b.png", f"{folder}/a/1.png"]
    assert listing("-").count() is None


def test_lists_as_csv_and_json_lines_say_what_images_show(folder: Path, tmp_path: Path) -> None:
    lines = [{"image": f"{folder}/b.png", "truth": "cat", "more": 1}, {"image": f"{folder}/a/1.png"}, {"images": "?"}, "no object"]
    (tmp_path / "list.jsonl").write_text("\n".join([*map(json.dumps, lines), "{", ""]))
    rows = list(rows_of(score(classifier(), tmp_path / "list.jsonl", tmp_path / "a.csv", ScoreSettings(labelled=True)).out))
    assert [(row.image, row.truth, row.error_kind) for row in rows] == [
        (f"{folder}/b.png", "cat", ""),
        (f"{folder}/a/1.png", None, ""),
        ("line 3", None, "list"),
        ("line 4", None, "list"),
        ("line 5", None, "list"),
    ]
    assert rows[2].error == f'{tmp_path}/list.jsonl, line 3: cannot be read: no JSON object with "image" (and perhaps "truth") as text'
    assert "not JSON" in rows[4].error
    (tmp_path / "list.csv").write_text(f'truth,image\ncat,{folder}/b.png\n,"{folder}/a/1.png"\ndog,\n')
    rows = list(rows_of(score(classifier(), tmp_path / "list.csv", tmp_path / "b.csv", ScoreSettings(labelled=True)).out))
    assert [(row.truth, row.error_kind) for row in rows] == [("cat", ""), (None, ""), (None, "list")]
    assert listing(tmp_path / "list.csv").count() == 3


def test_a_list_of_paths_does_not_say_what_images_show(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{folder}/b.png\n")
    with pytest.raises(UsageError) as refusal:
        score(classifier(), tmp_path / "list.txt", tmp_path / "rows.csv", ScoreSettings(labelled=True))
    assert str(refusal.value) == (
        f"{tmp_path}/list.txt: a list of paths does not say what the images show: write a list as CSV or JSON lines, with the column truth"
    )


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("l.txt", b"a.png\n" + b"x" * 20_000, "line 2 is longer than 16,384 bytes, which no path and no URL is"),
        ("l.csv", b"path\na.png\n", "the first line of a list as CSV names its columns, and one of them must be image"),
        ("l.csv", b'image\n"a.png\n', "not CSV: unexpected end of data"),
        ("l.txt", b"", "there is no image here"),
        ("l.png", b"", "this is one image: classify it, or name a folder, a list or a pattern"),
        ("l.xml", b"", "this is no folder, and no list by its name (.txt, .lst, .csv, .jsonl, .ndjson)"),
    ],
)
def test_a_list_that_is_none_is_refused_in_one_sentence(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as refusal:
        score(classifier(), tmp_path / name, tmp_path / "rows.csv")
    assert str(refusal.value).startswith(f"{tmp_path}/{name}: {sentence}")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nowhere/*.png", "nowhere: there is no such folder, so that nothing can match nowhere/*.png"),
        ("*/../x", "*/../x: a pattern cannot lead upwards after its first wildcard"),
        ("https://example.org/images", "https://example.org/images: a web server lists no folders: name a list on it"),
        ("memory://", "memory://: name a bucket, or a folder in one"),
        ("memory://b/one.png", "memory://b/one.png: this is one image: name a folder, a list or a pattern"),
        ("nonsense://b", "nonsense:// is no address that images are read from: "),
    ],
)
def test_what_names_no_images_is_refused(source: str, sentence: str) -> None:
    if "://" in source:
        pytest.importorskip("fsspec", reason="the base install has no URLs")
    with pytest.raises(UsageError) as refusal:
        entries_of(source)
    assert str(refusal.value).startswith(sentence)


def test_a_scheme_without_its_package_names_the_extra() -> None:
    with pytest.raises(MissingExtra) as missing:
        listing("gs://bucket/images")
    assert str(missing.value).endswith("pip install 'sightline[gs]'")
    assert str(missing.value).startswith("gs:// needs ")


def test_a_bucket_is_walked_like_a_folder(bucket: str, tmp_path: Path) -> None:
    assert names_of(bucket) == ["cat/1.png", "cat/deep/2.png", "dog/3 %?#.png", "dog/broken.png", "dog/nosuffix", "dog/ü.PNG"]
    assert names_of(f"{bucket}/*/*.png") == ["cat/1.png", "dog/3 %?#.png", "dog/broken.png"]
    done = score(classifier(), bucket, tmp_path / "rows.csv", ScoreSettings(labelled=True))
    rows = list(rows_of(done.out))
    assert (done.rows, done.broken, done.passed_over) == (6, 1, 1)
    assert {row.truth for row in rows} == {"cat", "dog"}
    assert [(row.image, row.error_kind) for row in rows if row.error] == [("dog/broken.png", "image")]


def test_a_far_file_can_be_pickled_and_is_read_once(bucket: str) -> None:
    image = entries_of(bucket)[0].image
    assert isinstance(image, FarFile)
    again = pickle.loads(pickle.dumps(image))
    assert again == image
    assert len(pickle.dumps(image)) < 200
    assert again.read(8) == b"\x89PNG\r\n\x1a\n"
    assert again.read() == b""
    assert len(image.read()) > 8


def test_a_bucket_that_is_not_there_ends_the_job_with_one_sentence(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refusal:
        score(classifier(), "memory://nowhere/in", tmp_path / "rows.csv")
    assert str(refusal.value) == "memory://nowhere/in: the folder cannot be listed: No such file or directory"


def test_a_list_from_elsewhere_names_urls_and_what_lies_beside_it_but_nothing_on_this_machine(bucket: str, tmp_path: Path) -> None:
    lines = [
        "cat/1.png",
        "memory://bucket/in/dog/ü.PNG",
        "missing.png",
        "/etc/passwd",
        "file:///etc/passwd",
        "../../x.png",
        "none://x/y.png",
    ]
    pytest.importorskip("fsspec").filesystem("memory").pipe("/bucket/in/list.txt", "\n".join(lines).encode())
    rows = list(rows_of(score(classifier(), f"{bucket}/list.txt", tmp_path / "rows.csv").out))
    assert [(row.image, row.error_kind) for row in rows] == [
        ("cat/1.png", ""),
        ("memory://bucket/in/dog/ü.PNG", ""),
        ("missing.png", "remote"),
        ("/etc/passwd", "list"),
        ("file:///etc/passwd", "list"),
        ("../../x.png", "list"),
        ("none://x/y.png", "list"),
    ]
    assert rows[2].error == f"{bucket}/missing.png: cannot be read: No such file or directory"
    assert rows[3].error == "/etc/passwd: cannot be read: a list from elsewhere names URLs, or paths below its own folder"


class Web(BaseHTTPRequestHandler):
    """A list, an image, a file without an end, and one that breaks off."""

    image = b""
    requests = 0

    def do_HEAD(self) -> None:
        self._begin()

    def do_GET(self) -> None:
        content = self._begin()
        with contextlib.suppress(ConnectionError):
            if self.path == "/images/endless.png":
                while True:
                    self.wfile.write(bytes(1024 * 1024))
            self.wfile.write(content[:-10] if self.path == "/images/broken-off.png" else content)

    def _begin(self) -> bytes:
        lists = b"one.png\nendless.png\nmissing.png\nbroken-off.png\n"
        contents = {"/images/list.txt": lists, "/images/one.png": self.image, "/images/broken-off.png": self.image}
        content = contents.get(self.path, b"")
        self.send_response(404 if "missing" in self.path else 200)
        if "endless" not in self.path:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def log_message(self, *_: object) -> None:
        pass


def test_a_list_on_a_web_server_names_images_beside_it_and_no_file_is_read_without_end(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp", reason="the base install has no URLs")
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    Web.image = (folder / "b.png").read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/images"
        rows = list(rows_of(score(classifier(), f"{url}/list.txt", tmp_path / "rows.csv").out))
        server.shutdown()
    assert [(row.image, row.error_kind) for row in rows] == [
        ("one.png", ""),
        ("endless.png", "too-large"),
        ("missing.png", "remote"),
        ("broken-off.png", "remote"),
    ]
    assert rows[2].error == f"{url}/missing.png: cannot be read: No such file or directory"


def test_images_below_a_folder_that_cannot_be_listed_whole_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scandir(path if Path(path).name != "x" else folder / "none"))
    with pytest.raises(UsageError) as refusal:
        list(images_below(folder))
    assert str(refusal.value) == f"a/x/: a folder below {folder} cannot be listed (No such file or directory)"
