"""Compares two served models on a folder of images: which labels flip, how far probabilities move, and which one is right more often.

with Classifier("mnist", version="1") as before, Classifier("mnist", version="2") as after:
    comparison = compare(before, after, Path("photos"))
"""

from sightline.compare.compare import CompareSettings, compare
from sightline.compare.flips import flips_file
from sightline.compare.result import Broken, Comparison, Difference, Limits, PairedAccuracy, Side

__all__ = ["Broken", "CompareSettings", "Comparison", "Difference", "Limits", "PairedAccuracy", "Side", "compare", "flips_file"]
