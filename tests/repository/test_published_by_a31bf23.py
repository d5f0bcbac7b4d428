"""What version a31bf23 published is read, served, rolled back and extended by today's code, which writes the same files."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from sightline import Classifier
from sightline.cli import run as sightline
from sightline.in_triton import ENCODED
from sightline.repository.card_config import ARENA
from sightline.repository.config import ModelConfig, VersionPolicy
from sightline.repository.config_text import config_text, differing_settings, parse_config
from sightline.repository.edit import set_policy
from sightline.repository.golden import GoldenIndex, GoldenSet, read_golden
from sightline.repository.hashes import file_sha256
from sightline.repository.history import rollback, serve_newest, version_summaries
from sightline.repository.instances import instances_of, with_instances
from sightline.repository.integrity import check_shared
from sightline.repository.read import PublishedModel, check_files, model_named, read_folder
from sightline.repository.report import json_text, report_text
from sightline.repository.samples import samples_in
from sightline.transport import connect
from sightline_export.settings import ExportSettings
from sightline_export.sources.run import export_run
from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS
from sightline_training.networks.mlp import mlp
from sightline_training.recipe import Recipe, Stage
from sightline_training.recipes import RECIPES
from sightline_training.run.run import load_run

PUBLISHED = Path(__file__).resolve().parents[1] / "published_by_a31bf23"
VERSIONS = (1, 2)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the repository, with the modes that it was published with: Git keeps none."""
    copy = tmp_path / "models"
    shutil.copytree(PUBLISHED / "models", copy)
    for version in copy.glob("*/[0-9]*"):
        for file in version.rglob("*"):
            if file.is_file():
                file.chmod(0o444)
    return copy


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, and the recipe that it was trained by: no recipe of ours makes so small a network."""
    copy = tmp_path / "run"
    shutil.copytree(PUBLISHED / "run", copy)
    recipe = Recipe(
        name="tiny",
        card=model_named(PUBLISHED / "models", "tiny").card,
        network=lambda _card: mlp(64, (24,), 10, input_dropout=0.0, dropout=0.0),
        data="digits",
        stages=(Stage(epochs=12, batch_size=64, learning_rate=1e-2, weight_decay=1e-2, patience=12),),
        target_accuracy=None,
    )
    monkeypatch.setattr("sightline_training.run.run.RECIPES", {**RECIPES, "tiny": recipe})
    return copy


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def golden_of(model: PublishedModel, number: int) -> GoldenSet:
    return read_golden(model.version(number), model.card)


def in_process(model: PublishedModel, number: int, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """ONNX Runtime's answers here, an image at a time, as a client without a batch asks."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.version(number).folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["probabilities"], {"pixels": image[None]})[0] for image in pixels])


def skeleton(value: object) -> object:
    """The keys of a JSON document, in their order, without what stands under them."""
    if isinstance(value, Mapping):
        return [(key, skeleton(item)) for key, item in value.items()]
    return [skeleton(item) for item in value] if isinstance(value, list) else type(value).__name__


def test_both_versions_are_read_whole_and_their_hashes_hold(repository: Path) -> None:
    model = model_named(repository, "tiny")
    assert model.numbers == VERSIONS
    assert model.served == (2,)
    assert [version.report.precision for version in model.versions] == ["fp32", "int8"]
    for version in model.versions:
        check_files(version)
        gate = version.report.gate
        assert gate is not None
        assert gate.passed
        assert gate.images == 100
        assert all(check.passed for check in gate.checks)
    conversion = model.version(2).report.conversion
    assert conversion is not None
    assert conversion.from_sha256 == model.version(1).report.files["model.onnx"]
    for name in ("tiny_image", "tiny_reformat"):
        (version,) = read_folder(repository / name).versions
        check_files(version)


