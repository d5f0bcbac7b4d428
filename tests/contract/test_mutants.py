"""Each mistake that has cost somebody accuracy points is planted in the reference's code, and the golden corpus must notice it."""

import ast
import importlib
import subprocess
import sys
import types

import pytest
from PIL import ImageFile

from sightline import image
from sightline.preprocess import VERSIONS
from support import golden_corpus as golden
from support.mutation import Mutant, loaded, mutated, source_of

REFORMAT = importlib.import_module("sightline.reformat")  # the package exports a function of that name
IMAGE = importlib.import_module("sightline.image.decode")

pytestmark = pytest.mark.filterwarnings("ignore")

TWO_STEPS = "image.resize((width, image.height), method).resize((width, height), method)"
CORNER = "((wide - scaled.width) // 2, (high - scaled.height) // 2)"
TO_MODE = "image.convert(spec.mode)"
TO_RGB = "image.convert('RGB')"

IN_REFORMAT: dict[str, Mutant] = {
    "swapped channels": Mutant(
        "reformat_v1",
        "np.array(decoded, dtype=np.uint8).reshape(spec.shape)",
        "np.array(decoded, dtype=np.uint8).reshape(spec.shape)[..., ::-1]",
    ),
    "nearest for bilinear": Mutant("FILTERS", "Image.Resampling.BILINEAR", "Image.Resampling.NEAREST"),
    "bicubic for bilinear": Mutant("FILTERS", "Image.Resampling.BILINEAR", "Image.Resampling.BICUBIC"),
    "bilinear for bicubic": Mutant("FILTERS", "Image.Resampling.BICUBIC", "Image.Resampling.BILINEAR"),
    "lanczos for bicubic": Mutant("FILTERS", "Image.Resampling.BICUBIC", "Image.Resampling.LANCZOS"),
    "hamming for lanczos": Mutant("FILTERS", "Image.Resampling.LANCZOS", "Image.Resampling.HAMMING"),
    "nearest for box": Mutant("FILTERS", "Image.Resampling.BOX", "Image.Resampling.NEAREST"),
    "bilinear for nearest": Mutant("FILTERS", "Image.Resampling.NEAREST", "Image.Resampling.BILINEAR"),
    "no antialias": Mutant(
        "_resize",
        TWO_STEPS,
        "image.transform((width, height), 0, (image.width / width, 0, 0, 0, image.height / height, 0), 2 if method == 2 else 3)",
    ),
    "halved by averaging first": Mutant("_resize", TWO_STEPS, "image.reduce(2).resize((width, height), method)"),
    "height before width": Mutant("_resize", TWO_STEPS, "image.resize((image.width, height), method).resize((width, height), method)"),
    "both sides in one call of Pillow": Mutant("_resize", TWO_STEPS, "image.resize((width, height), method)"),
    "ignored EXIF": Mutant("reformat_v1", "_upright(decoded) if spec.exif == 'apply' else None", "None"),
    "EXIF applied when it must be ignored": Mutant(
        "reformat_v1", "_upright(decoded) if spec.exif == 'apply' else None", "_upright(decoded)"
    ),
    "6 turned as 8": Mutant("UPRIGHT", "Image.Transpose.ROTATE_270", "Image.Transpose.ROTATE_90"),
    "8 turned as 6": Mutant("UPRIGHT", "Image.Transpose.ROTATE_90", "Image.Transpose.ROTATE_270"),
    "5 turned as 7": Mutant("UPRIGHT", "Image.Transpose.TRANSPOSE", "Image.Transpose.TRANSVERSE"),
    "7 turned as 5": Mutant("UPRIGHT", "Image.Transpose.TRANSVERSE", "Image.Transpose.TRANSPOSE"),
    "2 turned as 4": Mutant("UPRIGHT", "Image.Transpose.FLIP_LEFT_RIGHT", "Image.Transpose.FLIP_TOP_BOTTOM"),
    "4 turned as 2": Mutant("UPRIGHT", "Image.Transpose.FLIP_TOP_BOTTOM", "Image.Transpose.FLIP_LEFT_RIGHT"),
    "3 forgotten": Mutant("UPRIGHT", "Image.Transpose.ROTATE_180", "None"),
    "crop one row lower": Mutant("_fit", "round((scaled.height - high) / 2)", "1 + round((scaled.height - high) / 2)"),
    "crop one column to the left": Mutant("_fit", "round((scaled.width - wide) / 2)", "round((scaled.width - wide) / 2) - 1"),
    "crop's corner cut down": Mutant("_fit", "round((scaled.height - high) / 2)", "int((scaled.height - high) / 2)"),
    "crop's corner rounded half up": Mutant("_fit", "round((scaled.width - wide) / 2)", "int((scaled.width - wide) / 2 + 0.5)"),
    "crop's longer side rounded": Mutant("_fit", "cover_high * width // height", "round(cover_high * width / height)"),
    "crop's longer side rounded, upright": Mutant("_fit", "cover_wide * height // width", "round(cover_wide * height / width)"),
    "crop scaled to the size itself": Mutant("_fit", "(round(high / spec.crop_fraction), round(wide / spec.crop_fraction))", "high, wide"),
    "crop's scaled side cut down": Mutant("_fit", "round(wide / spec.crop_fraction)", "int(wide / spec.crop_fraction)"),
    "black under transparency": Mutant("_in_mode", "spec.background * (3 // spec.channels)", "(0, 0, 0)"),
    "white under transparency": Mutant("_in_mode", "spec.background * (3 // spec.channels)", "(255, 255, 255)"),
    "background ignored in padding": Mutant("_fit", "spec.background if spec.channels > 1 else spec.background[0]", "0"),
    "alpha dropped": Mutant("_in_mode", "image.has_transparency_data", "False"),
    "alpha of palettes dropped": Mutant("_in_mode", "image.has_transparency_data", "image.mode in ('RGBA', 'LA')"),
    "transparent value of 16-bit grey dropped": Mutant("_eight_bit", "isinstance(transparent, int)", "False"),
    "polarity ignored": Mutant("_polarised", "spec.polarity == 'as-is'", "True"),
    "polarity always turned": Mutant("_polarised", "np.median(pixels[border]) > 127", "True"),
    "polarity by the border's mean": Mutant("_polarised", "np.median(pixels[border])", "np.mean(pixels[border])"),
    "polarity by the whole image": Mutant("_polarised", "border[1:-1, 1:-1] = False", "pass"),
    "polarity turned from 128.5 on": Mutant("_polarised", "np.median(pixels[border]) > 127", "np.median(pixels[border]) > 128"),
    "polarity turned from 127 on": Mutant("_polarised", "np.median(pixels[border]) > 127", "np.median(pixels[border]) >= 127"),
    "polarity turned from 128 on": Mutant("_polarised", "np.median(pixels[border]) > 127", "np.median(pixels[border]) >= 128"),
    "polarity forgotten in padding": Mutant("_fit", "scaled = _polarised(scaled, spec)", "pass"),
    "the low byte of 16": Mutant("_eight_bit", "samples >> 8", "samples & 255"),
    "16 bits rounded instead of cut": Mutant("_eight_bit", "samples >> 8", "(samples.astype(int) * 255 + 32767) // 65535"),
    "16 bits clipped": Mutant("_eight_bit", "samples >> 8", "np.minimum(samples, 255)"),
    "32-bit integers taken for 16": Mutant("_eight_bit", "image.mode == 'I' and image.format != 'PPM'", "False"),
    "floating-point samples taken for bytes": Mutant("_eight_bit", "image.mode == 'F'", "False"),
    "padding one column off": Mutant("_fit", CORNER, "((wide - scaled.width + 1) // 2, (high - scaled.height) // 2)"),
    "padding one row off": Mutant("_fit", CORNER, "((wide - scaled.width) // 2, (high - scaled.height + 1) // 2)"),
    "padding at the bottom and right only": Mutant("_fit", CORNER, "(0, 0)"),
    "padded image's width cut down": Mutant("_fit", "round(high * width / height)", "int(high * width / height)"),
    "padded image's height cut down": Mutant("_fit", "round(wide * height / width)", "int(wide * height / width)"),
    "padded image scaled to nothing": Mutant("_fit", "max(1, round(high * width / height))", "round(high * width / height)"),
    "stretch for pad": Mutant("_fit", "spec.fit == 'stretch'", "spec.fit in ('stretch', 'pad')"),
    "stretch for crop": Mutant("_fit", "spec.fit == 'stretch'", "spec.fit in ('stretch', 'crop')"),
    "crop for pad": Mutant("_fit", "spec.fit == 'crop'", "spec.fit in ('crop', 'pad')"),
    "grey as the mean of three": Mutant(
        "_in_mode", TO_MODE, f"Image.fromarray(np.asarray({TO_RGB}).mean(axis=2).astype(np.uint8)).convert(spec.mode)"
    ),
    "grey as the green channel": Mutant("_in_mode", TO_MODE, f"{TO_RGB}.getchannel('G').convert(spec.mode)"),
    "grey with BT.709's weights": Mutant("_in_mode", TO_MODE, f"{TO_RGB}.convert('L', (0.2126, 0.7152, 0.0722, 0)).convert(spec.mode)"),
}

