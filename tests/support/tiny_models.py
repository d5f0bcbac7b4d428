"""Tiny models, published as the exporter publishes them."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import psutil
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tritonclient.grpc import model_config_pb2 as pb

from sightline.card import CARD_KEY, ModelCard, seal
from sightline.repository.card_config import config_for
from sightline.repository.golden import golden_files
from sightline.repository.instances import InstanceSettings
from sightline.repository.publish import publish as publish_version
from sightline.repository.report import VersionReport
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS
from support.cards import tiny_card

Publish = Callable[..., Path]
InProcess = Callable[[Path, npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""The model's file and pixels → probabilities."""
About = Callable[[Path], list[psutil.Process]]
Served = tuple[Server, Path]
"""A running server, and its repository."""


def tiny_onnx(card: ModelCard, *, seed: int = 0, hidden: int = 16, batch: str | int = "N") -> onnx.ModelProto:
    """A network of the published models' shape: uint8 NHWC in, normalised inside, probabilities out."""
    height, width, channels = card.preprocess.shape
    pixels, classes = height * width * channels, len(card.labels)
    random = np.random.default_rng(seed)
    weights = {
        "scale": np.float32(255),
        "mean": np.array(card.preprocess.mean, np.float32),
        "std": np.array(card.preprocess.std, np.float32),
        "flat": np.array([-1, pixels], np.int64),
        "first": random.normal(0, pixels**-0.5, (pixels, hidden)).astype(np.float32),
        "second": random.normal(0, 1, (hidden, classes)).astype(np.float32),
    }
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Cast", [card.input], "cast", {"to": TensorProto.FLOAT}),
        ("Div", ["cast", "scale"], "unit", {}),
        ("Sub", ["unit", "mean"], "centred", {}),
        ("Div", ["centred", "std"], "normal", {}),
        ("Reshape", ["normal", "flat"], "rows", {}),
        ("MatMul", ["rows", "first"], "hidden", {}),
        ("Relu", ["hidden"], "active", {}),
        ("MatMul", ["active", "second"], "logits", {}),
        ("Softmax", ["logits"], card.output, {"axis": 1}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, taken, [tensor], **more) for kind, taken, tensor, more in steps],
        card.name,
        [helper.make_tensor_value_info(card.input, TensorProto.UINT8, [batch, height, width, channels])],
        [helper.make_tensor_value_info(card.output, TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def write_config(model: Path, card: ModelCard, *, instances: int = 1, parameters: Mapping[str, str] | None = None) -> pb.ModelConfig:
    """Write config.pbtxt and labels.txt as the exporter does; returns the message, to be changed and written again."""
    config = pb.ModelConfig(
        name=card.name,
        backend="onnxruntime",
        default_model_filename="model.onnx",
        max_batch_size=card.max_batch_size,
        input=[pb.ModelInput(name=card.input, data_type=pb.TYPE_UINT8, dims=card.preprocess.shape)],
        output=[pb.ModelOutput(name=card.output, data_type=pb.TYPE_FP32, dims=[len(card.labels)], label_filename="labels.txt")],
        instance_group=[pb.ModelInstanceGroup(kind=pb.ModelInstanceGroup.KIND_CPU, count=instances)],
        dynamic_batching=pb.ModelDynamicBatching(),
    )
    for key, value in {CARD_KEY: seal(card), **(parameters or {})}.items():
        config.parameters[key].string_value = value
    (model / "config.pbtxt").write_text(text_format.MessageToString(config, as_utf8=True), encoding="utf-8")
    (model / "labels.txt").write_text("".join(f"{label}\n" for label in card.labels), encoding="utf-8")
    return config


def publish_tiny(
    repository: Path, name: str = "tiny", *, version: int = 1, seed: int = 0, max_batch_size: int = 8, hidden: int = 16, **config: object
) -> Path:
    """Publish one version of a tiny model with its report; returns the version's folder."""
    card = tiny_card(name, max_batch_size=max_batch_size)
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    write_config(folder.parent, card, **config)  # type: ignore[arg-type]
    onnx.save(tiny_onnx(card, seed=seed, hidden=hidden), folder / "model.onnx")
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "report.json").write_text(
        json.dumps({"schema": 1, "model": name, "version": version, "files": {"model.onnx": digest}}), encoding="utf-8"
    )
    return folder


def processes_about(repository: Path) -> list[psutil.Process]:
    """Living processes that were started over `repository`: Triton and its workers carry its path in their arguments."""
    mismatches = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and str(repository) in " ".join(process.cmdline()):
                mismatches.append(process)
        except psutil.Error:
            continue
    return mismatches


@pytest.fixture
def publish() -> Publish:
    return publish_tiny


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model repository with one tiny model and the README that ours has."""
    folder = tmp_path / "models"
    publish_tiny(folder)
    (folder / "README.md").write_text("Models are published here.\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One running Triton for every test that only asks: (server, its repository). Two instances, so that workers run side by side."""
    folder = tmp_path_factory.mktemp("served") / "models"
    publish_tiny(folder, instances=2)
    publish_tiny(folder, "other", seed=1)
    with start_server(folder, FREE_PORTS) as server:
        yield server, folder


@pytest.fixture(scope="session")
def in_process() -> InProcess:
    """What ONNX Runtime answers here, in this process, with the file that Triton serves."""
    sessions: dict[Path, ort.InferenceSession] = {}

    def answer(file: Path, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if file not in sessions:
            sessions[file] = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
        return np.asarray(sessions[file].run(["probabilities"], {"pixels": pixels})[0])

    return answer


@pytest.fixture
def about() -> About:
    return processes_about


def publish_sampled(repository: Path, *, seed: int = 0, card: ModelCard | None = None, hidden: int = 16) -> Path:
    """Publish the next version of a tiny model as the exporter does, with golden images and the sample of them; returns its folder."""
    card = card or tiny_card()
    model = tiny_onnx(card, seed=seed, hidden=hidden).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    images = [Image.fromarray(pixels) for pixels in np.random.default_rng(7).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)]
    golden = golden_files(
        card,
        images.__getitem__,
        np.arange(4),
        lambda pixels: np.asarray(session.run([card.output], {card.input: pixels})[0]),
        1e-4,
    )
    config = config_for(card, InstanceSettings(1, 1))
    return publish_version(repository, card, config, {"model.onnx": model, **golden}, VersionReport()).folder


def swap_weights(version: Path, *, seed: int) -> None:
    """Put another network of the same shape in the place of a version's, behind everybody's back."""
    (version / "model.onnx").chmod(0o644)
    onnx.save(tiny_onnx(tiny_card(version.parent.name), seed=seed), version / "model.onnx")
