"""Images inside a zip file, one folder a class, read without unpacking it to the disk and without trusting it."""

import zipfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sightline.errors import DataError
from sightline_training.datasets.encoded_images import EncodedImage

MAX_ZIP_BYTES: Final = 256 * 1024**2
"""Of the file: zipfile reads its whole list of members at once, and 46 bytes a member are enough."""
MAX_MEMBERS: Final = 200_000
MAX_MEMBER_BYTES: Final = 1024**2
MAX_BYTES: Final = 1024**3
"""Of all members together, unpacked: they are kept in memory."""


def zipped_images(path: Path, classes: Sequence[str]) -> tuple[list[EncodedImage], npt.NDArray[np.int64]]:
    """The images `<class>/<anything>` of a zip file in the order of their names, encoded as they are, and their class indices.

    Raises DataError, naming the file and the member, if it is damaged, encrypted, packed in a way that is not deflate, larger than
    the bounds above once unpacked (whatever it declares), or holds anything else than folders named after the classes.
    """
    try:
        if path.stat().st_size > MAX_ZIP_BYTES:
            raise DataError(f"{path}: larger than {MAX_ZIP_BYTES // 1024**2} MiB, the most that such a file may have.")
        with zipfile.ZipFile(path) as archive:
            members = sorted((info for info in archive.infolist() if not info.is_dir()), key=lambda info: info.filename)
            if not 0 < len(members) <= MAX_MEMBERS:
                raise DataError(f"{path}: it holds {len(members):,} images; expected 1 to {MAX_MEMBERS:,}.")
            images, labels, total = [], [], 0
            for member in members:
                kind, slash, _ = member.filename.partition("/")
                if kind not in classes or not slash:
                    raise DataError(f"{path}: {_named(member)} lies in no folder named after a class ({', '.join(classes)}).")
                content = _unpacked(archive, member, path)
                total += len(content)
                if total > MAX_BYTES:
                    raise DataError(f"{path}: its members have more than {MAX_BYTES // 1024**2} MiB unpacked.")
                images.append(EncodedImage(f"{path}/{member.filename}", partial(bytes, content)))
                labels.append(classes.index(kind))
    except (OSError, zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read as a zip file ({reason}). Put a good copy in its place.") from None
    return images, np.array(labels, np.int64)


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytes:
    if member.flag_bits & 1:
        raise DataError(f"{path}: {_named(member)} is encrypted.")
    # zipfile unpacks bzip2 and LZMA without a bound, however little is asked for.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path}: {_named(member)} is neither stored nor deflated. Pack the file again, with one of the two.")
    if member.file_size <= MAX_MEMBER_BYTES:
        with archive.open(member) as file:
            content = file.read(MAX_MEMBER_BYTES + 1)
        if len(content) <= MAX_MEMBER_BYTES:
            return content
    raise DataError(f"{path}: {_named(member)} is larger than {MAX_MEMBER_BYTES // 1024} KiB unpacked.")


def _named(member: zipfile.ZipInfo) -> str:
    return f"{member.filename!r:.80}"
