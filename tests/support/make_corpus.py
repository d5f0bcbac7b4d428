"""Makes the golden corpora: some hundred tiny images of every kind that people send, and what `reformat` must make of each.

    python tests/support/make_corpus.py            writes tests/contract/corpus/ anew

The images are drawn with numpy; PNG files are written chunk by chunk here, the other formats by Pillow. Beside them lie
`cases.json` (the specifications, what each image is, the exact sentence of each refusal; readable from any language) and
`expected.npz` (for each specification, one array of all images that are not refused, in the order of `cases.json`). An
expectation that the independent oracle does not confirm is not written.
"""

import argparse
import io
import json
import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sightline.errors import ImageError
from sightline.reformatting import reformat
from support import document_images, oracle
from support.golden_corpus import CORPORA, Corpus
from support.specs import SPECS, SPECS_OF
from support.tiff_files import Layout, tiff

DECODER_TOLERANCE: Final = 3
"""The most by which a pixel of a lossy image may differ, since JPEG leaves some rounding to the decoder; 0 with Pillow's own wheels."""

ADAM7: Final = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, step down and step right of each pass of an interlaced PNG."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """One file of the corpus. `truth` is what it shows: uint8 RGBA (H, W, 4) as stored, or None where a decoder must be asked."""

    content: bytes
    about: str
    truth: Pixels | None = None
    orientation: int = 1
    lossy: bool = False
    refused: bool = False


def main() -> None:
    """Write the corpus of every version, or refuse to where an oracle contradicts it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--version", type=int, choices=sorted(CORPORA), nargs="*", default=sorted(CORPORA))
    for version in arguments.parse_args().version:
        write(CORPORA[version])


def write(corpus: Corpus) -> None:
    """Write the images, and `cases.json` and `expected.npz` of one version; raises AssertionError where reference and oracle part."""
    corpus.images.mkdir(parents=True, exist_ok=True)
    corpus.folder.mkdir(parents=True, exist_ok=True)
    specs = SPECS_OF[corpus.version]
    arrays: dict[str, list[Pixels]] = {title: [] for title in specs}
    refusals: dict[str, str] = {}
    golden_images = images_of(corpus.version)
    for name, image in golden_images.items():
        path = corpus.images / name
        path.write_bytes(image.content)
        for title, spec in specs.items():
            try:
                pixels = reformat(path, spec)
            except ImageError as error:
                sentence = str(error).removeprefix(f"{path}: ")
                assert refusals.setdefault(name, sentence) == sentence, f"{name} is not refused alike under every specification"
                continue
            truth = oracle.stored(image.content, spec) if image.truth is None else image.truth
            expected = oracle.reformat(truth, image.orientation, spec)
            difference = int(np.abs(pixels.astype(int) - expected).max())
            assert difference <= (DECODER_TOLERANCE if image.lossy else 0), f"{name} under {title}: the oracle differs by {difference}"
            arrays[title].append(pixels)
    assert {name for name, image in golden_images.items() if image.refused} == set(refusals), sorted(refusals)
    np.savez_compressed(corpus.folder / "expected.npz", **{title: np.stack(rows) for title, rows in arrays.items()})
    cases = {
        "decoder_tolerance": DECODER_TOLERANCE,
        "specifications": {title: spec.model_dump(mode="json") for title, spec in specs.items()},
        "pictures": {name: {"about": image.about, "lossy": image.lossy} for name, image in golden_images.items()},
        "refusals": refusals,
    }
    (corpus.folder / "cases.json").write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def images_of(version: int) -> dict[str, Sample]:
    """Every file of a version's corpus by its name. Versions that have none of their own look at version 1's."""
    return _of_version_2() if version == 2 else images()


def images() -> dict[str, Sample]:
    """Every file of version 1's corpus by its name, in the order in which the documentation speaks of them."""
    return {**_jpegs(), **_orientations(), **_transparent(), **_depths(), **_extremes(), **_animations(), **_others(), **_broken()}


