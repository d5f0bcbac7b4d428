"""Draws docs/preprocessing.png, what each field of a specification does to one image, and docs/misread.png, how an image is misread.

Every tile is what the reference itself makes of a drawn scene.

python docs/make_figures.py
"""

import io
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from sightline.reformatting import reformat
from support import document_images as drawn
from support.make_corpus import png, scene
from support.specs import spec, spec_v2

TILE, GAP, LINE = 150, 16, 34
PAPER, INK = (255, 255, 255), (30, 30, 30)

Pixels = npt.NDArray[np.uint8]


def main() -> None:
    """Draw the sheet, one row for each question that a specification answers."""
    upright = scene(120, 180)
    sideways = np.ascontiguousarray(np.rot90(upright))  # as a camera held upright stores it: EXIF orientation 6
    exif = b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"
    photo = png(sideways, chunks=[(b"eXIf", exif)])
    veiled = np.dstack([upright, np.tile(np.linspace(0, 255, 180).astype(np.uint8), (120, 1))])
    ink = _ink()
    as_is = spec(mode="L", size=(28, 28), fit="pad")
    light = spec(mode="L", size=(28, 28), fit="pad", polarity="light-on-dark")
    filters = ("nearest", "box", "bilinear", "bicubic", "lanczos")
    rows = [
        (
            "exif",
            [
                ("the stored pixels", sideways),
                ("apply", reformat(photo, spec(size=(100, 150)))),
                ("ignore", reformat(photo, spec(size=(150, 100), exif="ignore"))),
            ],
        ),
        (
            "fit",
            [
                ("the image", upright),
                ("stretch", reformat(upright, spec(size=(140, 140)))),
                ("crop, crop_fraction 0.875", reformat(upright, spec(size=(140, 140), fit="crop", crop_fraction=0.875))),
                ("pad, background 90 160 90", reformat(upright, spec(size=(140, 140), fit="pad", background=(90, 160, 90)))),
            ],
        ),
        (
            "resample",
            [(name, reformat(upright, spec(size=(20, 30), resample=name))) for name in filters],
        ),
        (
            "background",
            [
                ("half transparent, on white", reformat(veiled, spec(size=(100, 150), background=255))),
                ("on black", reformat(veiled, spec(size=(100, 150), background=0))),
                ("on 200 40 120", reformat(veiled, spec(size=(100, 150), background=(200, 40, 120)))),
            ],
        ),
        (
            "polarity",
            [
                ("ink on paper", ink),
                ("as-is", reformat(ink, as_is)),
                ("light-on-dark", reformat(ink, light)),
                (
                    "light-on-dark, of chalk on slate",
                    reformat(np.uint8(255) - ink, light),
                ),
            ],
        ),
    ]
    _sheet(_version_2()).save(Path(__file__).with_name("preprocessing-2.png"), optimize=True)
    _sheet(rows).save(Path(__file__).with_name("preprocessing.png"), optimize=True)
    _sheet(_misread()).save(Path(__file__).with_name("misread.png"), optimize=True)


