"""Reads a TIFF as its own tags say: how many bits a sample has, whether 0 is white, whether it has a sign; Pillow's mode does not tell."""

import io
from typing import Final

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from sightline.image import tiff_strips
from sightline.image.formats import Damaged, Unsupported
from sightline.image.tiff_directory import (
    BITS,
    COMPRESSION,
    EXTRA_SAMPLES,
    FILL_ORDER,
    HEIGHT,
    INK_SET,
    MAX_SAMPLES,
    PHOTOMETRIC,
    PLANAR,
    SAMPLE_FORMAT,
    STRIP_OFFSETS,
    TILE_OFFSETS,
    WIDTH,
    YCBCR_SUBSAMPLING,
    Directory,
    read_directory,
)

MEANINGS: Final = {
    0: "grey, 0 is white",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "transparency mask",
    5: "inks",
    6: "YCbCr",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
"""Of PhotometricInterpretation (TIFF 6.0 and its supplements; DNG 1.6)."""

COMPRESSIONS: Final = {
    9: "JBIG",
    10: "JBIG",
    32766: "NeXT",
    32767: "Sony ARW",
    32769: "packed camera raw",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34712: "JPEG 2000",
    34713: "Nikon NEF",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
"""Of Compression: those that exist and Pillow does not know (TIFF 6.0 and its supplements; libtiff 4.7's tiff.h; DNG 1.7)."""

PLAIN: Final = frozenset({1, 5, 8, 32773, 32946})
"""Of Compression: none, LZW, deflate (by two numbers) and PackBits, where FillOrder tells of every byte of the data."""

MOST_BITS: Final = 64
"""A TIFF that claims more of a sample is damaged, for all that anybody can say."""

SIGNED: Final = "an image of 32-bit or signed integers has no defined white: save it with 8 or 16 bits first"
FULL: Final = 0xFFFF
"""White, of samples of more than 8 bits."""


def opened(content: bytes) -> Image.Image:
    """Open a TIFF with Pillow, its directory written anew where Pillow would not understand it. Raises Unsupported, or as Pillow."""
    directory = read_directory(content)
    sentence = _refused(directory)
    if sentence:
        raise Unsupported(sentence)
    bits, photometric = directory.bits, directory.number(PHOTOMETRIC)
    changes: dict[int, int] = {}
    if directory.number(SAMPLE_FORMAT, 1) == 4:
        changes[SAMPLE_FORMAT] = 1  # undefined, to be read as unsigned (TIFF 6.0, section 19)
    if photometric == 0 and bits[0] in (12, 16):
        changes[PHOTOMETRIC] = 1  # Pillow knows 0 for white only at 1 to 8 bits
    if directory.number(FILL_ORDER, 1) == 2 and directory.number(COMPRESSION, 1) in PLAIN:
        changes[FILL_ORDER] = 1  # Pillow turns the bits around in some layouts only
        directory = directory.with_bits_reversed()
    packed = bits == (12,) and directory.order == ">"  # packed alike in either order, and known to Pillow in one
    if changes or packed or directory.is_big:
        content = directory.rewritten(changes, "<" if packed else None)
    file = TiffImageFile(io.BytesIO(content))
    file.tag_v2[PHOTOMETRIC] = photometric
    return file


def prepare(file: TiffImageFile, content: bytes) -> None:
    """Hold the data of an opened TIFF to what its compression can tell, and give it memory. Raises Damaged or Unsupported.

    Pillow by itself would not give memory beyond its own limit, which is the whole process's, and would have the complaint on stderr.
    """
    file.im = Image.new(file.mode, (file.tag_v2[WIDTH], file.tag_v2[HEIGHT])).im
    if complaint := tiff_strips.complaint(read_directory(content)):
        if "not configured" in complaint:
            raise Unsupported(f"a TIFF of a kind that is not read here ({complaint}): save it with another compression, or as PNG")
        raise Damaged(complaint)


def in_full_range(image: TiffImageFile) -> Image.Image:
    """Return a decoded page with white at 65,535 if its samples have more than 8 bits, and 0 for black. Raises Unsupported."""
    bits = image.tag_v2.get(BITS, (1,))[0]
    if image.mode == "L" and max(image.tag_v2.get(SAMPLE_FORMAT, (1,))) == 2:
        raise Unsupported(SIGNED)
    if image.mode == "La":
        return image.convert("LA")
    if not image.mode.startswith("I;16"):
        return image
    samples = np.asarray(image).astype(np.uint16)
    if bits == 12:
        samples = np.bitwise_or(samples << 4, samples >> 8, dtype=np.uint16)
    if image.tag_v2.get(PHOTOMETRIC) == 0:
        samples = np.subtract(FULL, samples, dtype=np.uint16)
    full = Image.fromarray(samples)
    full.info = dict(image.info)
    if orientation := image.getexif().get(274):
        full.getexif()[274] = orientation
    return full


def whats_unsupported(content: bytes) -> str:
    """Return the sentence for a TIFF that Pillow did not read, if its tags are whole and name a kind that Pillow does not know."""
    try:
        directory = read_directory(content)
    except ValueError:
        return ""
    compression = directory.number(COMPRESSION, 1)
    if compression in COMPRESSIONS:
        return f"a TIFF compressed by {COMPRESSIONS[compression]} is not read here: save it with another compression, or as PNG"
    try:
        opened(content)
    except Unsupported as error:
        return str(error)
    except SyntaxError:
        if {WIDTH, HEIGHT} <= directory.entries.keys() and {STRIP_OFFSETS, TILE_OFFSETS} & directory.entries.keys():
            return _no_white(directory) or _kind(directory)
    except Exception:  # noqa: BLE001 - it is damaged, and whoever tried first says how
        return ""
    return ""


def _refused(directory: Directory) -> str:
    """The sentence for what Pillow would misread; empty for what it reads, or refuses by itself."""
    bits, formats = directory.bits, directory.numbers(SAMPLE_FORMAT, (1,))
    if 2 in formats and bits[0] == 8:
        return SIGNED
    if directory.number(INK_SET, 1) != 1:
        return "a TIFF of inks other than cyan, magenta, yellow and black is not read here: save it as RGB"
    photometric, is_raw = directory.number(PHOTOMETRIC), directory.number(COMPRESSION, 1) == 1
    if photometric == 6 and is_raw and directory.numbers(YCBCR_SUBSAMPLING, (2, 2)) != (1, 1):
        return "an uncompressed TIFF of YCbCr with fewer samples of colour is not read here: save it as RGB"
    if directory.number(PLANAR, 1) == 2 and len(bits) > 1:
        if is_raw and bits[0] != 8:
            return _kind(directory)
        if photometric in (0, 1, 3) and (max(directory.numbers(EXTRA_SAMPLES, (0,))) or (is_raw and photometric == 0)):
            return _kind(directory)
    return ""


def _no_white(directory: Directory) -> str:
    """The sentence for samples that have no defined white, of which Pillow opens some kinds: `reformat` refuses those alike."""
    bits, formats = directory.bits, directory.numbers(SAMPLE_FORMAT, (1,))
    if 3 in formats:
        return f"an image of {bits[0]}-bit floating-point pixels has no defined white: save it with 8 or 16 bits first"
    return SIGNED if 2 in formats or (1 in formats and 32 in bits) else ""


def _kind(directory: Directory) -> str:
    """The sentence for a layout that Pillow does not know; empty if there is no such layout, so that the file must be damaged."""
    bits, meaning = directory.bits, MEANINGS.get(directory.number(PHOTOMETRIC))
    if meaning is None or max(bits) > MOST_BITS or len(bits) > MAX_SAMPLES:
        return ""
    extra = f", {len(directory.numbers(EXTRA_SAMPLES))} of them extra" if directory.numbers(EXTRA_SAMPLES) else ""
    planes = ", in planes," if directory.number(PLANAR, 1) == 2 else ""
    each = "a sample" if len(bits) == 1 else f"in each of {len(bits)} samples{extra}"
    depth = "/".join(map(str, dict.fromkeys(bits)))
    return f"a TIFF ({meaning}) of {depth} bits {each}{planes} is not read here: save it with 8 bits, or as PNG"
