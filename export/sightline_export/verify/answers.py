"""Compares pixels and answers at the two ends of a hop, a chunk of images at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sightline.batches import Pixels, Probabilities
from sightline_export.gate.thresholds import FP32, Thresholds
from sightline_export.verify.hops import Tally


@dataclass(frozen=True)
class AnswerComparison:
    """By what two ends' answers are held to each other."""

    labels: Sequence[str]
    allowed: Thresholds

    def compare(
        self, tally: Tally, indices: npt.NDArray[np.int64], source: Probabilities, target: Probabilities, max_delta_p: float
    ) -> None:
        """Count a chunk: the answers of both ends to the images `indices`, float32 [n, classes]. In FP32 every label must agree."""
        top, target_top = source.argmax(axis=1), target.argmax(axis=1)
        delta = np.abs(source.astype(np.float64) - target).max(axis=1)
        tally.count(len(source), int((top == target_top).sum()), float(delta.max()))
        # NaN compares false, so it counts as a difference.
        differing = ~(delta <= max_delta_p)
        if self.allowed.precision == FP32.precision:
            differing |= top != target_top
        if differing.any():
            worst = int(np.nan_to_num(delta, nan=np.inf).argmax())
            answers = [
                f"{end} says {self.labels[row.argmax()]} ({row.max():.4f})"
                for end, row in ((tally.source, source[worst]), (tally.target, target[worst]))
            ]
            tally.differs(f"of image {indices[worst]}, {' and '.join(answers)}: |Δp| {delta[worst]:.2g}, allowed {max_delta_p:.0e}")

    def settle(self, tally: Tally) -> None:
        """Decide after the last image: in a lower precision a few labels may differ, as many as the gate allows."""
        if not tally.images:
            return
        agreement = tally.agreeing / tally.images
        if agreement < self.allowed.min_agreement:
            wanted = f"at least {self.allowed.min_agreement:.2%} must in {self.allowed.precision}"
            tally.differs(f"{agreement:.2%} of the labels agree, {wanted}")
        tally.same()


def compare_pixels(tally: Tally, indices: npt.NDArray[np.int64], trained: Pixels, sent: Pixels) -> None:
    """Count a chunk: what the network was trained with, and what a client sends of the same images. Every byte must agree."""
    if trained.shape != sent.shape:
        tally.differs(f"training used pixels of shape {trained.shape[1:]}, the client sends {sent.shape[1:]}")
        return
    delta = np.abs(trained.astype(np.int16) - sent).reshape(len(trained), -1).max(axis=1)
    tally.count(len(trained), int((delta == 0).sum()), float(delta.max()))
    if delta.any():
        tally.differs(f"the client's pixels of image {indices[delta.argmax()]} differ from training's by up to {delta.max()} of 255")
    tally.same()