def _of_version_2() -> dict[str, Sample]:
    drawn = {name: Sample(png(plane), about, _grey(plane)) for name, (plane, about) in document_images.planes().items()}
    canvases = {name: Sample(png(rgba), about, rgba) for name, (rgba, about) in document_images.canvases().items()}
    photos = {
        name: Sample(content, about, orientation=orientation, lossy=True)
        for name, (content, orientation, about) in document_images.jpegs(scene(81, 107), _exif(6)).items()
    }
    return {**drawn, **canvases, **photos}


def _jpegs() -> dict[str, Sample]:
    photo, ink = scene(40, 52), scene(33, 27)
    cmyk = np.dstack([255 - photo, np.full(photo.shape[:2], 30, np.uint8)])
    adobe = _saved(Image.fromarray(cmyk, "CMYK"), "JPEG", quality=95)
    return {
        "baseline.jpg": Sample(_saved(photo, "JPEG", quality=92, subsampling=0), "baseline JPEG, full colour resolution", lossy=True),
        "progressive.jpg": Sample(_saved(photo, "JPEG", quality=85, progressive=True), "progressive JPEG", lossy=True),
        "half-colour.jpg": Sample(_saved(ink, "JPEG", quality=80, subsampling=2), "JPEG 4:2:0, odd sides", lossy=True),
        "grey.jpg": Sample(_saved(photo[..., 1], "JPEG", quality=90), "grey JPEG", lossy=True),
        "cmyk-adobe.jpg": Sample(adobe, "CMYK JPEG with Adobe's marker, inverted as Photoshop writes it", lossy=True),
        "cmyk.jpg": Sample(
            _without_segment(adobe, 0xEE),
            "CMYK JPEG without Adobe's marker: read as inverted too",
            oracle.stored(adobe, SPECS["imagenet"]),
            lossy=True,
        ),
    }


def _orientations() -> dict[str, Sample]:
    photo, wide = scene(24, 36), scene(21, 30)
    images = {}
    for orientation in range(1, 9):
        stored = oracle.turned(photo, oracle.INVERSE[orientation])
        images[f"exif-{orientation}.jpg"] = Sample(
            _saved(stored, "JPEG", quality=95, subsampling=0, exif=b"Exif\x00\x00" + _exif(orientation)),
            f"JPEG, EXIF orientation {orientation}: upright it shows the same as the other seven",
            orientation=orientation,
            lossy=True,
        )
    good = _saved(photo, "JPEG", quality=95, subsampling=0)
    garbage = b"Exif\x00\x00II*\x00\xff\xff\xff\x7f" + bytes(range(40))
    damaged = good[:2] + b"\xff\xe1" + struct.pack(">H", len(garbage) + 2) + garbage + good[2:]
    return images | {
        "exif-damaged.jpg": Sample(damaged, "good JPEG whose EXIF block is garbage: counts as upright", lossy=True),
        "exif-6-behind-a-broken-entry.png": Sample(
            png(wide, chunks=[(b"eXIf", _exif(6, broken=True))]),
            "PNG, EXIF orientation 6 behind an entry whose value lies outside the block",
            _opaque(wide),
            6,
        ),
        "exif-9.png": Sample(png(wide, chunks=[(b"eXIf", _exif(9))]), "PNG, EXIF orientation 9, which does not exist", _opaque(wide)),
        "exif-6.png": Sample(png(wide, chunks=[(b"eXIf", _exif(6))]), "PNG, EXIF orientation 6", _opaque(wide), 6),
        "exif-5.webp": Sample(
            _saved(wide, "WEBP", lossless=True, exif=b"Exif\x00\x00" + _exif(5)), "lossless WebP, EXIF orientation 5", _opaque(wide), 5
        ),
        "exif-8.tif": Sample(_saved(wide, "TIFF", exif=_exif(8)), "TIFF, orientation 8", _opaque(wide), 8),
        "exif-6-grey16.tif": Sample(
            _saved(_wide16(wide), "TIFF", exif=_exif(6)), "16-bit grey TIFF, orientation 6", _grey(wide[..., 0]), 6
        ),
    }


