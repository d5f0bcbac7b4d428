"""Nothing that a stranger hands over as an image gets through unread, runs, hangs, or eats the memory: one sentence each, naming it."""

import io
import os
import random
import socket
import stat
import struct
import threading
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFile

from sightline import image as guard
from sightline.errors import ImageError
from sightline.image import FORMATS, MAX_PIXELS, MAX_SIDE, name_of, open_image
from sightline.reformatting import reformat
from support import golden_corpus as golden
from support import make_corpus
from support.specs import SPECS, spec

NOT_A_FORMAT = "not an image in a format that is read here (JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM, AVIF, HEIC)"


def refusal(image: Any, look: Callable[[Any], object] = open_image) -> str:
    with pytest.raises(ImageError) as caught:
        look(image)
    return str(caught.value)


def encoded(kind: str, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return buffer.getvalue()


def test_every_allowed_format_is_read() -> None:
    for kind in FORMATS:
        if kind != "HEIC":  # nothing in the base install reads or writes it
            assert open_image(encoded(kind)).size == (8, 8), kind


@pytest.mark.filterwarnings("ignore:IM image format is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "called"),
    [
        ("JPEG2000", "JPEG 2000"),
        ("DDS", "DDS"),
        ("QOI", "QOI"),
        ("ICO", "ICO"),
        ("ICNS", "ICNS"),
        ("EPS", "PostScript"),
        ("PDF", "PDF"),
        ("TGA", None),
        ("PCX", None),
        ("SGI", None),
        ("IM", None),
        ("SPIDER", None),
    ],
)
def test_a_format_outside_the_list_is_refused_however_harmless_and_by_its_name(kind: str, called: str | None, tmp_path: Path) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.fail(f"this Pillow cannot write {kind}: choose another example")
    content = encoded(kind, (64, 64), "F" if kind == "SPIDER" else "RGB")
    path = tmp_path / "renamed.jpg"
    path.write_bytes(content)
    sentence = NOT_A_FORMAT if called is None else f"{called} is not read here: save it as JPEG or PNG"
    assert refusal(path) == f"{path}: {sentence}"


@pytest.mark.parametrize(
    ("head", "called"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- drawn -->\n<!DOCTYPE svg>", "SVG"),
        (b"8BPS\0\x01" + bytes(40), "Photoshop"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
        (b"\xff\x0a" + bytes(40), "JPEG XL"),
        (b"II\xbc\x01" + bytes(40), "JPEG XR"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "camera raw"),
        (b"FUJIFILMCCD-RAW 0201", "camera raw"),
        (b"P7\nWIDTH 4\n", "PAM"),
        (b"#?RADIANCE\n", "Radiance HDR"),
        (b"v/1\x01" + bytes(40), "OpenEXR"),
    ],
)
def test_a_format_that_is_known_and_not_read_is_called_by_its_name(head: bytes, called: str) -> None:
    assert refusal(head) == f"image: {called} is not read here: save it as JPEG or PNG"


@pytest.mark.parametrize(
    "content",
    [
        b"GIF",
        b"\xff\xd8",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        b"BM" + bytes(60),
        b"II*\x00",
        b"P6",
        bytes(1000),
        b"\xff" * 1000,
        b"PK\x03\x04" + bytes(100),
        b"<html>404 Not Found</html>",
    ],
)
def test_bytes_that_are_no_image_are_refused(content: bytes) -> None:
    sentence = refusal(content)
    assert sentence == f"image: {NOT_A_FORMAT}" or sentence.startswith("image: damaged image ("), sentence


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    path = tmp_path / "nothing.png"
    path.touch()
    assert refusal(path) == f"{path}: the file is empty"
    assert refusal(b"") == "image: the file is empty"


def test_what_is_no_file_is_named_for_what_it_is(tmp_path: Path) -> None:
    fifo, folder, locked = tmp_path / "fifo.png", tmp_path / "folder.png", tmp_path / "locked.png"
    os.mkfifo(fifo)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.png"))
        assert refusal(tmp_path / "socket.png") == f"{tmp_path}/socket.png: cannot be read: No such device or address"
    locked.write_bytes(encoded("PNG"))
    locked.chmod(0)
    assert refusal(tmp_path / "missing.png") == f"{tmp_path}/missing.png: cannot be read: No such file or directory"
    assert refusal(locked / "inside.png") == f"{locked}/inside.png: cannot be read: Not a directory"
    assert refusal(folder) == f"{folder}: cannot be read: Is a directory"
    assert refusal(fifo) == f"{fifo}: cannot be read: not a file but a pipe, a socket or a device"
    assert refusal("/dev/zero") == "/dev/zero: cannot be read: not a file but a pipe, a socket or a device"
    assert refusal("/dev/null") == "/dev/null: cannot be read: not a file but a pipe, a socket or a device"
    assert refusal(tmp_path / ("x" * 300)).endswith(": cannot be read: File name too long")
    if os.geteuid() != 0:  # to root nothing is locked
        assert refusal(locked) == f"{locked}: cannot be read: Permission denied"


def test_an_image_that_may_not_be_read_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    assert refusal(tmp_path / "locked.png") == f"{tmp_path}/locked.png: cannot be read: Permission denied"


def test_a_fifo_that_somebody_writes_to_does_not_block_either(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.png"
    os.mkfifo(fifo)
    done = threading.Event()

    def refuse() -> None:
        refusal(fifo)
        done.set()

    writer = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        threading.Thread(target=refuse, daemon=True).start()
        assert done.wait(30)
    finally:
        os.close(writer)


def test_a_link_to_an_image_is_an_image_and_a_link_to_nowhere_is_not(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(encoded("PNG"))
    (tmp_path / "link.png").symlink_to("real.png")
    (tmp_path / "lost.png").symlink_to("nowhere.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert open_image(tmp_path / "link.png").size == (8, 8)
    assert refusal(tmp_path / "lost.png") == f"{tmp_path}/lost.png: cannot be read: No such file or directory"
    assert refusal(tmp_path / "loop.png") == f"{tmp_path}/loop.png: cannot be read: Too many levels of symbolic links"


def test_no_file_is_left_open_by_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "folder").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        for name in ("text.png", "folder", "missing.png"):
            refusal(tmp_path / name)
        refusal("/dev/null")
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_name_that_cannot_be_printed_is_shown_escaped(tmp_path: Path) -> None:
    evil = os.fsdecode(bytes(tmp_path) + b"/\x1b[2J\n\xff\xc3\xa4.png")
    assert name_of(evil) == f"{tmp_path}/\\x1b[2J\\n\\udcffä.png"
    assert refusal(evil) == f"{tmp_path}/\\x1b[2J\\n\\udcffä.png: cannot be read: No such file or directory"
    Path(evil).write_bytes(encoded("PNG"))
    assert open_image(evil).size == (8, 8)
    with os.scandir(os.fsencode(tmp_path)) as entries:
        listed: list[Any] = list(entries)
    assert [open_image(entry).size for entry in listed] == [(8, 8)]
    assert refusal("a\x00b.png") == "a\\x00b.png: cannot be read: embedded null byte"


class Named(io.BytesIO):
    """An open file that knows what it is called, and gives little at a time."""

    name = "far/away.png"

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size if size is not None and size >= 0 else 7, 7))


def test_before_anything_is_decoded_it_is_told_for_how_many_pixels_there_must_be_room() -> None:
    told: list[int] = []
    image = Image.new("RGB", (40, 30), "red")
    for kind, options, copies in (("PNG", {}, 1), ("JPEG", {}, 1), ("JPEG", {"progressive": True}, 2), ("WEBP", {}, 4)):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        open_image(buffer.getvalue(), admit=told.append)
        assert told.pop() == 1200 * copies, kind
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    open_image(buffer.getvalue(), reduce=lambda _size: 4, admit=told.append)
    assert told == [10 * 8]

    def refuse(_pixels: int) -> None:
        raise ImageError("no room")

    with pytest.raises(ImageError, match="no room"):
        open_image(buffer.getvalue(), admit=refuse)


def test_an_open_file_is_read_like_its_content_and_named_in_errors() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(buffer, "PNG")
    assert open_image(Named(buffer.getvalue())).size == (3, 2)
    assert refusal(Named(b"x")).startswith("far/away.png: not an image in a format that is read here")
    assert refusal(io.StringIO("x")) == "image: it was opened for reading text, not bytes"
    closed = Named(b"x")
    closed.close()
    assert refusal(closed) == "far/away.png: cannot be read: I/O operation on closed file."


@pytest.mark.parametrize("value", [None, 5, 1.5, [1, 2], {"path": "a.png"}, object(), bytearray(b"x"), memoryview(b"x")])
def test_what_is_no_kind_of_image_is_refused_by_its_type(value: Any) -> None:
    assert refusal(value) == f"an image is a path, bytes, an open file, a PIL image or a uint8 array, not a {type(value).__name__}"


@pytest.mark.parametrize(
    ("array", "described"),
    [
        (np.zeros((4, 4), np.float32), "float32 (4, 4)"),
        (np.zeros((4, 4), np.int64), "int64 (4, 4)"),
        (np.zeros((4, 4), bool), "bool (4, 4)"),
        (np.zeros((4, 4), np.uint16), "uint16 (4, 4)"),
        (np.zeros((4, 4), object), "object (4, 4)"),
        (np.zeros(4, np.uint8), "uint8 (4,)"),
        (np.zeros((), np.uint8), "uint8 ()"),
        (np.zeros((1, 4, 4, 3), np.uint8), "uint8 (1, 4, 4, 3)"),
        (np.zeros((3, 8, 8), np.uint8), "uint8 (3, 8, 8)"),
        (np.zeros((4, 4, 2), np.uint8), "uint8 (4, 4, 2)"),
        (np.zeros((4, 4, 0), np.uint8), "uint8 (4, 4, 0)"),
    ],
)
def test_an_array_of_another_kind_is_refused_with_what_it_is(array: npt.NDArray[Any], described: str) -> None:
    wanted = "an array of pixels must be uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    assert refusal(array) == f"{wanted}, not {described}"


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0, 3), (4, 0, 1)])
def test_an_array_without_pixels_is_refused(shape: tuple[int, ...]) -> None:
    assert refusal(np.zeros(shape, np.uint8)) == f"the image has no pixels (array of shape {shape})"


