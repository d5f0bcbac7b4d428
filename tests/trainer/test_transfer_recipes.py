"""The recipes that build on a pre-trained network: what they answer, that they export, and what training may change of the trunk."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch

from sightline.card import ModelCard
from sightline.cli import run as sightline
from sightline_export.graph.torch_to_onnx import export_onnx
from sightline_training.datasets.imagenet_labels import CATS, DOGS, LABELS
from sightline_training.networks.backbones import Backbone, feature_count, preprocess_of, trunk_of
from sightline_training.networks.transfer import Headed, PooledBlocks, Transferred, learning
from sightline_training.networks.weights import load_weights, weights_from
from sightline_training.networks.wrappers import Answering, Network, probabilities_of
from sightline_training.recipe import Recipe
from sightline_training.recipes.bo import BO
from sightline_training.recipes.doggy_door import DOGGY_DOOR, GROUPS, Summed
from sightline_training.recipes.fruit import FRUIT
from sightline_training.recipes.imagenet import IMAGENET, PREPROCESS
from sightline_training.run.report import Accuracy
from sightline_training.run.run import load_run
from support.photos import photo, save
from support.present import present

TRANSFERS = (IMAGENET, DOGGY_DOOR, BO, FRUIT)
SMALL = Backbone("shufflenet_v2_x0_5")
"""With batch normalisation, a third of a million weights in its trunk, and features of a usual size from random weights."""


def _by_name(recipe: Recipe) -> str:
    return recipe.name


def _answering(recipe: Recipe, card: ModelCard) -> Answering:
    body = recipe.build(card, SMALL)
    load_weights(body, weights_from(SMALL.name, "random"))
    return Answering(Network(card, body)).eval()


def _small(recipe: Recipe) -> ModelCard:
    return recipe.with_card(preprocess=recipe.card.preprocess.model_copy(update={"size": (64, 64)})).card


@pytest.mark.parametrize("recipe", TRANSFERS, ids=_by_name)
def test_vgg16_is_the_backbone_unless_another_is_named(recipe: Recipe) -> None:
    assert recipe.backbone == "vgg16"
    assert recipe.network is None


def test_the_cards_see_as_vgg16s_weights_do_but_for_how_fruit_fills_the_frame() -> None:
    assert preprocess_of(Backbone("vgg16")) == PREPROCESS
    for recipe in (IMAGENET, DOGGY_DOOR, BO):
        assert recipe.card.preprocess == PREPROCESS
    assert FRUIT.card.preprocess == PREPROCESS.model_copy(update={"fit": "stretch", "crop_fraction": 1.0})


@pytest.mark.parametrize("recipe", [DOGGY_DOOR, FRUIT], ids=_by_name)
def test_it_is_exported_with_a_free_batch_and_answers_the_same(recipe: Recipe) -> None:
    card = _small(recipe)
    network = _answering(recipe, card)
    session = onnxruntime.InferenceSession(export_onnx(network, card), providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).integers(0, 256, (7, *card.preprocess.shape), dtype=np.uint8)
    expected = probabilities_of(network, pixels)
    assert expected.shape == (7, len(card.labels))
    for count in (1, 2, 3, 7):
        (found,) = session.run([card.output], {card.input: pixels[:count]})
        assert np.abs(found - expected[:count]).max() < 1e-5


# ---- ImageNet's classes


def test_the_labels_are_those_of_torchvisions_weights() -> None:
    from torchvision.models import MobileNet_V2_Weights, VGG16_Weights

    for weights in (VGG16_Weights.IMAGENET1K_V1, *MobileNet_V2_Weights):
        assert weights.meta["categories"] == list(LABELS)
    assert IMAGENET.card.labels == LABELS
    assert len(set(LABELS)) == 1000


def test_cats_and_dogs_are_where_they_should_be() -> None:
    assert (LABELS[CATS[0]], LABELS[CATS[-1]], len(CATS)) == ("tabby", "Egyptian cat", 5)
    assert (LABELS[DOGS[0]], LABELS[DOGS[-1]], len(DOGS)) == ("Chihuahua", "Mexican hairless", 118)
    outside = {LABELS[index] for index in GROUPS["other"]}
    assert {"timber wolf", "dingo", "African hunting dog", "hyena", "red fox", "cougar", "lynx", "lion", "brown bear"} < outside
    assert sorted(index for members in GROUPS.values() for index in members) == list(range(1000))
    assert DOGGY_DOOR.card.labels == tuple(GROUPS) == ("cat", "dog", "other")


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 300.0])
def test_the_three_answers_are_exactly_the_sums_of_the_thousand(scale: float) -> None:
    logits = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0)) * scale
    thousand = torch.softmax(logits.double(), dim=1)
    sums = torch.stack([thousand[:, list(members)].sum(dim=1) for members in GROUPS.values()], dim=1)
    assert torch.allclose(torch.softmax(Summed()(logits), dim=1).double(), sums, atol=1e-6)


def test_the_sums_are_no_part_of_the_weights() -> None:
    assert not Summed().state_dict()


@pytest.mark.realdata
def test_the_door_knows_a_dog_a_bear_and_a_cat(data_folder: Path, tmp_path: Path) -> None:
    weights = data_folder / "weights" / "mobilenet_v2_imagenet.safetensors"
    arguments = ["--backbone", "mobilenet_v2", "--weights", str(weights), "--data", str(data_folder), "--run", str(tmp_path / "run")]
    sightline(["train", "doggy_door", *arguments])
    run = load_run(tmp_path / "run")
    answers = probabilities_of(run.network(), run.images("test", data_folder).pixels(run.card.preprocess))
    assert [run.card.labels[row.argmax()] for row in answers] == ["dog", "other", "cat"]
    assert answers[0, 1] > 0.9
    assert answers[1, 2] > 0.9


# ---- transfer


@pytest.mark.parametrize("recipe", [BO, FRUIT], ids=_by_name)
def test_the_head_learns_first_and_then_the_last_blocks_at_a_lower_rate(recipe: Recipe) -> None:
    first, second = recipe.stages
    assert first.trunk_share == 0
    assert 0 < second.trunk_share < 0.5
    assert second.learning_rate < first.learning_rate / 5
    for name in ("vgg16", "mobilenet_v2"):
        body = Headed(trunk_of(Backbone(name)), torch.nn.Linear(feature_count(Backbone(name)), 2))
        assert learning(body, first.trunk_share) == {"head.weight", "head.bias"}
        freed = learning(body, second.trunk_share)
        names = [layer_name for layer_name, _ in body.named_parameters()]
        assert len(learning(body, first.trunk_share)) < len(freed) < len(names)
        assert names[0] not in freed


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The course's folders of Bo with a few patches of colour each."""
    root = tmp_path_factory.mktemp("data")
    number = 0
    for split, kinds in (("train", {"bo": 4, "not_bo": 8}), ("valid", {"bo": 2, "not_bo": 3})):
        for kind, count in kinds.items():
            for _ in range(count):
                number += 1
                save(photo(number), root / "doggy_door" / "presidential_doggy_door" / split / kind / f"{number}.png")
    return root


