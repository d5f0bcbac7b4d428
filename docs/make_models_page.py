"""Writes docs/models.md from the reports of finished runs. Nothing on that page is typed. `make models-page` runs it.

Reports, cards and confusion matrices are copied into docs/models/ first, and the page is written from what lies there: so a model that was
trained elsewhere, or long ago, keeps its place. What changed in its recipe since then is found by the tests.
"""

import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.card import ModelCard, unseal
from sightline.errors import DataError
from sightline.host.files import read_json, write_atomically
from sightline_training.datasets.image_set import Split
from sightline_training.run.folder import CARD, CONFUSION, REPORT
from sightline_training.run.json_text import json_text
from sightline_training.run.report import RunReport, read_report
from sightline_training.run.run import load_run
from sightline_training.run.summary import SPLIT_NAMES

DOCS = Path(__file__).resolve().parent
KEPT = DOCS / "models"
LINE = "line.json"
MAX_LINE_BYTES = 1024 * 1024
CONFUSED_UP_TO = 30
"""Classes: of more, no table is shown."""

OPENING = """# Models

Every figure on this page comes from the report of a finished run; `make models` makes the runs, `make models-page` writes the page.
An interval is Wilson's for 95 %: how far the accuracy on other images of the same kind may lie. A *test* set was looked at once, at
the end. Where a source has only a validation set, that is what is reported, under its name. Reported images chose nothing within a
run: then the last epoch is kept, and nothing stops early. What was chosen by looking at them *before* the run (a learning rate, a
number of epochs) is said in the opening lines of the recipe's file. Seconds are those of the whole run: reading the images,
features, training, evaluation.
"""


@dataclass(frozen=True)
class Kept:
    """A finished run, as docs/models/ keeps it."""

    folder: Path
    report: RunReport
    card: ModelCard

    @property
    def judged_on(self) -> Split:
        """The split that its accuracy was counted on."""
        return self.report.judged_on


def main(runs: Path) -> int:
    """Keep what is new below `runs`, and write the page about all that is kept."""
    keep_new(runs)
    kept = [Kept(file.parent, read_report(file), card_in(file.parent)) for file in sorted(KEPT.glob(f"*/{REPORT}"))]
    if not kept:
        print(f"error: no finished run in {runs}/: `make models` makes them", file=sys.stderr)
        return DataError.exit_code
    line = line_in(KEPT)
    groups: dict[tuple[str, ...], list[Kept]] = {}
    for run in kept:
        groups.setdefault(kind(run), []).append(run)
    parts = [OPENING, overview(groups), *(section(group, line) for group in groups.values()), photos(line)]
    write_atomically(DOCS / "models.md", "\n".join(part for part in parts if part))
    print(f"{DOCS / 'models.md'}: {len(kept)} runs of {len(groups)} models")
    return 0


def keep_new(runs: Path) -> None:
    """Copy report, card and confusion matrix of every finished run, and what serving gave."""
    for report in sorted(runs.glob(f"*/{REPORT}")):
        try:
            run = load_run(report.parent)
        except DataError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        if run.report.recipe == "folder":
            continue  # somebody's own
        folder = KEPT / run.folder.name
        folder.mkdir(parents=True, exist_ok=True)
        for name in (REPORT, CARD, CONFUSION):
            if (run.folder / name).is_file():
                shutil.copyfile(run.folder / name, folder / name)
    if (runs / LINE).is_file():
        new, old = line_in(runs), line_in(KEPT)
        write_atomically(KEPT / LINE, json_text({**old, **new, "models": {**old["models"], **new["models"]}}))


def line_in(folder: Path) -> dict[str, Any]:
    """What serving gave, as `make models` wrote it there; of no models if it did not."""
    return read_json(folder / LINE, MAX_LINE_BYTES) if (folder / LINE).is_file() else {"models": {}}


def card_in(folder: Path) -> ModelCard:
    """The kept card."""
    return unseal((folder / CARD).read_bytes(), str(folder / CARD))


def kind(run: Kept) -> tuple[str, ...]:
    """What runs must share to be seeds of one thing."""
    settings = run.report.settings
    backbone = settings.backbone
    return (
        run.report.recipe,
        run.card.name,
        settings.dataset,
        str(settings.augmented),
        str(None if backbone is None else backbone.sha256),
        command(run),
    )