IN_IMAGE: dict[str, Mutant] = {
    "the second frame": Mutant("_decode", "file.load()", "(getattr(file, 'n_frames', 1) > 1 and file.seek(1), file.load())"),
    "TIFF turned when EXIF is to be ignored": Mutant("_turned_back", "transpose is None", "True"),
    "fewer formats than ours": Mutant("_decode", "kind not in OPENERS", "kind not in OPENERS or kind == 'PPM'"),
    "more formats than ours": Mutant("_decode", "kind not in OPENERS", "kind not in OPENERS and kind != 'ICO'"),
    "no limit of pixels": Mutant("_demand_bounds", "width * height > max_pixels", "False"),
    "no limit of sides": Mutant("_demand_bounds", "max(width, height) > MAX_SIDE", "False"),
    "truncated images read as far as they go": Mutant(
        "_decode", "file.load()", "(setattr(__import__('PIL.ImageFile').ImageFile, 'LOAD_TRUNCATED_IMAGES', True), file.load())"
    ),
}

IN_TIFF: dict[str, Mutant] = {
    "12 bits taken for 16": Mutant("in_full_range", "bits == 12", "False"),
    "white at 0 taken for black": Mutant("in_full_range", "image.tag_v2.get(PHOTOMETRIC) == 0", "False"),
}
IN_GIF: dict[str, Mutant] = {
    "the uncovered part of a GIF in its first colour": Mutant("uncovered_is_transparent", "box is None", "True"),
}
IN_ORIENTATION: dict[str, Mutant] = {
    "an orientation behind a broken entry not found": Mutant("settle_orientation", "stored is None", "True"),
}
IN_PNG: dict[str, Mutant] = {
    "checksums not looked at": Mutant("complaint", "not data_over or not kind[0] & CRITICAL or kind == b'eXIf'", "False"),
}