def _transparent() -> dict[str, Sample]:
    photo = scene(26, 31)
    alpha = _soft_edge(26, 31)
    rgba, la = np.dstack([photo, alpha]), np.dstack([photo[..., 0], alpha])
    indices, palette = _posterised(photo)
    veils = bytes((np.arange(len(palette)) * 37 % 256).astype(np.uint8))
    opaque = palette[indices]
    clear = np.where((photo == photo[5, 7]).all(axis=2), 0, 255)[..., None].astype(np.uint8)
    grey16 = _wide16(photo)
    key = int(grey16[4, 4])
    return {
        "rgba.png": Sample(png(rgba), "RGBA with half transparent pixels", rgba),
        "la.png": Sample(png(la), "grey with alpha", np.dstack([la[..., :1]] * 3 + [alpha])),
        "rgba.webp": Sample(_saved(rgba, "WEBP", lossless=True, exact=True), "lossless WebP with alpha", rgba),
        "palette.png": Sample(png(indices, palette=palette), "palette", _opaque(opaque)),
        "palette-veils.png": Sample(
            png(indices, palette=palette, chunks=[(b"tRNS", veils)]),
            "palette with an alpha for each colour",
            np.dstack([opaque, np.frombuffer(veils, np.uint8)[indices]]),
        ),
        "palette-clear.png": Sample(
            png(indices, palette=palette, chunks=[(b"tRNS", b"\xff\xff\x00")]),
            "palette with one transparent colour",
            np.dstack([opaque, np.where(indices == 2, 0, 255).astype(np.uint8)]),
        ),
        "colour-key.png": Sample(
            png(photo, chunks=[(b"tRNS", struct.pack(">3H", *photo[5, 7].tolist()))]),
            "RGB with one transparent colour",
            np.dstack([photo, clear]),
        ),
        "grey16-key.png": Sample(
            png(grey16, chunks=[(b"tRNS", struct.pack(">H", key))]),
            "16-bit grey with one transparent value",
            np.dstack([_grey(photo[..., 0])[..., :3], np.where(grey16 == key, 0, 255).astype(np.uint8)]),
        ),
        "transparent.gif": Sample(
            _saved(_palette_image(indices, palette), "GIF", transparency=3),
            "GIF with a transparent colour",
            np.dstack([opaque, np.where(indices == 3, 0, 255).astype(np.uint8)]),
        ),
    }


def _depths() -> dict[str, Sample]:
    photo = scene(23, 29)
    bits = (photo[..., 2] > 110).astype(np.uint8)
    rgb16 = photo.astype(np.uint16) << 8 | 255 - photo
    quarter = (photo[..., 0] >> 6).astype(np.uint8)
    adam7 = _opaque(photo)
    wide = {"gAMA": struct.pack(">I", 100_000), "iCCP": b"swapped\x00\x00" + zlib.compress(b"\x00" * 128)}
    return {
        "one-bit.png": Sample(png(bits, depth=1), "1 bit a pixel", _grey(np.multiply(bits, 255, dtype=np.uint8))),
        "two-bit.png": Sample(png(quarter, depth=2), "2 bits a pixel", _grey(np.multiply(quarter, 85, dtype=np.uint8))),
        "grey.png": Sample(png(photo[..., 0]), "8-bit grey", _grey(photo[..., 0])),
        "grey16.png": Sample(png(_wide16(photo)), "16-bit grey: the high byte counts", _grey(photo[..., 0])),
        "rgb16.png": Sample(png(rgb16), "16-bit RGB: the high byte counts", _opaque(photo)),
        "grey16.tif": Sample(_saved(_wide16(photo), "TIFF"), "16-bit grey TIFF", _grey(photo[..., 0])),
        "grey16-big-endian.tif": Sample(_big_endian_tiff(_wide16(photo)), "16-bit grey TIFF, big-endian", _grey(photo[..., 0])),
        "grey12.tif": Sample(tiff(_wide16(photo)[..., None] >> 4, Layout(1, 12)), "12-bit grey TIFF: white is 4095", _grey(photo[..., 0])),
        "grey16-white-is-zero.tif": Sample(
            tiff(65535 - _wide16(photo)[..., None], Layout(0, 16)), "16-bit grey TIFF in which 0 is white", _grey(photo[..., 0])
        ),
        "grey16.pgm": Sample(_pgm16(_wide16(photo)), "16-bit PGM", _grey(photo[..., 0])),
        "gamma.png": Sample(png(photo, chunks=[(b"gAMA", wide["gAMA"])]), "PNG that claims a gamma of 1.0: not applied", _opaque(photo)),
        "profile.png": Sample(png(photo, chunks=[(b"iCCP", wide["iCCP"])]), "PNG with a colour profile: not applied", _opaque(photo)),
        "interlaced.png": Sample(png(photo, interlaced=True), "interlaced PNG (Adam7)", adam7),
    }