def command(run: Kept) -> str:
    """What one types for it; weights are named by their file's name alone."""
    settings, name = run.report.settings, run.card.name
    words = ["sightline train", run.report.recipe]
    if run.folder.name.startswith("mnist") and settings.augmented:
        words.append("--augment")
    if settings.dataset == "digits":
        words.append("--data digits")
    backbone = settings.backbone
    if backbone is not None:
        words += ["--backbone", backbone.name]
        if not backbone.source.startswith("torchvision"):
            words += ["--weights", named(backbone.source)]
        if run.card.preprocess.size != (224, 224):
            words += ["--size", str(run.card.preprocess.size[0])]
    if name != run.report.recipe:
        words += ["--name", name]
    return " ".join(words)


def named(source: str) -> str:
    """How one names the weights that a report describes: "file a.pth, torchvision's …", "run of cifar10", "random"."""
    if source.startswith("run of "):
        return f"runs/{source.removeprefix('run of ')}"
    return source.removeprefix("file ").partition(",")[0]


def overview(groups: Mapping[tuple[str, ...], Sequence[Kept]]) -> str:
    """One line a model."""
    rows = ["| model | judged on | accuracy | 95 % interval | target | training |", "|---|---|---|---|---|---|"]
    for group in groups.values():
        first = group[0].report
        on, figures = first.judged_on, [run.report.accuracy[run.judged_on] for run in group]
        n = f"{first.dataset.splits[on].n:,} {SPLIT_NAMES[on]} images"
        target = first.target.accuracy
        seconds = [taken(run)[0] for run in group]
        known = [figure for figure in figures if figure is not None]
        if figures[0] is None:
            accuracy = interval = "–"
        else:
            mean = statistics.fmean(figure.accuracy for figure in known)
            accuracy = f"**{mean:.2%}**" + (f", mean of {len(known)} seeds" if len(known) > 1 else "")
            interval = "; ".join("{:.2%} to {:.2%}".format(*figure.interval_95) for figure in known)
        reached = "–" if target is None or figures[0] is None else f"{target:.1%} {'reached' if mean >= target else '**not reached**'}"
        rows.append(f"| [{title(group[0])}](#{anchor(group[0])}) | {n} | {accuracy} | {interval} | {reached} | {duration(seconds)} |")
    return "\n".join(rows) + "\n"


def section(group: Sequence[Kept], line: Mapping[str, Any]) -> str:
    """All that the reports say of one model."""
    run = group[0]
    report = run.report
    on = SPLIT_NAMES[run.judged_on]
    lines = [f"## {title(run)}", "", run.card.description, "", "```text", command(run), "```", ""]
    splits = ", ".join(f"{entry.n:,} {SPLIT_NAMES[split]}" for split, entry in report.dataset.splits.items())
    lines.append(f"Data: `{report.dataset.name}`, {splits} images. {chosen(report)}")
    if report.backbone:
        lines.append(f"Backbone: {report.backbone.name} ({report.backbone.source}).")
    lines += [*(f"{remark}" for remark in report.remarks), ""]
    if any(member.report.accuracy[member.judged_on] for member in group):
        lines += results(group, on)
    hardware, versions, process = report.hardware, report.versions, report.process
    most = max(member.report.process.peak_memory_bytes for member in group) / 1024**3
    lines += [
        (
            f"Made on {hardware.gpu or hardware.cpu}, {hardware.cores} cores, {hardware.torch_threads} threads; "
            f"Python {versions['python']}, torch {versions['torch']}, torchvision {versions['torchvision']}. "
            f"At most {most:.1f} GiB of memory{'; continued after an interruption' if process.resumed else ''}."
        ),
        "",
    ]
    served = line.get("models", {}).get(run.folder.name)
    if served:
        worst = ", ".join(f"{hop} {delta:.1e}" for hop, delta in served["max_delta_p"].items())
        lines += [
            (
                f"Served by Triton {served['triton']} and verified: the same at all {served['hops']} hops on {served['pictures']:,} "
                f"images (max \\|Δp\\|: {worst})."
            ),
            "",
        ]
    if report.accuracy[run.judged_on]:
        lines += classes(run)
    return "\n".join(lines)


