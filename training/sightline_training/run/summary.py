"""What `sightline train` prints when it is done: the few lines of a report that one reads first."""

from typing import Final

from rich.table import Table

from sightline_training.datasets.image_set import Split
from sightline_training.run.report import Accuracy
from sightline_training.run.run import Run

SPLIT_NAMES: Final[dict[Split, str]] = {"train": "training", "valid": "validation", "test": "test"}
"""What each split is called."""

WITHOUT_DUPLICATES: Final = {
    "without_seen": "without those that are also in another split",
    "without_near_duplicates": "also without those that nearly are a training image",
}


def summary(run: Run) -> Table:
    """Return accuracy with n and interval, target, time and folder of a run, two columns without a frame."""
    report, judged = run.report, run.report.judged_accuracy
    training, splits, split_name = report.training, report.dataset.splits, SPLIT_NAMES[run.judged_on]
    trained_on = ""
    if training.epochs:
        trained_on = f", trained on {splits['train'].n:,} images of {report.dataset.name}, seed {report.seed}"
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    # No part of a path may be left out.
    table.add_column(overflow="fold")
    table.add_row("model", run.card.name + trained_on)
    if report.backbone is not None:
        table.add_row("backbone", f"{report.backbone.name}, weights: {report.backbone.source}")
    if judged is None:
        table.add_row("accuracy", f"unknown: nobody says what the {splits[run.judged_on].n} {split_name} images show")
    else:
        table.add_row("accuracy", _sentence(judged, split_name))
    for name, description in WITHOUT_DUPLICATES.items():
        if (figures := report.accuracy.get(name)) is not None:
            table.add_row(name.replace("_", " "), f"{_sentence(figures, split_name)}: {description}")
    train = report.accuracy.get("train")
    if report.gap is not None and train is not None:
        table.add_row("training gap", f"{100 * report.gap:+.2f} points: {train.accuracy:.2%} of the training images")
    if report.target.accuracy is not None:
        table.add_row("target", f"{report.target.accuracy:.2%} {'reached' if report.target.reached else 'NOT reached'}")
    if training.epochs:
        chosen = f", chosen on {SPLIT_NAMES[report.chosen_on]} images" if report.chosen_on else ""
        kept = f"kept epoch {training.kept_epoch} of {training.epochs}{chosen}"
        table.add_row("training", f"{training.seconds:.1f} s ({training.cpu_seconds:.0f} s of CPU), {kept}")
    for remark in report.remarks:
        table.add_row("note", remark)
    table.add_row("run folder", str(run.folder))
    return table


def _sentence(figures: Accuracy, split_name: str) -> str:
    low, high = figures.interval_95
    return f"{figures.accuracy:.2%} of {figures.n:,} {split_name} images (95 % interval {low:.2%} to {high:.2%})"
