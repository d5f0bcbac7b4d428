"""Each mistake that has cost somebody accuracy points is planted in the reference's source, and the golden corpus must notice it."""

import sys
import types

import pytest
from PIL import ImageFile

import sightline_training.networks.wrappers
from support import golden_corpus as golden
from support.cards import differs_from_the_formula
from support.specs import SPECS

pytestmark = pytest.mark.filterwarnings("ignore")

PIXELS_OUT = "np.array(decoded, dtype=np.uint8).reshape(spec.shape)"
LUMA = "image.convert(spec.mode)"
AS_RGB = "image.convert('RGB')"
RESIZED = "image.resize((width, image.height), method).resize((width, height), method)"
STEPS = "(image.width / width, 0, 0, 0, image.height / height, 0)"

IN_REFORMAT = {
    "swapped channels": (PIXELS_OUT, PIXELS_OUT + "[..., ::-1]"),
    "nearest for bilinear": ('"bilinear": Image.Resampling.BILINEAR', '"bilinear": Image.Resampling.NEAREST'),
    "bicubic for bilinear": ('"bilinear": Image.Resampling.BILINEAR', '"bilinear": Image.Resampling.BICUBIC'),
    "bilinear for bicubic": ('"bicubic": Image.Resampling.BICUBIC', '"bicubic": Image.Resampling.BILINEAR'),
    "lanczos for bicubic": ('"bicubic": Image.Resampling.BICUBIC', '"bicubic": Image.Resampling.LANCZOS'),
    "hamming for lanczos": ('"lanczos": Image.Resampling.LANCZOS', '"lanczos": Image.Resampling.HAMMING'),
    "nearest for box": ('"box": Image.Resampling.BOX', '"box": Image.Resampling.NEAREST'),
    "no antialias": (RESIZED, f"image.transform((width, height), 0, {STEPS}, 2 if method == 2 else 3)"),
    "halved by averaging first": (RESIZED, "image.reduce(2).resize((width, height), method)"),
    "height before width": (RESIZED, "image.resize((image.width, height), method).resize((width, height), method)"),
    "both sides in one call of Pillow": (RESIZED, "image.resize((width, height), method)"),
    "ignored EXIF": ('_turn(decoded) if spec.exif == "apply" else None', "None"),
    "EXIF applied when it must be ignored": ('_turn(decoded) if spec.exif == "apply" else None', "_turn(decoded)"),
    "6 turned as 8": ("6: Image.Transpose.ROTATE_270", "6: Image.Transpose.ROTATE_90"),
    "8 turned as 6": ("8: Image.Transpose.ROTATE_90", "8: Image.Transpose.ROTATE_270"),
    "5 turned as 7": ("5: Image.Transpose.TRANSPOSE", "5: Image.Transpose.TRANSVERSE"),
    "2 turned as 4": ("2: Image.Transpose.FLIP_LEFT_RIGHT", "2: Image.Transpose.FLIP_TOP_BOTTOM"),
    "3 forgotten": ("    3: Image.Transpose.ROTATE_180,\n", ""),
    "crop one row lower": ("top, left = round((scaled.height - high) / 2)", "top, left = 1 + round((scaled.height - high) / 2)"),
    "crop one column to the left": ("round((scaled.width - wide) / 2)", "round((scaled.width - wide) / 2) - 1"),
    "crop's corner cut down": ("top, left = round((scaled.height - high) / 2)", "top, left = int((scaled.height - high) / 2)"),
    "crop's corner rounded half up": ("round((scaled.width - wide) / 2)", "int((scaled.width - wide) / 2 + 0.5)"),
    "crop's longer side rounded": ("cover_high * width // height", "round(cover_high * width / height)"),
    "crop's longer side rounded, upright": ("cover_wide * height // width", "round(cover_wide * height / width)"),
    "crop scaled to the size itself": ("round(high / spec.crop_fraction), round(wide / spec.crop_fraction)", "high, wide"),
    "crop's scaled side cut down": ("round(wide / spec.crop_fraction)", "int(wide / spec.crop_fraction)"),
    "black under transparency": ("under = spec.background * (3 // spec.channels)", "under = (0, 0, 0)"),
    "white under transparency": ("under = spec.background * (3 // spec.channels)", "under = (255, 255, 255)"),
    "background ignored in padding": ("spec.background if spec.channels > 1 else spec.background[0]", "0"),
    "alpha dropped": ("if image.has_transparency_data:", "if False:"),
    "alpha of palettes dropped": ("if image.has_transparency_data:", 'if image.mode in ("RGBA", "LA"):'),
    "transparent value of 16-bit grey dropped": ("if isinstance(clear, int):", "if False:"),
    "polarity ignored": ('if spec.polarity == "as-is":', "if True:"),
    "polarity always turned": ("if np.median(pixels[border]) > 127", "if True"),
    "polarity by the border's mean": ("np.median(pixels[border])", "np.mean(pixels[border])"),
    "polarity by the whole image": ("border[1:-1, 1:-1] = False", "pass"),
    "polarity turned from 128.5 on": ("> 127", "> 128"),
    "polarity turned from 127 on": ("> 127", ">= 127"),
    "polarity turned from 128 on": ("> 127", ">= 128"),
    "polarity forgotten in padding": ("scaled = _polarised(scaled, spec)\n", "canvas = scaled\n"),
    "the low byte of 16": ("(wide >> 8)", "(wide & 255)"),
    "16 bits rounded instead of cut": ("(wide >> 8)", "((wide.astype(int) * 255 + 32767) // 65535)"),
    "16 bits clipped": ("(wide >> 8)", "np.minimum(wide, 255)"),
    "32-bit integers taken for 16": ('if image.mode == "I" and image.format != "PPM":', "if False:"),
    "padding one column off": ("(wide - scaled.width) // 2", "(wide - scaled.width + 1) // 2"),
    "padding one row off": ("(high - scaled.height) // 2", "(high - scaled.height + 1) // 2"),
    "padding at the bottom and right only": ("((wide - scaled.width) // 2, (high - scaled.height) // 2)", "(0, 0)"),
    "padded image's width cut down": ("round(high * width / height)", "int(high * width / height)"),
    "padded image's height cut down": ("round(wide * height / width)", "int(wide * height / width)"),
    "stretch for pad": ('if spec.fit == "stretch":', 'if spec.fit in ("stretch", "pad"):'),
    "stretch for crop": ('if spec.fit == "stretch":', 'if spec.fit in ("stretch", "crop"):'),
    "crop for pad": ('if spec.fit == "crop":', 'if spec.fit in ("crop", "pad"):'),
    "grey as the mean of three": (
        LUMA,
        "Image.fromarray(np.asarray(image.convert('RGB')).mean(axis=2).astype(np.uint8)).convert(spec.mode)",
    ),
    "grey as the green channel": (LUMA, f"{AS_RGB}.getchannel('G').convert(spec.mode)"),
    "grey with BT.709's weights": (LUMA, f"{AS_RGB}.convert('L', (0.2126, 0.7152, 0.0722, 0)).convert(spec.mode)"),
}

