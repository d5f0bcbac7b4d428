"""What rows of labelled images say of a model: accuracy with its interval, figures per class, confusion, mistakes.

report = labelled_report(rows, card.labels)
write_report(report, folder)

`demand_reportable` finds out beforehand whether that will work, so that no job of an hour ends without its report.
"""

from sightline.labelled.report import ClassCounts, LabelledReport, LabelledRow, labelled_report
from sightline.labelled.tables import show_report
from sightline.labelled.truths import Truths, UnknownTruth
from sightline.labelled.write import demand_reportable, write_report

__all__ = [
    "ClassCounts",
    "LabelledReport",
    "LabelledRow",
    "Truths",
    "UnknownTruth",
    "demand_reportable",
    "labelled_report",
    "show_report",
    "write_report",
]
