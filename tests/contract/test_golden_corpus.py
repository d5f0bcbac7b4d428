"""The golden images hold the reference to the same pixels for ever, and a second, independent reading of the specification agrees."""

import importlib
import io
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline.document import full_ink
from sightline.errors import ImageError
from sightline.preprocess import VERSIONS, PreprocessV1, PreprocessV2
from sightline.reformatting import BY_VERSION, FILTERS, reformat
from support import document_oracle, make_corpus, oracle
from support import golden_corpus as golden
from support.specs import SPECS, SPECS_OF, spec

pytestmark = [
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning"),
    pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning"),
]

needs_torchvision = pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed: nothing to compare with")


def test_every_version_has_its_reference_oracle_specifications_and_corpus() -> None:
    assert set(VERSIONS) == set(BY_VERSION) == set(oracle.BY_VERSION) == set(SPECS_OF) == set(golden.CORPORA)
    assert all(spec.version == version for version, specs in SPECS_OF.items() for spec in specs.values())


@pytest.mark.parametrize("version", VERSIONS)
def test_no_golden_image_has_drifted(version: int) -> None:
    assert list(golden.CORPORA[version].missed(reformat)) == []


@needs_torchvision
@pytest.mark.parametrize(("version", "name"), [(version, name) for version, corpus in golden.CORPORA.items() for name in corpus.readable])
def test_the_independent_oracle_confirms_every_expectation(version: int, name: str) -> None:
    corpus, image = golden.CORPORA[version], make_corpus.images_of(version)[name]
    for title, specification in corpus.specifications.items():
        stored = oracle.stored((corpus.images / name).read_bytes(), specification) if image.truth is None else image.truth
        confirmed = oracle.reformat(stored, image.orientation, specification)
        differences = np.abs(confirmed.astype(int) - corpus.expectations[title][corpus.readable.index(name)])
        assert differences.max() <= corpus.tolerance(name), title


@pytest.mark.parametrize("name", sorted(golden.V1.refused))
def test_an_image_that_cannot_be_read_gives_its_sentence_and_no_pixels(name: str) -> None:
    with pytest.raises(ImageError) as refusal:
        reformat(golden.CORPUS / name, SPECS["mnist"])
    assert str(refusal.value) == f"{golden.CORPUS / name}: {golden.V1.refused[name]}"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_specifications_use_every_value_of_every_field(version: int) -> None:
    schema = VERSIONS[version].model_json_schema()["properties"]
    closed = {field: set(values["enum"]) for field, values in schema.items() if "enum" in values}
    assert len(closed) >= 5
    for field, values in closed.items():
        used = {getattr(specification, field) for specification in SPECS_OF[version].values()}
        assert used == values - ({"nearest"} if version == 2 else set()), field


def test_version_2_with_version_1_s_values_is_version_1_bit_for_bit() -> None:
    for title, old in SPECS.items():
        new = PreprocessV2(
            **dict(old) | {"version": 2, "alpha_background": old.background, "levels": "as-is", "frame": "as-is", "decode": "full"}
        )
        for name, expected in zip(golden.V1.readable, golden.V1.expectations[title], strict=True):
            assert np.abs(reformat(golden.CORPUS / name, new).astype(int) - expected).max() <= golden.V1.tolerance(name), (
                f"{name} under {title}"
            )


def test_no_processor_s_floating_point_decides_about_strokes() -> None:
    # Squares of sums of a large image leave the whole numbers that a double holds: the threshold must be the same as by fractions.
    chance = np.random.default_rng(3)
    for share in (0.001, 0.02, 0.3):
        ink = np.where(chance.random((512, 512)) < share, chance.integers(90, 250, (512, 512)), chance.integers(0, 30, (512, 512)))
        assert full_ink(ink.astype(np.uint8)) == document_oracle.full_ink(ink.astype(np.int64))


