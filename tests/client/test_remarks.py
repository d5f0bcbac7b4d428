"""An image of one colour is told, by whichever way it comes, and an image with something on it never is."""

import io
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from sightline import Classifier, reformat
from sightline.preprocess import Preprocess
from sightline.remarks import FLAT, FLAT_LEVELS, NOTHING, remark_of, remarks_of
from sightline.testing import FakeTransport
from support.fake_network import brightest, card
from support.specs import SPECS, SPECS_V2, spec

DIGITS = spec(mode="L", size=(28, 28), fit="pad", polarity="light-on-dark")


def noise(levels: int, shape: tuple[int, int, int] = (28, 28, 1)) -> npt.NDArray[np.uint8]:
    """Samples that differ by exactly `levels`."""
    drawn = np.random.default_rng(0).integers(100, 101 + levels, shape).astype(np.uint8)
    drawn[0, 0], drawn[-1, -1] = 100, 100 + levels
    return drawn


def test_the_sentence_says_what_the_label_is_worth() -> None:
    assert FLAT == (
        "nothing to read here: after reformatting the image is of one colour, so that the label is the model's answer to an empty image"
    )


@pytest.mark.parametrize("shape", [(28, 28, 1), (224, 224, 3), (1, 2, 1), (4096, 1, 3)])
@pytest.mark.parametrize("level", [0, 127, 255])
def test_an_exactly_even_image_is_of_one_colour(shape: tuple[int, int, int], level: int) -> None:
    assert remark_of(np.full(shape, level, np.uint8)) == FLAT


def test_one_colour_may_differ_from_channel_to_channel() -> None:
    assert remark_of(np.tile(np.array([250, 10, 90], np.uint8), (30, 20, 1))) == FLAT


def test_noise_is_nothing_to_read_and_a_little_more_is() -> None:
    assert remark_of(noise(1)) == remark_of(noise(2)) == remark_of(noise(FLAT_LEVELS)) == FLAT
    assert remark_of(noise(FLAT_LEVELS + 1)) == ""


def test_one_pixel_in_one_channel_is_something_to_read_wherever_it_lies() -> None:
    for place in range(0, 224 * 224, 997):
        pixels = np.full((224 * 224, 3), 200, np.uint8)
        pixels[place, place % 3] = 180
        assert remark_of(pixels.reshape(224, 224, 3)) == ""


@pytest.mark.parametrize("preprocess", [DIGITS, spec(size=(28, 28), fit="pad", background=(10, 200, 120)), spec(size=(28, 28))])
def test_many_images_are_judged_together_as_each_alone(preprocess: Preprocess) -> None:
    random = np.random.default_rng(1)
    pixels = np.full((400, *preprocess.shape), 90, np.uint8)
    for image in pixels:
        kind = random.integers(5)
        if kind == 0:
            image[:] = reformat(Image.new("RGB", tuple(random.integers(1, 60, 2).tolist()), (90, 92, 95)), preprocess)
        elif kind == 1:
            image[tuple(random.integers(28, size=2))] = 200
        elif kind == 2:
            image[:] = random.integers(90, 92 + FLAT_LEVELS, image.shape)
        elif kind == 3:
            image[:] = random.integers(0, 256, image.shape)
    alone = [remark_of(image, preprocess) for image in pixels]
    assert remarks_of(pixels, preprocess) == alone
    assert 100 < sum(map(bool, alone)) < 300


def test_a_single_pixel_is_of_one_colour_always_and_gets_no_remark() -> None:
    assert remark_of(np.zeros((1, 1, 3), np.uint8)) == ""


@pytest.mark.parametrize("size", [(200, 200), (300, 100), (100, 300), (281, 100), (31, 29)])
@pytest.mark.parametrize("level", [3, 90, 220])
def test_padding_around_an_even_image_does_not_make_it_something(size: tuple[int, int], level: int) -> None:
    pixels = reformat(Image.new("L", size, level), DIGITS)
    assert remark_of(pixels, DIGITS) == FLAT
    colours = spec(size=(15, 22), fit="pad", background=(10, 200, 120))
    assert remark_of(reformat(Image.new("L", size, level), colours), colours) == FLAT


def test_an_even_thing_that_lies_elsewhere_than_an_image_between_bars_is_something() -> None:
    bar = np.zeros((28, 28, 1), np.uint8)
    bar[:, 3:7] = 255
    assert remark_of(bar, DIGITS) == ""
    block = np.zeros((28, 28, 1), np.uint8)
    block[8:20, 12:16] = 255
    assert remark_of(block, DIGITS) == ""
    stretched = DIGITS.with_fields(fit="stretch")
    assert remark_of(reformat(Image.fromarray(bar[..., 0]), stretched), stretched) == ""


