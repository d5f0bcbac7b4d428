"""Fresh and rotten fruit in six classes: the subset of NVIDIA's course, or the whole Kaggle dataset by Sriram Reddy Kalluri."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Final

from sightline.console import messages
from sightline.errors import DataError
from sightline.host.files import read_bytes, reason_of
from sightline.host.text import one_line
from sightline_training.datasets.dataset import Dataset
from sightline_training.datasets.fetch import downloaded_from_kaggle, why_not_fetched
from sightline_training.datasets.split_folders import open_split_folders

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
    """Return 1,182 training and 233 validation images from `root`/fruits/{train,valid}/<class>: then validation is what is reported.

    Judged images count as near-duplicates if they are listed in near_duplicates.csv or found by perceptual hashes: the list finds crops
    that no hash sees, the hashes find mirrored copies that the list lacks. If test/ lies there instead of valid/, or nothing at all, it is
    the whole Kaggle dataset, read from there or through kagglehub. Raises DataError if it is damaged, or missing and not to be had.
    """
    folder = root / "fruits"
    if (folder / "train").is_dir() and (folder / "valid").is_dir():
        return _with_listed(folder, open_split_folders("fruits", folder, {"train": "train", "valid": "valid"}, LABELS))
    published = _whole(folder) or _whole(_downloaded(folder))
    if published is None:
        raise DataError(f"kagglehub's copy of {HANDLE} holds no folders train/ and test/. {_advice(folder)}")
    dataset = open_split_folders("fruits", published, {"train": "train", "test": "test"}, LABELS)
    return replace(dataset, remarks=(AUGMENTED, *dataset.remarks))


def _with_listed(folder: Path, dataset: Dataset) -> Dataset:
    """Return the dataset with the listed images among its near-duplicates; listed names that are not there are passed over."""
    listed = _listed(folder / LISTED)
    known = frozenset(at for at, place in enumerate(dataset.judged.places) if place in listed)
    if not known:
        return dataset
    both = known | dataset.near_duplicates
    remark = (
        f"{len(both):,} of {len(dataset.judged):,} images in valid/ are other crops or copies of training images, {len(known):,} by "
        f"{LISTED} and {len(both - known):,} more by perceptual hashes: the accuracy without them stands beside the other."
    )
    # This remark says more than the first one of `open_split_folders`, which is on near-duplicates if it found any.
    others = dataset.remarks[1:] if dataset.near_duplicates else dataset.remarks
    return replace(dataset, near_duplicates=both, remarks=(remark, *others))


def _listed(path: Path) -> frozenset[str]:
    """Return the validation images that the list names; none if there is no list."""
    try:
        rows = csv.DictReader(io.StringIO(read_bytes(path, MAX_LIST_BYTES).decode("utf-8-sig"), newline=""))
        if "valid_file" in (rows.fieldnames or ()):
            return frozenset(row["valid_file"] for row in rows if row["valid_file"])
        reason = "no column valid_file"
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        reason = reason_of(error)
    except (UnicodeDecodeError, csv.Error) as error:
        reason = one_line(error)
    raise DataError(f"{path}: no list of near-duplicates ({reason}). Put a good copy in its place, or remove it.")


def _whole(folder: Path) -> Path | None:
    """Return where train/ and test/ of the Kaggle dataset lie: it packs them into a folder dataset/, for a while into two."""
    places = (folder, folder / "dataset", folder / "dataset" / "dataset")
    return next((place for place in places if (place / "train").is_dir() and (place / "test").is_dir()), None)


def _downloaded(folder: Path) -> Path:
    messages().print(f"fetching {HANDLE} (gigabytes) from Kaggle, since there are no fruits in {folder}")
    try:
        return downloaded_from_kaggle(HANDLE)
    except (OSError, RuntimeError) as error:
        raise DataError(f"the fruits are not in {folder} and could not be fetched ({why_not_fetched(error)}). {_advice(folder)}") from None


def _advice(folder: Path) -> str:
    return f"Put the folders train/ and valid/ into {folder}, each with the images in {', '.join(LABELS[:-1])} and {LABELS[-1]}."