@pytest.mark.parametrize("size", [(0, 4), (4, 0)])
def test_an_image_without_pixels_is_refused(size: tuple[int, int]) -> None:
    assert refusal(Image.new("RGB", size)) == f"image: the image has no pixels ({size[0]} x {size[1]})"


def test_a_file_beyond_the_limit_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(guard.MAX_BYTES + 1)
    tracemalloc.start()
    assert refusal(path) == f"{path}: cannot be read: larger than 64 MiB, the most that such a file may have"
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert refusal(bytes(guard.MAX_BYTES + 1)) == "image: larger than 64 MiB, the most that one image may have"


@pytest.mark.parametrize(("width", "height"), [(13_344, 13_344), (9_460, 9_460), (60_000, 60_000), (2_147_483_647, 2_147_483_647)])
@pytest.mark.parametrize("strictness", ["ignore", "default", "error"])
def test_a_decompression_bomb_is_refused_before_a_pixel_of_it_exists(
    width: int, height: int, strictness: Literal["ignore", "default", "error"], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # 13,344 x 13,344 are 178 million: below twice Pillow's limit, so that Pillow itself would decode it with a mere warning.
    assert width * height > MAX_PIXELS
    path = tmp_path / "bomb.png"
    path.write_bytes(make_corpus.png(np.zeros((1, 1), np.uint8), claim=(width, height)))
    assert path.stat().st_size < 100

    def never(self: ImageFile.ImageFile) -> None:
        raise AssertionError("the bomb was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter(strictness, Image.DecompressionBombWarning)
        if strictness == "default":
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as many a notebook sets it
        sentence = refusal(path)
    assert sentence == f"{path}: more than 89,478,485 pixels, the most that are decoded"
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_the_largest_image_allowed_is_one_pixel_below_the_refused() -> None:
    def bounded(image: Any) -> Image.Image:
        return open_image(image, max_pixels=100)

    assert bounded(np.zeros((10, 10), np.uint8)).size == (10, 10)
    assert refusal(np.zeros((1, 101), np.uint8), bounded) == "image: more than 100 pixels, the most that are decoded"
    assert refusal(encoded("PNG", (101, 1)), bounded) == "image: more than 100 pixels, the most that are decoded"
    assert refusal(Image.new("L", (101, 1)), bounded) == "image: more than 100 pixels, the most that are decoded"


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "JPEG"])
def test_a_limit_above_pillows_own_is_the_one_that_counts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As 200 megapixels meet Pillow's limit of 179 million: an error there, without a way to lift it for one image alone.
    content = encoded(kind, (50, 40), "L")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert open_image(content, max_pixels=2000).size == (50, 40)
    assert refusal(content, lambda image: open_image(image, max_pixels=1999)) == "image: more than 1,999 pixels, the most that are decoded"


