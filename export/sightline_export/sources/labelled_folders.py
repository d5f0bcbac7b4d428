"""Which label the folder of an image names, where images lie in class folders: `cat/1.jpg`, `valid/cat/1.jpg`, `n02123045/1.jpg`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sightline.host.text import printable

LEAST_KNOWN: Final = 0.5
"""Of the images must lie in folders that are labels: a single one may be called so by chance."""

NAMED_AT_MOST: Final = 3


@dataclass(frozen=True)
class FolderLabels:
    """The classes that folders name."""

    classes: Mapping[Path, int] = field(repr=False)
    """File → number of its class; files of which nobody knows it are left out."""
    sentence: str
    """What a user is told of it."""


def labels_by_folder(folder: Path, files: Sequence[Path], labels: Sequence[str], ids: Sequence[str] = ()) -> FolderLabels:
    """Return what the folders between `folder` and `files` say of the classes called `labels`; `ids` are other names of them.

    Folders on one level are read, on that where most files lie in folders that are names of classes.
    """
    names = _names(labels, ids)
    parts = {file: file.relative_to(folder).parts[:-1] for file in files}
    deepest = max((len(folders) for folders in parts.values()), default=0)
    if not deepest:
        return FolderLabels(
            {}, f"nobody says what the images of {folder} show: put them into a folder for each label to learn the accuracy"
        )
    by_level = [{file: folders[level] for file, folders in parts.items() if len(folders) > level} for level in range(deepest)]
    known = [{file: number for file, name in level.items() if (number := names.of(name)) is not None} for level in by_level]
    level = max(range(deepest), key=lambda number: len(known[number]))
    classes = known[level]
    others = Counter(by_level[level].get(file) for file in files if file not in classes)
    listed = ", ".join(_shown(name) for name, _ in others.most_common(NAMED_AT_MOST))
    if len(classes) < LEAST_KNOWN * len(files):
        first = ", ".join(repr(label)[:60] for label in labels[:NAMED_AT_MOST])
        return FolderLabels(
            {},
            f"no accuracy is reported: of the {len(files):,} files of {folder}, {len(classes):,} lie in folders that are called as one of "
            f"the model's {len(labels):,} labels ({first}{' …' if len(labels) > NAMED_AT_MOST else ''}); the others lie in {listed}",
        )
    classes_named = len(set(classes.values()))
    sentence = f"the folders of {folder} are called as {classes_named:,} of the {len(labels):,} labels: the accuracy on them is reported"
    if others:
        sentence += f", without the {others.total():,} files in {listed}"
    return FolderLabels(classes, sentence)


@dataclass(frozen=True)
class _Names:
    """Names of folders → the number of the class."""

    exact: Mapping[str, int]
    """Labels, and short names such as WordNet's."""
    plain: Mapping[str, int]
    """The same without regard to case and signs, and synonyms: "tench, Tinca tinca" is found under "tench" too."""

    def of(self, folder: str) -> int | None:
        exact = self.exact.get(folder)
        return self.plain.get(_plain(folder)) if exact is None else exact


def _names(labels: Sequence[str], ids: Sequence[str]) -> _Names:
    synonyms = [[_plain(synonym) for synonym in label.split(",")] for label in labels]
    return _Names(
        {**_unambiguous([[name] for name in ids]), **_unambiguous([[label] for label in labels])},
        _unambiguous([[_plain(label), *also] for label, also in zip(labels, synonyms, strict=True)]),
    )


def _unambiguous(names: Sequence[Sequence[str]]) -> dict[str, int]:
    """Name → number of the only class that has it."""
    meant: dict[str, set[int]] = {}
    for number, aliases in enumerate(names):
        for alias in aliases:
            meant.setdefault(alias, set()).add(number)
    return {alias: numbers.pop() for alias, numbers in meant.items() if len(numbers) == 1}


def _shown(name: str | None) -> str:
    return "the folder itself" if name is None else repr(printable(name))[:60]


def _plain(name: str) -> str:
    """A name without regard to case, and to what stands for a space in names of files."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
