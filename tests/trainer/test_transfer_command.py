"""`sightline train` on a backbone, and on images of one's own: the real command, on a small backbone with random weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.cli import run as sightline
from sightline.errors import DataError, UsageError
from sightline_training.run.run import load_run
from support.present import present

SMALL = ("--backbone", "mobilenet_v3_small", "--weights", "random", "--size", "32", "--epochs", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six different images, and a file that is no image."""
    folder = tmp_path_factory.mktemp("own") / "pets"
    draw = np.random.default_rng(11)
    for kind in ("cats", "dogs"):
        (folder / kind).mkdir(parents=True)
        for number in range(6):
            coarse = Image.fromarray(draw.integers(0, 256, (5, 5, 3), dtype=np.uint8))
            coarse.resize((60, 40), Image.Resampling.BICUBIC).save(folder / kind / f"{number}.png")
    (folder / "dogs" / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def trained(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "pets"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        sightline(["train", "folder", "--data", str(pets), "--name", "pets", "--run", str(folder), *SMALL])
    return folder


def test_ones_own_images_give_the_card_its_labels_and_the_command_its_name(trained: Path) -> None:
    run = load_run(trained)
    assert (run.card.name, run.card.labels, run.card.preprocess.size) == ("pets", ("cats", "dogs"), (32, 32))
    assert present(run.report.backbone).source == "random"
    assert run.report.judged_on == "valid"
    assert run.report.chosen_on is None
    assert any("dogs/notes.txt" in remark for remark in run.report.remarks)
    assert {split: entry.n for split, entry in run.report.dataset.splits.items()} == {"train": 10, "valid": 2}


def test_where_the_images_lie_is_remembered_but_not_reported(trained: Path, pets: Path) -> None:
    run = load_run(trained)
    assert str(pets) not in (trained / "report.json").read_text(encoding="utf-8")
    assert len(run.images("valid")) == 2
    assert np.isfinite(run.network()(torch.from_numpy(run.images("valid").pixels(run.card.preprocess))).detach().numpy()).all()


def test_the_same_command_again_trains_nothing_wherever_the_images_lie_now(
    trained: Path, pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(pets, moved)
    sightline(["train", "folder", "--data", str(moved), "--name", "pets", "--run", str(trained), *SMALL])
    assert "already holds this run, finished" in capsys.readouterr().err


def test_other_images_do_not_pass_for_those_of_the_run(trained: Path, pets: Path, tmp_path: Path) -> None:
    changed = tmp_path / "pets"
    shutil.copytree(pets, changed)
    Image.new("RGB", (50, 50), (255, 0, 0)).save(changed / "cats" / "new.png")
    with pytest.raises(UsageError, match=r"holds a run with other settings: fingerprints was "):
        sightline(["train", "folder", "--data", str(changed), "--name", "pets", "--run", str(trained), *SMALL])


def test_a_run_whose_backbone_was_changed_in_its_report_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    report["backbone"]["name"] = "resnet18"
    (tmp_path / "run" / "report.json").write_text(json.dumps(report), encoding="utf-8")
    with pytest.raises(DataError, match=r"the tensor .* is missing|belongs to another network"):
        load_run(tmp_path / "run").network()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["folder"], "the recipe folder is trained on your own images: name their folder. (Options: `--data DIR`)"),
        (
            ["mnist", "--data", "digits", "--backbone", "vgg16"],
            "the recipe mnist is not built on a pre-trained network: leave out backbone. (Options: `--backbone`)",
        ),
        (
            ["mnist", "--data", "digits", "--size", "64"],
            "the recipe mnist is not built on a pre-trained network: leave out size. (Options: `--size`)",
        ),
        (
            ["mnist", "--data", "digits", "--every-block"],
            "the recipe mnist is not built on a pre-trained network: leave out every_block. (Options: `--every-block`)",
        ),
        (["mnist", "--data", "digits", "--name", "a/b"], "no card can be made: name: String should match pattern"),
    ],
)
def test_options_that_do_not_fit_are_named(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        sightline(["train", *arguments, "--run", str(tmp_path / "run")])
    assert str(refused.value).startswith(message)
