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

REFORMAT = importlib.import_module("sightline.reformatting")
IMAGE = importlib.import_module("sightline.image.decode")
DOCUMENT = importlib.import_module("sightline.document")
INK_BOX = importlib.import_module("sightline.ink_box")
MODULES = (REFORMAT, IMAGE, DOCUMENT, INK_BOX)

pytestmark = pytest.mark.filterwarnings("ignore")

TWO_STEPS = "image.resize((width, image.height), method).resize((width, height), method)"
CORNER = "((wide - scaled.width) // 2, (high - scaled.height) // 2)"
TO_MODE = "image.convert(mode)"
TO_RGB = "image.convert('RGB')"

IN_REFORMAT: dict[str, Mutant] = {
    "swapped channels": Mutant(
        "_pixels",
        "np.frombuffer(image.tobytes(), np.uint8).reshape(spec.shape).copy()",
        "np.frombuffer(image.tobytes(), np.uint8).reshape(spec.shape)[..., ::-1].copy()",
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
        "image.whole().transform((width, height), 0, (image.width / width, 0, 0, 0, image.height / height, 0), 2 if method == 2 else 3)",
    ),
    "halved by averaging first": Mutant("_resize", TWO_STEPS, "image.whole().reduce(2).resize((width, height), method)"),
    "height before width": Mutant(
        "_resize", TWO_STEPS, "image.whole().resize((image.width, height), method).resize((width, height), method)"
    ),
    "both sides in one call of Pillow": Mutant("_resize", TWO_STEPS, "image.whole().resize((width, height), method)"),
    "ignored EXIF": Mutant("_Upright", "_upright(decoded) if spec.exif == 'apply' else None", "None"),
    "EXIF applied when it must be ignored": Mutant("_Upright", "_upright(decoded) if spec.exif == 'apply' else None", "_upright(decoded)"),
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
    "crop's longer side rounded": Mutant("_scaled_size", "cover_high * width // height", "round(cover_high * width / height)"),
    "crop's longer side rounded, upright": Mutant("_scaled_size", "cover_wide * height // width", "round(cover_wide * height / width)"),
    "crop scaled to the size itself": Mutant(
        "_scaled_size", "(round(high / spec.crop_fraction), round(wide / spec.crop_fraction))", "high, wide"
    ),
    "crop's scaled side cut down": Mutant("_scaled_size", "round(wide / spec.crop_fraction)", "int(wide / spec.crop_fraction)"),
    "black under transparency": Mutant("_Upright", "under * (3 // spec.channels)", "(0, 0, 0)"),
    "white under transparency": Mutant("_Upright", "under * (3 // spec.channels)", "(255, 255, 255)"),
    "background ignored in padding": Mutant("_fit", "spec.background if spec.channels > 1 else spec.background[0]", "0"),
    "alpha dropped": Mutant("_Upright", "decoded.has_transparency_data", "False"),
    "alpha of palettes dropped": Mutant("_Upright", "decoded.has_transparency_data", "decoded.mode in ('RGBA', 'LA')"),
    "transparent value of 16-bit grey dropped": Mutant("_eight_bit", "isinstance(transparent, int)", "False"),
    "polarity ignored": Mutant("_polarised", "polarity == 'as-is'", "True"),
    "polarity always turned": Mutant("_polarised", "np.median(pixels[border]) > 127", "True"),
    "polarity by the border's mean": Mutant("_polarised", "np.median(pixels[border])", "np.mean(pixels[border])"),
    "polarity by the whole image": Mutant("_polarised", "border[1:-1, 1:-1] = False", "pass"),
    "polarity turned from 128.5 on": Mutant("_polarised", "np.median(pixels[border]) > 127", "np.median(pixels[border]) > 128"),
    "polarity turned from 127 on": Mutant("_polarised", "np.median(pixels[border]) > 127", "np.median(pixels[border]) >= 127"),
    "polarity turned from 128 on": Mutant("_polarised", "np.median(pixels[border]) > 127", "np.median(pixels[border]) >= 128"),
    "polarity forgotten in padding": Mutant("_fit", "scaled = _polarised(scaled, polarity)", "pass"),
    "the low byte of 16": Mutant("_eight_bit", "samples >> 8", "samples & 255"),
    "16 bits rounded instead of cut": Mutant("_eight_bit", "samples >> 8", "(samples.astype(int) * 255 + 32767) // 65535"),
    "16 bits clipped": Mutant("_eight_bit", "samples >> 8", "np.minimum(samples, 255)"),
    "32-bit integers taken for 16": Mutant("_demand_defined_white", "image.mode == 'I' and image.format != 'PPM'", "False"),
    "floating-point samples taken for bytes": Mutant("_demand_defined_white", "image.mode == 'F'", "False"),
    "padding one column off": Mutant("_fit", CORNER, "((wide - scaled.width + 1) // 2, (high - scaled.height) // 2)"),
    "padding one row off": Mutant("_fit", CORNER, "((wide - scaled.width) // 2, (high - scaled.height + 1) // 2)"),
    "padding at the bottom and right only": Mutant("_fit", CORNER, "(0, 0)"),
    "padded image's width cut down": Mutant("_scaled_size", "round(high * width / height)", "int(high * width / height)"),
    "padded image's height cut down": Mutant("_scaled_size", "round(wide * height / width)", "int(wide * height / width)"),
    "padded image scaled to nothing": Mutant("_scaled_size", "max(1, round(high * width / height))", "round(high * width / height)"),
    "stretch for pad": Mutant("_scaled_size", "spec.fit == 'stretch'", "spec.fit in ('stretch', 'pad')"),
    "stretch for crop": Mutant("_scaled_size", "spec.fit == 'stretch'", "spec.fit in ('stretch', 'crop')"),
    "crop for pad": Mutant("_scaled_size", "spec.fit == 'crop'", "spec.fit in ('crop', 'pad')"),
    "grey as the mean of three": Mutant(
        "_in_mode", TO_MODE, f"Image.fromarray(np.asarray({TO_RGB}).mean(axis=2).astype(np.uint8)).convert(mode)"
    ),
    "grey as the green channel": Mutant("_in_mode", TO_MODE, f"{TO_RGB}.getchannel('G').convert(mode)"),
    "grey with BT.709's weights": Mutant("_in_mode", TO_MODE, f"{TO_RGB}.convert('L', (0.2126, 0.7152, 0.0722, 0)).convert(mode)"),
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

IN_REFORMAT_V2: dict[str, Mutant] = {
    "auto taken for black": Mutant("_away_from", "255 if 2 * weighted <= 255 * visible else 0", "0"),
    "auto taken for white": Mutant("_away_from", "255 if 2 * weighted <= 255 * visible else 0", "255"),
    "auto counts hidden pixels": Mutant("_away_from", "alpha * luma", "255 * luma"),
    "auto turns the wrong way": Mutant(
        "_away_from",
        "255 if 2 * weighted <= 255 * visible else 0",
        "0 if 2 * weighted <= 255 * visible else 255",
    ),
    "a middle grey of 127 on black": Mutant("_away_from", "2 * weighted", "2 * weighted + visible * 2"),
    "padding's colour under transparency": Mutant("reformat_v2", "spec.alpha_background", "spec.background"),
    "levels left as they are": Mutant("reformat_v2", "spec.levels == 'as-is'", "True"),
    "strokes looked for at full size": Mutant("_measured_size", "longer <= most", "True"),
    "strokes looked for at the result's size": Mutant("_measured_size", "max(MEASURED_SIDE, 2 * max(spec.size))", "max(spec.size)"),
    "twice the result's size forgotten": Mutant("_measured_size", "max(MEASURED_SIDE, 2 * max(spec.size))", "MEASURED_SIDE"),
    "measured size cut down": Mutant("_measured_size", "2 * height * most + longer", "2 * height * most"),
    "measured by bilinear": Mutant("reformat_v2", "'box'", "'bilinear'"),
    "polarity of strokes ignored": Mutant("reformat_v2", "strokes.dark and spec.polarity == 'as-is'", "False"),
    "polarity of strokes always turned": Mutant("reformat_v2", "strokes.dark and spec.polarity == 'as-is'", "strokes.dark"),
    "polarity of light strokes turned too": Mutant("reformat_v2", "strokes.dark and spec.polarity == 'as-is'", "spec.polarity == 'as-is'"),
    "polarity settled twice": Mutant(
        "reformat_v2",
        "_fit(Image.fromarray(plane).convert(spec.mode), spec, 'as-is')",
        "_fit(Image.fromarray(plane).convert(spec.mode), spec, spec.polarity)",
    ),
    "frame left as it is": Mutant("reformat_v2", "spec.frame == 'as-is'", "True"),
    "decoded in full": Mutant("decode", "spec.decode == 'dct'", "False"),
    "decoded smaller when full is asked for": Mutant("decode", "spec.decode == 'dct'", "True"),
    "decoded as small as needed": Mutant("_divisor", "2 * least", "least"),
    "an eighth or nothing": Mutant("_divisor", "(8, 4, 2)", "(8,)"),
    "decoded by one way up": Mutant(
        "_divisor",
        "((high, wide) for high, wide in ((height, width), (width, height)))",
        "((high, wide) for high, wide in ((height, width), (height, width)))",
    ),
    "what fit needs, for strokes too": Mutant("_needed", "spec.levels == 'document'", "False"),
    "decoded side cut down": Mutant("_divisor", "-(-side // divisor)", "side // divisor"),
}

IN_DOCUMENT: dict[str, Mutant] = {
    "ink is always dark": Mutant("_is_ink_dark", "reach < 0", "True"),
    "ink is always light": Mutant("_is_ink_dark", "reach < 0", "False"),
    "ink's side by plain sums": Mutant("_signed_fourth_powers", "squares * squares * np.sign(distances)", "distances"),
    "ink's side by the quarters alone": Mutant("_is_ink_dark", "whole * _signed_fourth_powers(median)", "0 * whole"),
    "ink's side by the border alone": Mutant("_is_ink_dark", "counts * _signed_fourth_powers(medians)", "0 * counts"),
    "the ground by each tile's median": Mutant("_ground", "last - last // 4 if dark else last // 4", "last // 2"),
    "the ground by each tile's end": Mutant("_ground", "last - last // 4 if dark else last // 4", "last if dark else 0"),
    "tiles in the smallest images too": Mutant("_ground", "min(plane.shape) < TILES", "False"),
    "strokes not closed over": Mutant(
        "_ground", "levels.filter(over).filter(back) if dark else levels.filter(back).filter(over)", "levels"
    ),
    "strokes closed over the wrong way": Mutant(
        "_ground",
        "levels.filter(over).filter(back) if dark else levels.filter(back).filter(over)",
        "levels.filter(back).filter(over) if dark else levels.filter(over).filter(back)",
    ),
    "strokes closed over, but not back": Mutant(
        "_ground",
        "levels.filter(over).filter(back) if dark else levels.filter(back).filter(over)",
        "levels.filter(over) if dark else levels.filter(back)",
    ),
    "wider strokes": Mutant("STROKE_TILES", "5", "7"),
    "narrower strokes": Mutant("STROKE_TILES", "5", "3"),
    "coarser tiles": Mutant("TILES", "16", "8"),
    "tiles interpolated by nearest": Mutant(
        "_ground",
        "closed.resize((width, closed.height), Image.Resampling.BILINEAR)",
        "closed.resize((width, closed.height), Image.Resampling.NEAREST)",
    ),
    "tiles that start half up": Mutant(
        "_tiles", "np.arange(TILES) * (length - side) // (TILES - 1)", "(np.arange(TILES) * (length - side) + TILES // 2) // (TILES - 1)"
    ),
    "tiles too small": Mutant("_tiles", "-(-length // TILES)", "max(1, length // TILES)"),
    "levels subtracted instead of divided": Mutant("document", "np.maximum(ground if dark else 255 - ground, LEAST_ROOM)", "255"),
    "no least room": Mutant("LEAST_ROOM", "128", "1"),
    "deviation rounded": Mutant("document", "np.abs(above_ground) * 255 // room", "(np.abs(above_ground) * 255 + room // 2) // room"),
    "ink on both sides of the ground": Mutant("document", "np.where(above_ground > 0, deviation, 0)", "deviation"),
    "ink reaches to its greatest sample": Mutant("document", "full_ink(ink)", "int(ink.max())"),
    "ink reaches to its threshold": Mutant("full_ink", "int(np.flatnonzero(above * 10 >= above[threshold])[-1]) + 1", "threshold + 1"),
    "ink reaches to its half": Mutant("full_ink", "above * 10", "above * 2"),
    "no floor under noise": Mutant("document", "NOISE_RATIO * _median(deviation)", "0"),
    "a floor in the smallest images too": Mutant("document", "min(plane.shape) >= TILES", "True"),
    "floor not taken off": Mutant("document", "(LEVELS - floor) * 255 // (full - floor)", "LEVELS * 255 // full"),
    "a higher floor": Mutant("NOISE_RATIO", "4", "5"),
    "faint ink counts": Mutant("LEAST_INK", "40", "20"),
    "strong ink alone counts": Mutant("LEAST_INK", "40", "120"),
    "noise counts as ink": Mutant("document", "max(LEAST_INK, 2 * floor, 1)", "1"),
    "soft shadows count as ink": Mutant("document", "not _has_edges(ink, full)", "False"),
}

IN_INK_BOX: dict[str, Mutant] = {
    "the whole image's side": Mutant("box_side", "(20 * side + 14) // 28", "side"),
    "the box cut down": Mutant("box_side", "(20 * side + 14) // 28", "20 * side // 28"),
    "fitted by the shorter side": Mutant("ink_box", "box_high * width <= box_wide * height", "box_high * width > box_wide * height"),
    "the box's other side cut down": Mutant("ink_box", "2 * box_high * width + height", "2 * box_high * width"),
    "a thin pen left pale": Mutant("ink_box", "(scaled.astype(np.int64) * 255 + peak // 2) // peak", "scaled.astype(np.int64)"),
    "full ink cut down": Mutant("ink_box", "scaled.astype(np.int64) * 255 + peak // 2", "scaled.astype(np.int64) * 255"),
    "centred by the box": Mutant("_corner", "(2 * (side // 2 * total - moment) + total) // (2 * total)", "(side - len(mass)) // 2"),
    "centred half a pixel off": Mutant("_corner", "side // 2 * total", "(side - 1) * total // 2"),
    "centre of mass cut down": Mutant("_corner", "2 * (side // 2 * total - moment) + total", "2 * (side // 2 * total - moment)"),
    "rows for columns": Mutant("ink_box", "strokes.sum(axis=0)", "strokes.sum(axis=1)"),
    "fainter strokes": Mutant("STROKE", "32", "16"),
    "fuller strokes": Mutant("STROKE", "32", "96"),
    "the fading edge cut off": Mutant("_strokes", "ink[top - 1, left:right].any()", "False"),
    "the fading edge cut off on the right": Mutant("_strokes", "ink[top:bottom, right].any()", "False"),
    "clutter left beside the strokes": Mutant("_strokes", "len(kept) < len(parts)", "False"),
    "frames are strokes": Mutant("_Part", "inside * RIM_LEAK <= area", "False"),
    "whatever surrounds is a frame": Mutant("_Part", "inside * RIM_LEAK <= area", "True"),
    "a dot inside makes a frame": Mutant("COMPANION", "8", "1000"),
    "the image's edge is a stroke": Mutant(
        "_Part", "self.top == 0 or self.left == 0 or self.bottom == height or self.right == width", "False"
    ),
    "whatever touches the image's edge is clutter": Mutant(
        "_without_clutter", "max((part.mass for part in free), default=0) * COMPANION >= max((part.mass for part in kept))", "free"
    ),
    "dust is a stroke": Mutant("_without_clutter", "part.mass * DUST >= largest and near.holds(part)", "True"),
    "spots far off are strokes": Mutant("_without_clutter", "near.holds(part)", "True"),
    "spots are never strokes": Mutant("_without_clutter", "part.mass * DUST >= largest and near.holds(part)", "False"),
    "only the largest part": Mutant(
        "_without_clutter", "largest = max((part.mass for part in kept))", "largest = 10**9; return [max(kept, key=lambda part: part.mass)]"
    ),
    "corners do not touch": Mutant("_parts", "firsts[touching] <= ends[run]", "firsts[touching] < ends[run]"),
    "corners do not touch on the left": Mutant("_parts", "ends[above] < firsts[run]", "ends[above] <= firsts[run]"),
    "mass by pixels": Mutant("_parts", "ink.ravel().astype(np.int64).cumsum()", "(ink.ravel() >= 0).astype(np.int64).cumsum()"),
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
    2: {title: (REFORMAT, mutant) for title, mutant in IN_REFORMAT_V2.items()}
    | {title: (DOCUMENT, mutant) for title, mutant in IN_DOCUMENT.items()}
    | {title: (INK_BOX, mutant) for title, mutant in IN_INK_BOX.items()},
}
"""The mistakes that the corpus of each version in `sightline.preprocess.VERSIONS` must notice, with the module that each is in."""

PLANTED = [(version, title) for version, mistakes in MUTANTS.items() for title in mistakes]


def test_every_version_has_mutants_and_none_was_lost_on_the_way() -> None:
    assert set(MUTANTS) == set(VERSIONS)
    assert len(MUTANTS[1]) >= 62


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_unchanged_code_meets_every_expectation(module: types.ModuleType, version: int) -> None:
    assert list(golden.CORPORA[version].missed(reformat_with(module))) == []


@pytest.mark.parametrize(("version", "title"), PLANTED)
def test_a_mistake_in_the_code_is_noticed(version: int, title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    golden.CORPORA[version].noticed(reformat_with(*MUTANTS[version][title]))


def test_code_that_was_only_laid_out_anew_gives_the_same_mutants() -> None:
    for module in MODULES:
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
        for planted_in, mutant in (planted for mistakes in MUTANTS.values() for planted in mistakes.values()):
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
    """Another `reformat`, with the mistake in `sightline.reformatting` itself or in a module beneath it."""
    copy = loaded(module, mutant)
    if module is REFORMAT:
        return copy.reformat  # type: ignore[no-any-return]
    if module in (DOCUMENT, INK_BOX):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, module.__name__, copy)
            return loaded(REFORMAT).reformat  # type: ignore[no-any-return]
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
