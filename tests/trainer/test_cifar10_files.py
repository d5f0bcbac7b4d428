"""CIFAR-10 is read out of its archives as it is, and an archive that lies about itself is refused before it does harm."""

import gzip
import io
import random
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sightline.errors import DataError
from sightline_training.datasets import cifar10 as module
from sightline_training.datasets import zipped
from sightline_training.datasets.cifar10 import ARCHIVE, CLASSES, MIRRORS, RECORD_BYTES, TEST_FILE, TRAIN_FILES, open_cifar10
from sightline_training.datasets.zipped import zipped_images
from support.photos import photo
from support.present import present


def encoded(number: int) -> bytes:
    file = io.BytesIO()
    photo(number, (32, 32)).save(file, "JPEG")
    return file.getvalue()


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def members(count: int, first: int = 0) -> dict[str, bytes]:
    """So many images a class, the classes backwards."""
    return {
        f"{name}/{number:04d}.jpg": encoded(first + at * count + number)
        for at, name in enumerate(reversed(CLASSES))
        for number in range(count)
    }


@pytest.fixture
def zips(tmp_path: Path) -> Path:
    write_zip(tmp_path / "cifar10" / "train.zip", members(4))
    write_zip(tmp_path / "cifar10" / "test.zip", members(1, 100))
    return tmp_path


def test_zips_give_their_images_by_name(zips: Path) -> None:
    cifar = open_cifar10(zips)
    assert [(part.split, len(part)) for part in cifar.splits] == [("train", 38), ("valid", 2), ("test", 10)]
    assert present(cifar.test).labels.tolist() == list(range(10))
    assert present(cifar.test).places[3] == "test.zip/cat/0000.jpg"
    assert np.array_equal(np.asarray(present(cifar.test).open(9)), np.asarray(Image.open(io.BytesIO(encoded(100)))))
    assert len({*present(cifar.train).places, *present(cifar.valid).places}) == 40


def test_stored_and_deflated_zips_are_the_same_dataset(zips: Path) -> None:
    before = present(open_cifar10(zips).train).fingerprint
    write_zip(zips / "cifar10" / "train.zip", dict(reversed(members(4).items())), zipfile.ZIP_DEFLATED)
    assert present(open_cifar10(zips).train).fingerprint == before


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as refused:
        zipped_images(path, CLASSES)
    return str(refused.value)


def test_a_member_outside_the_class_folders_is_named(tmp_path: Path) -> None:
    for name in ("lion/1.jpg", "../cat/1.jpg", "/cat/1.jpg", "cat", "C:\\cat\\1.jpg"):
        path = write_zip(tmp_path / "a.zip", {"cat/0.jpg": encoded(0), name: encoded(1)})
        assert refusal(path) == f"{path}: {name!r} lies in no folder named after a class ({', '.join(CLASSES)})."
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]


def test_a_member_that_declares_too_much_is_refused_unread(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"cat/0.jpg": bytes(2 * 1024**2)}, zipfile.ZIP_DEFLATED)
    assert refusal(path) == f"{path}: 'cat/0.jpg' is larger than 1024 KiB unpacked."


def test_a_member_that_unpacks_to_more_than_it_declares_is_not_unpacked_further(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"cat/0.jpg": bytes(200 * 1024**2)}, zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    size = struct.pack("<I", 200 * 1024**2)
    assert content.count(size) >= 2
    path.write_bytes(content.replace(size, struct.pack("<I", 5000)))
    tracemalloc.start()
    assert refusal(path) == f"{path}: cannot be read as a zip file (Bad CRC-32 for file 'cat/0.jpg'). Put a good copy in its place."
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 1024**2