def test_versions_lists_both(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summaries = version_summaries(repository, "tiny")
    assert [(summary.version, summary.precision, summary.served, summary.damage) for summary in summaries] == [
        (1, "fp32", False, ""),
        (2, "int8", True, ""),
    ]
    sightline(["versions", "tiny", "--repository", str(repository)])
    assert [row.split()[0] for row in capsys.readouterr().out.splitlines()[1:]] == ["1", "2"]


def test_documents_are_written_as_they_were(repository: Path) -> None:
    """Key order, indentation and figures of reports, golden indices and configurations."""
    model = model_named(repository, "tiny")
    for version in model.versions:
        assert report_text(version.report) == (version.folder / "report.json").read_text(encoding="utf-8")
        index = (version.folder / "golden" / "golden.json").read_text(encoding="utf-8")
        assert json_text(GoldenIndex.model_validate_json(index).model_dump(mode="json", by_alias=True)) == index
    for name in ("tiny", "tiny_image", "tiny_reformat"):
        folder = read_folder(repository / name)
        assert config_text(folder.config) == (folder.folder / "config.pbtxt").read_text(encoding="utf-8")


def without_samples(repository: Path) -> dict[str, str]:
    """Take the golden samples out of the configuration, which that program did not write; return them."""
    model = model_named(repository, "tiny")
    samples = samples_in(model.config)
    parameters = {key: value for key, value in model.config.parameters.items() if key not in samples}
    (repository / "tiny" / "config.pbtxt").write_text(config_text(replace(model.config, parameters=parameters)), encoding="utf-8")
    return samples


def test_rollback_and_the_way_forward_change_the_configuration_alone(repository: Path) -> None:
    before = contents(repository)
    assert rollback(repository, "tiny") == 1
    assert model_named(repository, "tiny").served == (1,)
    assert serve_newest(repository, "tiny") == 2
    assert set(without_samples(repository)) == {"golden_sample_1", "golden_sample_2"}
    check_shared(model_named(repository, "tiny"))
    assert {name: content for name, content in contents(repository).items() if not name.startswith(".")} == before


@pytest.mark.triton
def test_triton_serves_both_versions_with_the_golden_answers_bit_equal_to_onnx_runtime(repository: Path) -> None:
    set_policy(model_named(repository, "tiny"), VersionPolicy("all"))
    model = model_named(repository, "tiny")
    encoded = [file.read_bytes() for file in sorted((repository / "tiny" / "2" / "golden").glob("*.png"))]
    with start_server(repository, FREE_PORTS) as server:
        assert {served.name: served.versions for served in server.models} == {
            "tiny": VERSIONS,
            "tiny_image": (1,),
            "tiny_reformat": (1,),
        }
        for url in (server.grpc_url, server.http_url):
            for number in VERSIONS:
                golden = golden_of(model, number)
                with Classifier("tiny", url, version=str(number)) as tiny:
                    assert tiny.card == model.card
                    answers = np.concatenate([tiny.probabilities_of_pixels(image[None]) for image in golden.pixels])
                np.testing.assert_array_equal(answers, in_process(model, number, golden.pixels))
                assert np.abs(answers - golden.probabilities).max() <= golden.tolerance
            with connect(url) as transport:
                by_image = [transport.infer_encoded("tiny_image", "", ENCODED, [image], "probabilities").values for image in encoded]
            np.testing.assert_array_equal(np.concatenate(by_image), in_process(model, 2, golden_of(model, 2).pixels))


def test_a_third_version_is_published_on_top_and_what_is_there_stays(repository: Path, run: Path) -> None:
    before = contents(repository)
    (exported,) = export_run(run, repository, ExportSettings(again=True, images=100))
    assert exported.published.number == 3
    assert set(without_samples(repository)) == {"golden_sample_3"}
    after = contents(repository)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[1] for name in set(after) - set(before) - {".sightline.lock"}} == {"3"}
    check_files(model_named(repository, "tiny").version(3))


