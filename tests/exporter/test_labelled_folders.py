"""Folders that are called as labels say what images show; whatever they do not say is told."""

from pathlib import Path

import pytest

from sightline_export.sources.labelled_folders import FolderLabels, labels_by_folder

ROOT = Path("/photos")


def known(files: list[str], labels: list[str], ids: tuple[str, ...] = ()) -> tuple[dict[str, int], str]:
    by_folder: FolderLabels = labels_by_folder(ROOT, [ROOT / file for file in files], labels, ids)
    return {str(file.relative_to(ROOT)): number for file, number in by_folder.classes.items()}, by_folder.sentence


def test_each_image_has_the_class_of_its_folder() -> None:
    assert known(["dog/1.jpg", "cat/2.jpg", "cat/deeper/3.jpg"], ["cat", "dog", "other"]) == (
        {"dog/1.jpg": 1, "cat/2.jpg": 0, "cat/deeper/3.jpg": 0},
        "the folders of /photos are called as 2 of the 3 labels: the accuracy on them is reported",
    )


def test_the_level_is_found_also_where_a_split_is_called_as_a_label() -> None:
    files = ["train/dog/1.jpg", "train/train/2.jpg", "valid/dog/3.jpg"]
    assert known(files, ["dog", "train"])[0] == {"train/dog/1.jpg": 0, "train/train/2.jpg": 1, "valid/dog/3.jpg": 0}


@pytest.mark.parametrize(
    ("folder", "labels", "ids", "number"),
    [
        ("n01440764", ["tench, Tinca tinca", "goldfish, Carassius auratus"], ("n01440764", "n01443537"), 0),
        ("tench", ["tench, Tinca tinca", "goldfish, Carassius auratus"], (), 0),
        ("great_white-SHARK", ["tench", "great white shark"], (), 1),
        ("fresh apples", ["freshbanana", "fresh_apples"], (), 1),
        # ImageNet has a dog and a garment: the spelling decides, and where it does not, nobody knows.
        ("Cardigan", ["Cardigan", "cardigan"], (), 0),
        ("cardigan", ["Cardigan", "cardigan"], (), 1),
        ("CARDIGAN", ["Cardigan", "cardigan"], (), None),
        ("crane", ["crane, bird", "crane, machine"], (), None),
    ],
)
def test_a_folder_is_found_under_the_names_of_a_class_if_they_mean_one(
    folder: str, labels: list[str], ids: tuple[str, ...], number: int | None
) -> None:
    assert known([f"{folder}/1.jpg"], labels, ids)[0].get(f"{folder}/1.jpg") == number


def test_without_folders_nobody_knows_and_it_says_how_to_tell() -> None:
    assert known(["1.jpg", "2.jpg"], ["cat", "dog"]) == (
        {},
        "nobody says what the images of /photos show: put them into a folder for each label to learn the accuracy",
    )
    assert known([], ["cat", "dog"])[0] == {}


def test_folders_that_are_no_labels_are_named_with_some_labels() -> None:
    classes, sentence = known(["katze/1.jpg", "hund/2.jpg", "cat/3.jpg"], ["cat", "dog", "other", "none"])
    assert classes == {}
    assert sentence == (
        "no accuracy is reported: of the 3 files of /photos, 1 lie in folders that are called as one of the model's 4 labels "
        "('cat', 'dog', 'other' …); the others lie in 'katze', 'hund'"
    )


def test_images_of_a_class_that_the_model_does_not_know_are_not_counted_and_that_is_told() -> None:
    classes, sentence = known(["cat/1.jpg", "dog/2.jpg", "bird/3.jpg", "4.jpg"], ["cat", "dog"])
    assert classes == {"cat/1.jpg": 0, "dog/2.jpg": 1}
    assert sentence == (
        "the folders of /photos are called as 2 of the 2 labels: the accuracy on them is reported, without the 2 files in 'bird', "
        "the folder itself"
    )
