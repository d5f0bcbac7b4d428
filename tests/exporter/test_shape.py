"""What is measured of a model's speed before it is published."""

import numpy as np
import pytest

from sightline.repository.report import ShapeReport
from sightline.repository.shape import choose
from sightline_export.gate.shape import LARGEST_RUN, measure
from support.cards import tiny_card
from support.tiny_models import tiny_onnx


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (6, [1, 2, 4, 6]), (256, [1, 2, 4, 8, 16, 32, LARGEST_RUN])])
def test_a_real_model_is_measured_in_runs_up_to_its_largest_batch(most: int, sizes: list[int]) -> None:
    card = tiny_card(max_batch_size=most)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *card.preprocess.shape), dtype=np.uint8)
    figures = measure(tiny_onnx(card).SerializeToString(), card, pixels, cores=2)
    assert [run.images for run in figures.runs] == sizes
    assert all(run.images_per_s > 0 for run in figures.runs)
    assert figures.cores == 2
    chosen = choose(figures, 1000, 1_335_296)
    assert chosen.largest_run in sizes
    assert ShapeReport.model_validate_json(figures.model_dump_json()) == figures
