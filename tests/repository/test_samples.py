"""Golden samples in config.pbtxt: which image becomes one, how long they stay, and that none can be changed in silence."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.card import ModelCard
from sightline.errors import RepositoryError
from sightline.golden_sample import MAX_SAMPLE_BYTES, unseal_sample
from sightline.repository.config import ModelConfig
from sightline.repository.edit import change_instances, replace_config
from sightline.repository.golden import golden_files
from sightline.repository.history import rollback, serve_newest
from sightline.repository.instances import InstanceChanges
from sightline.repository.integrity import check_shared
from sightline.repository.read import model_named
from sightline.repository.samples import MAX_SAMPLES_BYTES, sample_of, samples_in, text_with_sample, with_sample
from support.cards import tiny_card
from support.tiny_models import publish_sampled


def noise(seed: int, side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def of_side(side: int) -> ModelCard:
    card = tiny_card()
    return card.model_copy(update={"preprocess": card.preprocess.model_copy(update={"size": (side, side)})})


def golden_of(card: ModelCard, surest: list[float], side: int = 9) -> dict[str, bytes]:
    """The golden files of as many images, of which the best class has these probabilities."""
    answers = iter(np.array([[p, *[(1 - p) / 3] * 3] for p in surest], np.float32))
    return golden_files(card, lambda index: noise(index, side), np.arange(len(surest)), lambda _: next(answers)[None], 1e-4)


def test_the_image_of_the_least_certain_answer_becomes_the_sample() -> None:
    files = golden_of(tiny_card(), [0.9, 0.4, 0.99])
    sample = unseal_sample(sample_of(tiny_card(), 7, files.__getitem__) or "", tiny_card(), 7, "here")
    assert sample.version == 7
    assert sample.probabilities[0] == np.float32(0.4)
    assert sample.tolerance == 1e-4


@pytest.mark.parametrize(("side", "fits"), [(28, True), (224, True), (448, True), (600, False)])
def test_a_photo_of_224_fits_and_what_would_not_is_left_out(side: int, fits: bool) -> None:
    card = of_side(side)
    sealed = sample_of(card, 1, golden_of(card, [0.5], side).__getitem__)
    assert (sealed is not None) is fits
    if sealed is not None:
        # Noise is what PNG makes nothing smaller of.
        assert len(sealed) < min(MAX_SAMPLE_BYTES, 1000 + side * side * 3 * 1.36)


def test_a_version_without_golden_images_has_no_sample() -> None:
    files: dict[str, bytes] = {}
    assert sample_of(tiny_card(), 1, files.__getitem__) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"card_sha256": "0" * 64}, "the golden images of tiny version 1 belong to another card: export the model again"),
        ({"schema": 9}, "golden.json is no index of golden images of schema 1 (schema: Input should be 1): export the model again"),
    ],
)
def test_golden_images_that_are_not_the_cards_make_none(change: dict[str, Any], sentence: str) -> None:
    files = golden_of(tiny_card(), [0.5])
    files["golden/golden.json"] = json.dumps({**json.loads(files["golden/golden.json"]), **change}).encode()
    with pytest.raises(RepositoryError) as refusal:
        sample_of(tiny_card(), 1, files.__getitem__)
    assert str(refusal.value) == sentence


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for seed in range(3):
        publish_sampled(tmp_path / "models", seed=seed)
    return tmp_path / "models"


def test_every_version_has_its_sample_through_publishing_rollback_and_tuning(repository: Path) -> None:
    names = {f"golden_sample_{number}" for number in (1, 2, 3)}
    before = samples_in(model_named(repository, "tiny").config)
    assert set(before) == names
    for change in (
        lambda: rollback(repository, "tiny"),
        lambda: serve_newest(repository, "tiny"),
        lambda: change_instances(repository, "tiny", InstanceChanges(instances=2)),
    ):
        change()
        model = model_named(repository, "tiny")
        assert samples_in(model.config) == before
        check_shared(model)


def test_a_rollback_makes_a_sample_that_is_missing_again(repository: Path) -> None:
    model = model_named(repository, "tiny")
    before = samples_in(model.config)
    replace_config(
        model, replace(model.config, parameters={key: value for key, value in model.config.parameters.items() if key not in before})
    )
    assert rollback(repository, "tiny", to=2) == 2
    assert samples_in(model_named(repository, "tiny").config) == {"golden_sample_2": before["golden_sample_2"]}


def test_the_oldest_samples_make_room_but_never_those_of_served_versions() -> None:
    config = ModelConfig(name="tiny", parameters={"model_card": "the card"})
    big = "x" * (MAX_SAMPLES_BYTES // 3)
    for number in range(1, 7):
        config = with_sample(config, number, big, served=(2,))
    assert set(config.parameters) == {"model_card", "golden_sample_2", "golden_sample_5", "golden_sample_6"}


def test_room_is_made_in_the_file_too(repository: Path) -> None:
    model = model_named(repository, "tiny")
    text = (model.folder / "config.pbtxt").read_text()
    assert text_with_sample(text, model, 4, "small").startswith(text.rstrip())
    assert "golden_sample_1" not in text_with_sample(text, model, 4, "x" * (MAX_SAMPLES_BYTES - 100))


@pytest.mark.parametrize("of", [1, 2])
def test_a_sample_that_was_changed_or_is_anothers_is_refused(repository: Path, of: int) -> None:
    model = model_named(repository, "tiny")
    samples = samples_in(model.config)
    text = samples["golden_sample_2"] if of == 1 else samples["golden_sample_1"].replace('"tolerance":0.0001', '"tolerance":0.5')
    replace_config(model, replace(model.config, parameters={**model.config.parameters, "golden_sample_1": text}))
    with pytest.raises(
        RepositoryError, match=r'^parameters\["golden_sample_1"\] in config.pbtxt of model tiny in .*: no valid golden sample: '
    ):
        check_shared(model_named(repository, "tiny"))


def test_a_sample_with_another_answer_than_the_versions_golden_images_is_refused(repository: Path, tmp_path: Path) -> None:
    """Sealed anew by who knows how: the version's own index, which its report holds, tells otherwise."""
    other = tmp_path / "other"
    publish_sampled(other, seed=9)
    model = model_named(repository, "tiny")
    sealed = samples_in(model_named(other, "tiny").config)["golden_sample_1"]
    replace_config(model, replace(model.config, parameters={**model.config.parameters, "golden_sample_1": sealed}))
    with pytest.raises(RepositoryError) as refusal:
        check_shared(model_named(repository, "tiny"))
    assert str(refusal.value) == (
        f'parameters["golden_sample_1"] in config.pbtxt of model tiny in {repository} is none of the golden images of version 1, or has '
        "another answer than they. Restore the file that was published"
    )


def test_a_sample_of_a_version_that_is_gone_is_nothing_wrong(repository: Path) -> None:
    shutil.rmtree(repository / "tiny" / "3")
    check_shared(model_named(repository, "tiny"))