def test_a_side_longer_than_any_jpegs_is_refused() -> None:
    assert open_image(np.zeros((1, MAX_SIDE), np.uint8)).size == (MAX_SIDE, 1)
    sentence = "has a side of more than 65,535 pixels, the longest that is decoded"
    assert refusal(np.zeros((1, MAX_SIDE + 1), np.uint8)) == f"image: 65536 x 1 {sentence}"
    assert refusal(encoded("PNG", (1, MAX_SIDE + 1), "L")) == f"image: 1 x 65536 {sentence}"


def test_an_image_that_scaling_would_blow_up_is_refused_before_it_does(tmp_path: Path) -> None:
    # One column of 65,535 pixels, scaled to a width of 4,096 before its height shrinks, would take 268 million.
    path = tmp_path / "column.png"
    path.write_bytes(encoded("PNG", (1, MAX_SIDE), "L"))
    wide = spec(size=(16, 4096))
    tracemalloc.start()
    sentence = refusal(path, lambda image: reformat(image, wide))
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    assert sentence == f"{path}: 1 x 65535 is too long and thin: scaling it for this model takes 268,431,360 pixels"
    tall = spec(size=(2000, 2000), fit="crop")
    sentence = refusal(path, lambda image: reformat(image, tall))
    assert sentence == f"{path}: 1 x 65535 is too long and thin: scaling it for this model takes 262,140,000,000 pixels"


