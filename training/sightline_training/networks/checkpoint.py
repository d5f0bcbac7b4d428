"""Finds the tensors of one network in a checkpoint as people have them: inside an entry, with a wrapper's prefix before every name.

Only what can mean one thing is unwrapped, and it is told: two entries that both hold the network, such as the weights and their moving
average, are two networks, and which of them is meant must be said.
"""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from sightline.errors import DataError
from sightline_training.networks.weight_files import Tensors, WeightFile, read_entries

COUNTER: Final = "n_averaged"
"""What torch.optim.swa_utils.AveragedModel adds to a network's tensors."""

AS_LIKELY: Final = 0.5
"""An entry with this share of the names that the best one has may be meant as well."""

MOST_PREFIXES: Final = 4
"""Wrappers around one another: `module._orig_mod.model.backbone.`."""


@dataclass(frozen=True, eq=False)
class NetworkTensors:
    """The tensors of one network in a file."""

    tensors: Tensors = field(repr=False)
    sha256: str
    """Hexadecimal, of the file's bytes."""
    unwrapped: str
    """What was taken off, for people: `its entry state_dict, without the prefix module.`; empty if nothing was."""


@dataclass(frozen=True, eq=False)
class _Candidate:
    place: str
    tensors: Tensors = field(repr=False)
    prefix: str
    matches: int
    """How many of the network's names are among its names."""


def read_network(
    path: Path, expected: Collection[str], entry: str | None = None, renamed: Callable[[str], str] = lambda name: name
) -> NetworkTensors:
    """Return the tensors of the network whose names are `expected` in a file of weights or a checkpoint.

    `entry` says which of several is meant: the place of an entry ("state_dict_ema", "ema.module"), or what begins the names ("student").
    `renamed` turns a former name into today's. A prefix is taken off if all names have it and more of them are the network's without it.
    Raises DataError as `read_tensors` does, and if several are as likely meant.
    """
    names = set(expected)
    file = read_entries(path)
    places = file.entries if entry is None else _entry(file, entry)
    candidates = [_unprefixed(place, tensors, names, renamed) for place, tensors in places.items()]
    best = max(candidates, key=lambda candidate: candidate.matches)
    likely = [candidate for candidate in candidates if candidate.matches >= max(1.0, AS_LIKELY * best.matches)]
    if others := [candidate for candidate in likely if candidate is not best and not _same(candidate.tensors, best.tensors)]:
        listed = " and ".join(sorted(repr(candidate.place) for candidate in (best, *others)))
        raise _undecided(f"{path}: each of its entries {listed} holds this network's tensors, as weights and their moving average do")
    if not best.matches and len(inner := sorted(place for place in places if place)) > 1:
        raise _undecided(f"{path}: none of its entries {', '.join(map(repr, inner))} holds this network's tensors")
    if not best.matches and (groups := _groups(best.tensors, names)):
        listed = " and ".join(f"{group!r} ({count:,})" for group, count in groups)
        raise _undecided(f"{path}: this network's names stand in it behind a prefix that not all names have, {listed}")
    return NetworkTensors(file.plain(best.tensors), file.sha256, _in_words(best))


def prefix_hint(tensors: Collection[str]) -> str:
    """Return a sentence on what begins all the names, for the end of an error; empty if nothing does."""
    first = _first_parts(tensors)
    return f" All its names begin with {first[0]!r:.80}." if len(first) == 1 and len(tensors) > 1 else ""


def _entry(file: WeightFile, entry: str) -> dict[str, Tensors]:
    """The tensors at a place, or those whose names begin so. Raises DataError, with what there is."""
    if entry in file.entries:
        return {entry: file.entries[entry]}
    begin = f"{entry}."
    behind = {
        place: {name.removeprefix(begin): tensor for name, tensor in tensors.items() if name.startswith(begin)}
        for place, tensors in file.entries.items()
    }
    behind = {f"{place}.{entry}" if place else entry: tensors for place, tensors in behind.items() if tensors}
    if not behind:
        places = [place for place in sorted(file.entries) if place]
        prefixes = sorted({part.rstrip(".") for tensors in file.entries.values() for part in _first_parts(tensors)})
        there = f"it holds the entries {', '.join(places[:10])}" if places else f"its names begin with {', '.join(prefixes[:10])}"
        raise DataError(f"{file.path}: there is no entry {entry!r:.80}: {there}.", settings=("weights_key",))
    return behind


def _unprefixed(place: str, tensors: Tensors, expected: set[str], renamed: Callable[[str], str]) -> _Candidate:
    """Take off what begins all names, as long as more of them are the network's then."""
    tensors = {renamed(name): tensor for name, tensor in tensors.items() if not (name == COUNTER and tensor.dim() == 0)} or tensors
    best = _Candidate(place, tensors, "", len(expected & tensors.keys()))
    prefix = ""
    for _ in range(MOST_PREFIXES):
        first = _first_parts(tensors)
        if len(first) != 1 or any(name == first[0] for name in tensors):
            break
        prefix += first[0]
        tensors = {name.removeprefix(first[0]): tensor for name, tensor in tensors.items()}
        matches = len(expected & tensors.keys())
        if matches > best.matches:
            best = _Candidate(place, tensors, prefix, matches)
    return best


def _first_parts(names: Collection[str]) -> list[str]:
    """What stands before the first point of the names, the point included, without repetition; a name without a point as it is."""
    return list(dict.fromkeys(f"{name.partition('.')[0]}." if "." in name else name for name in names))


def _groups(tensors: Tensors, expected: set[str]) -> list[tuple[str, int]]:
    """The prefixes that some names have and behind which at least half of the network's names stand, with the count of their names."""
    counts = Counter(name.partition(".")[0] for name in tensors if name.partition(".")[2] in expected)
    return [(group, count) for group, count in sorted(counts.items()) if count >= AS_LIKELY * len(expected)]


def _same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(_equal(tensor, other[name]) for name, tensor in one.items())


def _equal(one: Tensor, other: Tensor) -> bool:
    # Strides of 0 may claim any number of elements: such a tensor equals none, and is refused where it is used.
    plain = one.layout == other.layout == torch.strided and one.is_contiguous() and other.is_contiguous()
    return plain and one.shape == other.shape and torch.equal(one, other)


def _undecided(problem: str) -> DataError:
    return DataError(f"{problem}: say which is meant, or save one alone.", settings=("weights_key",))


def _in_words(candidate: _Candidate) -> str:
    entry = f"its entry {candidate.place}" if candidate.place else ""
    prefix = f"without the prefix {candidate.prefix}" if candidate.prefix else ""
    return ", ".join(part for part in (entry, prefix) if part)
