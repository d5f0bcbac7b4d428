"""A finished run on the bundled digits, made once by the real command, and small IDX files to break."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from sightline.cli import run as sightline
from sightline_training.run.run import Run, load_run
from support.runs import EPOCHS


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished augmented run on the digits. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    sightline(["train", "mnist", "--data", "digits", "--augment", "--epochs", str(EPOCHS), "--device", "cpu", "--run", str(folder)])
    return folder


@pytest.fixture(scope="session")
def digits_run(digits_folder: Path) -> Run:
    return load_run(digits_folder)


@pytest.fixture
def idx_bytes() -> Callable[..., bytes]:
    """An IDX file: header and data of an array of bytes."""

    def made(array: npt.NDArray[np.int64], magic: bytes | None = None) -> bytes:
        header = bytes([0, 0, 8, array.ndim]) if magic is None else magic
        return header + b"".join(side.to_bytes(4, "big") for side in array.shape) + array.astype(np.uint8).tobytes()

    return made


@pytest.fixture
def small_mnist(tmp_path: Path, idx_bytes: Callable[..., bytes]) -> Path:
    """A data folder with four good files: 240 training and 40 test images, train gzipped, test plain."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    draw = np.random.default_rng(7)
    for part, count in (("train", 240), ("t10k", 40)):
        files = {
            f"{part}-images-idx3-ubyte": idx_bytes(draw.integers(0, 256, (count, 28, 28))),
            f"{part}-labels-idx1-ubyte": idx_bytes(np.arange(count) % 10),
        }
        for name, content in files.items():
            if part == "train":
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
            else:
                (folder / name).write_bytes(content)
    return tmp_path
