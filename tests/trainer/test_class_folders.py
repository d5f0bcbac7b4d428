"""Images in class folders are all found, in one order; what is no image is named and left out; nothing on a disk makes it hang."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.errors import DataError
from sightline_training.datasets import class_folders as module
from sightline_training.datasets import hash_cache, listing
from sightline_training.datasets.class_folders import class_folders, read_class_folders
from sightline_training.datasets.duplicates import hash_image
from support.photos import make_class, photo, save


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Three cats, one of them deeper, and two dogs, in a folder `train`."""
    folder = tmp_path / "pets" / "train"
    make_class(folder / "dog", range(2))
    make_class(folder / "cat", range(2, 4))
    save(photo(4), folder / "cat" / "young" / "kitten.jpg")
    return folder


def refusal(folder: Path, classes: tuple[str, ...] | None = None) -> str:
    with pytest.raises(DataError) as refused:
        read_class_folders(folder, classes)
    return str(refused.value)


def test_classes_come_by_name_and_images_by_path(pets: Path) -> None:
    images, classes, remarks = class_folders("pets", "train", pets)
    assert classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 0, 1, 1]
    assert images.places == (
        "train/cat/0002.png",
        "train/cat/0003.png",
        "train/cat/young/kitten.jpg",
        "train/dog/0000.png",
        "train/dog/0001.png",
    )
    assert remarks == ()
    assert np.array_equal(np.asarray(images.open(1)), np.asarray(photo(3)))


def test_the_fingerprint_is_of_contents_and_classes_and_not_of_dates_or_names_of_the_root(pets: Path, tmp_path: Path) -> None:
    before = class_folders("pets", "train", pets)[0].fingerprint
    os.utime(pets / "dog" / "0000.png", (1, 1))
    moved = pets.rename(tmp_path / "elsewhere")
    assert class_folders("pets", "train", moved)[0].fingerprint == before
    (moved / "dog" / "0000.png").write_bytes((moved / "dog" / "0001.png").read_bytes())
    assert class_folders("pets", "train", moved)[0].fingerprint != before


def test_the_order_of_the_file_system_does_not_matter(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_class_folders(pets)
    scandir = os.scandir

    class Backwards:
        def __init__(self, folder: Path) -> None:
            with scandir(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    after = read_class_folders(pets)
    assert (after.classes, after.places) == (before.classes, before.places)


def test_a_given_order_of_classes_is_kept(pets: Path) -> None:
    contents = read_class_folders(pets, ("dog", "cat"))
    assert contents.classes == ("dog", "cat")
    assert contents.places[0] == "dog/0000.png"
    assert contents.labels.tolist() == [0, 0, 1, 1, 1]


def test_other_classes_than_the_given_ones_are_named(pets: Path) -> None:
    assert refusal(pets, ("cat", "lion", "bear")) == (
        f"{pets}: there is no folder for lion, bear and there is no class for the folder dog. Expected: cat, lion, bear."
    )


def test_what_is_no_image_is_left_out_and_named_with_the_reason(pets: Path) -> None:
    (pets / "cat" / "notes.txt").write_text("three cats")
    (pets / "cat" / "empty.jpg").touch()
    cut = save(photo(9), pets / "dog" / "cut.png").read_bytes()[:-200]
    (pets / "dog" / "cut.png").write_bytes(cut)
    os.mkfifo(pets / "dog" / "pipe.jpg")
    (pets / "dog" / "gone.jpg").symlink_to("nowhere")
    (pets / "readme.md").write_text("pets")
    with (pets / "dog" / "film.jpg").open("wb") as film:
        film.truncate(65 * 1024**2)
    contents = read_class_folders(pets, below="train")
    assert len(contents.places) == 5
    assert len(contents.remarks) == 1
    assert contents.remarks[0].startswith(
        "train: 7 files were left out: readme.md (it lies in no class folder), cat/notes.txt (not an image), "
        "cat/empty.jpg (the file is empty), "
    )
    for named in (
        "dog/cut.png (damaged image (",
        "dog/pipe.jpg (not a file but a pipe, a socket or a device)",
        "dog/gone.jpg (cannot be read: No such file or directory)",
        "dog/film.jpg (larger than 64 MiB, the most that such a file may have)",
    ):
        assert named in contents.remarks[0]


def test_an_image_that_no_network_here_could_be_shown_is_left_out_before_the_training(pets: Path) -> None:
    Image.fromarray(np.random.default_rng(0).random((20, 20), np.float32)).save(pets / "cat" / "heat.tif")
    assert "cat/heat.tif (an image of 32-bit floating-point pixels has no defined white" in read_class_folders(pets).remarks[0]


def test_the_first_twenty_left_out_are_named_and_the_others_counted(pets: Path) -> None:
    for number in range(23):
        (pets / "cat" / f"{number:02d}.txt").write_text("no image")
    (remark,) = read_class_folders(pets).remarks
    assert remark.startswith("23 files were left out: cat/00.txt (not an image")
    assert "cat/19.txt" in remark
    assert "cat/20.txt" not in remark
    assert remark.endswith(", and 3 more.")


def test_hidden_files_and_litter_are_passed_over_in_silence(pets: Path) -> None:
    for name in (".DS_Store", "cat/.hidden.jpg", "cat/Thumbs.db", "dog/desktop.ini", "__MACOSX/cat/._0002.png", ".git/config"):
        path = pets / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("litter")
    contents = read_class_folders(pets)
    assert contents.classes == ("cat", "dog")
    assert contents.remarks == ()


def test_an_empty_class_is_an_error_that_says_so(pets: Path) -> None:
    (pets / "bird").mkdir()
    assert refusal(pets) == f"{pets}/bird: the class has no readable image. Add images, or remove the folder."
    (pets / "bird" / "song.mp3").write_bytes(b"tweet")
    assert refusal(pets) == (
        f"{pets}/bird: the class has no readable image: bird/song.mp3 (not an image) cannot be used. Add images, or remove the folder."
    )


def test_a_class_of_images_that_are_not_read_here_is_an_error_that_names_their_format(pets: Path) -> None:
    (pets / "bird").mkdir()
    (pets / "bird" / "wren").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40))
    assert refusal(pets) == (
        f"{pets}/bird: the class has no readable image: bird/wren (JPEG XL is not read here: save it as JPEG or PNG) cannot be used. "
        "Add images, or remove the folder."
    )


