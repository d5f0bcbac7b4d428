"""MNIST's files are read exactly or refused with their name; what is missing is fetched whole or not at all."""

import gzip
import http.server
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import MNIST

from sightline.errors import DataError
from sightline_training.datasets import data_root, open_dataset
from sightline_training.datasets.idx import MAX_BYTES, read_idx
from sightline_training.datasets.mnist import FILES
from support.present import present

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES
IdxBytes = Callable[..., bytes]


def test_gzipped_and_plain_files_give_their_images_and_labels(small_mnist: Path) -> None:
    mnist = open_dataset("mnist", small_mnist)
    assert [(images.split, len(images)) for images in mnist.splits] == [("train", 220), ("valid", 20), ("test", 40)]
    planes = read_idx(small_mnist / "mnist" / TEST_IMAGES, 3)
    assert present(mnist.test).open(39).mode == "L"
    assert np.array_equal(np.asarray(present(mnist.test).open(39)), planes[39])
    assert present(mnist.test).labels.tolist() == [index % 10 for index in range(40)]


def test_the_validation_images_are_stratified_and_none_is_lost_or_twice(small_mnist: Path) -> None:
    mnist = open_dataset("mnist", small_mnist)
    assert np.bincount(present(mnist.valid).labels).tolist() == [2] * 10
    every = [np.asarray(part.open(index)).tobytes() for part in (present(mnist.train), present(mnist.valid)) for index in range(len(part))]
    original = read_idx(small_mnist / "mnist" / f"{TRAIN_IMAGES}.gz", 3)
    assert sorted(every) == sorted(plane.tobytes() for plane in original)


def test_a_changed_pixel_or_label_changes_the_fingerprint_of_its_split_only(small_mnist: Path, idx_bytes: IdxBytes) -> None:
    before = open_dataset("mnist", small_mnist)
    path = small_mnist / "mnist" / TEST_LABELS
    labels = read_idx(path, 1).copy()
    labels[5] = (labels[5] + 1) % 10
    path.write_bytes(idx_bytes(labels))
    after = open_dataset("mnist", small_mnist)
    assert present(after.test).fingerprint != present(before.test).fingerprint
    assert present(after.train).fingerprint == present(before.train).fingerprint

    path = small_mnist / "mnist" / TEST_IMAGES
    planes = read_idx(path, 3).copy()
    planes[0, 0, 0] ^= 1
    path.write_bytes(idx_bytes(planes))
    assert present(open_dataset("mnist", small_mnist).test).fingerprint != present(after.test).fingerprint


GOOD = np.zeros((2, 28, 28))
ADVICE = "Delete it to have it fetched again, or put a good copy in its place."


