"""What would make a training learn something else than its user thinks is told before it begins, of real files; and never for nothing."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from sightline.cli import run as sightline
from sightline_training.datasets import open_dataset
from sightline_training.datasets.folder import open_folder
from sightline_training.datasets.remarks import remarks_on
from sightline_training.recipes import RECIPES
from sightline_training.run.run import load_run
from support.photos import make_class, photo, save


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Cats and dogs, six of each to learn from and three to judge by: nothing to remark."""
    for split, numbers in (("train", (range(6), range(10, 16))), ("valid", (range(20, 23), range(30, 33)))):
        for name, of_class in zip(("cat", "dog"), numbers, strict=True):
            make_class(tmp_path / "pets" / split / name, of_class)
    return tmp_path / "pets"


def remarks(folder: Path) -> tuple[str, ...]:
    dataset = open_folder(folder)
    assert dataset.labels is not None
    first = remarks_on(dataset, dataset.labels)
    assert remarks_on(open_folder(folder), dataset.labels) == first  # the looks of the second time come from the cache
    return first


def changed(folder: Path, change: Callable[[Image.Image], Image.Image]) -> None:
    for path in sorted(folder.rglob("*.png")):
        change(Image.open(path)).save(path)


def samples_of_12_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 4)


def test_images_as_they_should_be_get_no_remark(pets: Path) -> None:
    assert remarks(pets) == ()


def test_twelve_bits_in_files_of_sixteen_are_told(pets: Path) -> None:
    changed(pets, samples_of_12_bits)
    advice = (
        "12-bit data in 16-bit files do. The network sees next to nothing in them: stretch the values to the full range, also those of "
        "the images that you will classify."
    )
    assert remarks(pets) == (
        f"12 of 12 training images use at most a sixteenth of the range of values, such as train/cat/0000.png: {advice}",
        f"6 of 6 validation images use at most a sixteenth of the range of values, such as valid/cat/0020.png: {advice}",
    )


def test_twelve_bits_are_told_in_colour_too_which_the_decoder_makes_eight_of(pets: Path) -> None:
    changed(pets, lambda image: image.point(lambda value: value >> 4))
    assert [remark.partition(",")[0] for remark in remarks(pets)] == [
        "12 of 12 training images use at most a sixteenth of the range of values",
        "6 of 6 validation images use at most a sixteenth of the range of values",
    ]


def test_sixteen_bits_in_files_of_sixteen_are_not_told_nor_one_dark_image(pets: Path) -> None:
    changed(pets, lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257))
    samples_of_12_bits(photo(0)).save(pets / "train" / "cat" / "0000.png")
    assert remarks(pets) == ()


def test_strokes_on_a_transparent_ground_use_the_whole_range(pets: Path) -> None:
    def drawn(image: Image.Image) -> Image.Image:
        canvas = Image.new("RGBA", image.size)
        canvas.putalpha(image.convert("L"))
        return canvas

    changed(pets, drawn)
    assert remarks(pets) == ()


def test_a_class_of_copies_is_told_with_two_of_them(pets: Path) -> None:
    for number in range(6):
        save(photo(40).resize((96 - number, 80)), pets / "train" / "cat" / f"{number:04}.png")
    assert remarks(pets) == (
        (
            "the class cat: 6 of 6 training images are copies or near copies of one image, such as train/cat/0000.png and "
            "train/cat/0001.png. The network learns that and not the class: add images that differ."
        ),
    )


def test_a_class_of_a_few_photos_many_times_is_told_and_one_copy_is_not(pets: Path) -> None:
    for number in range(30):
        save(photo(50 + number % 3), pets / "train" / "cat" / f"{number:04}.png")
    save(photo(10), pets / "train" / "dog" / "again.png")
    assert remarks(pets) == (
        (
            "the class cat: 30 of 30 training images are copies or near copies of 3 images, such as train/cat/0000.png and "
            "train/cat/0003.png. The network learns that and not the class: add images that differ."
        ),
    )


def test_four_copies_are_too_few_to_say_anything_of_a_class(pets: Path) -> None:
    for path in sorted((pets / "train" / "cat").iterdir()):
        path.unlink()
    for number in range(4):
        save(photo(40), pets / "train" / "cat" / f"{number}.png")
    assert remarks(pets) == ()