def test_many_members_that_are_too_much_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipped, "MAX_BYTES", 2 * 1024**2)
    path = write_zip(tmp_path / "a.zip", {f"cat/{number}.jpg": bytes(1024**2) for number in range(3)}, zipfile.ZIP_DEFLATED)
    assert refusal(path) == f"{path}: its members have more than 2 MiB unpacked."
    monkeypatch.setattr(zipped, "MAX_MEMBERS", 2)
    assert refusal(path) == f"{path}: it holds 3 images; expected 1 to 2."
    monkeypatch.setattr(zipped, "MAX_ZIP_BYTES", 1024)
    assert refusal(path) == f"{path}: larger than 0 MiB, the most that such a file may have."


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_cannot_be_unpacked_in_bounds_are_refused(tmp_path: Path, method: int) -> None:
    path = write_zip(tmp_path / "a.zip", {"cat/0.jpg": encoded(0)}, method)
    assert refusal(path) == f"{path}: 'cat/0.jpg' is neither stored nor deflated. Pack the file again, with one of the two."


def test_an_encrypted_member_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"cat/0.jpg": encoded(0)})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert refusal(path) == f"{path}: 'cat/0.jpg' is encrypted."


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no zip at all" * 100])
def test_what_is_no_zip_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    assert refusal(path) == f"{path}: cannot be read as a zip file (File is not a zip file). Put a good copy in its place."


def test_whatever_bytes_are_damaged_the_answer_is_a_sentence_or_the_images(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {f"{name}/0.jpg": encoded(at) for at, name in enumerate(CLASSES)}, zipfile.ZIP_DEFLATED)
    intact, draw = path.read_bytes(), random.Random(0)
    for _ in range(400):
        content = bytearray(intact)
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content[: draw.choice([len(content), draw.randrange(len(content))])])
        try:
            zipped_images(path, CLASSES)
        except DataError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 - either outcome is right


def records(labels: list[int], seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), RECORD_BYTES - 1), np.uint8)
    rows: npt.NDArray[np.uint8] = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1)
    return rows.tobytes()


BATCHES = {name: records(list(range(10)) * 2, at) for at, name in enumerate((*TRAIN_FILES, TEST_FILE))}


def write_archive(root: Path, files: dict[str, bytes], change: Callable[[bytes], bytes] = gzip.compress) -> Path:
    path = root / "cifar10" / ARCHIVE
    path.parent.mkdir(parents=True, exist_ok=True)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    path.write_bytes(change(tar.getvalue()))
    return path


def test_the_published_archive_gives_images_in_colour_the_training_files_in_their_order(tmp_path: Path) -> None:
    write_archive(tmp_path, {"readme.html": b"<html>", **dict(reversed(BATCHES.items()))})
    cifar = open_cifar10(tmp_path)
    assert [(part.split, len(part)) for part in cifar.splits] == [("train", 95), ("valid", 5), ("test", 20)]
    raw = np.frombuffer(BATCHES[TEST_FILE], np.uint8).reshape(20, RECORD_BYTES)
    assert present(cifar.test).labels.tolist() == raw[:, 0].tolist()
    red = np.asarray(present(cifar.test).open(7))[:, :, 0]
    assert np.array_equal(red.ravel(), raw[7, 1:1025])
    blue = np.asarray(present(cifar.test).open(7))[:, :, 2]
    assert np.array_equal(blue.ravel(), raw[7, 2049:])
    first = np.frombuffer(BATCHES[TRAIN_FILES[0]], np.uint8).reshape(20, RECORD_BYTES)
    held = {part.open(at).tobytes() for part in (present(cifar.train), present(cifar.valid)) for at in range(len(part))}
    assert first[0, 1:].reshape(3, 32, 32).transpose(1, 2, 0).tobytes() in held
    assert len(held) == 100


def test_zips_come_before_the_archive(zips: Path) -> None:
    write_archive(zips, BATCHES)
    assert len(present(open_cifar10(zips).test)) == 10


def archive_refusal(root: Path) -> str:
    with pytest.raises(DataError) as refused:
        open_cifar10(root)
    return str(refused.value)


ADVICE = "Delete it to have it fetched again, or put a good copy in its place."