def test_a_photo_without_a_suffix_is_learned_from(pets: Path) -> None:
    save(photo(30), pets / "cat" / "0030.png").rename(pets / "cat" / "0030")
    assert "cat/0030" in read_class_folders(pets).places


ADVICE = "A classifier needs two or more: put the images of each class into a folder of its own, named after the class."


def test_a_single_class_is_an_error_that_says_so(tmp_path: Path) -> None:
    make_class(tmp_path / "all" / "cat", range(3))
    assert refusal(tmp_path / "all") == f"{tmp_path}/all: it holds only one class folder (cat). {ADVICE}"


def test_a_folder_of_images_without_classes_is_an_error_that_says_so(tmp_path: Path) -> None:
    make_class(tmp_path / "all", range(3))
    assert refusal(tmp_path / "all") == f"{tmp_path}/all: it holds no class folders. {ADVICE}"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == f"{tmp_path}/nowhere: the folder cannot be read: No such file or directory."


def test_a_folder_that_may_not_be_read_is_named_rather_than_left_out(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def guarded(folder: Path) -> object:
        if Path(folder).name == "young":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    assert refusal(pets) == f"{pets}/cat/young: the folder cannot be read: Permission denied."


@pytest.mark.parametrize("name", [" dog", "two\nlines", "bell\a", "line\u2028end"])
def test_a_folder_whose_name_cannot_be_a_label_is_to_be_renamed(pets: Path, name: str) -> None:
    make_class(pets / name, range(5, 7))
    sentence = refusal(pets)
    assert sentence.endswith(
        ": the folder's name cannot be a label: must be one line of text without spaces around it, since labels.txt holds a line a label. "
        "Rename the folder."
    )
    assert sentence.isprintable()


def test_a_name_that_is_no_unicode_cannot_be_a_label(pets: Path) -> None:
    os.mkdir(os.fsencode(pets) + b"/caf\xe9")
    assert refusal(pets).startswith(f"{pets}/caf\\udce9: the folder's name cannot be a label: ")


def test_an_accent_is_one_label_however_it_is_spelled(pets: Path) -> None:
    make_class(pets / "cafe\u0301", range(5, 7))
    assert read_class_folders(pets).classes == ("caf\u00e9", "cat", "dog")
    assert read_class_folders(pets, ("dog", "cat", "caf\u00e9")).labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
    make_class(pets / "caf\u00e9", range(7, 9))
    assert refusal(pets) == f"{pets}: two folders are called caf\u00e9, spelled with different bytes. Rename or merge them."


def test_a_file_name_that_is_no_unicode_is_read_and_shown_escaped(pets: Path) -> None:
    os.rename(pets / "dog" / "0001.png", os.fsencode(pets) + b"/dog/b\xe9b\xe9.png")
    images, _, _ = class_folders("pets", "train", pets)
    assert images.places[-1] == "train/dog/b\\udce9b\\udce9.png"
    assert images.open(4).size == (96, 80)


def test_a_class_folder_may_be_a_link_and_links_below_it_are_not_followed(pets: Path, tmp_path: Path) -> None:
    make_class(tmp_path / "elsewhere", range(10, 13))
    (pets / "bird").symlink_to(tmp_path / "elsewhere")
    (pets / "cat" / "again").symlink_to(pets / "cat")
    (pets / "cat" / "up").symlink_to("..")
    (pets / "dog" / "far").symlink_to("/")
    (pets / "dog" / "itself").symlink_to(pets / "dog" / "itself")
    contents = read_class_folders(pets)
    assert contents.classes == ("bird", "cat", "dog")
    assert np.bincount(contents.labels).tolist() == [3, 3, 2]
    for place in ("cat/again", "cat/up", "dog/far"):
        assert f"{place}/ (a link to a folder, which is not followed)" in contents.remarks[0]
    assert "dog/itself (cannot be read: Too many levels of symbolic links)" in contents.remarks[0]


def test_one_folder_that_is_two_classes_is_read_once(pets: Path) -> None:
    (pets / "kitten").symlink_to("cat")
    with pytest.raises(DataError, match=r"kitten: the class has no readable image: kitten/ \(a folder that was read already\) "):
        read_class_folders(pets)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "ca\u200bt",
            r"the folders 'cat' and 'ca\\u200bt' look the same, for they differ in letters that nobody sees\. ",
        ),
        ("\u202etac", r"the folder's name cannot be a label: .*holds the letter U\+202E, which changes the order"),
        ("\u200d", r"holds nothing but letters that nobody sees"),
    ],
)
def test_names_that_only_look_like_labels_are_refused(pets: Path, name: str, sentence: str) -> None:
    make_class(pets / name, range(20, 22))
    with pytest.raises(DataError, match=sentence):
        read_class_folders(pets)


