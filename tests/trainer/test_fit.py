"""Stages, early stopping and divergence, on a tiny network that trains in a second."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from sightline.errors import DataError, SightlineError
from sightline_training.loop.batches import Memory
from sightline_training.loop.fit import FitSettings, Watched, fit
from sightline_training.loop.history import kept_epoch
from sightline_training.loop.schedule import one_cycle
from sightline_training.networks.mlp import mlp
from sightline_training.networks.transfer import Headed
from sightline_training.networks.wrappers import Network
from sightline_training.recipe import Recipe, Stage
from sightline_training.recipes.mnist import CARD

STAGE = Stage(epochs=3, batch_size=32, learning_rate=1e-2, weight_decay=0.0, patience=10)


def _recipe(*stages: Stage) -> Recipe:
    return Recipe(
        name="tiny",
        card=CARD,
        network=lambda _: mlp(784, (8,), 10, input_dropout=0.0, dropout=0.0),
        data="digits",
        stages=stages,
        target_accuracy=0.5,
    )


def _headed(*stages: Stage) -> Recipe:
    """A trunk with one layer under a head."""

    def trunk() -> nn.Sequential:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU())

    return replace(_recipe(*stages), network=lambda _: Headed(trunk(), nn.Linear(16, 10)))


def _memory(seed: int, count: int = 128) -> Memory:
    """Ten bright stripes at ten places: easy to learn."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    pixels = draw.integers(0, 60, (count, 28, 28, 1), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[2 * label + 2 : 2 * label + 4] += 190
    return Memory(pixels, labels)


def _settings(folder: Path) -> FitSettings:
    return FitSettings(seed=0, device="cpu", checkpoints=folder)


def _fit(recipe: Recipe, folder: Path, valid: Memory | None = None, *, chooses: bool = True) -> tuple[Network, list[dict[str, float]]]:
    torch.manual_seed(0)
    network = Network(CARD, recipe.build(CARD, None))
    watched = Watched(valid or _memory(2), chooses=chooses)
    return network, fit(network, recipe, _memory(1), watched, _settings(folder))


def test_stages_follow_each_other_and_a_frozen_trunk_stays_as_it_is(tmp_path: Path) -> None:
    after_one, _ = _fit(_headed(STAGE), tmp_path / "one")
    network, history = _fit(_headed(STAGE, replace(STAGE, epochs=2, trunk_share=0.0)), tmp_path / "two")
    assert [(epoch["stage"], epoch["epoch"]) for epoch in history] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
    before, after = after_one.state_dict(), network.state_dict()
    assert torch.equal(before["body.trunk.1.weight"], after["body.trunk.1.weight"])
    assert not torch.equal(before["body.head.weight"], after["body.head.weight"])


def test_a_frozen_trunk_is_asked_once_and_the_head_learns_from_every_view(tmp_path: Path) -> None:
    recipe = _headed(replace(STAGE, trunk_share=0.0, views=2, epochs=6))
    torch.manual_seed(0)
    network = Network(CARD, recipe.build(CARD, None))
    requested: list[tuple[str, int]] = []
    memories = {"train": _memory(1), "watched": _memory(2)}

    def features_of(of: str, view: int) -> npt.NDArray[np.float32]:
        requested.append((of, view))
        with torch.inference_mode():
            assert isinstance(network.body, Headed)
            answers: npt.NDArray[np.float32] = network.body.trunk(network.normalise(memories[of].inputs)).numpy()
            return answers

    history = fit(
        network,
        recipe,
        memories["train"],
        Watched(memories["watched"], chooses=False),
        _settings(tmp_path),
        features_of,
    )
    assert requested == [("train", 0), ("train", 1), ("train", 2), ("watched", 0)]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    checkpoint = torch.load(tmp_path / "stage-1" / "last.ckpt", weights_only=True)
    assert {name for name in checkpoint["state_dict"] if "learner" in name} == {"learner.weight", "learner.bias"}, "not the trunk"
    with torch.inference_mode():
        answers = network(memories["watched"].inputs).argmax(dim=1)
    assert (answers == memories["watched"].labels).float().mean() == pytest.approx(history[-1]["watched_accuracy"])


def test_images_that_are_reported_choose_nothing_and_the_last_epoch_is_kept(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    noise = Memory(draw.integers(0, 256, (64, 28, 28, 1), dtype=np.uint8), np.arange(64) % 10)
    network, history = _fit(_recipe(replace(STAGE, epochs=12, patience=1)), tmp_path, noise, chooses=False)
    assert len(history) == 12
    assert kept_epoch(history, chooses=False) is history[-1]
    with torch.inference_mode():
        answers = network.eval()(noise.inputs).argmax(dim=1)
    assert (answers == noise.labels).float().mean() == pytest.approx(history[-1]["watched_accuracy"])


def test_finished_stages_are_not_trained_again(tmp_path: Path) -> None:
    recipe = _recipe(STAGE, replace(STAGE, epochs=2))
    network, history = _fit(recipe, tmp_path)
    again, same = _fit(recipe, tmp_path)
    # Seconds are in it: had an epoch run again, they would differ.
    assert same == history
    assert all(torch.equal(first, second) for first, second in zip(network.state_dict().values(), again.state_dict().values(), strict=True))


def test_damaged_best_weights_are_named_with_the_way_out(tmp_path: Path) -> None:
    _fit(_recipe(STAGE), tmp_path)
    best = tmp_path / "stage-1" / "kept.safetensors"
    best.write_bytes(best.read_bytes()[:100])
    with pytest.raises(DataError) as refused:
        _fit(_recipe(STAGE), tmp_path)
    assert str(refused.value).startswith(f"{best}: damaged checkpoint (")
    assert str(refused.value).endswith("Begin anew.")


def test_training_stops_when_validation_gets_no_better_and_keeps_the_best(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    noise = Memory(draw.integers(0, 256, (64, 28, 28, 1), dtype=np.uint8), np.arange(64) % 10)
    _, history = _fit(_recipe(replace(STAGE, epochs=200, patience=4)), tmp_path, noise)
    assert len(history) < 200
    assert history[-1]["epoch"] - kept_epoch(history, chooses=True)["epoch"] == 4
    assert kept_epoch(history, chooses=True)["watched_accuracy"] == max(epoch["watched_accuracy"] for epoch in history)
    # Killed after its last epoch, a stage that has stopped stays stopped.
    _, again = _fit(_recipe(replace(STAGE, epochs=200, patience=4)), tmp_path, noise)
    assert again == history


@pytest.mark.parametrize("steps", [1, 2, 5, 1000])
def test_the_learning_rate_rises_to_its_peak_and_falls_to_nearly_nothing_whatever_the_number_of_steps(steps: int) -> None:
    rates = [one_cycle(step, steps) for step in range(steps)]
    peak = int(np.argmax(rates))
    assert rates[0] == pytest.approx(0.04)
    assert all(earlier < later for earlier, later in pairwise(rates[: peak + 1]))
    assert all(earlier > later for earlier, later in pairwise(rates[peak:]))
    if steps >= 5:
        assert rates[peak] > 0.99
        assert peak == round(0.2 * steps)
    assert rates[-1] < (0.00001 if steps == 1000 else 1)


def test_a_diverging_training_is_an_error_and_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(SightlineError, match=r"training diverged: after epoch 1 the loss on held-out images is (nan|inf)\. Lower"):
        _fit(_recipe(replace(STAGE, learning_rate=1e30)), tmp_path)
