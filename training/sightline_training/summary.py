"""What `sightline train` prints when it is done: the few lines of a report that one reads first."""

from typing import Any

from rich.table import Table

from sightline_training.runs import Run


def summary(run: Run) -> Table:
    """Accuracy with n and interval, target, time and folder of a run, two columns without a frame."""
    report = run.report
    test, target, training = report["accuracy"]["test"], report["target"], report["training"]
    dataset, unseen = report["dataset"], report["accuracy"].get("test_without_seen")
    table = Table(show_header=False, box=None, pad_edge=False)
    learned = f"{dataset['splits']['train']['n']:,} pictures of {dataset['name']}"
    table.add_row("model", f"{run.card.name}, trained on {learned}, seed {report['seed']}")
    table.add_row("accuracy", _accuracy(test))
    if unseen is not None and unseen["n"] != test["n"]:
        table.add_row("without seen", f"{_accuracy(unseen)}: without test pictures that are also in the training files")
    if target["accuracy"] is not None:
        table.add_row("target", f"{target['accuracy']:.2%} {'reached' if target['reached'] else 'NOT reached'}")
    kept = f"kept epoch {training['kept_epoch']} of {training['epochs']}"
    table.add_row("training", f"{training['seconds']:.1f} s ({training['cpu_seconds']:.0f} s of CPU), {kept}")
    table.add_row("run folder", str(run.folder))
    return table


def _accuracy(figures: dict[str, Any]) -> str:
    low, high = figures["interval_95"]
    return f"{figures['accuracy']:.2%} of {figures['n']:,} test pictures (95 % interval {low:.2%} to {high:.2%})"
