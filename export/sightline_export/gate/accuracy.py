"""The accuracy that the gate measured, with the number of images and the interval that it is good for."""

from sightline.proportions import wilson_interval
from sightline.repository.report import AccuracyReport
from sightline_export.gate.checks import ACCURACY, Verdict
from sightline_export.gate.compare import ComparedImages


def accuracy_of(verdict: Verdict, images: ComparedImages) -> AccuracyReport | None:
    """Return how often the exported model was right on the images of known class, with Wilson's 95 % interval; None if there are none."""
    n = int((images.labels >= 0).sum())
    measured = {check.name: check.measured for check in verdict.checks}.get(ACCURACY)
    if not n or not isinstance(measured, float):
        return None
    correct = round(measured * n)
    return AccuracyReport(n=n, correct=correct, interval_95=wilson_interval(correct, n))
