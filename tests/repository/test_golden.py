"""Golden images are real, lossless, one of each class first, and come with the trained network's answers."""

import hashlib
import io
import json

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sightline.card import ModelCard
from sightline.errors import RepositoryError
from sightline.reformatting import reformat
from sightline.repository.golden import by_turns, golden_files
from sightline_export.graph.runtimes import in_torch
from support.digits import DIGITS, Trained

PHOTOS = DIGITS.model_copy(
    update={
        "preprocess": DIGITS.preprocess.model_copy(
            update={
                "mode": "RGB",
                "size": (12, 10),
                "fit": "crop",
                "crop_fraction": 0.875,
                "exif": "apply",
                "background": (9, 8, 7),
                "mean": (0.0,) * 3,
                "std": (1.0,) * 3,
            }
        )
    }
)


def made(trained: Trained, **settings: object) -> dict[str, bytes]:
    return golden_files(
        trained.card,
        lambda at: Image.fromarray(trained.pixels[at, ..., 0]),
        trained.labels,
        in_torch(trained.network),
        1e-4,
        **settings,  # type: ignore[arg-type]
    )


def uniform(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.full((len(pixels), 10), 0.1, np.float32)


def one(image: Image.Image, card: ModelCard) -> tuple[bytes, dict[str, object]]:
    files = golden_files(card, lambda _at: image, np.zeros(1, np.int64), uniform, 1e-4)
    return files["golden/00.png"], json.loads(files["golden/golden.json"])["pictures"][0]


def test_the_images_reformat_to_the_very_pixels_and_carry_the_networks_answers(trained: Trained) -> None:
    files = made(trained)
    golden = json.loads(files["golden/golden.json"])
    assert (golden["schema"], golden["card_sha256"], golden["tolerance"]) == (1, trained.card.sha256, 1e-4)
    assert set(files) == {"golden/golden.json", *(f"golden/0{at}.png" for at in range(8))}
    known = {pixels.tobytes(): label for pixels, label in zip(trained.pixels, trained.labels, strict=True)}
    for image in golden["pictures"]:
        content = files[f"golden/{image['file']}"]
        pixels = reformat(content, trained.card.preprocess)
        assert trained.card.labels[known[pixels.tobytes()]] == image["label"]
        assert image["sha256"] == hashlib.sha256(content).hexdigest()
        assert image["pixels_sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()
        assert np.array_equal(np.float32(image["probabilities"]), in_torch(trained.network)(pixels[None])[0])


def test_each_class_comes_once_before_any_comes_twice(trained: Trained) -> None:
    labels = [image["label"] for image in json.loads(made(trained)["golden/golden.json"])["pictures"]]
    assert labels == list("01234567")
    twelve = [image["label"] for image in json.loads(made(trained, count=12)["golden/golden.json"])["pictures"]]
    assert twelve == [*"0123456789", *"01"]
    assert by_turns([1, 1, 1, 0, 2, 1], 4) == [3, 0, 4, 1]


def test_the_files_are_the_same_every_time(trained: Trained) -> None:
    assert made(trained) == made(trained)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "YCbCr", "HSV", "PA", "RGBa"])
def test_every_mode_survives_being_written_as_png(mode: str) -> None:
    gradient = np.arange(40 * 30 * 4, dtype=np.uint32).reshape(40, 30, 4)
    if mode == "I;16":
        image = Image.fromarray((gradient[..., 0] * 13 % 65536).astype(np.uint16))
    else:
        full = Image.fromarray((gradient * 7 % 256).astype(np.uint8))
        image = (
            full.convert("P").convert("PA") if mode == "PA" else full.convert("RGB").convert(mode) if mode == "HSV" else full.convert(mode)
        )
    content, entry = one(image, PHOTOS)
    pixels = reformat(image, PHOTOS.preprocess)
    assert len(np.unique(pixels)) > 1
    assert entry["pixels_sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert np.array_equal(reformat(content, PHOTOS.preprocess), pixels)
    assert content.startswith(b"\x89PNG")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_kept_and_nothing_else_of_a_photographers_data(orientation: int) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "A camera"
    exif.get_ifd(0x8825)[1] = "N"
    Image.fromarray(np.arange(40 * 30 * 3, dtype=np.uint32).reshape(40, 30, 3).astype(np.uint8)).save(buffer, "JPEG", exif=exif)
    image = Image.open(io.BytesIO(buffer.getvalue()))
    content, entry = one(image, PHOTOS)
    assert entry["pixels_sha256"] == hashlib.sha256(reformat(buffer.getvalue(), PHOTOS.preprocess).tobytes()).hexdigest()
    assert dict(Image.open(io.BytesIO(content)).getexif()) == {0x0112: orientation}
    assert b"camera" not in content


def test_a_large_photo_is_made_smaller_and_its_own_answer_is_expected() -> None:
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (2000, 1500, 3), np.uint8))
    content, entry = one(large, PHOTOS)
    assert Image.open(io.BytesIO(content)).size == (768, 1024)
    assert entry["pixels_sha256"] == hashlib.sha256(reformat(content, PHOTOS.preprocess).tobytes()).hexdigest()


def test_an_image_that_png_cannot_hold_makes_room_for_the_next() -> None:
    wide = Image.frombytes("I;16B", (9, 9), bytes(range(162)))
    assert reformat(wide, DIGITS.preprocess).any()
    images = [wide, Image.new("L", (9, 9), 7)]
    files = golden_files(DIGITS, lambda at: images[at], np.array([0, 1]), uniform, 1e-4)
    assert [entry["label"] for entry in json.loads(files["golden/golden.json"])["pictures"]] == ["1"]
    with pytest.raises(RepositoryError, match="none of the images that digits was tried on can be written as PNG with the same pixels"):
        golden_files(DIGITS, lambda _at: wide, np.array([0]), uniform, 1e-4)