def test_running_out_of_memory_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def starved(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "resize", starved)
    assert refusal(np.zeros((4, 5), np.uint8), lambda p: reformat(p, SPECS["mnist"])) == "image: not enough memory to scale 5 x 4 pixels"
    monkeypatch.setattr(ImageFile.ImageFile, "load", starved)
    assert refusal(encoded("PNG")) == "image: not enough memory to decode it"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_truncation_of_an_image_is_refused_or_complete() -> None:
    """However a download breaks off: the pixels are those of the whole file, or there are none."""
    jpegs, pngs = ("baseline.jpg", "progressive.jpg"), ("interlaced.png", "rgba.png")
    for name in (*jpegs, *pngs, "transparent.gif", "lossless.webp", "rgb.bmp", "rgb.ppm", "lzw.tif"):
        content = (golden.CORPUS / name).read_bytes()
        expected = reformat(content, SPECS["imagenet"])
        read = 0
        for length in range(0, len(content), 7):
            try:
                pixels = reformat(content[:length], SPECS["imagenet"])
            except ImageError:
                continue
            assert np.array_equal(pixels, expected), f"{name} cut to {length} of {len(content)} bytes"
            read += 1
        assert read < len(content) / 7 / 2, f"{name} is complete far too early"


@pytest.mark.filterwarnings("ignore")
def test_two_thousand_damaged_files_give_pixels_or_an_image_error_and_nothing_else(tmp_path: Path) -> None:
    chance = random.Random(2026)
    names = sorted(golden.V1.cases["pictures"])
    ends: Counter[str] = Counter()
    sentences: list[str] = []
    path = tmp_path / "image"
    slowest = 0.0
    for _ in range(2000):
        name, title = chance.choice(names), chance.choice(sorted(SPECS))
        path.write_bytes(_damaged((golden.CORPUS / name).read_bytes(), chance))
        began = time.process_time()
        try:
            pixels = reformat(path, SPECS[title])
        except ImageError as error:
            sentences.append(str(error))
            ends["refused"] += 1
        else:
            assert pixels.shape == SPECS[title].shape
            assert pixels.dtype == np.uint8
            ends["pixels"] += 1
        slowest = max(slowest, time.process_time() - began)
    assert [
        sentence
        for sentence in sentences
        if not sentence.startswith(f"{path}: ") or not sentence.isprintable() or len(sentence) > len(str(path)) + 300
    ] == []
    assert ends["refused"] > 500
    assert ends["pixels"] > 200
    assert slowest < 20  # seconds of processor time for one file


