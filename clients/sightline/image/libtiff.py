"""Asks the very libtiff that Pillow decodes with what it thinks of a compressed TIFF: Pillow lets it complain to stderr, and goes on.

libtiff is called through ctypes, with handlers of errors for this one file, so that neither other threads nor the process's own handlers
have part in it. Where Pillow's libtiff cannot be reached (in wheels for Windows it is linked in, without its names) or is older than
4.5, nothing is asked.
"""

import ctypes
import io
from contextlib import suppress
from functools import cache
from typing import Final

from PIL import _imaging

WARNINGS_THAT_COUNT: Final = ("Fax", "JPEGLib", "PackBits", "LZW", "OJPEG")
"""Beginnings of the names of libtiff's modules whose warnings, while data is decoded, are of damaged data."""

HARMLESS: Final = ("extraneous bytes before marker 0xd9",)
"""Parts of warnings of JPEGs that some cameras write and every program reads."""

MAX_STRIP_BYTES: Final = 1 << 30
"""Of a decoded strip or tile: more are not asked after."""

_Pointer = ctypes.c_void_p
_READ = ctypes.CFUNCTYPE(ctypes.c_ssize_t, _Pointer, _Pointer, ctypes.c_ssize_t)
_SEEK = ctypes.CFUNCTYPE(ctypes.c_uint64, _Pointer, ctypes.c_uint64, ctypes.c_int)
_CLOSE = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer)
_SIZE = ctypes.CFUNCTYPE(ctypes.c_uint64, _Pointer)
_MAP = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.POINTER(_Pointer), ctypes.POINTER(ctypes.c_uint64))
_UNMAP = ctypes.CFUNCTYPE(None, _Pointer, _Pointer, ctypes.c_uint64)
_HANDLER = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, ctypes.c_char_p, ctypes.c_char_p, _Pointer)


def first_complaint(content: bytes) -> str:
    """Decode every strip or tile of the first page and return the first complaint that matters; empty if there is none.

    Empty too where libtiff cannot be asked. Needs as much memory as one decoded strip.
    """
    library = _library()
    if library is None:
        return ""
    session = _Session(library, content)
    # Until the file is closed these must live, as libtiff holds nothing but their addresses.
    procedures = session.procedures()
    file = session.opened(*procedures)
    if not file:
        return next(iter(session.complaints), "")
    try:
        session.decode(file)
    finally:
        library.TIFFClose(file)
    return next(iter(session.complaints), "")


