"""What a user states of the preprocessing, as a whole or field by field, checked by the specification's own types.

A field is written as text, `size=224` or `mean=0.485,0.456,0.406`. How it is read follows from the type that the specification gives it,
so that a new version's fields need nothing here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from sightline.errors import UsageError
from sightline.host.text import first_problem, one_line
from sightline.preprocess import VERSIONS, Preprocess
from sightline_export.sources.preprocess_file import read_preprocess

PAIR: Final = re.compile(r"([A-Za-z_]+)=(\S*)")
"""KEY=VALUE. What has a point or a slash before its equals sign is a file."""

MAX_CHANGES: Final = 64


@dataclass(frozen=True)
class StatedPreprocess:
    """What was stated; nothing, if both fields are empty."""

    whole: Preprocess | None = None
    """What a file says, whichever weights it is for."""
    file: str = ""
    """Its name, without its folder; empty if there is none."""
    changes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Name of a field → its value as it was written."""

    @property
    def complete(self) -> bool:
        """Whether nothing is left for a library to say: a file, or every field."""
        if self.whole is not None:
            return True
        return "version" in self.changes and set(_member(self.changes["version"]).model_fields) <= {*self.changes, *self._implied(None)}

    def of(self, base: Preprocess | None) -> Preprocess:
        """Return what was stated, and what was not as `base` says it, which only a complete statement can do without.

        Raises UsageError, naming the field, if it is no preprocessing.
        """
        base = self.whole or base
        if not self.changes and base is not None:
            return base
        fields: dict[str, object] = dict(base) if base is not None else {}
        member = _member(self.changes["version"]) if "version" in self.changes else type(base) if base is not None else Preprocess
        for key in self.changes:
            if key not in member.model_fields:
                others = [str(version) for version, other in VERSIONS.items() if key in other.model_fields]
                raise UsageError(
                    f"{key} is a field of version {' or '.join(others)} of the preprocessing specification: state version={others[0]} too, "
                    "and what else it needs"
                )
        channels = len(str(self.changes.get("mode", fields.get("mode", "RGB"))))
        fields = {key: value for key, value in fields.items() if key in member.model_fields}
        fields |= {key: _value(member, key, text, channels) for key, text in self.changes.items()}
        fields |= self._implied(base)
        if missing := [key for key in member.model_fields if key not in fields]:
            raise UsageError(f"the preprocessing that was stated needs {', '.join(missing)} too: state {_them(missing)}")
        try:
            return member.model_validate(fields)
        except ValidationError as error:
            raise UsageError(f"what was stated is no preprocessing: {first_problem(error)}") from None

    def _implied(self, base: Preprocess | None) -> dict[str, object]:
        """What follows from the stated `fit`: only a crop has a fraction, and of another fit it says nothing that a crop could take."""
        fit = self.changes.get("fit")
        if fit is None or "crop_fraction" in self.changes:
            return {}
        if fit != "crop":
            return {"crop_fraction": 1.0}
        if base is not None and base.fit != "crop":
            raise UsageError(
                "fit=crop needs crop_fraction too, the side of the crop as a part of the scaled image's shorter side: "
                "crop_fraction=224/256, or 1 if the shorter side is scaled to the crop's"
            )
        return {}


NOTHING: Final = StatedPreprocess()


def read_statement(texts: Sequence[str]) -> StatedPreprocess:
    """Read what was written: names of files (one at most) and KEY=VALUE pairs, several in one text if spaces stand between them.

    Raises UsageError for a key that no specification has, or a pair that is none, and what reading the file raises.
    """
    files: list[str] = []
    changes: dict[str, str] = {}
    for text in texts:
        parts = text.split()
        if not parts or not all(PAIR.fullmatch(part) for part in parts):
            files.append(text)
            continue
        for part in parts:
            key, _, value = part.partition("=")
            if key in changes:
                raise UsageError(f"{key} is stated twice, as {changes[key]!r:.40} and {value!r:.40}")
            changes[key] = value
    if len(files) > 1:
        raise UsageError(f"one file can state the preprocessing, not both {files[0]!r:.80} and {files[1]!r:.80}")
    known = list(dict.fromkeys(key for member in VERSIONS.values() for key in member.model_fields))
    for key in changes:
        if key not in known:
            raise UsageError(f"a preprocessing has no field {key!r:.40}: it has {', '.join(known)}")
    if "version" in changes:
        _member(changes["version"])
    if files and not Path(files[0]).is_file():
        raise UsageError(f"{files[0]!r:.120} states no preprocessing: it is neither a file nor KEY=VALUE with a KEY of {', '.join(known)}")
    if not files:
        return StatedPreprocess(changes=MappingProxyType(changes))
    return StatedPreprocess(read_preprocess(Path(files[0])), Path(files[0]).name, MappingProxyType(changes))


def _member(version: str) -> type[Preprocess]:
    member = VERSIONS.get(int(version)) if version.isascii() and version.isdigit() and len(version) < 4 else None
    if member is None:
        raise UsageError(f"version={version:.40} is no version of the preprocessing specification: it has {', '.join(map(str, VERSIONS))}")
    return member


def _value(member: type[Preprocess], key: str, text: str, channels: int) -> object:
    """Return the value that a text means for a field: the first reading that its type takes. Raises UsageError."""
    adapter: TypeAdapter[object] = TypeAdapter(member.model_fields[key].rebuild_annotation())
    problems: list[ErrorDetails] = []
    for reading in _readings(text, channels):
        try:
            return adapter.validate_python(reading, strict=True)
        except ValidationError as error:
            problems.append(error.errors(include_url=False, include_input=False)[0])
    # A number that is too large says more than that it is no word.
    problem = max(problems, key=lambda problem: (len(problem["loc"]), not problem["type"].endswith("_type")))
    raise UsageError(f"{key}={text:.80} states no {key}: {one_line(problem['msg'].removeprefix('Value error, '))}")


def _readings(text: str, channels: int) -> Iterator[object]:
    """What a text may mean: a word, a number, the same number for each channel or side, several numbers."""
    yield text
    numbers: list[int | float] = []
    for part in re.split(r"[,x]", text):
        number = _number(part)
        if number is None:
            return
        numbers.append(number)
    if len(numbers) == 1:
        yield numbers[0]
        yield tuple(numbers * channels)
        yield tuple(numbers * 2)
    yield tuple(numbers)


def _number(text: str) -> int | float | None:
    """An integer, a decimal, or a quotient of two: `224/256`."""
    with suppress(ValueError):
        return int(text) if re.fullmatch(r"-?\d{1,9}", text) else float(text)
    above, slash, below = text.partition("/")
    with suppress(ValueError, ZeroDivisionError):
        if slash:
            return float(above) / float(below)
    return None


def _them(missing: list[str]) -> str:
    return "it" if len(missing) == 1 else "them"