# Of version 2 half a minute: its oracle is asked once above already.
@needs_torchvision
@pytest.mark.parametrize("version", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_corpus_is_what_its_script_makes(tmp_path: Path, version: int) -> None:
    committed = golden.CORPORA[version]
    anew = golden.Corpus(version, tmp_path, tmp_path / committed.folder.relative_to(committed.images))
    make_corpus.write(anew)
    assert {path.name for path in anew.folder.iterdir()} == {path.name for path in committed.folder.iterdir() if path.is_file()}
    assert anew.cases == committed.cases
    for title, rows in committed.expectations.items():
        for name, now, then in zip(committed.readable, anew.expectations[title], rows, strict=True):
            assert np.abs(now.astype(int) - then).max() <= committed.tolerance(name), f"{name} under {title}"


def test_the_corpus_is_small_and_holds_no_pickle() -> None:
    assert sum(path.stat().st_size for path in golden.CORPUS.rglob("*") if path.is_file()) < 1_000_000
    assert all(array.dtype == np.uint8 for array in golden.V1.expectations.values())


def test_all_eight_orientations_show_the_same_upright_image() -> None:
    # JPEG's blocks fall elsewhere in a turned image, so the eight are near each other and not equal; a wrong turn is 60 away.
    upright = [reformat(golden.CORPUS / f"exif-{value}.jpg", spec(size=(24, 36))).astype(int) for value in range(1, 9)]
    assert max(np.abs(upright[0] - other).mean() for other in upright) < 3
    truth = make_corpus.scene(24, 36)
    assert np.abs(upright[0] - truth).mean() < 3


def test_an_image_with_an_orientation_looks_different_when_it_is_ignored() -> None:
    for name in [*(f"exif-{value}.jpg" for value in range(2, 9)), "exif-6.png", "exif-5.webp", "exif-8.tif", "exif-6-grey16.tif"]:
        applied, ignored = (reformat(golden.CORPUS / name, spec(size=(20, 20), exif=exif)) for exif in ("apply", "ignore"))
        assert np.abs(applied.astype(int) - ignored).mean() > 10, name


@pytest.mark.parametrize("title", SPECS)
def test_a_path_bytes_and_a_pil_image_of_one_file_give_the_same_pixels(title: str) -> None:
    for name in golden.V1.readable:
        path = golden.CORPUS / name
        from_path = reformat(str(path), SPECS[title])
        assert np.array_equal(from_path, reformat(path.read_bytes(), SPECS[title])), name
        if path.suffix == ".tif" and SPECS[title].exif == "ignore":
            continue  # Pillow has turned a TIFF upright by the time it is an image
        # Not by its path: Pillow maps an uncompressed TIFF of orientation 5 to 8 into memory with its sides exchanged.
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            assert np.array_equal(from_path, reformat(image, SPECS[title])), name


def test_an_array_gives_the_pixels_of_the_file_that_holds_it(tmp_path: Path) -> None:
    scene = make_corpus.scene(31, 26)
    veiled = np.dstack([scene, scene[..., 0]])
    for array in (scene, veiled, scene[..., 1], scene[..., 1:2], scene[::-1, ::2]):
        path = tmp_path / "picture.png"
        Image.fromarray(np.ascontiguousarray(array.squeeze())).save(path)
        for specification in SPECS.values():
            assert np.array_equal(reformat(array, specification), reformat(path, specification))


@pytest.mark.parametrize("title", SPECS)
def test_the_pixels_are_contiguous_writable_bytes_of_the_promised_shape(title: str) -> None:
    pixels = reformat(golden.CORPUS / "rgba.png", SPECS[title])
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*SPECS[title].size, len(SPECS[title].mode))
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


def test_neither_an_image_nor_an_array_is_changed_by_being_looked_at() -> None:
    with Image.open(golden.CORPUS / "exif-6.png") as image:
        image.load()
        before = image.tobytes(), image.size, image.getexif().get(274), dict(image.info)
        array = np.array(image)
        kept = array.copy()
        for specification in SPECS.values():
            reformat(image, specification)[:] = 0
            reformat(array, specification)[:] = 0
        assert (image.tobytes(), image.size, image.getexif().get(274), dict(image.info)) == before
    assert np.array_equal(array, kept)
    same = spec(size=array.shape[:2])
    reformat(array, same)[:] = 0
    assert np.array_equal(array, kept)


def test_eight_threads_see_what_one_sees() -> None:
    jobs = [(name, title) for name in golden.V1.readable for title in SPECS]
    with ThreadPoolExecutor(8) as pool:
        for (name, title), pixels in zip(jobs, pool.map(lambda job: reformat(golden.CORPUS / job[0], SPECS[job[1]]), jobs), strict=True):
            expected = golden.V1.expectations[title][golden.V1.readable.index(name)]
            assert np.abs(pixels.astype(int) - expected).max() <= golden.V1.tolerance(name)


@needs_torchvision
@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize(("side", "crop_fraction"), [(224, 0.875), (176, 0.95), (28, 1.0), (33, 0.9)])
def test_crop_is_torchvisions_resize_and_center_crop_on_a_pil_image_bit_for_bit(resample: str, side: int, crop_fraction: float) -> None:
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    reference = (Resize(round(side / crop_fraction), InterpolationMode(resample)), CenterCrop(side))
    specification = spec(size=(side, side), fit="crop", crop_fraction=crop_fraction, resample=resample)
    sizes = np.random.default_rng(side).integers(20, 400, (8, 2)).tolist()
    for height, width in [*sizes, [side, side], [side + 1, side], [256, 257], [500, 333]]:
        image = Image.fromarray(make_corpus.scene(height, width))
        theirs, ours = np.asarray(reference[1](reference[0](image))).astype(int), reformat(image, specification)
        # A tall image Pillow 13 scales height first, which rounds (and clips) otherwise; version 1 keeps to the width first.
        scaled = round(side / crop_fraction)
        tall = height - scaled * height // min(height, width) > max(0, 2 * (width - scaled * width // min(height, width)))
        assert np.abs(theirs - ours).max() <= (8 if tall else 0), (height, width)