LOADED = "    try:\n        image.load()"

IN_IMAGE = {
    "the second frame": (LOADED, "    getattr(image, 'n_frames', 1) > 1 and image.seek(1)\n" + LOADED),
    "TIFF turned when EXIF is to be ignored": ("if turn is not None:", "if False:"),
    "fewer formats than ours": ("formats=FORMATS)", "formats=FORMATS[:6])"),
    "more formats than ours": ("formats=FORMATS)", "formats=(*FORMATS, 'ICO'))"),
    "no limit of pixels": ("if width * height > MAX_PIXELS:", "if False:"),
    "no limit of sides": ("if max(width, height) > MAX_SIDE:", "if False:"),
    "truncated images read as far as they go": (
        LOADED,
        "    from PIL import ImageFile as f\n    f.LOAD_TRUNCATED_IMAGES = True\n" + LOADED,
    ),
}


@pytest.mark.parametrize("module", ["sightline.reformat", "sightline.image"])
def test_the_unchanged_source_meets_every_expectation(module):
    assert list(golden.missed(_reformat_with(module))) == []


@pytest.mark.parametrize("mistake", IN_REFORMAT)
def test_a_mistake_in_the_reformatting_is_noticed(mistake):
    _noticed(_reformat_with("sightline.reformat", *IN_REFORMAT[mistake]))


@pytest.mark.parametrize("mistake", IN_IMAGE)
def test_a_mistake_in_the_opening_is_noticed(mistake, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    _noticed(_reformat_with("sightline.image", *IN_IMAGE[mistake]))


@pytest.mark.parametrize(
    ("fragment", "mutant"),
    [
        ("1 / (255 * std)", "1 / (256 * std)"),
        ("1 / (255 * std)", "1 / std"),
        ("1 / (255 * std)", "1 / (255 * std.mean())"),
        ("(mean / std)", "mean"),
        ("(mean / std)", "(mean.flip(0) / std)"),
        ("- self.shift", "+ self.shift"),
        ("permute(0, 3, 1, 2)", "permute(0, 3, 2, 1)"),
        ("permute(0, 3, 1, 2)", "permute(0, 3, 1, 2).flip(1)"),
    ],
)
def test_a_mistake_in_the_arithmetic_before_the_network_is_noticed(fragment, mutant):
    source = _patched(sightline_training.networks.wrappers, fragment, mutant)
    assert any(differs_from_the_formula(source.Normalise(spec), spec) for spec in SPECS.values())


def _noticed(reformat: golden.Reformat) -> None:
    missed = list(golden.missed(reformat))
    # A mutant that misses everything is broken rather than mistaken, and would prove nothing.
    assert 0 < len(missed) < len(golden.CASES["pictures"]) * len(SPECS)
    assert not any("NameError" in miss or "AttributeError" in miss for miss in missed), missed


def _reformat_with(module: str, fragment: str = "", mutant: str = "") -> golden.Reformat:
    """Another `reformat`, with the mistake in `sightline.reformat` itself or in the `sightline.image` beneath it."""
    if module == "sightline.reformat":
        return _patched(sys.modules[module], fragment, mutant).reformat
    real = sys.modules["sightline.image"]
    sys.modules["sightline.image"] = _patched(real, fragment, mutant)
    try:
        return _patched(sys.modules["sightline.reformat"], "", "").reformat
    finally:
        sys.modules["sightline.image"] = real


def _patched(module: types.ModuleType, fragment: str, mutant: str) -> types.ModuleType:
    assert module.__file__ is not None
    with open(module.__file__, encoding="utf-8") as file:
        source = file.read()
    if fragment:
        assert source.count(fragment) == 1, f"{fragment!r} stands {source.count(fragment)} times in {module.__name__}"
        source = source.replace(fragment, mutant)
    copy = types.ModuleType(module.__name__)
    exec(compile(source, module.__file__, "exec"), copy.__dict__)
    return copy
