"""How much damage the decoder notices, format by format: four bytes overwritten somewhere in the middle of each of 100 files.

    python scripts/measure_damage.py [--files 100] [--bytes 4] [FORMAT ...]

The files show slopes, edges and noise, those for fax black shapes on white, from 160 x 120 to 480 x 360 pixels, the same ones each
time. HEIC is measured where pillow-heif can write it.
"""

import io
import random
from collections import Counter
from typing import Final

import click
import numpy as np
from PIL import Image

from sightline.console import results, table
from sightline.errors import ImageError
from sightline.image import open_image

FORMATS: Final[dict[str, tuple[str, str, dict[str, object]]]] = {
    "JPEG": ("JPEG", "RGB", {"quality": 85}),
    "JPEG, progressive": ("JPEG", "RGB", {"quality": 85, "progressive": True}),
    "JPEG, restart markers": ("JPEG", "RGB", {"quality": 85, "restart_marker_rows": 1}),
    "PNG": ("PNG", "RGB", {}),
    "WebP, lossy": ("WEBP", "RGB", {"quality": 80}),
    "WebP, lossless": ("WEBP", "RGB", {"lossless": True}),
    "GIF": ("GIF", "P", {}),
    "BMP": ("BMP", "RGB", {}),
    "PPM": ("PPM", "RGB", {}),
    "TIFF, uncompressed": ("TIFF", "RGB", {}),
    "TIFF, LZW": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "TIFF, deflate": ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    "TIFF, PackBits": ("TIFF", "L", {"compression": "packbits"}),
    "TIFF, JPEG": ("TIFF", "RGB", {"compression": "jpeg"}),
    "TIFF, Group 3": ("TIFF", "1", {"compression": "group3"}),
    "TIFF, Group 4": ("TIFF", "1", {"compression": "group4"}),
    "AVIF": ("AVIF", "RGB", {}),
    "HEIC": ("HEIF", "RGB", {}),
}
"""What Pillow calls each, the mode that it is written from, and the settings."""


@click.command()
@click.argument("formats", nargs=-1, type=click.Choice(sorted(FORMATS)))
@click.option("--files", type=click.IntRange(1), default=100, show_default=True, help="Damaged files of each format.")
@click.option("--bytes", "count", type=click.IntRange(1), default=4, show_default=True, help="Bytes that are overwritten in each.")
def measure(formats: tuple[str, ...], files: int, count: int) -> None:
    """Print, for each format, how many damaged files are refused, show the same pixels as before, and show others without a word."""
    report = table("format", "refused", "same pixels", "other pixels", left=1)
    for name in formats or FORMATS:
        outcomes = damage(name, files, count)
        if outcomes is None:
            click.echo(f"{name}: nothing here can write it", err=True)
        else:
            report.add_row(name, *(f"{outcomes[outcome] / files:.0%}" for outcome in ("refused", "same", "other")))
    results().print(report)


def damage(name: str, files: int, count: int) -> Counter[str] | None:
    """Damage so many files of a format and count what becomes of them: refused, same, other. None if the format cannot be written."""
    chance = random.Random(f"{name} {count}")
    outcomes: Counter[str] = Counter()
    for index in range(files):
        content = encoded(name, index)
        if content is None:
            return None
        before = pixels(content)
        raw = bytearray(content)
        at = chance.randrange(len(raw) // 4, len(raw) * 3 // 4)
        # Each byte changes: what is written over is no accident that changes nothing.
        raw[at : at + count] = bytes(byte ^ chance.randrange(1, 256) for byte in raw[at : at + count])
        try:
            after = pixels(bytes(raw))
        except ImageError:
            outcomes["refused"] += 1
        else:
            outcomes["same" if before.shape == after.shape and np.array_equal(before, after) else "other"] += 1
    return outcomes


def encoded(name: str, index: int) -> bytes | None:
    """Return image `index` as a file of that format; None if nothing here can write it."""
    kind, mode, settings = FORMATS[name]
    if kind == "HEIF":
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            return None
        register_heif_opener()
    buffer = io.BytesIO()
    drawn(index, mode).save(buffer, kind, **settings)
    return buffer.getvalue()


def drawn(index: int, mode: str) -> Image.Image:
    """Draw image `index`: for mode 1 black shapes on white, else slopes, edges and noise."""
    generator = np.random.default_rng(index)
    side = 40 * int(generator.integers(1, 4))
    height, width = 120 + 3 * (side - 40), 160 + 4 * (side - 40)
    patches = generator.integers(0, 256, (int(generator.integers(3, 9)), int(generator.integers(3, 9)), 3)).astype(np.uint8)
    slopes = np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    if mode == "1":
        return Image.fromarray((slopes[..., 0] > 100) ^ (slopes[..., 1] > 190))
    edges = np.where(slopes[..., :1] > slopes[..., 1:2], slopes, 255 - slopes)
    noisy = np.clip(edges + generator.normal(0, 4, edges.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).convert(mode)


def pixels(content: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return what the decoder makes of a file, as RGB."""
    return np.asarray(open_image(content).convert("RGB"))


if __name__ == "__main__":
    measure()
