"""`sightline train` as a user sees it: what it writes, what it says, what it refuses."""

import csv
import shutil
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from sightline.card import unseal
from sightline.cli import run as sightline
from sightline.errors import DataError, MachineError, UsageError
from sightline_training import train as training
from sightline_training.networks.wrappers import probabilities_of
from sightline_training.recipes import RECIPES
from sightline_training.run import plots
from sightline_training.run.folder import claimed
from sightline_training.run.run import Run, load_run
from support.present import present
from support.runs import EPOCHS

QUICK = ["train", "mnist", "--data", "digits", "--epochs", "1", "--device", "cpu", "--run"]


def test_a_finished_run_folder_holds_everything_and_nothing_else(digits_folder: Path) -> None:
    assert sorted(path.name for path in digits_folder.iterdir()) == [
        "augmentations.png",
        "card.json",
        "checkpoints",
        "confusion.png",
        "curves.png",
        "metrics.csv",
        "mistakes.png",
        "report.json",
        "settings.json",
        "weights.safetensors",
    ]


def test_the_card_in_the_folder_is_the_recipes_sealed(digits_folder: Path) -> None:
    assert unseal((digits_folder / "card.json").read_text(), "card.json") == RECIPES["mnist"].card


def test_the_reports_accuracy_is_what_the_saved_network_gives_on_the_images(digits_run: Run) -> None:
    network = digits_run.network()
    assert not network.training
    for split in ("test", "valid", "train"):
        images = digits_run.images(split)
        answers = probabilities_of(network, images.pixels(digits_run.card.preprocess))
        figures = present(digits_run.report.accuracy[split])
        assert answers.dtype == np.float32
        assert np.abs(answers.sum(axis=1) - 1).max() < 1e-5
        assert figures.n == len(images) == digits_run.report.dataset.splits[split].n
        assert figures.correct == (answers.argmax(axis=1) == images.labels).sum()
        assert figures.accuracy == figures.correct / figures.n
    # Chance is 10 %; an untrained network, a permuted card or unnormalised pixels stay near it.
    assert present(digits_run.report.accuracy["test"]).accuracy > 0.85


def test_the_reports_parts_agree_with_each_other(digits_run: Run) -> None:
    report = digits_run.report
    counts = np.array(present(report.confusion).counts)
    test = present(report.accuracy["test"])
    assert counts.sum() == test.n == 360
    assert counts.trace() == test.correct
    assert test.interval_95[0] < test.accuracy < test.interval_95[1]
    for index, row in enumerate(report.per_class):
        assert row.label == digits_run.card.labels[index]
        assert row.n == counts[index].sum()
        assert row.recall == counts[index, index] / counts[index].sum()
        assert row.precision == counts[index, index] / counts[:, index].sum()


def test_the_report_says_what_it_was_made_from_and_with(digits_run: Run) -> None:
    report = digits_run.report
    assert report.dataset.name == "digits"
    assert report.settings.fingerprints == {split: digits_run.images(split).fingerprint for split in ("train", "valid", "test")}
    assert (report.seed, report.recipe, report.settings.augmented) == (0, "mnist", True)
    assert report.versions["torch"] == __import__("torch").__version__.split("+")[0]
    assert report.hardware.cores >= 1
    assert report.hardware.gpu is None
    assert report.training.seconds > 0
    assert report.training.cpu_seconds > 0
    assert report.card_sha256 == digits_run.card.sha256
    # The promise is for MNIST, these were other images.
    assert (report.target.accuracy, report.target.reached) == (None, None)


def test_metrics_has_a_line_an_epoch_and_the_kept_one_is_the_best_on_validation(digits_folder: Path, digits_run: Run) -> None:
    with (digits_folder / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["epoch"]) for line in lines] == list(range(1, EPOCHS + 1))
    best = max(lines, key=lambda line: (float(line["watched_accuracy"]), -float(line["watched_loss"])))
    assert digits_run.report.training.kept_epoch == int(best["epoch"])
    assert present(digits_run.report.accuracy["valid"]).accuracy == pytest.approx(float(best["watched_accuracy"]), abs=1e-5)
    assert present(digits_run.report.accuracy["valid"]).loss == pytest.approx(float(best["watched_loss"]), rel=1e-4)


@pytest.mark.parametrize("name", ["curves.png", "confusion.png", "mistakes.png", "augmentations.png"])
def test_the_images_show_something(digits_folder: Path, name: str) -> None:
    with Image.open(digits_folder / name) as image:
        assert min(image.size) >= 200
        pixels = np.asarray(image.convert("L"))
    inked = (pixels < 200).mean()
    assert 0.01 < inked < 0.9
    assert len(np.unique(pixels)) > 50