MUTANTS: dict[int, dict[str, tuple[types.ModuleType, Mutant]]] = {
    1: {title: (REFORMAT, mutant) for title, mutant in IN_REFORMAT.items()}
    | {title: (IMAGE, mutant) for title, mutant in IN_IMAGE.items()}
    | {
        title: (importlib.import_module(f"sightline.image.{name}"), mutant)
        for name, mutants in (("tiff", IN_TIFF), ("gif", IN_GIF), ("orientation", IN_ORIENTATION), ("png", IN_PNG))
        for title, mutant in mutants.items()
    },
}
"""The mistakes that the corpus of each version in `sightline.preprocess.VERSIONS` must notice, with the module that each is in."""

PLANTED = [(version, title) for version, mistakes in MUTANTS.items() for title in mistakes]


def test_every_version_has_mutants_and_none_was_lost_on_the_way() -> None:
    assert set(MUTANTS) == set(VERSIONS)
    assert len(MUTANTS[1]) >= 62


@pytest.mark.parametrize("module", [REFORMAT, IMAGE])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_unchanged_code_meets_every_expectation(module: types.ModuleType, version: int) -> None:
    assert list(golden.CORPORA[version].missed(reformat_with(module))) == []


@pytest.mark.parametrize(("version", "title"), PLANTED)
def test_a_mistake_in_the_code_is_noticed(version: int, title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    golden.CORPORA[version].noticed(reformat_with(*MUTANTS[version][title]))


def test_code_that_was_only_laid_out_anew_gives_the_same_mutants() -> None:
    for module in (REFORMAT, IMAGE):
        source = source_of(module)
        unparsed = ast.unparse(ast.parse(source))
        narrow = subprocess.run(
            [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "60", "-"],
            input=source,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert len({source, unparsed, narrow}) == 3
        for planted_in, mutant in MUTANTS[1].values():
            if planted_in is module:
                assert len({ast.dump(mutated(text, mutant)) for text in (source, unparsed, narrow)}) == 1, mutant


def test_code_that_no_longer_holds_the_pattern_is_an_error_and_not_a_silent_pass() -> None:
    source = source_of(REFORMAT)
    for mutant, sentence in (
        (Mutant("_resize", "image.thumbnail(size)", "None"), r"'image.thumbnail\(size\)' stands 0 times in _resize"),
        (Mutant("_fit", "spec", "None"), r"'spec' stands \d+ times in _fit"),
        (Mutant("_nowhere", "spec", "None"), "_nowhere is defined 0 times"),
    ):
        with pytest.raises(LookupError, match=sentence):
            mutated(source, mutant)


def reformat_with(module: types.ModuleType, mutant: Mutant | None = None) -> golden.Reformat:
    """Another `reformat`, with the mistake in `sightline.reformat` itself or in the `sightline.image` beneath it."""
    copy = loaded(module, mutant)
    if module is REFORMAT:
        return copy.reformat  # type: ignore[no-any-return]
    if module is not IMAGE:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, module.__name__, copy)
            patch.setattr(image, module.__name__.rpartition(".")[2], copy)
            copy = loaded(IMAGE)
    package = types.ModuleType("sightline.image")
    package.__dict__.update({name: vars(copy).get(name, value) for name, value in vars(image).items() if name in image.__all__})
    sys.modules[package.__name__] = package
    try:
        return loaded(REFORMAT).reformat  # type: ignore[no-any-return]
    finally:
        sys.modules[package.__name__] = image
