"""The committed golden corpus, and the one question asked of any `reformat`: which expectations does it miss?"""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from sightline.errors import ImageError
from sightline.preprocess import AnyPreprocess, Preprocess

CORPUS: Final = Path(__file__).resolve().parents[1] / "contract" / "corpus"
CASES: Final[dict[str, Any]] = json.loads((CORPUS / "cases.json").read_text(encoding="utf-8"))
REFUSED: Final[dict[str, str]] = CASES["refusals"]
READABLE: Final = [name for name in CASES["pictures"] if name not in REFUSED]

READER: Final[TypeAdapter[Preprocess]] = TypeAdapter(AnyPreprocess)
Pixels = npt.NDArray[np.uint8]
Reformat = Callable[[Path, Preprocess], Pixels]


@cache
def specifications() -> dict[str, Preprocess]:
    """The specifications as the committed file has them, read strictly."""
    return {title: READER.validate_json(json.dumps(fields)) for title, fields in CASES["specifications"].items()}


@cache
def expectations() -> dict[str, Pixels]:
    """For each specification, the expected pixels (images, height, width, channels), in the order of READABLE."""
    with np.load(CORPUS / "expected.npz", allow_pickle=False) as arrays:
        return {title: arrays[title] for title in CASES["specifications"]}


def tolerance(name: str) -> int:
    """The most by which a pixel may differ: 0, or the decoder's tolerance where the file is lossy."""
    return int(CASES["decoder_tolerance"]) if CASES["pictures"][name]["lossy"] else 0


def missed(reformat: Reformat) -> Iterator[str]:
    """Give `image under specification` for each expectation that `reformat` does not meet; none for the reference."""
    expected = expectations()
    for title, spec in specifications().items():
        for row, name in enumerate(READABLE):
            try:
                pixels = reformat(CORPUS / name, spec)
            except Exception as error:
                yield f"{name} under {title}: {type(error).__name__}: {error}"
                continue
            wanted = expected[title][row]
            if pixels.shape != wanted.shape or np.abs(pixels.astype(int) - wanted).max() > tolerance(name):
                yield f"{name} under {title}"
        for name in REFUSED:
            try:
                reformat(CORPUS / name, spec)
            except ImageError as error:
                if str(error) == f"{CORPUS / name}: {REFUSED[name]}":
                    continue
            except Exception as error:
                yield f"{name} under {title}: {type(error).__name__}: {error}"
                continue
            yield f"{name} under {title}: not refused as it must be"