def test_a_photo_of_a_black_sheet_with_a_camera_s_noise_has_nothing_to_read_on_it() -> None:
    dark = np.random.default_rng(3).normal(4, 1, (480, 640, 3)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(dark).save(file, "JPEG", quality=75)
    for name in ("imagenet", "mnist", "stretch-bicubic", "pad-lanczos"):
        assert remark_of(reformat(file.getvalue(), SPECS[name]), SPECS[name]) == FLAT, name


def test_black_strokes_on_nothing_are_told_where_the_background_is_black_as_well() -> None:
    canvas = Image.new("RGBA", (280, 280))
    ImageDraw.Draw(canvas).line((90, 60, 200, 60, 120, 230), (0, 0, 0, 255), 20)
    assert remark_of(reformat(canvas, DIGITS), DIGITS) == FLAT
    on_white = DIGITS.with_fields(background=(255,))
    assert remark_of(reformat(canvas, on_white), on_white) == ""


def test_a_guess_says_it_whether_it_comes_from_classify_stream_or_guesses() -> None:
    sheet, lit = Image.new("RGB", (20, 20), "red"), Image.linear_gradient("L")
    with Classifier("colours", transport=FakeTransport(card(), brightest)) as classifier:
        assert [guess.remark for guess in classifier.classify([sheet, lit, sheet])] == [FLAT, "", FLAT]
        assert [getattr(guess, "remark", None) for guess in classifier.stream([lit, sheet])] == ["", FLAT]
        pixels = np.stack([reformat(image, classifier.card.preprocess) for image in (sheet, lit)])
        guesses = classifier.classify_pixels(pixels)
    assert [guess.remark for guess in guesses] == [FLAT, ""]
    assert guesses[0].label == "red"  # it is still there for who wants it


def test_the_command_shows_it_in_place_of_a_sure_label_and_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sightline import classifier, cli

    monkeypatch.setattr(classifier, "connect", lambda *_: FakeTransport(card(), brightest))
    sheet, lit = tmp_path / "sheet.png", tmp_path / "lit.png"
    Image.new("RGB", (9, 9), "red").save(sheet)
    Image.linear_gradient("L").convert("RGB").save(lit)
    cli.run(["classify", "colours", str(sheet), str(lit)])
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [f"{sheet}  {NOTHING}", f"{lit!s:<{len(str(sheet))}}  red  0.3333"]
    assert printed.err == f"note: {sheet}: {FLAT}: red  1.0000\n"
    cli.run(["classify", "colours", str(sheet), str(lit), "--json"])
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["remark"], first["top"][0]["label"]) == (FLAT, "red")
    assert second["remark"] == ""


@pytest.mark.realdata
def test_no_real_digit_is_taken_for_nothing(data_folder: Path) -> None:
    import gzip

    for name, count in (("train", 60_000), ("t10k", 10_000)):
        content = gzip.decompress((data_folder / "mnist" / f"{name}-images-idx3-ubyte.gz").read_bytes())
        digits = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28, 1)
        assert len(digits) == count
        assert not any(remark_of(pixels, DIGITS) for pixels in digits)


@pytest.mark.realdata
def test_no_real_photo_is_taken_for_nothing_whichever_way_it_is_fitted(data_folder: Path) -> None:
    photos = sorted((data_folder / "fruits" / "valid").rglob("*.jpg"))
    assert len(photos) == 233
    for name in ("imagenet", "mnist", "stretch-bicubic", "pad-lanczos"):
        assert [photo.name for photo in photos if remark_of(reformat(photo, SPECS[name]), SPECS[name])] == []


def test_a_stroke_drawn_with_a_ruler_fills_its_ink_box_evenly_and_is_no_empty_image() -> None:
    sheet = np.full((60, 80), 255, np.uint8)
    sheet[10:50, 30:34] = 0
    digits = SPECS_V2["digits"]
    pixels = reformat(sheet, digits)
    rows, columns = (np.flatnonzero(pixels[..., 0].any(axis=axis)) for axis in (1, 0))
    assert (pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 255).all()
    assert remark_of(pixels, digits) == ""
    sheet[:] = 255
    assert remark_of(reformat(sheet, digits), digits) == FLAT
