"""The courses' images: found where they belong, in the order of their cards' labels, their leaks counted; what is missing is named."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kagglesdk import kaggle_env
from PIL import ImageOps

from sightline.errors import DataError
from sightline_training.datasets import fruits as fruits_module
from sightline_training.datasets import imagenet as imagenet_module
from sightline_training.datasets.bo import open_bo
from sightline_training.datasets.class_folders import read_class_folders
from sightline_training.datasets.doggy_door import open_doggy_door
from sightline_training.datasets.duplicates import mixed, near_duplicates, same_photo
from sightline_training.datasets.fruits import LABELS, open_fruits
from sightline_training.datasets.image_set import UNKNOWN
from sightline_training.datasets.imagenet import open_imagenet
from sightline_training.datasets.imagenet_labels import LABELS as IMAGENET_LABELS
from support.photos import make_class, photo, save
from support.present import present


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))


def refusal(opened: Callable[[Path], object], root: Path) -> str:
    with pytest.raises(DataError) as refused:
        opened(root)
    return str(refused.value)


@pytest.fixture
def fruits(tmp_path: Path) -> Path:
    """Two training and one validation image of each kind of fruit."""
    for at, name in enumerate(LABELS):
        make_class(tmp_path / "fruits" / "train" / name, range(2 * at, 2 * at + 2))
        make_class(tmp_path / "fruits" / "valid" / name, range(100 + at, 101 + at))
    return tmp_path


def test_of_the_fruits_validation_is_what_is_reported(fruits: Path) -> None:
    dataset = open_fruits(fruits)
    assert [(part.split, len(part)) for part in dataset.splits] == [("train", 12), ("valid", 6)]
    assert dataset.judged is dataset.valid
    assert dataset.choosing is None
    assert dataset.valid.labels.tolist() == list(range(6))
    assert dataset.labels is None
    assert dataset.near_duplicates == frozenset()
    assert dataset.remarks == ()


def test_listed_and_found_near_duplicates_are_counted_together(fruits: Path) -> None:
    save(ImageOps.mirror(photo(0)), fruits / "fruits" / "valid" / "freshapples" / "z.jpg")
    list_of_pairs = fruits / "fruits" / "near_duplicates.csv"
    list_of_pairs.write_text(
        "valid_file,train_file\nvalid/rottenoranges/0105.png,train/rottenoranges/0010.png\nvalid/freshapples/gone.jpg,x\n",
        encoding="utf-8",
    )
    dataset = open_fruits(fruits)
    assert {present(dataset.valid).places[at] for at in dataset.near_duplicates} == {
        "valid/rottenoranges/0105.png",
        "valid/freshapples/z.jpg",
    }
    (remark,) = dataset.remarks
    assert remark == (
        "2 of 7 images in valid/ are other crops or copies of training images, 1 by near_duplicates.csv and 1 more by perceptual hashes: "
        "the accuracy without them stands beside the other."
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"file\na\n", "no column valid_file"),
        (b"", "no column valid_file"),
        (b"valid_file\n\xff\n", "'utf-8' codec can't decode byte 0xff in position 11: invalid start byte"),
        (b"valid_file\n" + b"x" * 200_000 + b"\n", "field larger than field limit (131072)"),
    ],
)
def test_a_damaged_list_of_near_duplicates_is_refused(fruits: Path, content: bytes, reason: str) -> None:
    path = fruits / "fruits" / "near_duplicates.csv"
    path.write_bytes(content)
    assert refusal(open_fruits, fruits) == f"{path}: no list of near-duplicates ({reason}). Put a good copy in its place, or remove it."


@pytest.mark.parametrize("inside", [".", "dataset", "dataset/dataset"])
def test_the_whole_kaggle_dataset_is_read_where_it_was_unpacked_and_says_what_it_is_worth(fruits: Path, inside: str) -> None:
    images = fruits / "whole" / "fruits" / inside
    shutil.copytree(fruits / "fruits" / "train", images / "train")
    shutil.copytree(fruits / "fruits" / "valid", images / "test")
    dataset = open_fruits(fruits / "whole")
    assert [(part.split, len(part)) for part in dataset.splits] == [("train", 12), ("test", 6)]
    assert dataset.choosing is None
    assert present(dataset.test).places[0] == "test/freshapples/0100.png"
    assert dataset.remarks[0].startswith(
        "train/ and test/ of the whole Kaggle dataset hold turned, shifted and noisy copies of the same photos"
    )


def test_fruits_that_are_not_there_are_fetched_from_kaggle(fruits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(fruits / "fruits" / "train", fruits / "cache of kagglehub" / "dataset" / "train")
    shutil.copytree(fruits / "fruits" / "valid", fruits / "cache of kagglehub" / "dataset" / "test")
    asked: list[str] = []

    def downloaded(handle: str) -> Path:
        asked.append(handle)
        return fruits / "cache of kagglehub"

    monkeypatch.setattr(fruits_module, "downloaded_from_kaggle", downloaded)
    dataset = open_fruits(fruits / "nowhere")
    assert len(present(dataset.test)) == 6
    assert asked == ["sriramr/fruits-fresh-and-rotten-for-classification/versions/1"]
    shutil.rmtree(fruits / "cache of kagglehub" / "dataset" / "test")
    assert "holds no folders train/ and test/" in refusal(open_fruits, fruits / "nowhere")


def test_without_a_network_the_sentence_says_where_the_fruits_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # kagglehub really asks, at a port of this machine where nobody answers.
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, "http://127.0.0.1:9")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "nobody"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    folder = tmp_path / "fruits"
    assert refusal(open_fruits, tmp_path) == (
        f"the fruits are not in {folder} and could not be fetched (Connection refused). Put the folders train/ and valid/ into {folder}, "
        "each with the images in freshapples, freshbanana, freshoranges, rottenapples, rottenbanana and rottenoranges."
    )


def test_bo_is_the_first_class_and_the_folders_are_named_if_missing(tmp_path: Path) -> None:
    folder = tmp_path / "doggy_door" / "presidential_doggy_door"
    assert refusal(open_bo, tmp_path) == (
        f"the images of Bo are not in {folder}, and cannot be fetched. Put the course's folders train/ and valid/ there, "
        "each with the images in bo/ and not_bo/."
    )
    for at, split in enumerate(("train", "valid")):
        make_class(folder / split / "bo", range(10 * at, 10 * at + 2))
        make_class(folder / split / "not_bo", range(10 * at + 2, 10 * at + 5))
    dataset = open_bo(tmp_path)
    assert present(dataset.train).labels.tolist() == present(dataset.valid).labels.tolist() == [0, 0, 1, 1, 1]
    assert dataset.choosing is None


def _photos(root: Path) -> Path:
    folder = root / "doggy_door" / "doggy_door_images"
    for at, name in enumerate(("happy_dog", "brown_bear", "sleepy_cat")):
        save(photo(at), folder / f"{name}.jpg")
    return folder


def test_the_three_photos_are_dog_other_and_cat(tmp_path: Path) -> None:
    _photos(tmp_path)
    dataset = open_doggy_door(tmp_path)
    assert [part.split for part in dataset.splits] == ["test"]
    assert [("cat", "dog", "other")[label] for label in present(dataset.test).labels] == ["dog", "other", "cat"]
    assert present(dataset.test).places == (
        "doggy_door_images/happy_dog.jpg",
        "doggy_door_images/brown_bear.jpg",
        "doggy_door_images/sleepy_cat.jpg",
    )
    assert dataset.train is None


@pytest.mark.parametrize("opened", [open_doggy_door, open_imagenet])
def test_a_missing_photo_is_named(tmp_path: Path, opened: Callable[[Path], object]) -> None:
    folder = _photos(tmp_path)
    (folder / "brown_bear.jpg").unlink()
    assert refusal(opened, tmp_path) == (
        f"brown_bear.jpg is not in {folder}, and cannot be fetched. Put happy_dog.jpg, brown_bear.jpg, sleepy_cat.jpg there: "
        "any three photos of a dog, a bear and a cat."
    )


def test_without_imagenet_three_photos_are_shown_and_none_is_counted(tmp_path: Path) -> None:
    _photos(tmp_path)
    dataset = open_imagenet(tmp_path)
    assert dataset.name == "imagenet"
    assert present(dataset.test).labels.tolist() == [UNKNOWN] * 3
    assert dataset.remarks == (
        "no accuracy can be given: the data folder holds no imagenet/val, and the 3 photos shown instead are not counted.",
    )


def test_imagenets_folders_may_bear_names(tmp_path: Path) -> None:
    val = tmp_path / "imagenet" / "val"
    for at, name in enumerate(("tabby", "great_white_shark", "Cardigan", "cardigan")):
        make_class(val / name, range(at, at + 1))
    dataset = open_imagenet(tmp_path)
    assert [IMAGENET_LABELS[label] for label in present(dataset.test).labels] == ["Cardigan", "cardigan", "great white shark", "tabby"]
    assert present(dataset.test).places[2] == "val/great_white_shark/0001.png"
    make_class(val / "lawnmowerman", range(9, 10))
    assert refusal(open_imagenet, tmp_path) == f"{val}/lawnmowerman: no class of ImageNet is called so. Rename or remove the folder."


def test_some_of_imagenets_numbers_need_the_list(tmp_path: Path) -> None:
    val = tmp_path / "imagenet" / "val"
    make_class(val / "n01443537", range(2))
    make_class(val / "n01440764", range(2, 4))
    assert refusal(open_imagenet, tmp_path) == (
        f"{val}: of ImageNet's 1,000 folders some are missing. To tell which these are, put imagenet_class_index.json beside val/."
    )
    path = tmp_path / "imagenet" / "imagenet_class_index.json"
    path.write_text('{"0": ["n01440764", "tench"]}')
    assert refusal(open_imagenet, tmp_path) == (
        f'{path}: expected 1,000 entries such as "0": ["n01440764", "tench"]. Put a good copy in its place.'
    )
    path.write_text(
        json.dumps({str(at): [f"n{at + 1440764:08d}", label] for at, label in enumerate(IMAGENET_LABELS)}).replace("n01440765", "n01443537")
    )
    assert present(open_imagenet(tmp_path).test).labels.tolist() == [0, 0, 1, 1]


def test_all_of_imagenets_numbers_are_the_classes_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a smaller ImageNet: a thousand folders take seconds.
    monkeypatch.setattr(imagenet_module, "LABELS", IMAGENET_LABELS[:30])
    for at, number in enumerate(np.random.default_rng(0).choice(10**8, 30, replace=False)):
        make_class(tmp_path / "imagenet" / "val" / f"n{number:08d}", range(at, at + 1))
    assert present(open_imagenet(tmp_path).test).labels.tolist() == list(range(30))


@pytest.mark.realdata
def test_of_the_45_known_crops_among_the_real_fruits_33_are_found_by_their_looks_and_5_others(data_folder: Path) -> None:
    fruits = data_folder / "fruits"
    train = read_class_folders(fruits / "train", below="train")
    valid = read_class_folders(fruits / "valid", train.classes, below="valid")
    assert np.bincount(train.labels).tolist() == [182, 169, 163, 253, 238, 177]
    assert np.bincount(valid.labels).tolist() == [34, 33, 27, 58, 52, 29]
    near = near_duplicates(train.hashes, train.labels, valid.hashes, valid.labels)
    matched = {valid.place(one): train.place(other) for one, other in near.items()}
    with (fruits / "near_duplicates.csv").open(encoding="utf-8", newline="") as file:
        pairs = {row["valid_file"]: row["train_file"] for row in csv.DictReader(file)}
    assert len(pairs) == 45
    # Another Pillow may round a pixel otherwise.
    assert len(matched.keys() & pairs.keys()) >= 32
    assert len(matched.keys() - pairs.keys()) <= 6
    assert sum(matched[one] == other for one, other in pairs.items() if one in matched) >= 30
    groups = same_photo(train.hashes, train.labels)
    assert not mixed(groups, train.labels).any()
    assert np.bincount(groups).max() <= 8

    dataset = open_fruits(data_folder)
    assert {present(dataset.valid).places[at] for at in dataset.near_duplicates} == pairs.keys() | matched.keys()
    assert dataset.remarks[0].endswith("more by perceptual hashes: the accuracy without them stands beside the other.")


@pytest.mark.realdata
def test_the_real_bo_has_137_and_26_images(data_folder: Path) -> None:
    dataset = open_bo(data_folder)
    assert [np.bincount(part.labels).tolist() for part in dataset.splits] == [[17, 120], [6, 20]]
    assert dataset.near_duplicates == frozenset()
    assert dataset.remarks == ()


@pytest.mark.realdata
def test_the_real_photos_are_read_at_their_full_size(data_folder: Path) -> None:
    test = present(open_doggy_door(data_folder).test)
    assert [test.open(at).size for at in range(3)] == [(768, 1152), (1944, 2592), (5712, 3213)]
