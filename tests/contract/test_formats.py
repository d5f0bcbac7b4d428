"""What the first bytes say decides: AVIF and HEIC are read, the orientation behind a broken EXIF entry is found, a GIF's rest is clear."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.errors import ImageError
from sightline.image import FORMATS, declared_pixels, format_of, is_image_file, open_image
from sightline.image.orientation import orientation_in
from sightline.reformatting import reformat
from support import golden_corpus as golden
from support import make_corpus, oracle
from support.specs import SPECS, spec


def saved(image: Any, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))).save(buffer, kind, **settings)
    return buffer.getvalue()


def refusal(content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(content)
    return str(caught.value)


def test_the_format_of_every_image_of_the_corpus_is_told_by_its_first_bytes() -> None:
    suffixes = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF", ".ppm": "PPM", ".pgm": "PPM"}
    for name in golden.V1.readable:
        path = golden.CORPUS / name
        assert format_of(path.read_bytes()[:512]) == suffixes[path.suffix], name
        assert declared_pixels(path.read_bytes()) > 0


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("photo.jpg", b"", True),
        ("PHOTO.HEIC", b"text", True),
        ("photo", b"\xff\xd8\xff\xe0", True),
        ("photo.txt", b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", True),
        ("photo.bin", b"\0\0\0\x0cjP  \r\n\x87\n", True),
        ("notes.txt", b"P5 is the best seat", False),
        ("notes", b"BMW is a make of cars, and so on and on", False),
        ("film.mov", b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", False),
        ("page.pdf", b"%PDF-1.7", False),
        ("favicon.ico", b"\0\0\x01\0\x01\0", False),
        ("empty", b"", False),
    ],
)
def test_one_rule_says_which_files_are_images(name: str, content: bytes, expected: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert is_image_file(tmp_path / name) == expected
    assert not is_image_file(tmp_path / "not there")


def test_a_dib_is_a_bmp_without_its_first_fourteen_bytes() -> None:
    scene = make_corpus.scene(12, 17)
    bmp = saved(scene, "BMP")
    assert np.array_equal(np.asarray(open_image(bmp[14:])), scene)


def test_a_bitmap_and_a_jpeg_of_another_kind_are_not_called_damaged() -> None:
    bmp = bytearray(saved(make_corpus.scene(4, 4), "BMP"))
    bmp[30:34] = struct.pack("<I", 5)
    assert refusal(bytes(bmp)).startswith("image: a BMP of a kind that is not read here (Unsupported BMP compression (5)")
    jpeg = saved(make_corpus.scene(16, 16), "JPEG")
    frame = jpeg.index(b"\xff\xc0")
    twelve = jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :]
    assert refusal(twelve) == "image: a JPEG of 12 bits a sample is not read here: save it with 8"
    lossless = jpeg[: frame + 1] + b"\xc3" + jpeg[frame + 2 :]
    assert refusal(lossless) == "image: a lossless JPEG is not read here: save it as PNG"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_read_with_the_turn_that_belongs_to_it(orientation: int) -> None:
    scene = make_corpus.scene(40, 64)
    stored = oracle.turned(scene, oracle.INVERSE[orientation])
    exif = Image.Exif()
    exif[274] = orientation
    content = saved(stored, "AVIF", quality=100, subsampling="4:4:4", exif=exif)
    assert format_of(content[:512]) == "AVIF"
    for way in ("apply", "ignore"):
        pixels = reformat(content, spec(size=(40, 64), exif=way))
        assert np.abs(pixels.astype(int) - scene).mean() < 3, way


def test_heic_is_read_with_the_extra_and_named_for_what_it_needs_without() -> None:
    heic = pytest.importorskip("pillow_heif", reason="pillow-heif, which writes HEIC, is not installed")
    pytest.importorskip("pi_heif", reason="the extra heif is not installed")
    scene = make_corpus.scene(40, 64)
    buffer = io.BytesIO()
    heic.from_pillow(Image.fromarray(scene)).save(buffer, quality=-1, chroma=444)
    content = buffer.getvalue()
    assert declared_pixels(content) == 40 * 64
    assert np.abs(reformat(content, spec(size=(40, 64))).astype(int) - scene).mean() < 3
    with pytest.raises(ImageError, match="more than 2,559 pixels"):
        open_image(content, max_pixels=2559)
    assert refusal(content[: len(content) // 2]).startswith("image: damaged image (")


def test_heic_without_the_extra_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pi_heif", None)
    content = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(100)
    assert refusal(content) == "image: HEIC is read with the extra heif: pip install 'sightline[heif]'"
    assert declared_pixels(content) == 0
    assert "HEIC" in FORMATS


def block(*entries: bytes, order: str = "<") -> bytes:
    opening = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return opening + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("order", "<>")
def test_an_orientation_behind_a_broken_entry_is_found(order: str) -> None:
    broken = struct.pack(order + "HHII", 0x010F, 2, 20, 0xFFFFFF)  # a maker's name that lies outside the block
    good = struct.pack(order + "HHIHH", 274, 3, 1, 6, 0)
    scene = make_corpus.scene(24, 36)
    stored = oracle.turned(scene, 8)
    for kind in ("JPEG", "PNG", "WEBP"):
        settings = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
        content = saved(stored, kind, exif=b"Exif\0\0" + block(broken, good, order=order), **settings)
        upright = reformat(content, spec(size=(24, 36)))
        assert np.abs(upright.astype(int) - scene).mean() < 3, kind
        assert np.abs(reformat(content, spec(size=stored.shape[:2], exif="ignore")).astype(int) - stored).mean() < 3, kind


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (block(struct.pack("<HHIHH", 274, 3, 1, 6, 0)), 6),
        (block(struct.pack("<HHII", 274, 4, 1, 8)), 8),
        (block(struct.pack("<HHIHH", 274, 3, 2, 6, 6)), None),
        (block(struct.pack("<HHIHH", 274, 2, 1, 6, 0)), None),
        (block(struct.pack("<HHIHH", 275, 3, 1, 6, 0)), None),
        (block(struct.pack("<HHIHH", 274, 3, 1, 6, 0))[:20], None),
        (b"II*\0\xff\xff\xff\x7f" + bytes(40), None),
        (b"Exif\0\0" + block(struct.pack("<HHIHH", 274, 3, 1, 3, 0)), 3),
        (b"", None),
    ],
)
def test_the_orientation_is_read_entry_by_entry(content: bytes, expected: int | None) -> None:
    assert orientation_in(content) == expected


def gif_at(left: int, top: int, canvas: tuple[int, int], **settings: Any) -> bytes:
    """A GIF of 8 x 6 pixels at a place of a larger canvas, red and blue."""
    frame = Image.fromarray((np.indices((6, 8)).sum(axis=0) % 2).astype(np.uint8), "P")
    frame.putpalette(bytes([200, 10, 10, 10, 10, 200]))
    content = bytearray(saved(frame, "GIF", **settings))
    content[6:10] = struct.pack("<HH", *canvas)
    place = content.index(b",\0\0\0\0\x08\0\x06\0")
    content[place + 1 : place + 5] = struct.pack("<HH", left, top)
    return bytes(content)


@pytest.mark.parametrize("transparency", [None, 0, 1])
def test_what_the_first_frame_of_a_gif_does_not_cover_is_transparent(transparency: int | None) -> None:
    content = gif_at(3, 2, (16, 12), **({} if transparency is None else {"transparency": transparency}))
    pixels = reformat(content, spec(size=(12, 16), background=(1, 250, 3)))
    covered = np.zeros((12, 16), bool)
    covered[2:8, 3:11] = True
    assert (pixels[~covered] == (1, 250, 3)).all()
    colours = np.array([[200, 10, 10], [10, 10, 200]])
    if transparency is not None:
        colours[transparency] = (1, 250, 3)
    assert np.array_equal(pixels[2:8, 3:11], colours[np.indices((6, 8)).sum(axis=0) % 2])
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(reformat(image, spec(size=(12, 16), background=(1, 250, 3))), pixels)


@pytest.mark.parametrize("fraction", [1, 2, 4, 8])
def test_a_jpeg_is_decoded_at_the_fraction_that_is_asked_for_and_other_formats_are_not(fraction: int) -> None:
    asked: list[tuple[int, int]] = []

    def reduce(size: tuple[int, int]) -> int:
        asked.append(size)
        return fraction

    for mode in ("L", "RGB", "CMYK"):
        for size in ((61, 43), (3, 200), (1, 1), (64, 64)):
            content = saved(Image.new(mode, size), "JPEG")
            opened = open_image(content, reduce=reduce)
            assert opened.size == (-(-size[0] // fraction), -(-size[1] // fraction))
            assert opened.mode == mode
            assert asked.pop() == size
    mpo = saved(Image.new("RGB", (61, 43)), "MPO", save_all=True, append_images=[Image.new("RGB", (61, 43))])
    assert open_image(mpo, reduce=reduce).size == (-(-61 // fraction), -(-43 // fraction))
    for kind in ("PNG", "WEBP", "TIFF", "AVIF"):
        assert open_image(saved(Image.new("RGB", (61, 43)), kind), reduce=reduce).size == (61, 43)


def test_the_limit_counts_the_pixels_that_a_jpeg_declares_not_those_that_are_decoded() -> None:
    content = saved(Image.new("L", (64, 64)), "JPEG")
    with pytest.raises(ImageError, match="more than 4,095 pixels"):
        open_image(content, 4095, reduce=lambda _: 8)
    assert open_image(content, 4096, reduce=lambda _: 8).size == (8, 8)


def test_the_golden_images_are_as_they_were_when_they_are_asked_for_whole() -> None:
    for name in golden.V1.readable:
        content = (golden.CORPUS / name).read_bytes()
        whole = open_image(content, reduce=lambda _: 1)
        assert np.array_equal(np.asarray(whole), np.asarray(open_image(content))), name


@pytest.mark.filterwarnings("ignore")
def test_a_pillow_image_is_turned_by_its_broken_block_too_and_not_changed() -> None:
    content = (golden.CORPUS / "exif-6-behind-a-broken-entry.png").read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(reformat(image, SPECS["imagenet"]), reformat(content, SPECS["imagenet"]))
        assert image.getexif().get(274) is None
    # What the caller says of the orientation stands, where Pillow could read it.
    with Image.open(golden.CORPUS / "exif-6.png") as image:
        upright = reformat(image, spec(size=(20, 20)))
        del image.getexif()[274]
        assert not np.array_equal(reformat(image, spec(size=(20, 20))), upright)