def _misread() -> list[tuple[str, list[tuple[str, Pixels]]]]:
    """Give a row for each symptom: an image, what a network gets of it, and what it should get."""
    upright, wide = scene(180, 120), scene(100, 250)
    sideways = np.ascontiguousarray(np.rot90(upright))
    exif = b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"
    photo = png(sideways, chunks=[(b"eXIf", exif)])
    seven, small = _seven((150, 150), 1.0, 235), _seven((300, 300), 0.25, 235)
    canvas = np.zeros((150, 150, 4), np.uint8)
    canvas[..., 3] = 255 - np.clip(_seven((150, 150), 1.0, 255).astype(int) * 255 // 225 - 33, 0, 255)
    shaded = np.clip(_seven((150, 150), 1.0, 235) - np.linspace(0, 110, 150)[None, :], 0, 255).astype(np.uint8)
    two = np.hstack([_seven((150, 110), 0.9, 235), _seven((150, 110), 0.9, 235)])
    digits = spec(mode="L", size=(28, 28), fit="pad", polarity="light-on-dark")
    dark = digits.with_fields(polarity="as-is")
    square = spec(size=(112, 112))
    return [
        (
            "sideways",
            [
                ("the file's pixels", sideways),
                ("exif ignore", reformat(photo, spec(size=(112, 112), exif="ignore"))),
                ("exif apply", reformat(photo, square)),
            ],
        ),
        (
            "inverted",
            [("ink on paper", seven), ("polarity as-is", reformat(seven, dark)), ("polarity light-on-dark", reformat(seven, digits))],
        ),
        (
            "cut off",
            [
                ("the image", wide),
                ("fit crop", reformat(wide, square.with_fields(fit="crop"))),
                ("fit pad", reformat(wide, square.with_fields(fit="pad"))),
            ],
        ),
        (
            "squashed",
            [("the image", wide), ("fit stretch", reformat(wide, square)), ("fit pad", reformat(wide, square.with_fields(fit="pad")))],
        ),
        (
            "transparent",
            [
                ("black on nothing", _on_checks(canvas)),
                ("background 0", reformat(canvas, digits)),
                ("background 255", reformat(canvas, digits.with_fields(background=(255,)))),
            ],
        ),
        (
            "too small",
            [("a large sheet", small), ("as it is", reformat(small, digits)), ("cut out first", reformat(small[95:205, 95:205], digits))],
        ),
        (
            "grey paper",
            [
                ("uneven light", shaded),
                ("as it is", reformat(shaded, digits)),
                ("on even, white paper", reformat(_seven((150, 150), 1.0, 255), digits)),
            ],
        ),
        ("several", [("two things", two), ("as they are", reformat(two, digits)), ("one alone", reformat(two[:, :110], digits))]),
    ]


def _seven(size: tuple[int, int], share: float, paper: int) -> Pixels:
    """Draw a seven in ink on paper that fills so much of the sheet, height and width in pixels."""
    height, width = size
    sheet = Image.new("L", (width, height), paper)
    side = share * min(size)
    corners = [(width / 2 + across * side, height / 2 + down * side) for across, down in ((-0.28, -0.32), (0.26, -0.32), (-0.08, 0.36))]
    ImageDraw.Draw(sheet).line(corners, 30, max(3, round(side / 12)), joint="curve")
    return np.asarray(sheet)


def _on_checks(pixels: Pixels) -> Pixels:
    """Show RGBA pixels over a checkerboard."""
    down, across = (np.arange(length) // 8 for length in pixels.shape[:2])
    ground = np.where((down[:, None] + across) % 2 == 0, 255, 204)[..., None]
    alpha = pixels[..., 3:] / 255
    return np.asarray(pixels[..., :3] * alpha + ground * (1 - alpha)).round().astype(np.uint8)


def _version_2() -> list[tuple[str, list[tuple[str, Pixels]]]]:
    """Before and after, for each value of the fields that version 2 adds."""
    canvas = drawn.canvases()["canvas-black.png"][0]
    yellow = drawn.canvases()["canvas-yellow.png"][0]
    strokes = drawn.coverage(drawn.SEVEN, (150, 150), (40, 45, 70, 55), 7)
    paper = drawn.page(strokes, 195, 60, (35, -30), 3)
    slate = drawn.page(strokes, 70, 215, (15, 15), 3)
    form = drawn.page(
        np.maximum(drawn.coverage(drawn.FIVE, (150, 150), (50, 52, 52, 46), 5), drawn.frame((150, 150), 16, 2, 4)), 205, 60, (20, 10), 3
    )
    sheet = drawn.page(drawn.coverage(drawn.FIVE, (150, 210), (80, 140, 44, 32), 4), 205, 60, (25, -20), 3)
    file = io.BytesIO()
    Image.fromarray(np.kron(scene(120, 180), np.ones((8, 8, 1), np.uint8))).save(file, "JPEG", quality=90)
    scan = spec_v2(mode="L", size=(150, 150), levels="document")
    digits = spec_v2(mode="L", size=(28, 28), fit="pad", levels="document", frame="ink-box", polarity="light-on-dark")
    return [
        (
            "alpha_\nbackground",
            [
                ("a transparent canvas", _checked(canvas)),
                ("black", reformat(canvas, spec_v2(size=(120, 140)))),
                ("auto", reformat(canvas, spec_v2(size=(120, 140), alpha_background="auto"))),
                ("auto, of light strokes", reformat(yellow, spec_v2(size=(120, 140), alpha_background="auto"))),
            ],
        ),
        (
            "levels",
            [
                ("as-is: ink on paper", reformat(paper, spec_v2(mode="L", size=(150, 150)))),
                ("document", reformat(paper, scan)),
                ("document, light-on-dark", reformat(paper, scan.with_fields(polarity="light-on-dark"))),
                ("as-is: chalk on slate", reformat(slate, spec_v2(mode="L", size=(150, 150)))),
                ("document", reformat(slate, scan)),
            ],
        ),
        (
            "frame",
            [
                ("a form", form),
                ("as-is", reformat(form, digits.with_fields(frame="as-is"))),
                ("ink-box", reformat(form, digits)),
                ("a sheet", sheet),
                ("ink-box", reformat(sheet, digits)),
            ],
        ),
        (
            "decode",
            [
                ("full", reformat(file.getvalue(), spec_v2(size=(60, 90)))),
                ("dct: at an eighth", reformat(file.getvalue(), spec_v2(size=(60, 90), decode="dct"))),
                ("their difference, 8 times", _difference(file.getvalue())),
            ],
        ),
    ]


def _checked(rgba: Pixels) -> Pixels:
    """RGBA over grey checks."""
    y, x = np.mgrid[: rgba.shape[0], : rgba.shape[1]]
    under = np.where((y // 5 + x // 5) % 2, 200, 235)[..., None]
    alpha = rgba[..., 3:] / 255
    return np.asarray(rgba[..., :3] * alpha + under * (1 - alpha)).astype(np.uint8)


def _difference(jpeg: bytes) -> Pixels:
    full, smaller = (reformat(jpeg, spec_v2(size=(60, 90), decode=decode)).astype(int) for decode in ("full", "dct"))
    return np.asarray(np.clip(8 * np.abs(full - smaller), 0, 255), dtype=np.uint8)


def _ink() -> Pixels:
    y, x = np.mgrid[:110, :150]
    ring = np.abs(np.hypot((x - 75) / 0.8, y - 55) - 32)
    paper = np.clip(225 - 0.15 * x + 3 * np.sin(y), 0, 255)
    return np.where(ring < 6, 45, paper).astype(np.uint8)


def _sheet(rows: list[tuple[str, list[tuple[str, Pixels]]]]) -> Image.Image:
    widest = max(len(tiles) for _, tiles in rows)
    sheet = Image.new("RGB", (130 + widest * (TILE + GAP), GAP + len(rows) * (TILE + LINE + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    name_font, label_font = ImageFont.load_default(18), ImageFont.load_default(11)
    for down, (field, tiles) in enumerate(rows):
        top = GAP + down * (TILE + LINE + GAP)
        draw.text((GAP - 4, top + TILE // 2 - 10), field, INK, font=name_font)
        for across, (label, pixels) in enumerate(tiles):
            left = 130 + across * (TILE + GAP)
            tile = Image.fromarray(pixels.squeeze()).convert("RGB")
            scale = min(TILE / tile.width, TILE / tile.height)
            tile = tile.resize((round(tile.width * scale), round(tile.height * scale)), Image.Resampling.NEAREST)
            sheet.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
            draw.text((left, top + TILE + 4), f"{label}\n{pixels.shape[1]} x {pixels.shape[0]}", INK, font=label_font)
    return sheet


if __name__ == "__main__":
    main()
