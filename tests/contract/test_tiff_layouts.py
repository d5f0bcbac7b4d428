"""Every layout of samples that TIFF 6.0 allows is read as its tags say or refused by its name: not read wrongly, not called damaged."""

import io
from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sightline.errors import ImageError
from sightline.image import open_image
from sightline.reformatting import reformat
from support.specs import spec
from support.tiff_files import Layout, tiff

tifffile = pytest.importorskip("tifffile", reason="tifffile, the independent reader, is not installed")

HEIGHT, WIDTH = 19, 21
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4}
"""Samples that each photometric interpretation needs: white at 0, black at 0, RGB, palette, CMYK."""
EXACTLY = spec(size=(HEIGHT, WIDTH), resample="nearest", background=0)

READ = {
    *product((0, 1), (1, 2, 4, 8, 12, 16)),
    *product((3,), (1, 2, 4, 8)),
    *product((2, 5), (8, 16)),
}
"""Photometric interpretations and bits that are read in both byte orders, from strips and tiles, of each compression."""


def layouts(photometric: int) -> Iterator[Layout]:
    """All layouts that make sense: no palette beyond 8 bits, no planes of one sample, a predictor for deflate alone."""
    for bits, order, compression, planar, fill, predictor, extra, tile, big in product(
        (1, 2, 4, 6, 8, 10, 12, 14, 16), "<>", (1, 8, 32773), (1, 2), (1, 2), (1, 2), ((), (0,), (2,)), (0, 16), (False, True)
    ):
        samples = COLOURS[photometric] + len(extra)
        if (photometric == 3 and bits > 8) or (planar == 2 and samples == 1):
            continue
        if predictor == 2 and (bits not in (8, 16) or compression != 8 or photometric == 3 or fill == 2):
            continue
        if big and (tile or predictor == 2 or fill == 2 or extra):
            continue
        yield Layout(photometric, bits, samples, order, compression, planar, fill, predictor, extra, 1, tile, big)  # type: ignore[arg-type]


