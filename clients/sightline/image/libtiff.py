"""Asks the very libtiff that Pillow decodes with what it thinks of a compressed TIFF: Pillow lets it complain to stderr, and goes on.

libtiff is called through ctypes, with a handler of errors for this one file, so that neither other threads nor the process's own handlers
have part in it. Where Pillow's libtiff cannot be reached (in wheels for Windows it is linked in, without its names) or is older than
4.5, nothing is asked.
"""

import ctypes
import io
from contextlib import suppress
from functools import cache
from typing import Final

from PIL import Image

WARNINGS_THAT_COUNT: Final = ("Fax", "JPEGLib", "PackBits", "LZW", "OJPEG")
"""Beginnings of the names of libtiff's modules whose warnings, while data is decoded, are of damaged data."""

HARMLESS: Final = ("extraneous bytes before marker 0xd9",)
"""Parts of warnings of JPEGs that some cameras write and every program reads."""

MAX_STRIP_BYTES: Final = 1 << 30
"""Of a decoded strip or tile; Pillow has decoded it before."""

_Client = ctypes.c_void_p
_MAP = ctypes.CFUNCTYPE(ctypes.c_int, _Client, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_uint64))
_UNMAP = ctypes.CFUNCTYPE(None, _Client, ctypes.c_void_p, ctypes.c_uint64)
_READ = ctypes.CFUNCTYPE(ctypes.c_ssize_t, _Client, ctypes.c_void_p, ctypes.c_ssize_t)
_SEEK = ctypes.CFUNCTYPE(ctypes.c_uint64, _Client, ctypes.c_uint64, ctypes.c_int)
_CLOSE = ctypes.CFUNCTYPE(ctypes.c_int, _Client)
_SIZE = ctypes.CFUNCTYPE(ctypes.c_uint64, _Client)
_HANDLER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)


def first_complaint(content: bytes) -> str:
    """Decode every strip or tile of the first page and return the first complaint that matters; empty if there is none.

    Empty too where libtiff cannot be asked. Needs as much memory as one decoded strip.
    """
    library = _library()
    if library is None:
        return ""
    complaints: list[str] = []
    decoding = False
    buffer = ctypes.c_char_p(content)
    length = len(content)
    header = io.BytesIO(content)

    def text_of(module: bytes | None, words: bytes | None, arguments: int | None) -> tuple[str, str]:
        text = ctypes.create_string_buffer(300)
        # A va_list is handed on as the pointer that it is, or is passed by, on each platform that has these functions.
        library.vsnprintf(text, len(text), words or b"", ctypes.c_void_p(arguments))
        return (module or b"").decode("ascii", "replace"), text.value.decode("ascii", "replace")

    def on_error(_tiff: int, _data: int, module: bytes | None, words: bytes | None, arguments: int | None) -> int:
        if decoding:
            complaints.append(text_of(module, words, arguments)[1])
        return 1  # handled: nothing goes to stderr

    def on_warning(_tiff: int, _data: int, module: bytes | None, words: bytes | None, arguments: int | None) -> int:
        if decoding:
            name, text = text_of(module, words, arguments)
            if name.startswith(WARNINGS_THAT_COUNT) and not any(part in text for part in HARMLESS):
                complaints.append(text)
        return 1

    def mapped(_client: int, base: "ctypes._Pointer[ctypes.c_void_p]", size: "ctypes._Pointer[ctypes.c_uint64]") -> int:
        base[0] = ctypes.cast(buffer, ctypes.c_void_p)
        size[0] = ctypes.c_uint64(length)
        return 1

    def read(_client: int, into: int, count: int) -> int:
        part = header.read(count)
        ctypes.memmove(into, part, len(part))
        return len(part)

    # Kept by these names until the file is closed. Only the header is read: what follows, libtiff takes from the mapping.
    handlers = _HANDLER(on_error), _HANDLER(on_warning)
    procedures = (
        _READ(read),
        _READ(lambda *_: 0),
        _SEEK(lambda _client, offset, whence: header.seek(offset, whence)),
        _CLOSE(lambda _client: 0),
        _SIZE(lambda _client: length),
        _MAP(mapped),
        _UNMAP(lambda *_: None),
    )
    options = library.TIFFOpenOptionsAlloc()
    try:
        library.TIFFOpenOptionsSetErrorHandlerExtR(options, handlers[0], None)
        library.TIFFOpenOptionsSetWarningHandlerExtR(options, handlers[1], None)
        file = library.TIFFClientOpenExt(b"image", b"r", None, *procedures, options)
    finally:
        library.TIFFOpenOptionsFree(options)
    if not file:
        return ""
    try:
        tiled = library.TIFFIsTiled(file)
        strip_bytes = (library.TIFFTileSize if tiled else library.TIFFStripSize)(file)
        if not 0 < strip_bytes <= MAX_STRIP_BYTES:
            return ""
        decode = library.TIFFReadEncodedTile if tiled else library.TIFFReadEncodedStrip
        decoded = ctypes.create_string_buffer(strip_bytes)
        decoding = True
        for index in range((library.TIFFNumberOfTiles if tiled else library.TIFFNumberOfStrips)(file)):
            decode(file, index, decoded, strip_bytes)
            if complaints:
                return complaints[0]
        decoding = False
    finally:
        library.TIFFClose(file)
    return ""


@cache
def _library() -> "ctypes.CDLL | None":
    """Pillow's libtiff, its functions declared; None if it cannot be reached."""
    with suppress(AttributeError, OSError):
        # Names are looked for in what the extension module is linked with, too.
        library = ctypes.CDLL(Image.core.__file__)
        library.vsnprintf.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)
        library.TIFFOpenOptionsAlloc.restype = ctypes.c_void_p
        library.TIFFOpenOptionsFree.argtypes = (ctypes.c_void_p,)
        for function in (library.TIFFOpenOptionsSetErrorHandlerExtR, library.TIFFOpenOptionsSetWarningHandlerExtR):
            function.argtypes = (ctypes.c_void_p, _HANDLER, ctypes.c_void_p)
            function.restype = None
        library.TIFFClientOpenExt.argtypes = (
            *(ctypes.c_char_p, ctypes.c_char_p, _Client, _READ, _READ, _SEEK, _CLOSE, _SIZE, _MAP, _UNMAP, ctypes.c_void_p),
        )
        library.TIFFClientOpenExt.restype = ctypes.c_void_p
        library.TIFFClose.argtypes = (ctypes.c_void_p,)
        library.TIFFClose.restype = None
        for function in (library.TIFFIsTiled, library.TIFFNumberOfStrips, library.TIFFNumberOfTiles):
            function.argtypes = (ctypes.c_void_p,)
            function.restype = ctypes.c_uint32
        for function in (library.TIFFStripSize, library.TIFFTileSize):
            function.argtypes = (ctypes.c_void_p,)
            function.restype = ctypes.c_ssize_t
        for function in (library.TIFFReadEncodedStrip, library.TIFFReadEncodedTile):
            function.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_ssize_t)
            function.restype = ctypes.c_ssize_t
        return library
    return None
