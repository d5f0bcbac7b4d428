"""A folder of one's own images becomes a dataset on the first try: labels from names, an honest split, and a word on every copy."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageOps

from sightline.cli import run as sightline
from sightline.errors import DataError
from sightline_training.datasets.folder import open_folder
from sightline_training.datasets.split import split_apart
from sightline_training.run.run import load_run
from support.photos import make_class, photo, save
from support.present import present


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as refused:
        open_folder(root)
    return str(refused.value)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Ten cats and twenty dogs, not split."""
    make_class(tmp_path / "pets" / "cat", range(10))
    make_class(tmp_path / "pets" / "dog", range(10, 30))
    return tmp_path / "pets"


@pytest.fixture
def split_folder(tmp_path: Path) -> Path:
    """Four cats and five dogs to learn from, two and three to judge by."""
    for split, numbers in (("train", (range(4), range(4, 9))), ("valid", (range(20, 22), range(22, 25)))):
        for name, of_class in zip(("cat", "dog"), numbers, strict=True):
            make_class(tmp_path / "pets" / split / name, of_class)
    return tmp_path / "pets"


def test_class_folders_are_split_in_proportion_without_loss_or_overlap(pets: Path) -> None:
    dataset = open_folder(pets)
    assert dataset.name == "folder"
    assert dataset.labels == ("cat", "dog")
    assert dataset.test is None
    assert dataset.judged is dataset.valid
    assert dataset.choosing is None
    assert np.bincount(present(dataset.train).labels).tolist() == [8, 16]
    assert np.bincount(dataset.valid.labels).tolist() == [2, 4]
    assert len({*present(dataset.train).places, *dataset.valid.places}) == 30
    assert dataset.near_duplicates == frozenset()
    assert dataset.remarks == ("6 of 30 images were set aside for validation here, the same ones every time.",)
    for part in (present(dataset.train), present(dataset.valid)):
        for place, label in zip(part.places, part.labels, strict=True):
            assert place.startswith(f"{dataset.labels[label]}/")


def test_the_same_files_are_split_the_same_way_for_ever(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = open_folder(pets)
    copy = tmp_path / "copy"
    for name in ("dog", "cat"):
        for path in sorted((pets / name).iterdir(), reverse=True):
            save(photo(int(path.stem)), copy / name / path.name)
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "another"))
    there = open_folder(copy)
    assert present(there.valid).places == present(here.valid).places == VALID
    assert present(there.valid).fingerprint == present(here.valid).fingerprint
    assert present(there.train).fingerprint == present(here.train).fingerprint


VALID = ("cat/0002.png", "cat/0007.png", "dog/0011.png", "dog/0013.png", "dog/0024.png", "dog/0029.png")
"""Whoever changes this changes what everybody's models were judged by."""


