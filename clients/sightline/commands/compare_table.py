"""Prints a comparison on the terminal."""

from typing import Final

from sightline.compare import Comparison, PairedAccuracy, Side
from sightline.console import messages, results, table
from sightline.host.text import one_line, printable
from sightline.proportions import Interval

SHOWN: Final = 10
"""Flips; the file of `--out` has all."""
NAME: Final = 40


def show(comparison: Comparison) -> None:
    """Print what was compared, how far the two differ, and the flips that differ most; on stderr what is in no figure."""
    console = results()
    console.print(f"A  {_described(comparison.a)}")
    console.print(f"B  {_described(comparison.b)}")
    if not comparison.same_preprocess:
        console.print("   their preprocessing differs: each image was decoded once for each")
    figures = table("", "", left=2)
    figures.show_header = False
    unread = f" ({comparison.broken:,} more could not be read)" if comparison.broken else ""
    figures.add_row("images", f"{comparison.images:,}{unread}")
    if comparison.max_delta_at is not None:
        at = comparison.max_delta_at
        figures.add_row("labels that differ", f"{comparison.flips:,} ({comparison.flips / comparison.images:.2%})")
        figures.add_row("max |Δp|", f"{comparison.max_delta_p:.3g}, of {_name(at.delta_label)} on {one_line(printable(at.image), 90)}")
        figures.add_row("mean |Δp|", f"{comparison.mean_delta_p:.3g}, the mean of each image's largest")
    if comparison.accuracy is not None:
        for name, value in _accuracy_rows(comparison.accuracy):
            figures.add_row(name, value)
    console.print(figures)
    _show_flips(comparison)
    if comparison.accuracy is not None:
        for note in _notes(comparison.accuracy):
            messages().print(f"note: {note}")


def _accuracy_rows(accuracy: PairedAccuracy) -> list[tuple[str, str]]:
    if accuracy.accuracy_a is None or accuracy.accuracy_b is None or accuracy.difference is None:
        return [("accuracy", "no image that could be read lies in a folder that is called as a label")]
    low, high = accuracy.difference_interval_95 or (0.0, 0.0)
    return [
        ("accuracy of A", f"{_with_interval(accuracy.accuracy_a, accuracy.interval_a_95)} on {accuracy.images:,} images"),
        ("accuracy of B", _with_interval(accuracy.accuracy_b, accuracy.interval_b_95)),
        ("B minus A", f"{accuracy.difference:+.2%} (95 %: {low:+.2%} to {high:+.2%})"),
        (
            "right alone",
            f"A {accuracy.only_a_right:,} times, B {accuracy.only_b_right:,} times (McNemar's exact p = {accuracy.mcnemar_p:.3g})",
        ),
    ]


def _show_flips(comparison: Comparison) -> None:
    if not comparison.flips:
        return
    labelled = comparison.accuracy is not None
    titles = ("labels differ", *(["truth"] if labelled else []), "A", "B", "p of A", "p of B", "max |Δp|")
    rows = table(*titles, left=4 if labelled else 3)
    for flip in comparison.worst_flips[:SHOWN]:
        truth = [_name(flip.truth)] if labelled else []
        names = (one_line(printable(flip.image), 90), *truth, _name(flip.label_a), _name(flip.label_b))
        rows.add_row(*names, *(f"{value:.4f}" for value in (flip.probability_a, flip.probability_b, flip.max_delta_p)))
    results().print(rows)
    if comparison.flips > SHOWN:
        results().print(f"(the {SHOWN} that differ most, of {comparison.flips:,})")


def _notes(accuracy: PairedAccuracy) -> list[str]:
    sentences = [each.sentence() for each in accuracy.unknown_truths[:SHOWN]]
    others = sum(each.images for each in accuracy.unknown_truths[SHOWN:]) + accuracy.unlisted_truths_images
    if others:
        sentences.append(f"{others:,} more images lie in other folders that are no label of the model")
    if accuracy.without_truth:
        sentences.append(f"{accuracy.without_truth:,} image{'s lie' if accuracy.without_truth != 1 else ' lies'} in no class folder")
    return sentences


def _described(side: Side) -> str:
    return f"{side}  {side.url}  card {side.card_sha256[:12]}"


def _with_interval(share: float, interval: Interval | None) -> str:
    return f"{share:.2%}" + (f" (95 %: {interval[0]:.2%} to {interval[1]:.2%})" if interval else "")


def _name(label: str) -> str:
    return one_line(printable(label), NAME)
