"""What is chosen by the figures of one core: instances, threads, batching, and how many images one run has."""

import pytest

from sightline.repository.instances import InstanceSettings
from sightline.repository.report import RunReport, ShapeReport
from sightline.repository.shape import HEAVY_BYTES, choose

MLP_FLOP, CNN_FLOP, VGG_FLOP = 1_335_296, 30_000_000, 31_000_000_000


def shape(runs: dict[int, float], cores: int = 2) -> ShapeReport:
    return ShapeReport(cores=cores, runs=tuple(RunReport(images=size, images_per_s=rate) for size, rate in runs.items()))


@pytest.mark.parametrize(
    ("figures", "flop", "settings"),
    [
        # An MLP gains from batches, and one instance computes more than a server hands over.
        (shape({1: 30_000, 8: 90_000, 64: 150_000}), MLP_FLOP, InstanceSettings(1, 1, 0, 64)),
        # A small convolutional network hardly gains from batches.
        (shape({1: 3700, 4: 4700, 64: 4900}), CNN_FLOP, InstanceSettings(2, 1, 0, 4, 0)),
        # A larger one loses by batches: each request is answered alone.
        (shape({1: 128, 2: 120, 32: 97}), 600_000_000, InstanceSettings(2, 1, None, 1, 0)),
        (shape({1: 5.0}), VGG_FLOP, InstanceSettings(1, 0, None, 1)),
        (shape({1: 5.0}, cores=1), VGG_FLOP, InstanceSettings(1, 1, None, 1)),
        (shape({1: 100, 8: 120}, cores=64), CNN_FLOP, InstanceSettings(4, 16, 0, 8, 0)),
    ],
)
def test_the_settings_follow_from_the_figures(figures: ShapeReport, flop: int, settings: InstanceSettings) -> None:
    assert choose(figures, 1_000_000, flop) == settings


def test_a_heavy_model_is_loaded_once() -> None:
    assert choose(shape({1: 5.0}), HEAVY_BYTES, CNN_FLOP) == InstanceSettings(1, 0, None, 1)