class _Session:
    """One file in memory, and what libtiff says of it."""

    def __init__(self, library: ctypes.CDLL, content: bytes) -> None:
        self.complaints: list[str] = []
        self._library = library
        self._content = content
        self._address = ctypes.c_char_p(content)
        self._header = io.BytesIO(content)
        self._decoding = False

    def procedures(self) -> tuple[object, ...]:
        """What libtiff calls: for errors, for warnings, then to read and seek in the header, and to find the rest in memory."""
        nothing_written, left_mapped = _READ(lambda *_: 0), _UNMAP(lambda *_: None)
        closed, size = _CLOSE(lambda _: 0), _SIZE(lambda _: len(self._content))
        seek = _SEEK(lambda _, offset, whence: self._header.seek(offset, whence))
        file = (_READ(self._read), nothing_written, seek, closed, size, _MAP(self._map), left_mapped)
        return (_HANDLER(self._on_error), _HANDLER(self._on_warning), *file)

    def opened(self, on_error: object, on_warning: object, *file: object) -> int | None:
        """Open the file; None if libtiff does not want to."""
        options = self._library.TIFFOpenOptionsAlloc()
        try:
            self._library.TIFFOpenOptionsSetErrorHandlerExtR(options, on_error, None)
            self._library.TIFFOpenOptionsSetWarningHandlerExtR(options, on_warning, None)
            handle: int | None = self._library.TIFFClientOpenExt(b"image", b"r", None, *file, options)
        finally:
            self._library.TIFFOpenOptionsFree(options)
        return handle

    def decode(self, file: int) -> None:
        """Decode strip after strip, up to the first complaint. What was said when the file was opened, of odd tags, does not count."""
        library = self._library
        self.complaints.clear()
        self._decoding = True
        tiled = library.TIFFIsTiled(file)
        strip_bytes = (library.TIFFTileSize if tiled else library.TIFFStripSize)(file)
        if not 0 < strip_bytes <= MAX_STRIP_BYTES:
            return
        decode = library.TIFFReadEncodedTile if tiled else library.TIFFReadEncodedStrip
        decoded = ctypes.create_string_buffer(strip_bytes)
        for index in range((library.TIFFNumberOfTiles if tiled else library.TIFFNumberOfStrips)(file)):
            decode(file, index, decoded, strip_bytes)
            if self.complaints:
                return

    def _on_error(self, _file: int, _data: int, _module: bytes | None, words: bytes | None, arguments: int | None) -> int:
        self.complaints.append(self._text(words, arguments))
        return 1  # handled: nothing goes to stderr

    def _on_warning(self, _file: int, _data: int, module: bytes | None, words: bytes | None, arguments: int | None) -> int:
        if self._decoding and (module or b"").decode("ascii", "replace").startswith(WARNINGS_THAT_COUNT):
            text = self._text(words, arguments)
            if not any(part in text for part in HARMLESS):
                self.complaints.append(text)
        return 1

    def _text(self, words: bytes | None, arguments: int | None) -> str:
        text = ctypes.create_string_buffer(300)
        # A va_list is a pointer, or is passed by one, on each platform where these functions can be reached.
        self._library.vsnprintf(text, len(text), words or b"", arguments)
        return text.value.decode("ascii", "replace")

    def _read(self, _client: int, into: int, count: int) -> int:
        part = self._header.read(count)
        ctypes.memmove(into, part, len(part))
        return len(part)

    def _map(self, _client: int, base: "ctypes._Pointer[ctypes.c_void_p]", size: "ctypes._Pointer[ctypes.c_uint64]") -> int:
        base[0] = ctypes.cast(self._address, ctypes.c_void_p)
        size[0] = ctypes.c_uint64(len(self._content))
        return 1


@cache
def _library() -> ctypes.CDLL | None:
    """Pillow's libtiff, its functions declared as tiffio.h 4.5 has them; None if it cannot be reached."""
    with suppress(AttributeError, OSError):
        # Names are looked for in what the extension module is linked with, too.
        library = ctypes.CDLL(_imaging.__file__)
        client = (ctypes.c_char_p, ctypes.c_char_p, _Pointer, _READ, _READ, _SEEK, _CLOSE, _SIZE, _MAP, _UNMAP, _Pointer)
        strip = (_Pointer, ctypes.c_uint32, _Pointer, ctypes.c_ssize_t)
        for function, arguments, result in (
            (library.vsnprintf, (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, _Pointer), ctypes.c_int),
            (library.TIFFOpenOptionsAlloc, (), _Pointer),
            (library.TIFFOpenOptionsFree, (_Pointer,), None),
            (library.TIFFOpenOptionsSetErrorHandlerExtR, (_Pointer, _HANDLER, _Pointer), None),
            (library.TIFFOpenOptionsSetWarningHandlerExtR, (_Pointer, _HANDLER, _Pointer), None),
            (library.TIFFClientOpenExt, client, _Pointer),
            (library.TIFFClose, (_Pointer,), None),
            (library.TIFFIsTiled, (_Pointer,), ctypes.c_int),
            (library.TIFFNumberOfStrips, (_Pointer,), ctypes.c_uint32),
            (library.TIFFNumberOfTiles, (_Pointer,), ctypes.c_uint32),
            (library.TIFFStripSize, (_Pointer,), ctypes.c_ssize_t),
            (library.TIFFTileSize, (_Pointer,), ctypes.c_ssize_t),
            (library.TIFFReadEncodedStrip, strip, ctypes.c_ssize_t),
            (library.TIFFReadEncodedTile, strip, ctypes.c_ssize_t),
        ):
            function.argtypes, function.restype = arguments, result
        return library
    return None
