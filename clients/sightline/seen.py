"""Draws an image beside the pixels that a network gets of it: most wrong answers are plain at that sight."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sightline.image import MAX_PIXELS, ImageInput, open_image
from sightline.preprocess import Preprocess, PreprocessV1, Resample
from sightline.reformatting import UPRIGHT, reformat

SIDE: Final = 448
"""Pixels: the longest side of the original as it is shown, and what the network's pixels are enlarged to. 16 x 28, 14 x 32, 2 x 224."""
MARGIN: Final = 20
TEXT_PX: Final = 16
LINE_PX: Final = 22
CHECK_PX: Final = 8
"""A square of the checkerboard that shows through transparent pixels."""
CHECKS: Final = (255, 204)
"""Its two greys."""
PAPER, INK, FRAME = (255, 255, 255), (30, 30, 30), (150, 150, 150)

NOT_TOLD: Final = frozenset({"version", "mode", "size", "mean", "std"})
"""Fields of a specification that stand elsewhere in the caption, or that change no pixel."""

_Pixels = npt.NDArray[np.uint8]


def side_by_side(image: ImageInput, spec: Preprocess, notes: Sequence[str] = (), max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return an RGB image: left `image` as it is, right what `reformat` makes of it, each of its pixels a square; below, the specification.

    The original stands upright if `spec` turns it, is scaled to at most SIDE pixels, and shows a checkerboard under what is transparent.
    The pixels that are sent are enlarged by a whole factor, without a filter. `notes` are written below, a paragraph each. Raises
    ImageError as `reformat` does.
    """
    pixels = reformat(image, spec, max_pixels)
    decoded = open_image(image, max_pixels)
    original, factor = _original(decoded, spec)
    high, wide, channels = spec.shape
    enlarged = max(1, SIDE // max(high, wide))
    sent = np.repeat(np.repeat(pixels, enlarged, axis=0), enlarged, axis=1)
    left = [f"the image: {decoded.width} x {decoded.height}, {_kind(decoded)}", f"shown {_times(factor)}"]
    right = [f"what is sent: {wide} x {high}, {spec.mode}", f"shown {_times(enlarged)}"]
    if _orientation(decoded, spec) > 1:
        left[1] += ", turned upright by its EXIF tag"
    return _sheet(
        ((left, original), (right, np.repeat(sent, 3 // channels, axis=2))),
        [described(spec), *notes],
    )


def described(spec: Preprocess) -> str:
    """Return what a specification does to an image, field by field: `fit pad, resample bilinear, background 0, …`."""
    fields = spec.model_dump(mode="json", exclude=set(NOT_TOLD) | (set() if spec.fit == "crop" else {"crop_fraction"}))
    told = (f"{name} {' '.join(map(str, value)) if isinstance(value, list) else value}" for name, value in fields.items())
    return f"preprocessing, version {spec.version}: {', '.join(told)}"


def _original(decoded: Image.Image, spec: Preprocess) -> tuple[_Pixels, float]:
    """Return the image as it is shown, RGB [H, W, 3], and by what it was scaled."""
    width, height = decoded.size[::-1] if _orientation(decoded, spec) >= 5 else decoded.size
    factor = min(SIDE / width, SIDE / height)
    if factor >= 1:
        factor = int(factor)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    resample: Resample = "lanczos" if factor < 1 else "nearest"
    shown, other = (reformat(decoded, _as_it_is(size, ground, spec, resample), decoded.width * decoded.height) for ground in CHECKS)
    down, across = (np.arange(length) // CHECK_PX for length in size)
    dark = (down[:, None] + across) % 2 == 1
    shown[dark] = other[dark]
    return shown, factor


def _as_it_is(size: tuple[int, int], ground: int, spec: Preprocess, resample: Resample) -> PreprocessV1:
    """Return the specification that shows an image as it is, in colour, over a grey ground."""
    return PreprocessV1(
        version=1,
        mode="RGB",
        size=size,
        fit="stretch",
        crop_fraction=1.0,
        resample=resample,
        background=(ground,) * 3,
        exif=spec.exif,
        polarity="as-is",
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )


def _orientation(decoded: Image.Image, spec: Preprocess) -> int:
    """Return the orientation tag (Exif 2.32, tag 274) that the specification undoes; 1 if the image stays as it is stored."""
    try:
        tag = decoded.getexif().get(274)
    except Exception:  # noqa: BLE001 - `reformat` takes an image with a damaged EXIF block as upright too
        return 1
    return tag if spec.exif == "apply" and tag in UPRIGHT else 1


def _kind(decoded: Image.Image) -> str:
    return f"{decoded.mode}{' with transparency' if decoded.has_transparency_data else ''}"


def _times(factor: float) -> str:
    if factor == 1:
        return "as it is"
    return f"enlarged {factor:.0f} times" if factor > 1 else f"reduced {1 / factor:.1f} times"


def _sheet(panels: Sequence[tuple[Sequence[str], _Pixels]], paragraphs: Sequence[str]) -> Image.Image:
    """Lay panels side by side, each with its caption below, and the paragraphs under all of them."""
    font = ImageFont.load_default(TEXT_PX)
    columns = [max(pixels.shape[1], SIDE) for _, pixels in panels]
    width = sum(columns) + MARGIN * (len(columns) + 1)
    captions = [
        [line for text in caption for line in _wrapped(text, column, font)] for (caption, _), column in zip(panels, columns, strict=True)
    ]
    lines = [line for text in paragraphs for line in _wrapped(text, width - 2 * MARGIN, font)]
    tallest = max(pixels.shape[0] for _, pixels in panels)
    below = 2 * MARGIN + tallest + LINE_PX * max(map(len, captions))
    sheet = Image.new("RGB", (width, below + LINE_PX * len(lines) + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    at = MARGIN
    for column, caption, (_, pixels) in zip(columns, captions, panels, strict=True):
        sheet.paste(Image.fromarray(pixels), (at, MARGIN))
        # Around the image: a white one on white paper has an end too.
        draw.rectangle((at - 1, MARGIN - 1, at + pixels.shape[1], MARGIN + pixels.shape[0]), outline=FRAME)
        _write(draw, caption, (at, MARGIN + tallest + MARGIN // 2), font)
        at += column + MARGIN
    _write(draw, lines, (MARGIN, below), font)
    return sheet


def _write(
    draw: ImageDraw.ImageDraw, lines: Sequence[str], at: tuple[int, int], font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    for number, line in enumerate(lines):
        draw.text((at[0], at[1] + LINE_PX * number), line, INK, font=font)


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Iterator[str]:
    """Cut a text into lines of at most `width` pixels, between words, and inside of one that is longer than a line."""
    line = ""
    # Pillow's own font draws a box for any letter that is not ASCII.
    for word in text.encode("ascii", "backslashreplace").decode().split():
        rest = word
        if line and font.getlength(f"{line} {rest}") > width:
            yield line
            line = ""
        while font.getlength(rest) > width:
            fits = next(count for count in range(len(rest) - 1, 0, -1) if font.getlength(rest[:count]) <= width)
            yield rest[:fits]
            rest = rest[fits:]
        line = f"{line} {rest}" if line else rest
    if line:
        yield line