def _extremes() -> dict[str, Sample]:
    long = scene(8, 4000)[4:5]
    dot = np.array([[[201, 34, 87]]], np.uint8)
    odd, tall = scene(7, 5), scene(90, 24)
    images = {
        "1x1.png": Sample(png(dot), "one pixel", _opaque(dot)),
        "4000x1.png": Sample(png(long), "4000 wide, 1 high", _opaque(long)),
        "1x4000.png": Sample(png(long.transpose(1, 0, 2)), "1 wide, 4000 high", _opaque(long.transpose(1, 0, 2))),
        "24x90.png": Sample(png(tall), "tall: Pillow 13 by itself would scale its height first", _opaque(tall)),
        "5x7.png": Sample(png(odd), "smaller than every model's input", _opaque(odd)),
        "28x28.png": Sample(png(scene(28, 28)), "already as MNIST wants it", _opaque(scene(28, 28))),
        "3000x40000.png": Sample(png(np.zeros((1, 1), np.uint8), claim=(3000, 40000)), "claims 120 million pixels", refused=True),
        "bomb.png": Sample(png(np.zeros((1, 1), np.uint8), claim=(60000, 60000)), "claims 3,600 million pixels", refused=True),
        "too-long.png": Sample(png(np.zeros((1, 1), np.uint8), claim=(70000, 1)), "a side longer than any JPEG's", refused=True),
    }
    for name, border in {"127": (127, 127), "128": (128, 128), "127-and-128": (127, 128)}.items():
        plane = np.full((28, 28), 10, np.uint8)
        plane[0], plane[:14, [0, 27]] = border[0], border[0]
        plane[27], plane[14:, [0, 27]] = border[1], border[1]
        images[f"border-{name}.png"] = Sample(png(plane), f"dark inside, border of {name}: where polarity turns", _grey(plane))
    return images


def _animations() -> dict[str, Sample]:
    first = scene(22, 25)
    second = 255 - first[::-1]
    indices, palette = _posterised(first)
    frames = [Image.fromarray(first), Image.fromarray(second)]
    gif = [_palette_image(indices, palette), _palette_image(indices[::-1, ::-1], palette)]
    keep: dict[str, Any] = {"save_all": True, "duration": 40}
    part = np.zeros((30, 32, 4), np.uint8)
    part[4:26, 5:30] = _opaque(palette[indices])
    return {
        "animated.gif": Sample(_saved(gif[0], "GIF", append_images=gif[1:], **keep), "animated GIF, two frames", _opaque(palette[indices])),
        "part-of-canvas.gif": Sample(
            _on_canvas(_saved(gif[0], "GIF"), (32, 30), (5, 4)), "GIF whose first frame covers a part of its canvas", part
        ),
        "animated.png": Sample(_saved(frames[0], "PNG", append_images=frames[1:], **keep), "animated PNG, two frames", _opaque(first)),
        "animated.webp": Sample(
            _saved(frames[0], "WEBP", append_images=frames[1:], lossless=True, **keep), "animated WebP, two frames", _opaque(first)
        ),
        "pages.tif": Sample(_saved(frames[0], "TIFF", append_images=frames[1:], save_all=True), "TIFF of two pages", _opaque(first)),
        "mpo.jpg": Sample(
            _saved(frames[0], "MPO", append_images=frames[1:], save_all=True, quality=95, subsampling=0),
            "two JPEGs in one file, as stereo cameras and phones write",
            lossy=True,
        ),
    }