def test_copies_of_a_photo_stand_on_one_side(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for number in range(30):
        name = ("cat", "dog", "bird")[number % 3]
        save(photo(number), folder / name / f"{number}.png")
        save(ImageOps.mirror(photo(number)), folder / name / f"mirrored {number}.jpg", quality=80)
        save(photo(number).resize((60, 50)), folder / name / "small" / f"{number}.webp")
    dataset = open_folder(folder)
    sides = [
        {int(Path(place).stem.removeprefix("mirrored ")) for place in part.places}
        for part in (present(dataset.train), present(dataset.valid))
    ]
    assert not sides[0] & sides[1]
    assert np.bincount(present(dataset.valid).labels).tolist() == [6, 6, 6]
    assert dataset.remarks[1] == (
        "90 images are or nearly are the same as another one, such as bird/11.png and bird/mirrored 11.jpg: "
        "they stand on one side of the split."
    )


def test_an_image_in_two_classes_is_told_and_never_judged_by(pets: Path) -> None:
    shutil.copy(pets / "cat" / "0003.png", pets / "dog" / "copy.png")
    dataset = open_folder(pets)
    assert {"cat/0003.png", "dog/copy.png"} <= set(present(dataset.train).places)
    assert dataset.remarks[1] == (
        "2 images are or nearly are the same as one of another class, such as cat/0003.png and dog/copy.png: "
        "they are learned from, and none is judged by."
    )


def test_a_class_that_shows_one_photo_only_cannot_be_split(pets: Path) -> None:
    save(photo(90), pets / "bird" / "a.png")
    assert refusal(pets) == (
        "the class bird: its 1 image shows only 1 different photo, but two are needed, one to learn from and one to be judged by. "
        "Add images, or make the folders train/ and valid/ yourself."
    )
    for size in range(40, 60, 4):
        save(photo(90).resize((size, 40)), pets / "bird" / f"{size}.png")
    assert refusal(pets).startswith("the class bird: its 6 images show only 1 different photo, but two are needed")
    save(photo(91), pets / "bird" / "b.png")
    dataset = open_folder(pets)
    assert [place for place in present(dataset.valid).places if place.startswith("bird")] == ["bird/b.png"]


def test_a_class_all_of_whose_photos_are_in_another_one_cannot_be_judged(pets: Path) -> None:
    for number in (3, 4):
        save(photo(number), pets / "kitten" / f"{number}.png")
    assert refusal(pets).startswith("the class kitten: its 2 images show only 2 different photos, each of them also in another class, but")


def test_two_images_a_class_are_enough(tmp_path: Path) -> None:
    make_class(tmp_path / "x" / "a", range(2))
    make_class(tmp_path / "x" / "b", range(2, 4))
    dataset = open_folder(tmp_path / "x")
    assert [len(part) for part in dataset.splits] == [2, 2]


def test_a_large_group_is_not_torn_and_does_not_become_the_validation_set() -> None:
    labels, groups = np.zeros(100, np.int64), np.arange(100)
    groups[:70] = 0
    labels = np.append(labels, [1, 1])
    train, valid = split_apart(labels, np.append(groups, [100, 101]), ("film", "other"))
    assert set(range(70)) <= set(train)
    assert (labels[valid] == 0).sum() == 20


def test_where_no_group_fits_the_smallest_is_judged_by() -> None:
    groups = np.repeat([0, 1, 2, 3], [50, 30, 1, 1])
    _, valid = split_apart(np.repeat([0, 1], [80, 2]), groups, ("film", "other"))
    assert valid.tolist() == [*range(50, 80), valid[-1]]


def test_a_given_split_is_taken_as_it_is(split_folder: Path) -> None:
    dataset = open_folder(split_folder)
    assert dataset.labels == ("cat", "dog")
    assert [(part.split, len(part)) for part in dataset.splits] == [("train", 9), ("valid", 5)]
    assert present(dataset.valid).places[0] == "valid/cat/0020.png"
    assert dataset.choosing is None
    assert dataset.remarks == ()


@pytest.mark.parametrize("name", ["val", "Validation", "VALID"])
def test_validation_may_be_spelled_in_several_ways(split_folder: Path, name: str) -> None:
    (split_folder / "valid").rename(split_folder / name)
    dataset = open_folder(split_folder)
    assert present(dataset.valid).places[0] == f"{name}/cat/0020.png"


def test_a_test_folder_is_what_is_reported(split_folder: Path) -> None:
    shutil.copytree(split_folder / "valid", split_folder / "test")
    dataset = open_folder(split_folder)
    assert dataset.judged is dataset.test
    assert dataset.choosing is dataset.valid
    shutil.rmtree(split_folder / "valid")
    dataset = open_folder(split_folder)
    assert dataset.judged is dataset.test
    assert dataset.choosing is None


def test_one_split_twice_is_an_error_that_says_so(split_folder: Path) -> None:
    shutil.copytree(split_folder / "valid", split_folder / "val")
    assert refusal(split_folder) == f"{split_folder}: both val/ and valid/ seem to hold the valid images. Keep one of them."


def test_a_class_that_is_not_on_both_sides_is_named(split_folder: Path) -> None:
    shutil.rmtree(split_folder / "valid" / "dog")
    assert refusal(split_folder) == f"{split_folder}/valid: there is no folder for dog. Expected: cat, dog."
    make_class(split_folder / "valid" / "Dog", range(30, 32))
    assert (
        refusal(split_folder)
        == f"{split_folder}/valid: there is no folder for dog and there is no class for the folder Dog. Expected: cat, dog."
    )


def test_an_empty_class_on_one_side_is_named(split_folder: Path) -> None:
    for path in (split_folder / "valid" / "dog").iterdir():
        path.unlink()
    assert refusal(split_folder) == f"{split_folder}/valid/dog: the class has no readable image. Add images, or remove the folder."


def test_copies_across_a_given_split_are_counted_apart(split_folder: Path) -> None:
    shutil.copy(split_folder / "train" / "dog" / "0005.png", split_folder / "valid" / "dog" / "a.png")
    save(ImageOps.mirror(photo(1)), split_folder / "valid" / "cat" / "b.jpg")
    dataset = open_folder(split_folder)
    assert {present(dataset.valid).places[at] for at in dataset.near_duplicates} == {"valid/cat/b.jpg", "valid/dog/a.png"}
    (remark,) = dataset.remarks
    assert remark == (
        "2 of 7 images in valid/ are or nearly are training images, such as valid/cat/b.jpg and train/cat/0001.png: "
        "the accuracy without them stands beside the other."
    )


def test_other_folders_beside_a_given_split_are_mentioned(split_folder: Path) -> None:
    (split_folder / "notes").mkdir()
    assert open_folder(split_folder).remarks == ("left out, beside train/: notes/.",)


def test_a_train_folder_alone_is_split(pets: Path, tmp_path: Path) -> None:
    here = open_folder(pets)
    (tmp_path / "mine").mkdir()
    pets.rename(tmp_path / "mine" / "train")
    dataset = open_folder(tmp_path / "mine")
    assert present(dataset.valid).places == present(here.valid).places


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make_class(tmp_path / "x" / "bus", range(6))
    make_class(tmp_path / "x" / "train", range(6, 12))
    assert open_folder(tmp_path / "x").labels == ("bus", "train")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == f"{tmp_path}/nowhere: the folder cannot be read: No such file or directory."


def test_what_was_left_out_stands_in_the_remarks_of_its_split(split_folder: Path) -> None:
    (split_folder / "valid" / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (split_folder / "train" / "cat" / "empty.png").touch()
    first, second = open_folder(split_folder).remarks
    assert first == "train: 1 file was left out: cat/empty.png (the file is empty)."
    assert second.startswith("valid: 1 file was left out: cat/broken.jpg (")


def test_an_image_that_is_deleted_after_opening_is_named(split_folder: Path) -> None:
    dataset = open_folder(split_folder)
    os.unlink(split_folder / "train" / "cat" / "0002.png")
    with pytest.raises(DataError, match=r"train/cat/0002\.png: cannot be read: No such file or directory"):
        present(dataset.train).open(2)


def test_the_command_trains_on_a_folder_and_the_card_bears_its_classes_and_the_given_name(pets: Path, tmp_path: Path) -> None:
    save(ImageOps.mirror(photo(3)), pets / "cat" / "mirrored.jpg")
    (pets / "dog" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    arguments = ["--backbone", "shufflenet_v2_x0_5", "--weights", "random", "--size", "32", "--epochs", "1", "--device", "cpu"]
    sightline(["train", "folder", "--data", str(pets), "--name", "my_pets", *arguments, "--run", str(tmp_path / "run")])
    run = load_run(tmp_path / "run")
    assert run.card.name == "my_pets"
    assert run.card.labels == ("cat", "dog")
    assert run.report.judged_on == "valid"
    assert run.report.chosen_on is None
    assert present(run.report.accuracy["valid"]).n == 6
    remarks = run.report.remarks
    assert len(remarks) == 3
    assert remarks[1].startswith("2 images are or nearly are the same as another one, such as cat/0003.png and cat/mirrored.jpg")
    assert remarks[2].startswith("1 file was left out: dog/broken.jpg (")
    assert str(tmp_path) not in str(remarks)