def test_more_files_than_a_dataset_has_are_refused_before_one_is_read(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_FILES", 4)
    monkeypatch.setattr(module, "read_file", lambda _: pytest.fail("a file was read"))
    assert refusal(pets) == f"{pets}: more than 4 files. Name the folder that holds the class folders."


def test_a_file_that_changed_after_the_scan_is_refused_by_name(pets: Path) -> None:
    images, _, _ = class_folders("pets", "train", pets)
    save(photo(99), pets / "cat" / "0002.png")
    with pytest.raises(DataError) as refused:
        images.open(0)
    assert str(refused.value) == f"{pets}/cat/0002.png: the file was changed after it was first read. Run the same command again."
    (pets / "cat" / "0003.png").unlink()
    with pytest.raises(DataError) as refused:
        images.open(1)
    assert str(refused.value) == f"{pets}/cat/0003.png: cannot be read: No such file or directory"


def test_contents_are_not_kept_in_memory(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    for number in range(40):
        save(Image.fromarray(np.roll(noise, number, axis=0)), tmp_path / "big" / "ab"[number % 2] / f"{number}.bmp")
    read_class_folders(tmp_path / "big")
    tracemalloc.start()
    images, _, _ = class_folders("big", "train", tmp_path / "big")
    images.open(39)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(path.stat().st_size for path in (tmp_path / "big").rglob("*.bmp")) > 19_000_000
    assert kept < 1_500_000


def test_a_second_look_decodes_nothing_and_finds_the_same(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_class_folders(pets)
    save(photo(50), pets / "dog" / "new.png")
    decoded: list[Image.Image] = []

    def counted(image: Image.Image) -> object:
        decoded.append(image)
        return hash_image(image)

    monkeypatch.setattr(module, "hash_image", counted)
    second = read_class_folders(pets)
    assert len(decoded) == 1
    assert np.array_equal(second.hashes[:5], first.hashes)
    assert second.places[:5] == first.places


@pytest.mark.parametrize("damage", [b"", b"no hashes", bytes(400)])
def test_damaged_hashes_in_the_cache_are_computed_anew(pets: Path, tmp_path: Path, damage: bytes) -> None:
    first = read_class_folders(pets)
    (kept,) = (tmp_path / "cache" / "image-hashes").iterdir()
    content = kept.read_bytes()
    kept.write_bytes(damage or content[:-1] + bytes([content[-1] ^ 1]))
    assert hash_cache.cached_hashes(pets) == {}
    assert np.array_equal(read_class_folders(pets).hashes, first.hashes)
    assert kept.read_bytes() == content


def test_a_cache_that_cannot_be_written_costs_time_only(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "file" / "cache"))
    assert len(read_class_folders(pets).places) == 5