def expected(samples: npt.NDArray[Any], layout: Layout, palette: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The image in 8 bits, over black: the high bits of a sample, or its share of the brightest where it has fewer than 8."""
    wide = samples.astype(np.int64)
    brightest = (1 << layout.bits) - 1
    if layout.photometric == 0:
        wide = np.concatenate([brightest - wide[..., :1], wide[..., 1:]], axis=2)
    eight = wide >> (layout.bits - 8) if layout.bits >= 8 else wide * 255 // brightest
    if layout.photometric == 3:
        rgb = (palette >> 8)[wide[..., 0]]
    elif layout.photometric == 5:
        ink, black = 255 - eight[..., :3], 255 - eight[..., 3:4]
        rgb = (ink * black * 2 + 255) // 510
    else:
        rgb = eight[..., :3] if layout.photometric == 2 else np.repeat(eight[..., :1], 3, axis=2)
    if layout.extra_samples == (2,):
        rgb = (rgb * eight[..., -1:] * 2 + 255) // 510
    return np.asarray(rgb, dtype=np.uint8)


@pytest.mark.parametrize("photometric", COLOURS)
def test_every_layout_is_read_as_its_tags_say_or_refused_by_its_name(photometric: int) -> None:
    random = np.random.default_rng(photometric)
    outcomes: Counter[tuple[int, int]] = Counter()
    for layout in layouts(photometric):
        kind = np.uint16 if layout.bits > 8 else np.uint8
        samples = random.integers(0, 1 << layout.bits, (HEIGHT, WIDTH, layout.samples)).astype(kind)
        palette = random.integers(0, 1 << 16, (1 << layout.bits, 3))
        content = tiff(samples, layout, [(320, 3, palette.T.ravel().tolist())] if photometric == 3 else [])
        if layout.bits in (1, 8, 16):  # at others tifffile needs imagecodecs; they were written by the same few lines
            theirs = tifffile.imread(io.BytesIO(content))
            theirs = np.moveaxis(theirs, 0, -1) if layout.planar == 2 else theirs
            assert np.array_equal(theirs.reshape(samples.shape), samples), layout
        try:
            pixels = reformat(content, EXACTLY)
        except ImageError as error:
            sentence = str(error)
            assert sentence.startswith("image: a TIFF ("), (layout, sentence)
            assert " is not read here: save it with 8 bits, or as PNG" in sentence, (layout, sentence)
            assert (photometric, layout.bits) not in READ or layout.extra_samples or layout.planar == 2, (layout, sentence)
            continue
        # CMYK becomes RGB in Pillow's C code, with a rounding of its own that the golden corpus fixes.
        allowed = 1 if photometric == 5 else 0
        assert np.abs(pixels.astype(int) - expected(samples, layout, palette)).max() <= allowed, layout
        outcomes[photometric, layout.bits] += 1
    assert set(outcomes) == {layout for layout in READ if layout[0] == photometric}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("sample_format", "bits", "sentence"),
    [
        (2, 8, "an image of 32-bit or signed integers has no defined white: save it with 8 or 16 bits first"),
        (2, 16, "an image of 32-bit or signed integers has no defined white: save it with 8 or 16 bits first"),
        (2, 32, "an image of 32-bit or signed integers has no defined white: save it with 8 or 16 bits first"),
        (1, 32, "an image of 32-bit or signed integers has no defined white: save it with 8 or 16 bits first"),
        (3, 16, "an image of 16-bit floating-point pixels has no defined white: save it with 8 or 16 bits first"),
        (3, 32, "an image of 32-bit floating-point pixels has no defined white: save it with 8 or 16 bits first"),
        (3, 64, "an image of 64-bit floating-point pixels has no defined white: save it with 8 or 16 bits first"),
    ],
)
@pytest.mark.parametrize("photometric", [0, 1, 2])
@pytest.mark.parametrize("compression", [1, 8])
def test_samples_without_a_defined_white_are_refused(
    sample_format: int, bits: int, sentence: str, order: Any, photometric: int, compression: int
) -> None:
    samples = np.arange(HEIGHT * WIDTH * COLOURS[photometric]).reshape(HEIGHT, WIDTH, -1) % 120
    layout = Layout(photometric, bits, COLOURS[photometric], order, compression, sample_format=sample_format)
    content = tiff(samples, layout)
    if (bits, sample_format) != (16, 3):
        assert np.array_equal(np.asarray(tifffile.imread(io.BytesIO(content)), float).reshape(samples.shape), samples)
    with pytest.raises(ImageError) as refusal:
        reformat(content, EXACTLY)
    assert str(refusal.value) == f"image: {sentence}"


def test_an_undefined_sample_format_counts_as_unsigned() -> None:
    samples = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1) % 256
    pixels = reformat(tiff(samples, Layout(1, 8, sample_format=4)), EXACTLY)
    assert np.array_equal(pixels[..., 0], samples[..., 0])


@pytest.mark.parametrize("bits", [12, 16])
def test_a_pillow_image_of_a_tiff_is_read_by_its_tags_too(bits: int) -> None:
    samples = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1).astype(np.uint16) << (bits - 9)
    for photometric in (0, 1) if bits == 16 else (1,):
        content = tiff(samples, Layout(photometric, bits))
        with Image.open(io.BytesIO(content)) as image:
            assert np.array_equal(reformat(image, EXACTLY), reformat(content, EXACTLY))


def test_what_is_open_has_white_at_the_top_of_its_mode() -> None:
    samples = np.full((HEIGHT, WIDTH, 1), 4095, np.uint16)
    assert set(np.asarray(open_image(tiff(samples, Layout(1, 12)))).ravel().tolist()) == {65535}
    assert set(np.asarray(open_image(tiff(samples, Layout(0, 12)))).ravel().tolist()) == {0}


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4"])
def test_fax_is_black_and_white_as_the_tag_says(compression: str, photometric: int) -> None:
    bits = np.random.default_rng(7).random((40, 56)) > 0.6
    buffer = io.BytesIO()
    Image.fromarray(bits).save(buffer, "TIFF", compression=compression)
    content = bytearray(buffer.getvalue())
    with Image.open(buffer) as saved:
        written = saved.tag_v2[262]  # type: ignore[attr-defined]
    entry = content.index(b"\x06\x01\x03\x00\x01\x00\x00\x00")
    content[entry + 8] = photometric
    pixels = reformat(bytes(content), spec(size=bits.shape))
    assert np.array_equal(pixels[..., 0] > 127, bits if photometric == written else ~bits)


@pytest.mark.parametrize(
    ("more", "photometric", "bits", "samples", "sentence"),
    [
        ([(332, 3, [2])], 5, 8, 4, "a TIFF of inks other than cyan, magenta, yellow and black is not read here: save it as RGB"),
        ([], 6, 8, 3, "an uncompressed TIFF of YCbCr with fewer samples of colour is not read here: save it as RGB"),
        ([], 4, 1, 1, "a TIFF (transparency mask) of 1 bits a sample is not read here: save it with 8 bits, or as PNG"),
        ([], 32803, 16, 1, "a TIFF (colour filter array) of 16 bits a sample is not read here: save it with 8 bits, or as PNG"),
    ],
)
def test_other_kinds_of_tiff_are_refused_by_their_names(more: Any, photometric: int, bits: int, samples: int, sentence: str) -> None:
    content = tiff(np.zeros((HEIGHT, WIDTH, samples), np.uint16), Layout(photometric, bits, samples), more)
    with pytest.raises(ImageError) as refusal:
        reformat(content, EXACTLY)
    assert str(refusal.value) == f"image: {sentence}"


@pytest.mark.parametrize(("number", "name"), [(34712, "JPEG 2000"), (34661, "JBIG"), (50002, "JPEG XL"), (34887, "LERC")])
def test_a_compression_that_is_not_read_is_named(number: int, name: str) -> None:
    content = bytearray(tiff(np.zeros((HEIGHT, WIDTH, 1), np.uint8), Layout(1, 8)))
    entry = content.index(b"\x03\x01\x03\x00\x01\x00\x00\x00")
    content[entry + 8 : entry + 10] = number.to_bytes(2, "little")
    with pytest.raises(ImageError) as refusal:
        open_image(bytes(content))
    assert str(refusal.value) == f"image: a TIFF compressed by {name} is not read here: save it with another compression, or as PNG"


def test_ycbcr_with_all_its_colour_is_read() -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    ycbcr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    for compression in (1, 8):
        content = tiff(ycbcr, Layout(6, 8, 3, compression=compression), [(530, 3, [1, 1])])
        assert np.abs(reformat(content, EXACTLY).astype(int) - rgb).max() <= 3


def test_bigtiff_of_either_byte_order_is_read() -> None:
    rgb = np.random.default_rng(4).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for order in "<>":
        content = tiff(rgb, Layout(2, 8, 3, order, big=True), [(274, 3, [3])])  # type: ignore[arg-type]
        assert np.array_equal(tifffile.imread(io.BytesIO(content)), rgb)
        assert np.array_equal(reformat(content, EXACTLY), rgb[::-1, ::-1])
