"""Fresh and rotten fruit in six classes: the subset of NVIDIA's course, or the whole Kaggle dataset by Sriram Reddy Kalluri."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Final

from sightline.errors import DataError
from sightline_training.datasets.dataset import Dataset
from sightline_training.datasets.fetch import downloaded_from_kaggle, why_not_fetched
from sightline_training.datasets.given_splits import open_given
from sightline_training.progress import talk

LABELS: Final = ("freshapples", "freshbanana", "freshoranges", "rottenapples", "rottenbanana", "rottenoranges")
HANDLE: Final = "sriramr/fruits-fresh-and-rotten-for-classification/versions/1"
LISTED: Final = "near_duplicates.csv"
"""Beside train/ and valid/: column valid_file names images of which train/ holds another crop, as somebody found them with care."""
MAX_LIST_BYTES: Final = 16 * 1024 * 1024
AUGMENTED: Final = (
    "train/ and test/ of the whole Kaggle dataset hold turned, shifted and noisy copies of the same photos, of which only some are "
    "found: the accuracy says little about new photos."
)


def open_fruits(root: Path) -> Dataset:
    """1,182 training and 233 validation images from `root`/fruits/{train,valid}/<class>: then validation is what is reported.

    Judged images count as near-duplicates if they are listed in near_duplicates.csv or found by their looks: the list finds crops
    that no hash sees, the hash finds mirrored copies that the list lacks. If test/ lies there instead of valid/, or nothing at all, it is
    the whole Kaggle dataset, read from there or through kagglehub. Raises DataError if it is damaged, or missing and not to be had.
    """
    folder = root / "fruits"
    if (folder / "train").is_dir() and (folder / "valid").is_dir():
        return _with_listed(folder, open_given("fruits", folder, {"train": "train", "valid": "valid"}, LABELS))
    whole = _whole(folder) or _whole(_downloaded(folder))
    if whole is None:
        raise DataError(f"kagglehub's copy of {HANDLE} holds no folders train/ and test/. {_advice(folder)}")
    dataset = open_given("fruits", whole, {"train": "train", "test": "test"}, LABELS)
    return replace(dataset, remarks=(AUGMENTED, *dataset.remarks))


def _with_listed(folder: Path, dataset: Dataset) -> Dataset:
    """The dataset with the listed images among its near-duplicates; listed names that are not there are passed over."""
    listed = _listed(folder / LISTED)
    known = frozenset(at for at, place in enumerate(dataset.judged.places) if place in listed)
    if not known:
        return dataset
    both = known | dataset.near_duplicates
    remark = (
        f"{len(both):,} of {len(dataset.judged):,} images in valid/ are other crops or copies of training images, {len(known):,} by "
        f"{LISTED} and {len(both - known):,} more by their looks: the accuracy without them stands beside the other."
    )
    # This remark says more than the first one of `open_given`, which is on near-duplicates if it found any.
    others = dataset.remarks[1:] if dataset.near_duplicates else dataset.remarks
    return replace(dataset, near_duplicates=both, remarks=(remark, *others))


def _listed(path: Path) -> frozenset[str]:
    """The validation images that the list names; none if there is no list."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LIST_BYTES + 1)
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    reason = f"larger than {MAX_LIST_BYTES // 1024**2} MiB"
    if len(content) <= MAX_LIST_BYTES:
        try:
            rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
            if "valid_file" in (rows.fieldnames or ()):
                return frozenset(row["valid_file"] for row in rows if row["valid_file"])
            reason = "no column valid_file"
        except (UnicodeDecodeError, csv.Error) as error:
            reason = str(error)
    raise DataError(f"{path}: no list of near-duplicates ({reason}). Put a good copy in its place, or remove it.")


def _whole(folder: Path) -> Path | None:
    """Where train/ and test/ of the Kaggle dataset lie: it packs them into a folder dataset/, for a while into two."""
    places = (folder, folder / "dataset", folder / "dataset" / "dataset")
    return next((each for each in places if (each / "train").is_dir() and (each / "test").is_dir()), None)


def _downloaded(folder: Path) -> Path:
    talk().print(f"fetching {HANDLE} (gigabytes) from Kaggle, since there are no fruits in {folder}")
    try:
        return downloaded_from_kaggle(HANDLE)
    except (OSError, RuntimeError) as error:
        raise DataError(f"the fruits are not in {folder} and could not be fetched ({why_not_fetched(error)}). {_advice(folder)}") from None


def _advice(folder: Path) -> str:
    return f"Put the folders train/ and valid/ into {folder}, each with the images in {', '.join(LABELS[:-1])} and {LABELS[-1]}."
