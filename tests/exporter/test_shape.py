"""What is measured of a model's speed, and what is chosen by it: instances, threads, and how many images one run has."""

import numpy as np
import pytest

from sightline.repository.instances import InstanceSettings
from sightline.repository.report import RunReport, ShapeReport
from sightline_export.gate.shape import HEAVY_BYTES, LARGEST_RUN, choose, measure
from support.cards import tiny_card
from support.tiny_models import tiny_onnx

MLP_FLOP, CNN_FLOP, VGG_FLOP = 1_335_296, 30_000_000, 31_000_000_000


def shape(runs: dict[int, float], cores: int = 2) -> ShapeReport:
    return ShapeReport(cores=cores, runs=tuple(RunReport(images=size, images_per_s=rate) for size, rate in runs.items()))


@pytest.mark.parametrize(
    ("figures", "flop", "settings"),
    [
        # An MLP gains from batches, and one instance computes more than a server hands over.
        (shape({1: 30_000, 8: 90_000, 64: 150_000}), MLP_FLOP, InstanceSettings(1, 1, 0, 64)),
        # A small convolutional network hardly gains from batches.
        (shape({1: 3700, 4: 4700, 64: 4900}), CNN_FLOP, InstanceSettings(2, 1, 0, 4)),
        # A larger one loses by batches: each request is answered alone.
        (shape({1: 128, 2: 120, 32: 97}), 600_000_000, InstanceSettings(2, 1, None, 1)),
        (shape({1: 5.0}), VGG_FLOP, InstanceSettings(1, 0, None, 1)),
        (shape({1: 5.0}, cores=1), VGG_FLOP, InstanceSettings(1, 1, None, 1)),
        (shape({1: 100, 8: 120}, cores=64), CNN_FLOP, InstanceSettings(4, 16, 0, 8)),
    ],
)
def test_the_settings_follow_from_the_figures(figures: ShapeReport, flop: int, settings: InstanceSettings) -> None:
    assert choose(figures, 1_000_000, flop) == settings


def test_a_heavy_model_is_loaded_once() -> None:
    assert choose(shape({1: 5.0}), HEAVY_BYTES, CNN_FLOP) == InstanceSettings(1, 0, None, 1)


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (6, [1, 2, 4, 6]), (256, [1, 2, 4, 8, 16, 32, LARGEST_RUN])])
def test_a_real_model_is_measured_in_runs_up_to_its_largest_batch(most: int, sizes: list[int]) -> None:
    card = tiny_card(max_batch_size=most)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *card.preprocess.shape), dtype=np.uint8)
    figures = measure(tiny_onnx(card).SerializeToString(), card, pixels, cores=2)
    assert [run.images for run in figures.runs] == sizes
    assert all(run.images_per_s > 0 for run in figures.runs)
    assert figures.cores == 2
    chosen = choose(figures, 1000, MLP_FLOP)
    assert chosen.largest_run in sizes
    assert ShapeReport.model_validate_json(figures.model_dump_json()) == figures