@needs_torchvision
def test_torchvisions_tensor_path_is_not_the_same_as_the_specification_says() -> None:
    import torch
    from torchvision.transforms import Resize

    scene = make_corpus.scene(300, 400)
    tensor = torch.from_numpy(scene.copy()).permute(2, 0, 1)
    theirs = Resize((20, 20), antialias=True)(tensor).permute(1, 2, 0).numpy()
    ours = reformat(scene, spec(size=(20, 20)))
    assert 0 < np.abs(theirs.astype(int) - ours).max() <= 2


@st.composite
def _image_and_specification(draw: st.DrawFn) -> tuple[golden.Pixels, PreprocessV1]:
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(4)))
    seed = draw(st.integers(0, 2**32 - 1))
    rgba = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    if draw(st.booleans()):
        rgba[..., 3] = 255
    fit = draw(st.sampled_from(["stretch", "crop", "pad"]))
    return rgba, spec(
        mode=draw(st.sampled_from(["L", "RGB"])),
        size=draw(st.tuples(st.integers(1, 30), st.integers(1, 30))),
        fit=fit,
        crop_fraction=draw(st.sampled_from([1.0, 0.95, 0.9, 0.875, 0.8, 0.5])) if fit == "crop" else 1.0,
        resample=draw(st.sampled_from(["nearest", "box", "bilinear", "bicubic", "lanczos"])),
        background=draw(st.integers(0, 255)),
        polarity=draw(st.sampled_from(["as-is", "light-on-dark"])),
    )


@settings(max_examples=400, deadline=None, derandomize=True)
@given(_image_and_specification())
def test_reference_and_oracle_agree_on_any_image_under_any_specification(case: Any) -> None:
    rgba, specification = case
    assert np.array_equal(reformat(rgba, specification), oracle.reformat(rgba, 1, specification))


def test_transparent_pixels_show_the_background_and_nothing_of_their_hidden_colour() -> None:
    hidden = np.zeros((6, 6, 4), np.uint8)
    hidden[..., :3] = (255, 0, 0)
    assert (reformat(hidden, spec(size=(6, 6), background=(3, 140, 77))) == (3, 140, 77)).all()


def test_every_alpha_over_every_colour_is_rounded_to_the_nearest() -> None:
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.dstack([colour, colour, colour, alpha]).astype(np.uint8)
    for under in (0, 1, 100, 255):
        exact = oracle.over(rgba, np.full(3, under))
        assert np.array_equal(reformat(rgba, spec(size=(256, 256), background=under)), exact)


def test_an_image_of_real_size_is_scaled_as_the_oracle_says() -> None:
    scene = make_corpus.scene(1200, 1600)
    opaque = np.dstack([scene, np.full(scene.shape[:2], 255, np.uint8)])
    for resample in ("bilinear", "bicubic", "lanczos"):
        specification = spec(size=(224, 224), fit="crop", crop_fraction=0.875, resample=resample)
        assert np.array_equal(reformat(scene, specification), oracle.reformat(opaque, 1, specification))


def test_the_documentation_of_the_corpus_counts_its_images() -> None:
    text = (golden.CORPUS.parents[2] / "docs" / "preprocessing.md").read_text(encoding="utf-8")
    counted = re.search(r"(\d+) tiny images", text)
    assert counted is not None
    assert int(counted[1]) == len(golden.V1.cases["pictures"])


def test_tiff_orientation_is_ignored_when_the_specification_says_so() -> None:
    # Pillow turns a TIFF upright while it loads it, unlike any other format; `exif: ignore` must undo that.
    scene = make_corpus.scene(9, 14)
    for value in range(1, 9):
        buffer = io.BytesIO()
        exif = Image.Exif()
        exif[274] = value
        Image.fromarray(np.ascontiguousarray(scene)).save(buffer, "TIFF", exif=exif)
        stored = reformat(buffer.getvalue(), spec(size=(9, 14), exif="ignore"))
        assert np.array_equal(stored, scene), value
        upright = oracle.turned(scene, value)
        assert np.array_equal(reformat(buffer.getvalue(), spec(size=upright.shape[:2])), upright), value


def test_an_orientation_in_xmp_counts_where_exif_has_none() -> None:
    scene = make_corpus.scene(18, 28)
    buffer = io.BytesIO()
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(scene).save(buffer, "JPEG", quality=100, subsampling=0, xmp=packet)
    upright = oracle.turned(scene, 6)
    assert np.abs(reformat(buffer.getvalue(), spec(size=upright.shape[:2])).astype(int) - upright).mean() < 2
    assert np.abs(reformat(buffer.getvalue(), spec(size=scene.shape[:2], exif="ignore")).astype(int) - scene).mean() < 2


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("version", sorted(golden.CORPORA))
def test_an_image_that_is_made_in_strips_has_the_same_pixels(version: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("sightline.reformatting")
    strips: list[int] = []
    crop = module._Upright._crop

    def counted(self: object, top: int, bottom: int) -> Image.Image:
        strips.append(bottom - top)
        return crop(self, top, bottom)  # type: ignore[no-any-return]

    monkeypatch.setattr(module._Upright, "_crop", counted)
    monkeypatch.setattr(module, "STRIP_PIXELS", 8 * rows)
    assert list(golden.CORPORA[version].missed(reformat)) == []
    assert len(strips) > 1000
