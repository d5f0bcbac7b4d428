"""Batch scoring: a row for every image of a folder, a list or a bucket, and jobs that can be resumed.

`score` is the verb; `listing` says what it would score, and `rows_of` reads what it wrote.
"""

from sightline.scoring.entries import Entry, Listing
from sightline.scoring.formats import rows_of
from sightline.scoring.job import score
from sightline.scoring.listing import images_below, listing
from sightline.scoring.rows import ERROR_KINDS, Ranked, Row
from sightline.scoring.settings import ScoreProgress, ScoreSettings, ScoreSummary

__all__ = [
    "ERROR_KINDS",
    "Entry",
    "Listing",
    "Ranked",
    "Row",
    "ScoreProgress",
    "ScoreSettings",
    "ScoreSummary",
    "images_below",
    "listing",
    "rows_of",
    "score",
]