def test_an_archive_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path, {name: content for name, content in BATCHES.items() if name != TRAIN_FILES[2]})
    assert archive_refusal(tmp_path) == f"{path}: the archive holds no data_batch_3.bin. {ADVICE}"


@pytest.mark.parametrize("size", [0, RECORD_BYTES - 1, RECORD_BYTES + 1, 20_001 * RECORD_BYTES])
def test_a_file_that_is_no_whole_number_of_records_is_refused(tmp_path: Path, size: int) -> None:
    path = write_archive(tmp_path, {**BATCHES, TEST_FILE: bytes(size)})
    assert archive_refusal(tmp_path) == (f"{path}: test_batch.bin is there twice, or has not 1 to 20,000 records of 3,073 bytes. {ADVICE}")


def test_a_label_that_is_no_class_is_named_with_its_record(tmp_path: Path) -> None:
    path = write_archive(tmp_path, {**BATCHES, TRAIN_FILES[1]: records([1, 2, 10], 0)})
    assert archive_refusal(tmp_path) == f"{path}: data_batch_2.bin: label 10 of record 2 is no class (0 to 9). {ADVICE}"


@pytest.mark.parametrize("damage", ["cut", "changed", "no gzip", "no tar", "empty"])
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: str) -> None:
    path = write_archive(tmp_path, BATCHES)
    intact = path.read_bytes()
    changed = bytearray(intact)
    changed[len(intact) // 2] ^= 1
    path.write_bytes(
        {
            "cut": intact[: len(intact) // 2],
            "changed": bytes(changed),
            "no gzip": b"x" * 5000,
            "no tar": gzip.compress(b"x" * 5000),
            "empty": b"",
        }[damage]
    )
    sentence = archive_refusal(tmp_path)
    assert sentence.startswith(f"{path}: no archive of CIFAR-10 that can be read (")
    assert sentence.endswith(f"). {ADVICE}")


def test_links_and_folders_in_the_archive_are_no_files(tmp_path: Path) -> None:
    path = write_archive(tmp_path, BATCHES)
    tar = io.BytesIO(gzip.decompress(path.read_bytes()))
    with tarfile.open(fileobj=tar, mode="a") as archive:
        link = tarfile.TarInfo(TEST_FILE)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    path.write_bytes(gzip.compress(tar.getvalue()))
    assert len(present(open_cifar10(tmp_path).test)) == 20


def test_an_archive_that_unpacks_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNPACKED_BYTES", 4 * 1024**2)
    path = write_archive(tmp_path, {"bomb.bin": bytes(40 * 1024**2), **BATCHES})
    tracemalloc.start()
    assert archive_refusal(tmp_path) == f"{path}: no archive of CIFAR-10 that can be read (more than 4 MiB unpacked). {ADVICE}"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 1024**2


def test_without_a_network_the_sentence_says_which_files_go_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIRRORS", ("http://127.0.0.1:9/",))
    folder = tmp_path / "cifar10"
    assert archive_refusal(tmp_path) == (
        f"CIFAR-10 is not in {folder} and could not be fetched (Connection refused). Put cifar-10-binary.tar.gz from http://127.0.0.1:9/ "
        "there, or train.zip and test.zip with images in folders named after the classes."
    )
    assert MIRRORS == ("https://www.cs.toronto.edu/~kriz/",)


@pytest.mark.realdata
def test_the_real_zips_are_split_as_they_always_were(data_folder: Path) -> None:
    cifar = open_cifar10(data_folder)
    assert [len(part) for part in cifar.splits] == [47_500, 2_500, 10_000]
    assert np.bincount(present(cifar.test).labels).tolist() == [1000] * 10
    assert np.bincount(present(cifar.valid).labels).tolist() == [250] * 10
    assert {part.split: part.fingerprint[:16] for part in cifar.splits} == FINGERPRINTS


FINGERPRINTS = {"train": "78a2eb20adb50a70", "valid": "8b7bc6fb698a6393", "test": "aaa7b787e5bfa1e1"}
"""Of the JPEG zips; they change only if the split or the definition of a fingerprint does."""