def _others() -> dict[str, Sample]:
    photo, grey = scene(27, 34), scene(19, 23)[..., 2]
    return {
        "rgb.bmp": Sample(_saved(photo, "BMP"), "BMP", _opaque(photo)),
        "rgb.ppm": Sample(b"P6 34 27 255\n" + photo.tobytes(), "PPM", _opaque(photo)),
        "grey.pgm": Sample(b"P5 23 19 255\n" + grey.tobytes(), "PGM", _grey(grey)),
        "lzw.tif": Sample(_saved(photo, "TIFF", compression="tiff_lzw"), "TIFF, LZW", _opaque(photo)),
        "lossless.webp": Sample(_saved(photo, "WEBP", lossless=True), "lossless WebP", _opaque(photo)),
        "lossy.webp": Sample(_saved(photo, "WEBP", quality=85), "lossy WebP", lossy=True),
    }


def _broken() -> dict[str, Sample]:
    photo = scene(30, 30)
    jpeg, complete = _saved(photo, "JPEG", quality=90), png(photo)
    images = {
        "truncated.jpg": Sample(jpeg[: len(jpeg) * 4 // 5], "JPEG, the last fifth missing"),
        "truncated.png": Sample(complete[: len(complete) // 2], "PNG, the second half missing"),
        "wrong-checksum.png": Sample(_with_another_byte(complete, len(complete) - 13), "PNG with a wrong checksum over its pixels"),
        "text.png": Sample(b"This is not an image, whatever its name says.\n", "a text called .png"),
        "empty.png": Sample(b"", "an empty file"),
        "float.tif": Sample(_saved(photo[..., 0].astype(np.float32) / 255, "TIFF"), "32-bit floating-point TIFF"),
        "int32.tif": Sample(_saved(photo[..., 0].astype(np.int32), "TIFF"), "32-bit integer TIFF of values below 256"),
        "vector.svg": Sample(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>', "SVG"),
        "script.eps": Sample(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n%%EOF\n", "EPS, which would start Ghostscript"),
        "icon.ico": Sample(_saved(photo, "ICO", sizes=[(16, 16)]), "ICO, not among the formats"),
    }
    return {name: Sample(image.content, image.about, refused=True) for name, image in images.items()}


def scene(height: int, width: int) -> Pixels:
    """An image that shows every mistake: no channel like another, no symmetry, slopes, edges and texture. uint8 (H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    down, right = y / max(1, height - 1), x / max(1, width - 1)
    red = 235 * right + 15 * np.sin(y * 1.7)
    green = 200 * down * (1 - right) + 20
    blue = 128 + 110 * np.cos(5 * down + 3 * right)
    image = np.dstack([red, green, blue])
    stem = (right > 0.2) & (right < 0.34) & (down > 0.12) & (down < 0.9)
    bars = (right > 0.2) & (right < 0.75) & (((down > 0.12) & (down < 0.26)) | ((down > 0.45) & (down < 0.56) & (right < 0.6)))
    image[stem | bars] = (250, 240, 20)
    image[(down > 0.7) & (right > 0.7)] = (10, 30, 240)
    checks = (down > 0.6) & (right > 0.4) & (right < 0.65)
    image[checks] = np.where(((x + y) % 2 == 0)[..., None], (0, 255, 90), (220, 0, 60))[checks]
    return np.asarray(np.clip(np.rint(image), 0, 255), dtype=np.uint8)


def png(
    samples: npt.NDArray[Any],
    *,
    depth: int = 8,
    palette: Pixels | None = None,
    chunks: list[tuple[bytes, bytes]] | None = None,
    interlaced: bool = False,
    claim: tuple[int, int] | None = None,
) -> bytes:
    """Encode samples (H, W) or (H, W, C), uint8 or uint16, by the PNG specification. `claim` is a false (width, height)."""
    height, width = samples.shape[:2]
    kind = 3 if palette is not None else {1: 0, 2: 4, 3: 2, 4: 6}[1 if samples.ndim == 2 else samples.shape[2]]
    depth = 16 if samples.dtype == np.uint16 else depth
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = b"".join(_png_rows(samples[top::down, left::right], depth) for top, left, down, right in passes)
    header = struct.pack(">IIBBBBB", *(claim or (width, height)), depth, kind, 0, 0, int(interlaced))
    inside = [(b"IHDR", header)]
    if palette is not None:
        inside.append((b"PLTE", palette.tobytes()))
    inside += [*(chunks or []), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data)) for tag, data in inside
    )


def _png_rows(samples: npt.NDArray[Any], depth: int) -> bytes:
    rows = []
    for row in samples if samples.size else []:
        if depth < 8:
            bits = (row[:, None] >> np.arange(depth - 1, -1, -1)) & 1
            packed = np.packbits(bits.astype(np.uint8).ravel()).tobytes()
        else:
            packed = row.astype(">u2" if depth == 16 else np.uint8).tobytes()
        rows.append(b"\x00" + packed)
    return b"".join(rows)


def _saved(image: npt.NDArray[Any] | Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def _exif(orientation: int, *, broken: bool = False) -> bytes:
    # A little-endian TIFF header and one directory of one entry: tag 274, type SHORT, count 1. A text before it may lie nowhere.
    maker = struct.pack("<HHII", 271, 2, 20, 1_000_000) if broken else b""
    return b"II*\x00" + struct.pack("<IH", 8, 1 + broken) + maker + struct.pack("<HHIHHI", 274, 3, 1, orientation, 0, 0)


def _on_canvas(gif: bytes, canvas: tuple[int, int], corner: tuple[int, int]) -> bytes:
    at = gif.index(b",\0\0\0\0" + gif[6:10])
    return gif[:6] + struct.pack("<HH", *canvas) + gif[10 : at + 1] + struct.pack("<HH", *corner) + gif[at + 5 :]


def _with_another_byte(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _big_endian_tiff(samples: npt.NDArray[np.uint16]) -> bytes:
    height, width = samples.shape
    data = samples.astype(">u2").tobytes()
    tags = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"MM\x00*" + struct.pack(">I", 8 + len(data)) + data + struct.pack(">H", len(tags)) + entries + b"\0\0\0\0"


def _pgm16(samples: npt.NDArray[np.uint16]) -> bytes:
    return b"P5 %d %d 65535\n" % samples.shape[::-1] + samples.astype(">u2").tobytes()


def _without_segment(jpeg: bytes, marker: int) -> bytes:
    at = jpeg.index(bytes([0xFF, marker]))
    return jpeg[:at] + jpeg[at + 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0] :]


def _wide16(photo: Pixels) -> npt.NDArray[np.uint16]:
    # Low bytes that run against the high ones: taking the wrong byte, or rounding, shows.
    return np.asarray((photo[..., 0].astype(np.uint16) << 8) | (255 - photo[..., 1]), dtype=np.uint16)


def _soft_edge(height: int, width: int) -> Pixels:
    y, x = np.mgrid[:height, :width]
    return np.asarray(np.clip(np.rint(300 * x / width - 60 * y / height), 0, 255), dtype=np.uint8)


def _posterised(photo: Pixels) -> tuple[Pixels, Pixels]:
    indices = (photo[..., 0] // 86 * 9 + photo[..., 1] // 86 * 3 + photo[..., 2] // 86).astype(np.uint8)
    palette = np.array([(r * 120 + 5, g * 110 + 17, b * 100 + 41) for r in range(3) for g in range(3) for b in range(3)], np.uint8)
    return indices, palette


def _palette_image(indices: Pixels, palette: Pixels) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(indices), "P")
    image.putpalette(palette.tobytes())
    return image


def _opaque(rgb: Pixels) -> Pixels:
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def _grey(plane: Pixels) -> Pixels:
    return np.dstack([plane, plane, plane, np.full(plane.shape, 255, np.uint8)])


if __name__ == "__main__":
    main()
