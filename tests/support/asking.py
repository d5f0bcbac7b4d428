"""What the workers of a pool or a DataLoader do: in a module that a spawned process can import."""

import numpy as np
import numpy.typing as npt

from sightline import Classifier

Asked = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]
"""Pixels, and the answers that came for them, one request each."""


class Asking:
    """Asks for images that nobody else asks for: what a pool's workers do."""

    def __init__(self, classifier: Classifier, calls: int) -> None:
        self.classifier, self.calls = classifier, calls

    def __call__(self, seed: int) -> Asked:
        pixels = np.random.default_rng(seed).integers(0, 256, (self.calls, 6, 5, 3), dtype=np.uint8)
        return pixels, np.concatenate([self.classifier.probabilities_of_pixels(pixels[index : index + 1]) for index in range(self.calls)])

    def __len__(self) -> int:
        return 8

    def __getitem__(self, seed: int) -> Asked:
        return self(seed)
