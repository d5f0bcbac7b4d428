"""Holds a GIF's first frame to its own count of pixels, which Pillow does not, and leaves transparent what the frame does not cover."""

from typing import Final

from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from sightline.image.lzw import LONGEST_BITS, Variant, decoded_length

PAD_PIXELS: Final = 8
"""Fewer than so many pixels too many can be the last byte's unused bits, where the code that ends the stream was left out."""


def complaint(content: bytes) -> str:
    """Return what is wrong with the compressed data of the first frame of a GIF that was decoded; empty if it is well.

    The codes must exist when they are used, and stand for as many pixels as the frame has. GIF has no checksum: a changed code of
    the same length, or a changed colour, is not seen.
    """
    width, height, code_bits, data = _first_frame(content)
    if not 1 <= code_bits < LONGEST_BITS:
        return f"its codes have {code_bits} bits"
    decoded = decoded_length(data, Variant(code_bits), width * height + PAD_PIXELS)
    if decoded.state == "too many clears":
        return ""
    if decoded.state == "bad code":
        return "its compressed data holds a code that means nothing"
    surplus = decoded.length - width * height
    if surplus == 0 or (decoded.state == "out of data" and 0 < surplus < PAD_PIXELS):
        return ""
    return f"its compressed data holds {'more' if surplus > 0 else 'fewer'} pixels than its {width} x {height}"


def uncovered_is_transparent(image: GifImageFile) -> Image.Image:
    """Return the first frame with nothing where it does not cover the canvas, as browsers show it; Pillow fills in its first colour."""
    box = image.dispose_extent
    # With a transparent colour of its own, Pillow has laid that around it.
    if box is None or image.tell() or "transparency" in image.info or box == (0, 0, *image.size):
        return image
    covered = Image.new("L", image.size, 0)
    covered.paste(255, box)
    shown = image.convert("RGBA")
    shown.putalpha(covered)
    return shown


def _first_frame(content: bytes) -> tuple[int, int, int, bytes]:
    """Width, height, the least bits of a code less one, and the compressed data of the first frame."""

    def colours(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 128 else 0

    def after_blocks(at: int) -> int:
        while length := content[at]:
            at += 1 + length
        return at + 1

    at = 13 + colours(content[10])
    while content[at] != ord(","):
        # An extension; Pillow steps over what is neither, byte by byte.
        at = after_blocks(at + 2) if content[at] == ord("!") else at + 1
    width, height = (int.from_bytes(content[at + field : at + field + 2], "little") for field in (5, 7))
    at += 10 + colours(content[at + 9])
    code_bits, at = content[at], at + 1
    blocks = []
    while at < len(content) and (length := content[at]):
        blocks.append(content[at + 1 : at + 1 + length])
        at += 1 + length
    return width, height, code_bits, b"".join(blocks)
