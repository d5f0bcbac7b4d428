"""What `sightline show` draws is the image as it is, and the very pixels that are sent."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sightline import ImageError, cli, reformat, seal
from sightline.errors import ContractError, ModelNotFound, ServerUnavailable, UsageError
from sightline.preprocess import Preprocess
from sightline.remarks import FLAT
from sightline.seen import CHECKS, MARGIN, SIDE, described, side_by_side
from sightline.testing import FakeTransport
from support.fake_network import brightest, card
from support.make_corpus import scene
from support.specs import SPECS, spec

DIGITS = spec(mode="L", size=(28, 28), fit="pad", polarity="light-on-dark")


def drawn(image: Image.Image, spec: Preprocess) -> npt.NDArray[np.uint8]:
    return np.asarray(side_by_side(image, spec))


def sent(sheet: npt.NDArray[np.uint8], spec: Preprocess) -> npt.NDArray[np.uint8]:
    """The right half, one pixel of each square, after it was seen that all pixels of a square are the same."""
    times = max(1, SIDE // max(spec.size))
    high, wide = (side * times for side in spec.size)
    panel = sheet[MARGIN : MARGIN + high, SIDE + 2 * MARGIN : SIDE + 2 * MARGIN + wide]
    squares = panel.reshape(spec.size[0], times, spec.size[1], times, 3)
    assert (squares == squares[:, :1, :, :1]).all()
    return squares[:, 0, :, 0]


def original(sheet: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    return sheet[MARGIN : MARGIN + height, MARGIN : MARGIN + width]


@pytest.mark.parametrize("name", SPECS)
def test_each_pixel_that_is_sent_is_a_square_of_its_own_colour(name: str) -> None:
    image = Image.fromarray(scene(120, 180))
    expected = np.broadcast_to(reformat(image, SPECS[name]), (*SPECS[name].size, 3))
    assert (sent(drawn(image, SPECS[name]), SPECS[name]) == expected).all()


def test_an_image_that_fits_is_shown_as_it_is_and_a_small_one_enlarged_by_a_whole_factor() -> None:
    pixels = scene(300, 440)
    assert (original(drawn(Image.fromarray(pixels), DIGITS), 440, 300) == pixels).all()
    small = scene(40, 60)
    enlarged = np.repeat(np.repeat(small, 7, axis=0), 7, axis=1)
    assert (original(drawn(Image.fromarray(small), DIGITS), 420, 280) == enlarged).all()


def test_a_large_image_is_reduced_to_the_panel_whichever_way_it_lies() -> None:
    for width, height, shown in ((1000, 500, (448, 224)), (500, 1000, (224, 448)), (5000, 3, (448, 1)), (3, 5000, (1, 448))):
        sheet = drawn(Image.new("RGB", (width, height), (10, 120, 10)), spec(size=(32, 32)))
        assert (original(sheet, *shown) == (10, 120, 10)).all()
        frame = sheet[MARGIN + shown[1], MARGIN : MARGIN + shown[0]]
        assert (frame == 150).all()


def turned(upright: npt.NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    image.getexif()[274] = 6
    return image


def test_the_original_stands_upright_if_the_specification_turns_it_and_lies_if_it_does_not() -> None:
    upright = scene(200, 300)
    assert (original(drawn(turned(upright), spec()), 300, 200) == upright).all()
    assert (original(drawn(turned(upright), spec(exif="ignore")), 200, 300) == np.rot90(upright)).all()
    headlong = Image.fromarray(np.ascontiguousarray(upright[::-1, ::-1]))
    headlong.getexif()[274] = 3
    assert (original(drawn(headlong, spec()), 300, 200) == upright).all()


def test_transparent_pixels_lie_over_a_checkerboard_on_the_left_and_over_the_background_on_the_right() -> None:
    image = Image.new("RGBA", (400, 400), (0, 0, 0, 0))
    image.paste((200, 30, 30, 255), (200, 0, 400, 400))
    specification = spec(size=(32, 32), background=(0, 0, 255))
    sheet = drawn(image, specification)
    panel = original(sheet, 400, 400)
    assert set(panel[:, :200].reshape(-1).tolist()) == set(CHECKS)
    assert (panel[0, 0] == panel[8, 8]).all()
    assert (panel[0, 0] != panel[0, 8]).all()
    assert (panel[:, 200:] == (200, 30, 30)).all()
    assert (sent(sheet, specification)[:, :15] == (0, 0, 255)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_images_of_every_mode_are_drawn(mode: str) -> None:
    grey = Image.linear_gradient("L")
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    expected = grey.convert("RGB") if mode == "I;16" else image.convert("RGB")
    panel = original(drawn(image, DIGITS), 256, 256)
    assert np.abs(panel.astype(np.int16) - np.asarray(expected)).max() <= 1  # Pillow rounds CMYK by itself otherwise


def test_the_caption_says_every_field_that_changes_pixels_of_this_version() -> None:
    assert described(DIGITS) == ("preprocessing, version 1: fit pad, resample bilinear, background 0, exif apply, polarity light-on-dark")
    assert described(SPECS["imagenet"]) == (
        "preprocessing, version 1: fit crop, crop_fraction 0.875, resample bilinear, background 255 255 255, exif apply, polarity as-is"
    )
    told = described(DIGITS)
    assert {name for name in type(DIGITS).model_fields if name not in told} == {"mode", "size", "crop_fraction", "mean", "std"}


def test_notes_make_the_sheet_longer_and_never_wider() -> None:
    image = Image.linear_gradient("L")
    plain = side_by_side(image, DIGITS)
    noted = side_by_side(image, DIGITS, ["mnist answers: 7 0.9931", "x" * 400, "腐ったオレンジ " * 30])
    assert noted.width == plain.width
    assert noted.height > plain.height + 5 * 22
    assert np.asarray(noted)[:, 1 - MARGIN :].min() == 255


def test_a_specification_larger_than_the_panel_is_drawn_whole() -> None:
    specification = spec(size=(500, 700))
    image = Image.fromarray(scene(500, 700))
    assert (sent(drawn(image, specification), specification) == scene(500, 700)).all()


def test_an_image_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(ImageError, match=r"text\.png: not an image in a format that is read here"):
        side_by_side(tmp_path / "text.png", DIGITS)


@pytest.fixture
def colours(tmp_path: Path) -> tuple[Path, Path]:
    """An image and the card of a model."""
    Image.fromarray(scene(40, 60)).save(tmp_path / "scene.png")
    (tmp_path / "card.json").write_text(seal(card()), encoding="utf-8")
    return tmp_path / "scene.png", tmp_path / "card.json"


def show(*arguments: object) -> None:
    cli.run(["show", *map(str, arguments)])


def test_with_a_card_at_hand_no_server_is_asked(colours: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, card_file = colours
    out = tmp_path / "seen.png"
    show("colours", image, "--out", out, "--card", card_file, "--url", "grpc://localhost:1")
    assert capsys.readouterr().out == f"{out}: {image} as colours gets it\n"
    specification = card().preprocess
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert (sent(np.asarray(sheet), specification) == reformat(image, specification)).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "scene.png", "seen.png"]


def test_the_answer_of_a_server_is_printed_and_a_remark_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sightline import classifier

    transport = FakeTransport(card(), brightest)
    monkeypatch.setattr(classifier, "connect", lambda *_: transport)
    Image.new("RGB", (9, 9), "red").save(tmp_path / "sheet.png")
    show("colours", tmp_path / "sheet.png", "--out", tmp_path / "seen.png")
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'seen.png'}: {tmp_path / 'sheet.png'} as colours gets it: red  1.0000\n"
    assert printed.err == f"note: {tmp_path / 'sheet.png'}: {FLAT}\n"
    with Image.open(tmp_path / "seen.png") as sheet:
        assert (sent(np.asarray(sheet), card().preprocess) == transport.requests[0][0]).all()


def test_an_existing_file_is_not_overwritten_unless_asked(colours: tuple[Path, Path], tmp_path: Path) -> None:
    image, card_file = colours
    out = tmp_path / "seen.png"
    out.write_text("precious")
    with pytest.raises(UsageError) as refusal:
        show("colours", image, "--out", out, "--card", card_file)
    assert str(refusal.value) == f"{out}: the file exists already: choose another name, or overwrite it"
    assert out.read_text() == "precious"
    show("colours", image, "--out", out, "--card", card_file, "--overwrite")
    assert out.read_bytes().startswith(b"\x89PNG")


def test_what_cannot_work_is_refused_in_a_sentence(colours: tuple[Path, Path], tmp_path: Path) -> None:
    image, card_file = colours
    (tmp_path / "broken.json").write_text("{}")
    (tmp_path / "text.png").write_text("text")
    out = tmp_path / "seen.png"
    cases: list[tuple[type[Exception], str, list[object]]] = [
        (UsageError, "seen.jpg: it is written as PNG, so the file's name must end with .png", [image, "--out", tmp_path / "seen.jpg"]),
        (UsageError, "nowhere: there is no such folder to write seen.png in", [image, "--out", tmp_path / "nowhere" / "seen.png"]),
        (ContractError, "none.json: the card cannot be read: No such file or directory", [image, "--card", tmp_path / "none.json"]),
        (ContractError, "broken.json: no valid model card: ", [image, "--card", tmp_path / "broken.json"]),
        (ImageError, "text.png: not an image in a format that is read here", [tmp_path / "text.png", "--card", card_file]),
        (ImageError, "none.png: cannot be read: No such file or directory", [tmp_path / "none.png", "--card", card_file]),
        (ServerUnavailable, "no Triton server answers at grpc://localhost:1", [image, "--url", "grpc://localhost:1", "--wait", "0"]),
    ]
    for kind, sentence, arguments in cases:
        with pytest.raises(kind) as refusal:
            show("colours", *arguments, *([] if "--out" in arguments else ["--out", out]))
        assert sentence in str(refusal.value)
        assert not out.exists()
    with pytest.raises(UsageError) as refusal:
        show("colours", image, "--out", image, "--card", card_file, "--overwrite")
    assert str(refusal.value) == f"{image}: this is the image itself: choose another name"
    with pytest.raises(UsageError) as refusal:
        show("flowers", image, "--out", out, "--card", card_file)
    assert str(refusal.value) == f"{card_file}: the card is that of colours, not of flowers"


def test_a_model_that_is_not_there_is_named(colours: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline import classifier

    monkeypatch.setattr(classifier, "connect", lambda *_: FakeTransport(card(), brightest))
    with pytest.raises(ModelNotFound, match="not flowers"):
        show("flowers", colours[0], "--out", tmp_path / "seen.png")


def test_an_image_of_more_pixels_than_usual_is_drawn_if_so_many_are_let_in() -> None:
    large = np.zeros((12_000, 8_000), np.uint8)
    large[2_000:6_000] = 200
    with pytest.raises(ImageError, match="more than 89,478,485 pixels"):
        side_by_side(large, spec(size=(8, 8)))
    sheet = side_by_side(large, spec(size=(8, 8)), max_pixels=100_000_000)
    assert sheet.mode == "RGB"
