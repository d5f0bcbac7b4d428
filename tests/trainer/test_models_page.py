"""docs/models.md says what the reports say, and `make models` knows every recipe."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest

from sightline.errors import DataError
from sightline_training.recipes import RECIPES
from support.scripts import script

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = script("docs/make_models_page.py")
    monkeypatch.setattr(module, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(module, "KEPT", tmp_path / "docs" / "models")
    (tmp_path / "docs").mkdir()
    return module


def test_the_page_is_written_from_the_reports(page: ModuleType, digits_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_folder, tmp_path / "runs" / "mnist-augmented")
    assert page.main(tmp_path / "runs") == 0
    text = (tmp_path / "docs" / "models.md").read_text(encoding="utf-8")
    report = json.loads((digits_folder / "report.json").read_text(encoding="utf-8"))
    test = report["accuracy"]["test"]
    low, high = test["interval_95"]
    assert f"| 0 | {test['accuracy']:.2%} | {test['n']:,} | {low:.2%} to {high:.2%} |" in text
    assert "sightline train mnist --augment --data digits" in text
    assert "The epoch that is kept was chosen on the validation images." in text
    assert f"torch {report['versions']['torch']}" in text
    assert report["hardware"]["cpu"] in text
    for figures in report["per_class"]:
        assert f"| {figures['label']} | {figures['n']:,} | {figures['recall']:.2%} |" in text
    image = tmp_path / "docs" / "models" / "mnist-augmented" / "confusion.png"
    assert image.read_bytes() == (digits_folder / "confusion.png").read_bytes()
    assert f"({image.relative_to(tmp_path / 'docs')})" in text
    assert str(tmp_path) not in text


def test_seeds_of_one_model_stand_together_with_their_mean(page: ModuleType, digits_folder: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = tmp_path / "runs" / f"mnist-augmented-{seed}"
        shutil.copytree(digits_folder, folder)
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        report["seed"] = report["settings"]["seed"] = seed
        report["accuracy"]["test"]["accuracy"] = 0.9 + seed / 50
        (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    assert page.main(tmp_path / "runs") == 0
    text = (tmp_path / "docs" / "models.md").read_text(encoding="utf-8")
    assert "**91.00%**, mean of 2 seeds" in text
    assert text.count("## mnist") == 1


def test_a_damaged_run_is_left_out_and_no_run_at_all_is_an_error(
    page: ModuleType, digits_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(digits_folder, tmp_path / "runs" / "mnist")
    (tmp_path / "runs" / "mnist" / "weights.safetensors").write_bytes(b"")
    assert page.main(tmp_path / "runs") == DataError.exit_code
    errors = capsys.readouterr().err
    assert "left out: " in errors
    assert errors.strip().endswith("`make models` makes them")


def test_a_run_that_is_gone_keeps_its_place_on_the_page(page: ModuleType, digits_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_folder, tmp_path / "runs" / "mnist-augmented")
    assert page.main(tmp_path / "runs") == 0
    before = (tmp_path / "docs" / "models.md").read_text(encoding="utf-8")
    shutil.rmtree(tmp_path / "runs")
    assert page.main(tmp_path / "runs") == 0
    assert (tmp_path / "docs" / "models.md").read_text(encoding="utf-8") == before


@pytest.mark.parametrize("kept", sorted((ROOT / "docs" / "models").glob("*/report.json")), ids=lambda path: path.parent.name)
def test_what_the_page_reports_was_trained_by_todays_recipes(kept: Path) -> None:
    report = json.loads(kept.read_text(encoding="utf-8"))
    recipe, settings = RECIPES[report["recipe"]], report["settings"]
    if settings["augmented"] and recipe.augmented is not None:
        recipe = recipe.augmented
    assert settings["stages"] == [asdict(stage) for stage in recipe.stages]
    assert settings["augmentation"] == (None if recipe.augmentation is None else repr(recipe.augmentation))
    # Where nobody knows the labels there is no matrix; a thousand classes of zeros were eleven megabytes.
    assert (report["confusion"] is None) == (report["accuracy"][report["judged_on"]] is None)
    assert kept.stat().st_size < 100_000


def test_the_page_is_the_one_that_the_kept_reports_give(page: ModuleType, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs" / "models", tmp_path / "docs" / "models")
    assert page.main(tmp_path / "runs") == 0
    assert (tmp_path / "docs" / "models.md").read_text(encoding="utf-8") == (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_make_models_makes_every_recipe_but_the_users_own() -> None:
    models = script("scripts/models.py")
    trained = {job.arguments[0] for job in (*models.MODELS, *models.OWN_VGG16)}
    assert trained == {name for name, recipe in RECIPES.items() if not recipe.own_images}
    assert [job.arguments[-1] for job in models.MODELS if job.arguments[0] == "asl"] == ["asl", "1", "2"]
