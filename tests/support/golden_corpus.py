"""The committed golden corpus, and the one question asked of any `reformat`: which expectations does it miss?

Each version of the specification has a folder with `cases.json` (its specifications and the sentence of each refusal) and `expected.npz`
(the pixels), beside its images or apart from them.
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
        return (miss for miss in self._verdicts(reformat) if miss)

    def noticed(self, reformat: Reformat) -> None:
        """Check that the corpus notices a mistake in `reformat`, and that it is a mistake and not merely broken code."""
        misses, met = [], 0
        for miss in self._verdicts(reformat):
            misses += [miss] if miss else []
            met += not miss
            if misses and met:
                break
        assert misses
        assert met
        assert not any("NameError" in miss or "AttributeError" in miss for miss in misses), misses

    def _verdicts(self, reformat: Reformat) -> Iterator[str]:
        """Give, for each expectation, an empty text if `reformat` meets it, else which it is and what came instead."""
        for at, name in enumerate(self.readable):
            for title, spec in self.specifications.items():
                expected = self.expectations[title][at]
                try:
                    pixels = reformat(self.images / name, spec)
                except Exception as error:
                    yield f"{name} under {title}: {type(error).__name__}: {error}"
                    continue
                right = pixels.shape == expected.shape and np.abs(pixels.astype(int) - expected).max() <= self.tolerance(name)
                yield "" if right else f"{name} under {title}"
        for title, spec in self.specifications.items():
            for name, sentence in self.refused.items():
                try:
                    reformat(self.images / name, spec)
                except ImageError as error:
                    right = str(error) == f"{self.images / name}: {sentence}"
                    yield "" if right else f"{name} under {title}: {error}"
                except Exception as error:
                    yield f"{name} under {title}: {type(error).__name__}: {error}"
                else:
                    yield f"{name} under {title}: not refused as it must be"


CORPORA: Final = {1: Corpus(1, images=CORPUS, folder=CORPUS), 2: Corpus(2, images=CORPUS / "v2", folder=CORPUS / "v2")}
"""The corpus of each version in `sightline.preprocess.VERSIONS`."""

V1: Final = CORPORA[1]
