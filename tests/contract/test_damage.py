"""What a format can tell of damage is told: four bytes overwritten in the middle of a file, and what each decoder must notice."""

import io
import random
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.errors import ImageError
from sightline.image import gif, libtiff, open_image
from sightline.image.lzw import MAX_CLEARS, Variant, decoded_length
from support import make_corpus

needs_libtiff = pytest.mark.skipif(libtiff._library() is None, reason="Pillow's libtiff cannot be reached")


def drawn(index: int, mode: str) -> Image.Image:
    height, width = 60 + 7 * index, 90 + 5 * index
    image = Image.fromarray(make_corpus.scene(height, width))
    return image.convert("L").point(lambda value: 255 * (value > 90)).convert("1") if mode == "1" else image.convert(mode)


@pytest.mark.parametrize(
    ("kind", "mode", "settings", "least"),
    [
        ("PNG", "RGB", {}, 40),
        ("GIF", "P", {}, 34),
        ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}, 40),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}, 36),
        pytest.param("TIFF", "1", {"compression": "group3"}, 34, marks=needs_libtiff),
        pytest.param("TIFF", "1", {"compression": "group4"}, 36, marks=needs_libtiff),
    ],
)
def test_four_bytes_overwritten_in_the_middle_are_noticed(kind: str, mode: str, settings: dict[str, Any], least: int) -> None:
    chance = random.Random(f"{kind} {settings}")
    sentences = []
    for index in range(40):
        buffer = io.BytesIO()
        drawn(index, mode).save(buffer, kind, **settings)
        content = bytearray(buffer.getvalue())
        open_image(bytes(content))
        at = chance.randrange(len(content) // 4, len(content) * 3 // 4)
        content[at : at + 4] = bytes(byte ^ chance.randrange(1, 256) for byte in content[at : at + 4])
        try:
            open_image(bytes(content))
        except ImageError as error:
            sentences.append(str(error))
    assert len(sentences) >= least
    assert all(sentence.startswith("image: damaged image (") for sentence in sentences), sentences


@needs_libtiff
def test_libtiffs_complaint_is_the_reason_and_does_not_reach_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    buffer = io.BytesIO()
    drawn(5, "1").save(buffer, "TIFF", compression="group4")
    content = bytearray(buffer.getvalue())
    content[len(content) // 3 : len(content) // 3 + 4] = b"\0\0\0\0"
    with pytest.raises(ImageError, match=r"^image: damaged image \(.* at line \d+ of strip 0"):
        open_image(bytes(content))
    assert capfd.readouterr().err == ""


@needs_libtiff
def test_threads_hear_only_of_their_own_files() -> None:
    buffer = io.BytesIO()
    drawn(9, "1").save(buffer, "TIFF", compression="group4")
    good = buffer.getvalue()
    bad = bytearray(good)
    bad[len(bad) // 3 : len(bad) // 3 + 4] = b"\0\0\0\0"
    heard: dict[int, set[bool]] = {0: set(), 1: set()}

    def listen(which: int) -> None:
        for _ in range(100):
            heard[which].add(bool(libtiff.first_complaint((good, bytes(bad))[which])))

    threads = [threading.Thread(target=listen, args=(which,)) for which in (0, 1, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {0: {False}, 1: {True}}


def test_a_png_is_held_to_the_checksums_of_what_its_pixels_depend_on() -> None:
    scene = make_corpus.scene(9, 9)
    content = make_corpus.png(scene)
    # A stream that deflates to the same pixels, under the old checksum.
    data = content.index(b"IDAT") + 4
    length = int.from_bytes(content[data - 8 : data - 4], "big")
    wrong_sum = content[: data + length] + b"\0\0\0\0" + content[data + length + 4 :]
    with pytest.raises(ImageError, match="the checksum of its chunk IDAT is wrong"):
        open_image(wrong_sum)
    text = b"tEXtComment\0hello"
    trailing = content[:-12] + (len(text) - 4).to_bytes(4, "big") + text + b"\0\0\0\0" + content[-12:]
    assert np.array_equal(np.asarray(open_image(trailing)), scene)


def lzw_reference(data: bytes, bits: int, *, highest: bool, early: int) -> tuple[int, str]:
    """The length of a stream, code by code as the specifications describe it."""
    clear, end = 1 << bits, (1 << bits) + 1
    stream = int.from_bytes(data, "big" if highest else "little")
    at, total, width, following, before = 0, 0, bits + 1, clear + 2, 0
    lengths: dict[int, int] = {}
    while at + width <= 8 * len(data):
        code = (stream >> (8 * len(data) - at - width if highest else at)) & ((1 << width) - 1)
        at += width
        if code == end:
            return total, "ended"
        if code == clear:
            width, following, before, lengths = bits + 1, clear + 2, 0, {}
            continue
        if code < clear:
            length = 1
        elif code in lengths:
            length = lengths[code]
        elif before and code == following and following < 4096:
            length = before + 1
        else:
            return total, "bad code"
        if before and following < 4096:
            lengths[following] = before + 1
            following += 1
            width = min(12, max(width, (following + early).bit_length()))
        before = length
        total += length
    return total, "out of data"


@pytest.mark.parametrize("index", range(60))
def test_the_length_of_a_stream_is_counted_as_code_by_code(index: int) -> None:
    random_numbers = np.random.default_rng(index)
    colours = int(random_numbers.choice([2, 3, 16, 256]))
    height, width = random_numbers.integers(1, 180, 2)
    shown = np.add.outer(np.arange(height) // 7, np.arange(width) // 3)
    if index % 3:
        shown = random_numbers.integers(0, colours, (height, width))
    buffer = io.BytesIO()
    Image.fromarray((shown % colours).astype(np.uint8)).save(buffer, "GIF")
    _, _, bits, data = gif._first_frame(buffer.getvalue())
    assert decoded_length(data, Variant(bits), 10**9)[:2] == (height * width, "ended") == lzw_reference(data, bits, highest=False, early=0)
    chance = random.Random(index)
    for _ in range(5):
        damaged = bytes(chance.randrange(256) if chance.random() < 0.01 else byte for byte in data)
        theirs = lzw_reference(damaged, bits, highest=False, early=0)
        ours = decoded_length(damaged, Variant(bits), 10**9)
        assert ours.state == theirs[1]
        assert ours.state == "bad code" or ours.length == theirs[0]
        as_tiff = lzw_reference(damaged, 8, highest=True, early=1)
        counted = decoded_length(damaged, Variant(8, first_bit_highest=True, early=1), 10**9)
        assert counted.state == as_tiff[1]
        assert counted.state == "bad code" or counted.length == as_tiff[0]


def test_a_stream_of_nothing_but_clears_is_not_followed_to_its_end() -> None:
    clears = np.packbits(np.tile(np.array([0, 0, 1], np.uint8), 8 * MAX_CLEARS), bitorder="little").tobytes()
    assert decoded_length(clears, Variant(2), 100) == (0, "too many clears", MAX_CLEARS)


def test_a_gif_without_the_code_that_ends_it_is_still_read() -> None:
    buffer = io.BytesIO()
    Image.fromarray((np.indices((16, 16)).sum(axis=0) % 2).astype(np.uint8)).save(buffer, "GIF")
    whole = buffer.getvalue()
    assert gif.complaint(whole) == ""
    _, _, bits, data = gif._first_frame(whole)
    # The code that ends it is cut off; what remains of its bits may look like another pixel.
    stream, last = int.from_bytes(data, "little"), (1 << bits) + 1
    width = next(width for width in range(3, 13) if stream >> (stream.bit_length() - width + 1) == last >> 1)
    unended = (stream & ((1 << (stream.bit_length() - width)) - 1)).to_bytes(len(data), "little")
    assert decoded_length(unended, Variant(bits), 10**9).state == "out of data"
    assert gif.complaint(whole.replace(data, unended)) == ""