def test_the_run_is_read_and_exported_anew_to_the_same_files(run: Path, tmp_path: Path) -> None:
    assert load_run(run).weights_sha256 == hashlib.sha256((run / "weights.safetensors").read_bytes()).hexdigest()
    export_run(run, tmp_path / "models", ExportSettings(images=100))
    assert set(without_samples(tmp_path / "models")) == {"golden_sample_1"}
    then, now = contents(PUBLISHED / "models"), contents(tmp_path / "models")
    own_bytes = {
        "tiny/1/report.json",
        "tiny/1/golden/golden.json",
        "tiny/1/model.onnx",
        "tiny/config.pbtxt",
        "tiny_image/1/report.json",
        "tiny_reformat/1/report.json",
        "tiny_reformat/warmup/JPEG",
        "tiny_reformat/warmup/PNG",
    }
    names = {name for name in then if not name.startswith("tiny/2/")}
    assert names <= set(now)
    assert {name for name in names - own_bytes if now[name] != then[name]} == set()
    # How it is spread over a machine is measured on each.
    config_then, config_now = (parse_config(files["tiny/config.pbtxt"].decode(), "test") for files in (then, now))
    alike = replace(with_instances(config_now, instances_of(config_then)), warm_ups=config_then.warm_ups)
    # Since then it also says that ONNX Runtime keeps no arena.
    alike = replace(alike, parameters={name: value for name, value in alike.parameters.items() if name != ARENA})
    assert differing_settings(config_then, alike) == []
    old, new = (json.loads(files["tiny/1/report.json"]) for files in (then, now))
    assert set(new.pop("shared")) == {
        "card.json",
        "labels.txt",
        *(name.removeprefix("tiny/") for name in now if name.startswith("tiny/warmup/")),
    }
    assert len(new.pop("sha256")) == 64
    assert new.pop("preprocess_origin", None) is None
    assert set(new.pop("shape")) == {"cores", "runs"}
    assert set(new["gate"].pop("accuracy")) == {"n", "correct", "interval_95"}
    assert skeleton(new) == skeleton(old)
    for key in ("schema", "model", "version", "precision", "opset", "card_sha256", "provenance", "parameters", "flop_per_picture"):
        assert new[key] == old[key]
    old_golden, new_golden = (json.loads(files["tiny/1/golden/golden.json"]) for files in (then, now))
    for before, after in zip(old_golden["pictures"], new_golden["pictures"], strict=True):
        assert np.abs(np.subtract(before.pop("probabilities"), after.pop("probabilities"))).max() < 1e-6
    assert {**new_golden, "tolerance": 0} == {**old_golden, "tolerance": 0}
    if new["tools"] == old["tools"]:
        assert now["tiny/1/model.onnx"] == then["tiny/1/model.onnx"]


@pytest.mark.triton
def test_a_start_of_the_server_parses_each_configuration_and_hashes_each_file_once(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_policy(model_named(repository, "tiny"), VersionPolicy("all"))
    hashed: list[Path] = []
    parsed: list[str] = []

    def hash_and_note(file: Path) -> str:
        hashed.append(file)
        return file_sha256(file)

    def parse_and_note(text: str, where: str) -> ModelConfig:
        parsed.append(where)
        return parse_config(text, where)

    monkeypatch.setattr("sightline.repository.hashes.file_sha256", hash_and_note)
    monkeypatch.setattr("sightline.repository.read.parse_config", parse_and_note)
    with start_server(repository, FREE_PORTS) as server:
        assert {model.name: model.versions for model in server.models} == {"tiny": VERSIONS, "tiny_image": (1,), "tiny_reformat": (1,)}
    assert sorted(where.split()[3] for where in parsed) == ["tiny", "tiny_image", "tiny_reformat"]
    published = {
        folder.folder / str(version.number) / name
        for folder in map(read_folder, sorted(repository.glob("tiny*")))
        for version in folder.versions
        for name in version.report.files
    }
    assert len(hashed) == len(set(hashed))
    assert set(hashed) == published