def test_training_moves_only_what_may_learn(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "sightline_training.recipes.RECIPES", {"bo": replace(BO, stages=tuple(replace(stage, views=1) for stage in BO.stages))}
    )
    arguments = ["--backbone", SMALL.name, "--weights", "random", "--size", "64", "--epochs", "2", "--data", str(drawn), "--device", "cpu"]
    sightline(["train", "bo", *arguments, "--run", str(tmp_path / "run")])
    began = weights_from(SMALL.name, "random").state
    ended = safetensors.torch.load_file(tmp_path / "run" / "weights.safetensors")
    body = BO.build(BO.card, SMALL)
    assert isinstance(body, Transferred)
    freed = learning(body, BO.stages[-1].trunk_share)
    moved = {name for name in body.state_dict() if name.startswith("trunk.") and not torch.equal(ended[f"body.{name}"], began[name[6:]])}
    # Batch normalisation's statistics are buffers, and never learn.
    assert moved == {name for name in freed if name.startswith("trunk.")}
    # The plain images of both splits have one key, the augmented view another.
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 2


def test_a_run_can_learn_from_every_block_and_another_can_be_built_on_its_trunk(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    name = "mobilenet_v3_small"
    arguments = ["--size", "64", "--epochs", "1", "--data", str(drawn), "--device", "cpu", "--backbone", name, "--every-block"]
    sightline(["train", "bo", *arguments, "--weights", "random", "--run", str(tmp_path / "run")])
    run = load_run(tmp_path / "run")
    assert present(run.report.backbone).part == "blocks"
    network = run.network().network
    assert isinstance(network, torch.nn.Module)
    body = network.body
    assert isinstance(body, Transferred)
    assert isinstance(body.trunk, PooledBlocks)
    assert body.head.in_features == feature_count(Backbone(name, "blocks"))
    sightline(["train", "bo", *arguments, "--weights", str(tmp_path / "run"), "--run", str(tmp_path / "next")])
    onwards = load_run(tmp_path / "next").report
    assert present(onwards.backbone).source == "run of bo"
    assert (run.report.target.accuracy, onwards.target.accuracy) == (1.0, None), "only ImageNet's weights promise that"


def _accuracy(data_folder: Path, recipe: str, folder: Path) -> Mapping[str, Accuracy | None]:
    weights = data_folder / "weights" / "mobilenet_v2_imagenet.safetensors"
    arguments = ["--backbone", "mobilenet_v2", "--weights", str(weights), "--data", str(data_folder), "--run", str(folder)]
    sightline(["train", recipe, *arguments])
    return load_run(folder).report.accuracy


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.timeout(1800)
def test_every_validation_photo_of_bo_is_right(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    valid = present(_accuracy(data_folder, "bo", tmp_path / "run")["valid"])
    assert (valid.n, valid.correct) == (26, 26)


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.timeout(3600)
def test_fruit_reaches_its_target_also_without_near_duplicates(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    accuracy = _accuracy(data_folder, "fruit", tmp_path / "run")
    assert present(accuracy["valid"]).n == 233
    assert present(accuracy["valid"]).accuracy >= 0.985
    assert present(accuracy["without_near_duplicates"]).accuracy >= 0.985
