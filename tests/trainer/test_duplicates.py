"""One photo is recognised however it was saved again, other photos are not taken for it, and a hundred thousand are compared in minutes."""

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from sightline.errors import ImageError
from sightline.image import open_image
from sightline_training.datasets import duplicates
from sightline_training.datasets.class_folders import read_class_folders
from sightline_training.datasets.duplicates import BITS, HASH_DTYPE, ImageHashes, Ints, hash_image, mixed, near_duplicates, same_photo
from support.photos import photo


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))


def hashes_of(*images: Image.Image) -> ImageHashes:
    return np.array([hash_image(image) for image in images], HASH_DTYPE)


def encoded(image: Image.Image, kind: str, **settings: object) -> Image.Image:
    """The image as it comes back from a file."""
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return open_image(file.getvalue())


def zeros(count: int) -> Ints:
    return np.zeros(count, np.int64)


def is_found(copy: Image.Image, of: Image.Image) -> bool:
    known = hashes_of(of, *(photo(number) for number in range(500, 510)))
    return near_duplicates(known, zeros(11), hashes_of(copy), zeros(1)) == {0: 0}


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same": lambda image: image,
    "as JPEG": lambda image: encoded(image, "JPEG", quality=60),
    "as WebP": lambda image: encoded(image, "WEBP", quality=50),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "twice as wide": lambda image: image.resize((image.width * 2, image.height)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "turned by 90": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned by 180": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "turned by 270 and small": lambda image: image.transpose(Image.Transpose.ROTATE_270).resize((40, 48)),
    "transposed": lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    "transversed": lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    "cropped a little": lambda image: image.crop((2, 2, image.width - 1, image.height - 2)),
    "on a wide white ground": lambda image: ImageOps.expand(image, (90, 60, 30, 80), "white"),
}


@pytest.mark.parametrize("change", COPIES)
def test_a_photo_is_found_again(change: str) -> None:
    for number in range(3):
        original = photo(number, (192, 160))
        assert is_found(COPIES[change](original), original), number


def test_other_photos_are_not_taken_for_it() -> None:
    known, judged = hashes_of(*map(photo, range(60))), hashes_of(*map(photo, range(60, 120)))
    assert near_duplicates(known, zeros(60), judged, zeros(60)) == {}


def test_the_same_shapes_in_another_colour_are_another_image() -> None:
    red, green, blue = photo(1).split()
    assert not is_found(Image.merge("RGB", (blue, red, green)), photo(1))


def test_even_surfaces_are_the_same_only_to_the_pixel() -> None:
    known = hashes_of(Image.new("RGB", (50, 50), (200, 200, 200)), Image.new("RGB", (50, 50), (20, 20, 20)))
    judged = hashes_of(Image.new("RGB", (50, 50), (201, 200, 200)), Image.new("RGB", (70, 50), (20, 20, 20)))
    assert near_duplicates(known, zeros(2), judged, zeros(2)) == {1: 1}


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_another_file_with_the_same_pixels_is_an_exact_copy(kind: str) -> None:
    one, other = hashes_of(photo(1), encoded(photo(1), kind))
    assert one["exact"].tobytes() == other["exact"].tobytes()


