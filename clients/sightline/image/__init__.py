"""Opens an image that nobody vouches for: allowed formats only, bounded bytes and pixels, one clear sentence when it fails."""

from sightline.image.decode import MAX_BYTES, MAX_PIXELS, MAX_SIDE, Admit, BinaryFile, ImageInput, declared_pixels, name_of, open_image
from sightline.image.formats import FORMATS, SUFFIXES, format_of, is_image_file

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "MAX_SIDE",
    "SUFFIXES",
    "Admit",
    "BinaryFile",
    "ImageInput",
    "declared_pixels",
    "format_of",
    "is_image_file",
    "name_of",
    "open_image",
]