def test_one_seed_gives_the_same_weights_and_another_gives_others(tmp_path: Path) -> None:
    for name, seed in (("a", "4"), ("b", "4"), ("c", "5")):
        sightline([*QUICK, str(tmp_path / name), "--seed", seed])
    a, b, c = (load_run(tmp_path / name).weights_sha256 for name in "abc")
    assert a == b
    assert a != c


def test_a_finished_run_is_not_trained_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    sightline([*QUICK, str(folder)])
    first = capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    sightline([*QUICK, str(folder)])
    second = capsys.readouterr()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert second.err == f"{folder} already holds this run, finished. `--restart` trains it anew.\n"
    assert second.out == first.out
    assert "of 360 test images (95 % interval" in first.out
    assert str(folder) in first.out
    assert first.err.startswith("epoch 1/1  train loss ")


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    sightline([*QUICK, str(folder)])
    with pytest.raises(UsageError) as refused:
        sightline([*QUICK, str(folder), "--seed", "9"])
    assert str(refused.value) == (
        f"{folder} holds a run with other settings: seed was 0, now 9. Begin anew, or name another run folder. "
        "(Options: `--restart`, `--run`)"
    )


def test_restart_begins_anew_with_the_new_settings(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    sightline([*QUICK, str(folder)])
    before = load_run(folder).weights_sha256
    sightline([*QUICK, str(folder), "--seed", "9", "--restart"])
    assert load_run(folder).report.seed == 9
    assert load_run(folder).weights_sha256 != before


@pytest.mark.parametrize("flags", [[], ["--restart"]])
def test_a_folder_of_other_things_is_never_touched(tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError) as refused:
        sightline([*QUICK, str(tmp_path), *flags])
    assert str(refused.value) == f"{tmp_path} is no run folder: it holds thesis.tex. Name a new or an empty one. (Options: `--run`)"
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with claimed(folder), pytest.raises(UsageError) as refused:
        sightline([*QUICK, str(folder)])
    assert str(refused.value) == (
        f"another training is at work in the run folder {folder}. Wait for it, or name another folder. (Options: `--run`)"
    )


def test_an_unknown_recipe_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        sightline(["train", "minst", "--run", str(tmp_path / "run")])
    assert str(refused.value) == f"there is no recipe minst. Known recipes: {', '.join(sorted(RECIPES))}."


def test_a_data_folder_without_images_leaves_no_run_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DataError, match="MNIST is not in"):
        sightline(["train", "mnist", "--data", str(tmp_path / "data"), "--run", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(MachineError) as refused:
        sightline(["train", "mnist", "--data", "digits", "--run", str(tmp_path / "run"), "--device", "gpu"])
    message = "torch finds no GPU here. Leave out the choice of a device to train on the CPU. (Options: `--device`)"
    assert str(refused.value) == message


def test_what_fails_after_training_is_made_up_for_without_training_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(plots, "draw_mistakes", full_disk)
        with pytest.raises(MachineError) as full:
            sightline([*QUICK, str(folder)])
    advice = "Make room and run the same command again: it continues."
    assert str(full.value) == f"the run folder {folder} cannot be written: No space left on device. {advice}"
    with pytest.raises(DataError) as refused:
        load_run(folder)
    assert (
        str(refused.value)
        == f"{folder} holds no finished run (no report.json). Run the same `sightline train` command again: it continues."
    )
    metrics = (folder / "metrics.csv").read_bytes()
    sightline([*QUICK, str(folder)])
    # The seconds in it would differ if an epoch had run again.
    assert (folder / "metrics.csv").read_bytes() == metrics
    assert load_run(folder).report.training.epochs == 1


def test_changed_images_do_not_continue_a_run_begun_with_others(small_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    command = ["train", "mnist", "--data", str(small_mnist), "--epochs", "1", "--run", str(folder)]
    with monkeypatch.context() as patched:
        patched.setattr(training, "fit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(click.Abort):
            sightline(command)
    labels = small_mnist / "mnist" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x03")
    with pytest.raises(UsageError, match=r"holds a run with other settings: fingerprints was \{'train': "):
        sightline(command)


def test_an_interrupted_user_is_told_how_to_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr(training, "fit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(click.Abort):
        sightline([*QUICK, str(folder)])
    assert capsys.readouterr().err.strip() == f"stopped. The same command continues from the last finished epoch in {folder}."


def test_a_moved_run_folder_is_still_the_same_run(digits_folder: Path, digits_run: Run, tmp_path: Path) -> None:
    shutil.copytree(digits_folder, tmp_path / "moved")
    assert load_run(tmp_path / "moved").weights_sha256 == digits_run.weights_sha256
    assert load_run(tmp_path / "moved").report == digits_run.report
