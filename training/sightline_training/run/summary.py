"""What `sightline train` prints when it is done: the few lines of a report that one reads first."""

from typing import Any, Final

from rich.table import Table

from sightline_training.run.run import Run

SETS: Final = {"train": "training", "valid": "validation", "test": "test"}
"""What each split is called."""


def summary(run: Run) -> Table:
    """Accuracy with n and interval, target, time and folder of a run, two columns without a frame."""
    report = run.report
    accuracy, target, training, on = report["accuracy"], report["target"], report["training"], SETS[run.judged_on]
    splits, backbone = report["dataset"]["splits"], report["backbone"]
    learned = ""
    if training["epochs"]:
        learned = f", trained on {splits['train']['n']:,} images of {report['dataset']['name']}, seed {report['seed']}"
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    # No part of a path may be left out.
    table.add_column(overflow="fold")
    table.add_row("model", run.card.name + learned)
    if backbone is not None:
        table.add_row("backbone", f"{backbone['name']}, weights: {backbone['source']}")
    if accuracy[run.judged_on] is None:
        table.add_row("accuracy", f"unknown: nobody says what the {splits[run.judged_on]['n']} {on} images show")
    else:
        table.add_row("accuracy", _accuracy(accuracy[run.judged_on], on))
    for name, what in UNSEEN.items():
        if accuracy.get(name) is not None:
            table.add_row(name.replace("_", " "), f"{_accuracy(accuracy[name], on)}: {what}")
    if report["gap"] is not None:
        table.add_row("training gap", f"{100 * report['gap']:+.2f} points: {accuracy['train']['accuracy']:.2%} of the training images")
    if target["accuracy"] is not None:
        table.add_row("target", f"{target['accuracy']:.2%} {'reached' if target['reached'] else 'NOT reached'}")
    if training["epochs"]:
        chosen = f", chosen on {SETS[report['chosen_on']]} pictures" if report["chosen_on"] else ""
        kept = f"kept epoch {training['kept_epoch']} of {training['epochs']}{chosen}"
        table.add_row("training", f"{training['seconds']:.1f} s ({training['cpu_seconds']:.0f} s of CPU), {kept}")
    for remark in report["remarks"]:
        table.add_row("note", remark)
    table.add_row("run folder", str(run.folder))
    return table


UNSEEN: Final = {
    "without_seen": "without those that are also in another split",
    "without_near_duplicates": "also without those that nearly are a training image",
}


def _accuracy(figures: dict[str, Any], on: str) -> str:
    low, high = figures["interval_95"]
    return f"{figures['accuracy']:.2%} of {figures['n']:,} {on} images (95 % interval {low:.2%} to {high:.2%})"