def test_grey_here_and_colour_there_is_told(pets: Path) -> None:
    changed(pets / "train", lambda image: image.convert("L"))
    assert remarks(pets) == (
        (
            "12 of 12 training images are grey, such as train/cat/0000.png, but 6 of 6 validation images are in colour, such as "
            "valid/cat/0020.png. They are not of one kind: see to it that both are as those that you will classify."
        ),
    )


def test_grey_that_is_stored_in_colour_is_another_kind_than_grey_though_a_network_gets_the_same(pets: Path) -> None:
    changed(pets / "train", lambda image: image.convert("L"))
    changed(pets / "valid", lambda image: image.convert("L").convert("RGB"))
    (remark,) = remarks(pets)
    assert remark.endswith(
        "6 of 6 validation images are grey, stored in colour, such as valid/cat/0020.png. The network gets the same of both, but they "
        "were not made in one way: see to it that both are as those that you will classify."
    )


def test_some_grey_images_among_the_others_are_not_told(pets: Path) -> None:
    photo(0).convert("L").save(pets / "train" / "cat" / "0000.png")
    photo(20).convert("L").save(pets / "valid" / "cat" / "0020.png")
    assert remarks(pets) == ()


def cut_out(image: Image.Image) -> Image.Image:
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse((10, 10, *(side - 10 for side in image.size)), fill=255)
    image.putalpha(mask)
    return image


def test_transparency_in_one_split_alone_is_told(pets: Path) -> None:
    changed(pets / "valid", cut_out)
    assert remarks(pets) == (
        (
            "6 of 6 validation images have transparent pixels, such as valid/cat/0020.png, and none of the 12 training images. The network "
            "sees the specification's background under them: save both in one way."
        ),
    )
    changed(pets / "train", cut_out)
    assert remarks(pets) == ()


def test_an_alpha_channel_that_hides_nothing_is_no_transparency(pets: Path) -> None:
    changed(pets / "valid", lambda image: image.convert("RGBA"))
    assert remarks(pets) == ()


def test_images_of_twice_the_size_are_told_and_of_nearly_twice_are_not(pets: Path) -> None:
    changed(pets / "valid", lambda image: image.resize((191, 159)))
    assert remarks(pets) == ()
    changed(pets / "valid", lambda image: image.resize((192, 160)))
    assert remarks(pets) == (
        (
            "the training images have 88 pixels a side (median), the validation images 175. Scaled to the network's size, they differ in "
            "sharpness: make both as large as those that you will classify."
        ),
    )


def test_images_in_one_file_are_looked_at_too(tmp_path: Path, small_mnist: Path, idx_bytes: Callable[..., bytes]) -> None:
    def replaced(images: npt.NDArray[np.int64]) -> None:
        (small_mnist / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images), 1))

    labels = RECIPES["mnist"].card.labels
    assert remarks_on(open_dataset("mnist", small_mnist), labels) == ()
    drawn = np.random.default_rng(0).integers(0, 256, (240, 28, 28))
    replaced(drawn // 16)
    told = [remark.partition(":")[0] for remark in remarks_on(open_dataset("mnist", small_mnist), labels)]
    assert told == [
        "200 of 200 training images use at most a sixteenth of the range of values, such as image 0",
        "20 of 20 validation images use at most a sixteenth of the range of values, such as image 0",
    ]
    drawn[np.arange(240) % 10 == 3] = drawn[3]
    replaced(drawn)
    (remark,) = remarks_on(open_dataset("mnist", small_mnist), labels)
    assert remark.startswith("the class 3: 22 of 22 training images are copies or near copies of one image, such as image ")


def test_a_training_tells_at_its_start_and_keeps_it_in_its_report(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(pets / "train", lambda image: image.convert("L"))
    run = tmp_path / "run"
    arguments = ["--backbone", "mobilenet_v2", "--weights", "random", "--size", "32", "--epochs", "1", "--device", "cpu"]
    sightline(["train", "folder", "--data", str(pets), "--run", str(run), *arguments])
    printed = capsys.readouterr()
    (remark,) = (remark for remark in load_run(run).report.remarks if "are not of one kind" in remark)
    assert f"note: {remark}\n" in printed.err
    assert printed.err.index("note: ") < printed.err.index("computed ")
    assert str(tmp_path) not in remark


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["mnist", "asl", "cifar10", "fruits", "bo", "doggy_door", "imagenet"])
def test_the_real_datasets_get_no_remark(name: str, data_folder: Path) -> None:
    recipes = {recipe.data: recipe for recipe in RECIPES.values()}
    assert remarks_on(open_dataset(name, data_folder), recipes[name].card.labels) == ()
