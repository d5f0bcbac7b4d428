"""A model that was exported on a machine with other cores is served with instances and threads that fit this one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from sightline import Classifier
from sightline.cli import run as sightline
from sightline.host.cpu import usable_cores
from sightline.repository.card_config import config_for
from sightline.repository.edit import change_instances, replace_config
from sightline.repository.golden import golden_files
from sightline.repository.instances import InstanceChanges, InstanceSettings, instances_of, warm_up_sizes
from sightline.repository.publish import publish
from sightline.repository.read import PublishedModel, model_named
from sightline.repository.report import RunReport, ShapeReport, VersionReport
from sightline.repository.shape import choose
from sightline.transport import connect
from sightline_serving.selection.fitting_cores import fit_to_cores, fitted_to, sentence
from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS
from support.cards import tiny_card
from support.tiny_models import About, tiny_onnx

CNN_FLOP = 30_000_000


def exported_on(repository: Path, cores: int, *, name: str = "tiny", figures: bool = True) -> PublishedModel:
    """Publish a tiny model as a machine with so many cores would have, by the figures of a small convolutional network."""
    card = tiny_card(name)
    model = tiny_onnx(card).SerializeToString()
    shape = ShapeReport(cores=cores, runs=(RunReport(images=1, images_per_s=3700), RunReport(images=4, images_per_s=4700)))
    settings = choose(shape, len(model), CNN_FLOP)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    images = [Image.fromarray(pixels) for pixels in np.random.default_rng(7).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)]
    golden = golden_files(
        card, images.__getitem__, np.arange(4), lambda pixels: np.asarray(session.run(None, {card.input: pixels})[0]), 1e-4
    )
    report = VersionReport(model_bytes=len(model), flop_per_image=CNN_FLOP, shape=shape if figures else None)
    shared = {"warmup/golden": bytes(np.prod(card.preprocess.shape))}
    config = config_for(card, settings, warm_up_sizes(settings, card.max_batch_size))
    publish(repository, card, config, {"model.onnx": model, **golden}, report, shared=shared)
    return model_named(repository, name)


@pytest.mark.parametrize(
    ("cores", "served"),
    [(1, InstanceSettings(1, 1, 0, 4)), (2, InstanceSettings(2, 1, 0, 4, 0)), (64, InstanceSettings(4, 16, 0, 4, 0))],
)
def test_the_rule_is_asked_again_for_the_cores_of_this_machine(tmp_path: Path, cores: int, served: InstanceSettings) -> None:
    model = exported_on(tmp_path, 8)
    assert instances_of(model.config) == InstanceSettings(4, 2, 0, 4, 0)
    fitted = fitted_to(model, cores)
    assert fitted is not None
    assert fitted.settings == served
    assert fitted.exported_on == 8
    changed = [name for name in model.config.__dataclass_fields__ if getattr(fitted.config, name) != getattr(model.config, name)]
    assert set(changed) <= {"instance_groups", "parameters"}


def test_the_same_cores_change_nothing(tmp_path: Path) -> None:
    assert fitted_to(exported_on(tmp_path, 8), 8) is None


def test_other_cores_with_the_same_outcome_are_not_told(tmp_path: Path) -> None:
    model = exported_on(tmp_path, 8)
    assert fitted_to(model, 9) is None
    assert sentence(fit_to_cores({"tiny": model}, 9), 9) == ""


def test_a_later_version_without_figures_is_fitted_by_those_of_the_first(tmp_path: Path) -> None:
    exported_on(tmp_path, 8)
    fitted = fitted_to(exported_on(tmp_path, 8, figures=False), 2)
    assert fitted is not None
    assert fitted.settings == InstanceSettings(2, 1, 0, 4, 0)


def test_what_somebody_set_is_left_alone_even_where_it_is_what_export_chose(tmp_path: Path) -> None:
    exported_on(tmp_path, 8)
    change_instances(tmp_path, "tiny", InstanceChanges(instances=3))
    assert fitted_to(model_named(tmp_path, "tiny"), 2) is None
    change_instances(tmp_path, "tiny", InstanceChanges(instances=4))
    assert fitted_to(model_named(tmp_path, "tiny"), 2) is None


def test_what_was_edited_in_the_file_is_left_alone(tmp_path: Path) -> None:
    model = exported_on(tmp_path, 8)
    for edited in (
        replace(model.config, queue_delay_us=100),
        replace(model.config, instance_groups=(replace(model.config.instance_groups[0], kind="KIND_CPU"),)),
        replace(model.config, instance_groups=(replace(model.config.instance_groups[0], count=1),)),
    ):
        replace_config(model, edited)
        assert fitted_to(model_named(tmp_path, "tiny"), 2) is None


def test_models_that_say_nothing_of_it_are_left_alone(tmp_path: Path) -> None:
    assert fitted_to(exported_on(tmp_path, 8, figures=False), 2) is None
    (tmp_path / "tiny" / "1" / "report.json").unlink()
    assert fitted_to(model_named(tmp_path, "tiny"), 2) is None


def test_one_sentence_tells_of_all_models(tmp_path: Path) -> None:
    models = {name: exported_on(tmp_path, cores, name=name) for name, cores in (("one", 1), ("tiny", 8), ("two", 2))}
    assert sentence(fit_to_cores(models, 2), 2) == (
        "fitted to this machine's 2 cores: one, exported on 1 core, as 2 instances of 1 thread, delay 0 µs, 4 images a run, "
        "all threads for a lone request; tiny, exported on 8 cores, as 2 instances of 1 thread, delay 0 µs, 4 images a run, "
        "all threads for a lone request. config.pbtxt stays as it was published: "
        "`--no-fit-cores` serves by it, and `sightline tune` measures what is best here"
    )


@pytest.mark.triton
def test_triton_serves_what_fits_and_the_repository_stays_as_it_was_published(tmp_path: Path, about: About) -> None:
    """A report that says another number of cores stands for another machine."""
    here = usable_cores()
    there = 1 if here > 1 else 2
    repository = tmp_path / "models"
    model = exported_on(repository, there)
    published = {file: file.read_bytes() for file in repository.rglob("*") if file.is_file()}
    assert instances_of(model.config).instances == min(there, 4)
    served: dict[bool, tuple[int, str]] = {}
    for fit_cores in (True, False):
        with start_server(repository, replace(FREE_PORTS, fit_cores=fit_cores)) as server:
            with connect(server.grpc_url) as transport:
                config = transport.config("tiny")
            served[fit_cores] = (sum(group.count for group in config.instance_groups), config.parameters["intra_op_thread_count"])
            told = [notice for notice in server.notices if notice.startswith("fitted to this machine's ")]
            assert len(told) == fit_cores
            with Classifier("tiny", server.grpc_url, check=True) as classifier:
                assert classifier.probabilities_of_pixels(np.zeros((3, *model.card.preprocess.shape), np.uint8)).shape == (3, 4)
    wanted = choose(ShapeReport(cores=here, runs=model.versions[0].report.shape.runs), 1, CNN_FLOP)  # type: ignore[union-attr]
    assert served == {True: (wanted.instances, str(wanted.threads)), False: (min(there, 4), "1")}
    assert {file: file.read_bytes() for file in repository.rglob("*") if file.is_file()} == published
    sightline(["tune", "tiny", "--repository", str(repository), "--instances", "1"])
    with start_server(repository, FREE_PORTS) as server:
        assert not [notice for notice in server.notices if notice.startswith("fitted")]