def chosen(report: RunReport) -> str:
    """What decided which epoch was kept."""
    if not report.training.epochs:
        return "Nothing is trained."
    if report.chosen_on:
        return f"The epoch that is kept was chosen on the {SPLIT_NAMES[report.chosen_on]} images."
    return "No images chose an epoch: the last one is kept."


def results(group: Sequence[Kept], on: str) -> list[str]:
    """A row a seed."""
    extra = [name for name in ("without_seen", "without_near_duplicates") if group[0].report.accuracy.get(name)]
    heads = [
        "seed",
        f"{on} accuracy",
        "n",
        "95 % interval",
        *(name.replace("_", " ") for name in extra),
        "training accuracy",
        "gap",
        "seconds",
    ]
    rows = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for run in group:
        report, figures = run.report, run.report.accuracy[run.judged_on]
        assert figures is not None
        low, high = figures.interval_95
        cells = [str(report.seed), f"{figures.accuracy:.2%}", f"{figures.n:,}", f"{low:.2%} to {high:.2%}"]
        cells += [f"{figure.accuracy:.2%} of {figure.n:,}" for figure in map(report.accuracy.get, extra) if figure is not None]
        trained = report.accuracy.get("train")
        cells += [f"{trained.accuracy:.2%}", f"{100 * report.gap:+.2f} points"] if trained and report.gap is not None else ["–", "–"]
        wall, cpu = taken(run)
        cells.append(f"{wall:,.0f} ({cpu:,.0f} of CPU)")
        rows.append(f"| {' | '.join(cells)} |")
    return [*rows, ""]


def taken(run: Kept) -> tuple[float, float]:
    """Wall and CPU seconds. Of a run that was interrupted, those of its epochs, since its last process saw only the end."""
    process, training = run.report.process, run.report.training
    measured = training if process.resumed else process
    return measured.seconds, measured.cpu_seconds


def classes(run: Kept) -> list[str]:
    """The confusion matrix as an image, and the figures per class."""
    image = run.folder / CONFUSION
    lines = [f"![Confusion matrix of {title(run)}]({image.relative_to(DOCS).as_posix()})", ""]
    if len(run.card.labels) <= CONFUSED_UP_TO:
        rows = ["| class | n | recall | precision |", "|---|---|---|---|"]
        for figures in run.report.per_class:
            recall, precision = ("–" if share is None else f"{share:.2%}" for share in (figures.recall, figures.precision))
            rows.append(f"| {figures.label} | {figures.n:,} | {recall} | {precision} |")
        lines += ["<details><summary>Figures per class (first seed)</summary>", "", *rows, "", "</details>", ""]
    return lines


def photos(line: Mapping[str, Any]) -> str:
    """What the served `asl` says of colour photos."""
    photos_of_asl = line.get("asl_photos")
    if not photos_of_asl:
        return ""
    right = sum(photo["letter"] == photo["answer"] for photo in photos_of_asl)
    rows = ["| letter | answer | probability |", "|---|---|---|"]
    rows += [f"| {photo['letter']} | {photo['answer']} | {photo['probability']:.3f} |" for photo in photos_of_asl]
    return "\n".join(
        [
            "## Colour photos, read by the served `asl`",
            "",
            (
                f"`sightline classify asl` on {len(photos_of_asl)} colour photos with a clear ground, 120 to 188 pixels a side. Most "
                f"look like images of the training file: **{right} of {len(photos_of_asl)}** right. They show that "
                "reformatting works, not how the model does on new hands."
            ),
            "",
            *rows,
            "",
        ]
    )


def title(run: Kept) -> str:
    """What the page calls a run."""
    return run.card.name + (", augmented" if "--augment" in command(run) else "")


def anchor(run: Kept) -> str:
    """The link to its section."""
    return title(run).replace(",", "").replace(" ", "-").lower()


def duration(seconds: Sequence[float]) -> str:
    """Seconds of one run, or from the shortest to the longest of several."""
    low, high = min(seconds), max(seconds)
    return f"{high:.0f} s" if high - low < 1 else f"{low:.0f} to {high:.0f} s each"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs")))