def test_an_image_that_its_tag_turns_upright_is_an_exact_copy_of_the_upright_one() -> None:
    exif = Image.Exif()
    exif[274] = 6
    sideways = encoded(photo(1).transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    one, other = hashes_of(photo(1), sideways)
    assert one["exact"].tobytes() == other["exact"].tobytes()


def test_16_bit_images_are_compared_by_what_they_show() -> None:
    ramp = np.linspace(0, 60_000, 64 * 64).reshape(64, 64)
    wide = [Image.fromarray(array.astype(np.uint16)) for array in (ramp, ramp.T.copy(), ramp)]
    one, other, again = hashes_of(*wide)
    assert one["exact"].tobytes() == again["exact"].tobytes() != other["exact"].tobytes()
    with pytest.raises(ImageError):
        hash_image(Image.fromarray(ramp.astype(np.float32)))


def test_the_most_alike_is_named() -> None:
    original = photo(3)
    known = hashes_of(encoded(original.crop((3, 3, 94, 78)), "JPEG", quality=30), photo(9), encoded(original, "JPEG", quality=95))
    assert near_duplicates(known, zeros(3), hashes_of(original), zeros(1)) == {0: 2}


def test_linked_images_are_one_group_and_others_stay_alone() -> None:
    images = [photo(1), photo(2), ImageOps.mirror(photo(1)), encoded(photo(2), "JPEG"), photo(4), photo(1).resize((48, 40))]
    groups = same_photo(hashes_of(*images), zeros(6))
    assert groups[0] == groups[2] == groups[5]
    assert groups[1] == groups[3]
    assert len(set(groups)) == 3


def test_blocks_and_folding_do_not_change_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [photo(number // 3).resize((96 - number % 3, 80)) for number in range(60)]
    hashes = hashes_of(*images)
    before = same_photo(hashes, zeros(60))
    assert np.array_equal(before, np.repeat(before[::3], 3))
    assert len(set(before)) == 20
    monkeypatch.setattr(duplicates, "BLOCK", (7, 11))
    monkeypatch.setattr(duplicates, "EDGES", 2)
    after = same_photo(hashes, zeros(60))
    assert np.array_equal(after[:, None] == after, before[:, None] == before)
    assert near_duplicates(hashes[::3], zeros(20), hashes[1::3], zeros(20)) == {at: at for at in range(20)}


def _alike_in_two_classes(count: int) -> tuple[ImageHashes, Ints]:
    """ImageHashes that differ in 20 bits at most, as digits or scans may: no two of them one image."""
    draw = np.random.default_rng(0)
    hashes = np.zeros(count, HASH_DTYPE)
    hashes["exact"] = draw.integers(0, 256, (count, 32))
    bits = np.zeros((count, 8, BITS), np.uint8)
    bits[np.arange(count)[:, None], :, draw.integers(0, BITS, (count, 10))] = 1
    hashes["prints"] = np.packbits(bits, axis=2)
    return hashes, np.arange(count) % 2


def test_where_different_classes_look_alike_only_what_is_more_alike_counts() -> None:
    hashes, labels = _alike_in_two_classes(400)
    hashes[7]["prints"] = hashes[8]["prints"]
    hashes[20]["exact"] = hashes[22]["exact"]
    labels[7] = labels[8]
    groups = same_photo(hashes, labels)
    assert len(set(groups)) > 300
    assert groups[7] == groups[8]
    assert groups[20] == groups[22]
    near = near_duplicates(hashes[:200], labels[:200], hashes[200:], labels[200:])
    assert len(near) < 20


def test_a_few_images_in_two_classes_do_not_make_the_search_stricter() -> None:
    images = [photo(number) for number in range(8)] + [ImageOps.mirror(photo(0))]
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])
    groups = same_photo(hashes_of(*images), labels)
    assert groups[0] == groups[8]
    assert mixed(groups, labels).nonzero()[0].tolist() == [0, 8]


def test_of_too_many_images_only_exact_copies_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MOST_COMPARED", 2)
    hashes = hashes_of(photo(1), ImageOps.mirror(photo(1)), photo(1))
    groups = same_photo(hashes, zeros(3))
    assert groups[0] == groups[2] != groups[1]
    assert near_duplicates(hashes[1:], zeros(2), hashes[:1], zeros(1)) == {0: 1}
    assert near_duplicates(np.repeat(hashes[1:2], 5), zeros(5), hashes[:1], zeros(1)) == {}


def test_six_thousand_images_are_grouped_in_seconds() -> None:
    draw = np.random.default_rng(1)
    hashes = np.zeros(6_000, HASH_DTYPE)
    hashes["exact"] = draw.integers(0, 256, (6_000, 32))
    hashes["prints"] = draw.integers(0, 256, (6_000, 8, BITS // 8))
    hashes["prints"][1::100] = hashes["prints"][::100]
    began = time.process_time()
    groups = same_photo(hashes, zeros(6_000))
    assert len(set(groups)) == 5_940
    # Measured: 2 s of CPU. A loop over the 18 million pairs, eight ways each, would take minutes.
    assert time.process_time() - began < 30


@pytest.mark.realdata
def test_no_two_images_of_bo_are_taken_for_one(data_folder: Path) -> None:
    bo = read_class_folders(data_folder / "doggy_door" / "presidential_doggy_door" / "train")
    assert len(set(same_photo(bo.hashes, bo.labels))) == 137
