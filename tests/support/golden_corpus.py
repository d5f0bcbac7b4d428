"""The committed golden corpus, and the one question asked of any `reformat`: which expectations does it miss?

All versions of the specification look at the same images. Each has a folder of its own with `cases.json` (its specifications and the
sentence of each refusal) and `expected.npz` (the pixels); version 1's is that of the images.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from sightline.errors import ImageError
from sightline.preprocess import AnyPreprocess, Preprocess

CORPUS: Final = Path(__file__).resolve().parents[1] / "contract" / "corpus"
READER: Final[TypeAdapter[Preprocess]] = TypeAdapter(AnyPreprocess)

Pixels = npt.NDArray[np.uint8]
Reformat = Callable[[Path, Any], Pixels]


@dataclass(frozen=True)
class Corpus:
    """The golden images, and what one version of the specification makes of them."""

    version: int
    images: Path
    """Folder of the image files."""
    folder: Path
    """Folder of this version's `cases.json` and `expected.npz`."""

    @cached_property
    def cases(self) -> dict[str, Any]:
        """The content of `cases.json`."""
        content: dict[str, Any] = json.loads((self.folder / "cases.json").read_text(encoding="utf-8"))
        return content

    @property
    def refused(self) -> dict[str, str]:
        """The sentence, without the path, with which each unreadable image is refused."""
        refusals: dict[str, str] = self.cases["refusals"]
        return refusals

    @property
    def readable(self) -> list[str]:
        """The names of the other images, in the order of their rows in `expected.npz`."""
        return [name for name in self.cases["pictures"] if name not in self.refused]

    @cached_property
    def specifications(self) -> dict[str, Preprocess]:
        """The specifications as the committed file has them, read strictly."""
        return {title: READER.validate_json(json.dumps(fields)) for title, fields in self.cases["specifications"].items()}

    @cached_property
    def expectations(self) -> dict[str, Pixels]:
        """For each specification, the expected pixels (images, height, width, channels), in the order of `readable`."""
        with np.load(self.folder / "expected.npz", allow_pickle=False) as arrays:
            return {title: arrays[title] for title in self.cases["specifications"]}

    def tolerance(self, name: str) -> int:
        """The most by which a pixel may differ: 0, or the decoder's tolerance where the file is lossy."""
        return int(self.cases["decoder_tolerance"]) if self.cases["pictures"][name]["lossy"] else 0

    def missed(self, reformat: Reformat) -> Iterator[str]:
        """Give `image under specification` for each expectation that `reformat` does not meet; none for the reference."""
        for title, spec in self.specifications.items():
            for name, expected in zip(self.readable, self.expectations[title], strict=True):
                try:
                    pixels = reformat(self.images / name, spec)
                except Exception as error:
                    yield f"{name} under {title}: {type(error).__name__}: {error}"
                    continue
                if pixels.shape != expected.shape or np.abs(pixels.astype(int) - expected).max() > self.tolerance(name):
                    yield f"{name} under {title}"
            for name, sentence in self.refused.items():
                try:
                    reformat(self.images / name, spec)
                except ImageError as error:
                    if str(error) == f"{self.images / name}: {sentence}":
                        continue
                except Exception as error:
                    yield f"{name} under {title}: {type(error).__name__}: {error}"
                    continue
                yield f"{name} under {title}: not refused as it must be"

    def noticed(self, reformat: Reformat) -> None:
        """Check that the corpus notices a mistake in `reformat`, and that it is a mistake and not merely broken code."""
        missed = list(self.missed(reformat))
        assert 0 < len(missed) < len(self.cases["pictures"]) * len(self.specifications)
        assert not any("NameError" in miss or "AttributeError" in miss for miss in missed), missed


CORPORA: Final = {1: Corpus(1, images=CORPUS, folder=CORPUS)}
"""The corpus of each version in `sightline.preprocess.VERSIONS`."""

V1: Final = CORPORA[1]