def _damaged(content: bytes, chance: random.Random) -> bytes:
    raw = bytearray(content)
    if not raw:
        return bytes(chance.randrange(256) for _ in range(chance.randrange(64)))
    for _ in range(chance.choice((1, 1, 2, 5, 40))):
        at = chance.randrange(min(len(raw), chance.choice((60, 10**9))))
        kind = chance.randrange(5)
        if kind == 0:
            raw[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            raw[at] = chance.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            number = chance.choice((0, 1, 2**16, 2**31 - 1, 2**32 - 1, chance.randrange(2**32)))
            raw[at : at + 4] = struct.pack(chance.choice("<>") + "I", number)
        elif kind == 3:
            del raw[at : at + chance.choice((1, 4, 30))]
            if not raw:
                break
        else:
            raw[at:at] = raw[: chance.randrange(20)] or b"\x00"
    return bytes(raw[: chance.randrange(len(raw) + 1)] if chance.random() < 0.15 else raw)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"]
)
@pytest.mark.parametrize("transparency", [None, 0, b"\x00\x01", (1, 2, 3), "x", -5, 70_000, 1.5, [1], 10**30], ids=repr)
@pytest.mark.filterwarnings("ignore")
def test_a_pil_image_of_any_mode_gives_pixels_or_an_image_error(mode: str, transparency: Any) -> None:
    image = Image.new(mode, (5, 3))
    if transparency is not None:
        image.info["transparency"] = transparency
    for specification in (SPECS["mnist"], SPECS["imagenet"]):
        try:
            outcome: object = reformat(image, specification).shape
        except ImageError as error:
            outcome = str(error)
        refused = isinstance(outcome, str) and outcome.startswith("image: ") and (mode in ("La", "I", "F") or transparency is not None)
        assert outcome == specification.shape or refused


def test_an_image_whose_file_is_closed_is_refused() -> None:
    image = Image.open(io.BytesIO(encoded("PNG")))
    image.close()
    assert refusal(image).startswith("image: damaged image (")


def test_the_permission_bits_of_the_corpus_are_plain() -> None:
    assert all(stat.S_ISREG(path.stat().st_mode) or path.is_dir() for path in golden.CORPUS.rglob("*"))