def test_a_wrong_magic_number_is_refused(tmp_path: Path, idx_bytes: IdxBytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(idx_bytes(GOOD, magic=b"\x00\x00\x0d\x03"))
    with pytest.raises(DataError) as refused:
        read_idx(path, 3)
    assert str(refused.value) == f"{path}: no IDX file of 3-dimensional bytes: it begins with 00000d03, not with 00000803. {ADVICE}"


def test_labels_where_images_are_expected_are_refused(tmp_path: Path, idx_bytes: IdxBytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(idx_bytes(np.arange(100)))
    with pytest.raises(DataError, match="no IDX file of 3-dimensional bytes: it begins with 00000801"):
        read_idx(path, 3)


def test_a_short_file_is_refused(tmp_path: Path, idx_bytes: IdxBytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(idx_bytes(GOOD)[:-1])
    with pytest.raises(DataError) as refused:
        read_idx(path, 3)
    assert str(refused.value) == f"{path}: the header announces 2 x 28 x 28 = 1,568 bytes, the file holds only 1,567. {ADVICE}"


def test_a_long_file_is_refused(tmp_path: Path, idx_bytes: IdxBytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(idx_bytes(GOOD) + b"\0")
    with pytest.raises(DataError, match="= 1,568 bytes, the file holds more"):
        read_idx(path, 3)


@pytest.mark.parametrize("length", [0, 1, 4, 15])
def test_a_file_without_room_for_its_header_is_refused(tmp_path: Path, idx_bytes: IdxBytes, length: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(idx_bytes(GOOD)[:length])
    with pytest.raises(DataError) as refused:
        read_idx(path, 3)
    assert str(refused.value) == f"{path}: too short for an IDX header ({length} bytes). {ADVICE}"


@pytest.mark.parametrize("shape", [(0, 28, 28), (2**32 - 1, 2**32 - 1, 2**32 - 1), (MAX_BYTES + 1, 1, 1)])
def test_a_header_that_announces_nothing_or_too_much_is_refused_unread(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\0\0\x08\x03" + b"".join(side.to_bytes(4, "big") for side in shape))
    with pytest.raises(DataError, match=r"the header announces \d+ x \d+ x \d+ bytes, which no file of this kind has"):
        read_idx(path, 3)


@pytest.mark.parametrize("damage", ["cut", "changed", "no gzip at all"])
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, idx_bytes: IdxBytes, damage: str) -> None:
    path = tmp_path / "a.gz"
    packed = bytearray(gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, (20, 28, 28)))))
    if damage == "cut":
        del packed[-2000:]
    elif damage == "changed":
        packed[5000] ^= 0x55
    else:
        packed[2:] = b"\xff" * 100
    path.write_bytes(packed)
    with pytest.raises(DataError) as refused:
        read_idx(path, 3)
    assert str(refused.value).startswith(f"{path}: damaged gzip file (")


def test_a_gzip_bomb_is_not_unpacked_beyond_what_its_header_announces(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    with gzip.open(path, "wb", 1) as bomb:
        bomb.write(b"\0\0\x08\x03" + (1).to_bytes(4, "big") * 3)
        for _ in range(200):
            bomb.write(bytes(1024 * 1024))
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="the file holds more"):
        read_idx(path, 3)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 50


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        read_idx(tmp_path, 3)
    assert str(refused.value) == f"{tmp_path}: cannot be read: Is a directory"


def test_a_label_that_is_no_digit_is_refused_with_its_position(small_mnist: Path, idx_bytes: IdxBytes) -> None:
    path = small_mnist / "mnist" / TEST_LABELS
    labels = np.arange(40) % 10
    labels[17] = 10
    path.write_bytes(idx_bytes(labels))
    with pytest.raises(DataError) as refused:
        open_dataset("mnist", small_mnist)
    assert str(refused.value) == f"{path}: label 10 at position 17 is no digit (0 to 9)."


def test_more_labels_than_images_are_refused(small_mnist: Path, idx_bytes: IdxBytes) -> None:
    path = small_mnist / "mnist" / TEST_LABELS
    path.write_bytes(idx_bytes(np.zeros(41)))
    with pytest.raises(DataError) as refused:
        open_dataset("mnist", small_mnist)
    assert str(refused.value) == f"{path}: 41 labels for the 40 images in {TEST_IMAGES}."


def test_images_of_another_size_are_refused(small_mnist: Path, idx_bytes: IdxBytes) -> None:
    path = small_mnist / "mnist" / TEST_IMAGES
    path.write_bytes(idx_bytes(np.zeros((40, 8, 8))))
    with pytest.raises(DataError) as refused:
        open_dataset("mnist", small_mnist)
    assert str(refused.value) == f"{path}: its images have 8 x 8 pixels; MNIST's have 28 x 28."


def test_the_data_folder_is_the_named_one_then_the_environments_then_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_DATA", "/from/environment")
    assert data_root(Path("named")) == Path("named")
    assert data_root(None) == Path("/from/environment")
    monkeypatch.delenv("SIGHTLINE_DATA")
    assert data_root(None) == Path("data")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a real web server on this machine serves, as torchvision's only mirror."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, request: socket.socket, address: tuple[str, int], server: socketserver.BaseServer) -> None:
            super().__init__(request, address, server, directory=str(folder))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_address[1]}/"])
        yield folder
        server.shutdown()


@pytest.mark.realdata
def test_missing_files_are_fetched_from_a_mirror_and_only_those(mirror: Path, data_folder: Path, tmp_path: Path) -> None:
    for name in FILES:
        (mirror / f"{name}.gz").write_bytes((data_folder / "mnist" / f"{name}.gz").read_bytes())
    here = tmp_path / "here" / "mnist"
    here.mkdir(parents=True)
    (here / f"{TEST_LABELS}.gz").symlink_to(data_folder / "mnist" / f"{TEST_LABELS}.gz")
    (mirror / f"{TEST_LABELS}.gz").unlink()
    fetched = open_dataset("mnist", here.parent)
    assert present(fetched.test).fingerprint == present(open_dataset("mnist", data_folder).test).fingerprint
    assert sorted(path.name for path in here.iterdir()) == sorted(f"{name}.gz" for name in FILES)


def test_a_file_with_a_wrong_checksum_is_not_kept(mirror: Path, tmp_path: Path, idx_bytes: IdxBytes) -> None:
    for name in FILES:
        (mirror / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(np.zeros((3, 28, 28)))))
    with pytest.raises(DataError, match=r"could not be fetched \(File not found or corrupted\)"):
        open_dataset("mnist", tmp_path)
    assert list((tmp_path / "mnist").iterdir()) == []


def test_without_a_network_the_sentence_says_which_files_go_where_and_what_works_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    folder = tmp_path / "mnist"
    with pytest.raises(DataError) as refused:
        open_dataset("mnist", tmp_path)
    assert str(refused.value) == (
        f"MNIST is not in {folder} and could not be fetched (Connection refused). "
        "Put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz "
        f"into {folder}, or train on scikit-learn's bundled digits."
    )
    assert refused.value.settings == ("dataset",)


@pytest.mark.realdata
def test_the_real_mnist_has_55000_training_5000_validation_and_10000_test_images(data_folder: Path) -> None:
    mnist = open_dataset("mnist", data_folder)
    assert [len(images) for images in mnist.splits] == [55_000, 5_000, 10_000]
    assert np.bincount(present(mnist.test).labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    together = np.bincount(present(mnist.train).labels) + np.bincount(present(mnist.valid).labels)
    assert together.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    share = np.bincount(present(mnist.valid).labels) - together / 12
    assert np.abs(share).max() < 1
    assert {images.split: images.fingerprint[:16] for images in mnist.splits} == FINGERPRINTS


FINGERPRINTS = {"train": "4b4bb5d108052d19", "valid": "fb3842fa7118e512", "test": "2e685b280863d6b6"}
"""Of MNIST as it is published; they change only if the split or the definition of a fingerprint does."""
