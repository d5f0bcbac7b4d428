"""Batches of a few fixed sizes, which a model on a GPU is asked at: what fills one up changes no answer, here with the CPU provider."""

import concurrent.futures
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import tritonclient.http
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.utils import InferenceServerException

from sightline.errors import MachineError, ServerStartError
from sightline.host.gpu import machine
from sightline_serving.backend.config_settings import default_batch_sizes, stated_batch_sizes
from sightline_serving.backend.fixed_batches import FixedBatch
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS
from support.tiny_models import InProcess, publish_tiny

Tensors = Mapping[str, tuple[int, list[str | int]]]
"""Names → ONNX's type and shape."""

UNREPORTED = replace(FREE_PORTS, allow_unreported=True)
PIXELS = {"pixels": (np.uint8, (6, 5, 3))}


def model_of(nodes: Sequence[onnx.NodeProto], inputs: Tensors, outputs: Tensors, **weights: npt.ArrayLike) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(name, *about) for name, about in inputs.items()],
        [helper.make_tensor_value_info(name, *about) for name, about in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def session_of(nodes: Sequence[onnx.NodeProto], inputs: Tensors, outputs: Tensors, **weights: npt.ArrayLike) -> ort.InferenceSession:
    return ort.InferenceSession(model_of(nodes, inputs, outputs, **weights).SerializeToString(), providers=["CPUExecutionProvider"])


def convolutions() -> ort.InferenceSession:
    """Pixels as the published models take them, a convolution, a mean over the image, probabilities."""
    node = helper.make_node
    random = np.random.default_rng(0)
    return session_of(
        [
            node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
            node("Transpose", ["cast"], ["planes"], perm=[0, 3, 1, 2]),
            node("Conv", ["planes", "kernels"], ["features"], pads=[1, 1, 1, 1]),
            node("GlobalAveragePool", ["features"], ["means"]),
            node("Flatten", ["means"], ["logits"]),
            node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        {"pixels": (TensorProto.UINT8, ["N", 6, 5, 3])},
        {"probabilities": (TensorProto.FLOAT, ["N", 4])},
        kernels=random.normal(0, 0.01, (4, 3, 3, 3)).astype(np.float32),
    )


def sums() -> ort.InferenceSession:
    """Two inputs of whole numbers and two outputs of them: nothing here rounds."""
    info: tuple[int, list[str | int]] = (TensorProto.INT32, ["N", 3])
    return session_of(
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])],
        {"a": info, "b": info},
        {"sum": info, "difference": info},
    )


def look_up_nodes(first: str = "pixel") -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [first], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["value"]),
    ]


PIXEL: Tensors = {"pixel": (TensorProto.UINT8, ["N", 1])}
VALUE: Tensors = {"value": (TensorProto.FLOAT, ["N", 1])}
TABLE = np.linspace(0, 1, 10, dtype=np.float32)


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_every_number_of_rows_gets_the_answers_that_it_gets_at_its_own_size(size: int) -> None:
    session, random = convolutions(), np.random.default_rng(size)
    batch = FixedBatch(session, size, PIXELS, ["probabilities"])
    for rows in [*range(1, size + 1), *range(size, 0, -1)]:
        pixels = random.integers(0, 256, (rows, 6, 5, 3), np.uint8)
        (answer,) = batch.run([{"pixels": pixels}])
        assert answer.shape == (rows, 4)
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, session.run(["probabilities"], {"pixels": pixels})[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("parts", [(1,), (5,), (8,), (3, 5), (1, 1, 1), (2, 4, 1), (1,) * 8])
def test_requests_are_joined_in_their_order_for_each_input_and_output(parts: tuple[int, ...]) -> None:
    session, random = sums(), np.random.default_rng(len(parts))
    batch = FixedBatch(session, 8, {"a": (np.int32, (3,)), "b": (np.int32, (3,))}, ["difference", "sum"])
    feeds = [{name: random.integers(-1000, 1000, (rows, 3)).astype(np.int32) for name in "ab"} for rows in parts]
    difference, total = batch.run(feeds)
    a, b = (np.concatenate([feed[name] for feed in feeds]) for name in "ab")
    np.testing.assert_array_equal(total, a + b, strict=True)
    np.testing.assert_array_equal(difference, a - b, strict=True)


def test_an_answer_stays_as_it_is_while_the_next_batch_is_answered() -> None:
    batch = FixedBatch(sums(), 4, {"a": (np.int32, (3,)), "b": (np.int32, (3,))}, ["sum"])
    ones, twos = (np.full((rows, 3), number, np.int32) for rows, number in ((4, 1), (3, 2)))
    (first,) = batch.run([{"a": ones, "b": ones}])
    (second,) = batch.run([{"a": twos, "b": twos}])
    assert (first.tolist(), second.tolist()) == ([[2] * 3] * 4, [[4] * 3] * 3)
    assert ones.tolist() == [[1] * 3] * 4


def test_an_array_that_lies_in_memory_in_another_order_is_read_as_it_is_indexed() -> None:
    batch = FixedBatch(sums(), 3, {"a": (np.int32, (3,)), "b": (np.int32, (3,))}, ["sum"])
    turned = np.arange(9, dtype=np.int32).reshape(3, 3).T
    assert batch.run([{"a": turned, "b": turned}])[0].tolist() == (2 * turned).tolist()


def test_what_fills_a_batch_up_is_never_what_an_earlier_one_failed_with() -> None:
    session = session_of(look_up_nodes(), PIXEL, VALUE, table=TABLE)
    batch = FixedBatch(session, 4, {"pixel": (np.uint8, (1,))}, ["value"])
    with pytest.raises(Exception, match="indices element out of data bounds, idx=200"):
        batch.run([{"pixel": np.array([[1], [2], [200]], np.uint8)}])
    assert batch.run([{"pixel": np.array([[9]], np.uint8)}])[0].tolist() == [[1.0]]


def test_a_model_that_answers_no_row_for_each_of_the_batch_is_refused() -> None:
    session = session_of(
        [helper.make_node("ReduceSum", ["pixel", "axes"], ["value"], keepdims=1)],
        {"pixel": (TensorProto.FLOAT, ["N", 1])},
        VALUE,
        axes=np.array([0], np.int64),
    )
    with pytest.raises(ValueError, match=re.escape("output value of a batch of 4 has the shape [1, 1]")):
        FixedBatch(session, 4, {"pixel": (np.float32, (1,))}, ["value"])


def config_of(largest: int, *dims: int, **parameters: str) -> dict[str, Any]:
    return {
        "max_batch_size": largest,
        "input": [{"dims": dims or [224, 224, 3]}],
        "output": [{"dims": [1000]}],
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (48, [1, 2, 4, 8, 16, 32, 48]), (64, [1, 2, 4, 8, 16, 32, 64]), (0, [])],
)
def test_the_sizes_are_powers_of_two_and_the_largest_batch(largest: int, sizes: list[int]) -> None:
    assert default_batch_sizes(config_of(largest)) == sizes


def test_a_model_of_any_width_has_no_sizes_to_plan() -> None:
    assert default_batch_sizes(config_of(8, 3, -1)) == []


@pytest.mark.parametrize(("stated", "sizes"), [("4", [4, 8]), ("8, 1,2", [1, 2, 8]), ("auto", [1, 2, 4, 8])])
def test_sizes_that_are_stated_are_ordered_and_hold_the_largest_batch(stated: str, sizes: list[int]) -> None:
    assert stated_batch_sizes(config_of(8, batch_sizes=stated)) == sizes
    assert stated_batch_sizes(config_of(8)) == []


REFUSED = {
    "all": "parameter batch_sizes in config.pbtxt is 'all': expected auto, or numbers with commas between them",
    "": "parameter batch_sizes in config.pbtxt is '': expected auto, or numbers with commas between them",
    "1;2": "parameter batch_sizes in config.pbtxt is '1;2': expected auto, or numbers with commas between them",
    "0,4": "parameter batch_sizes in config.pbtxt is '0,4': expected sizes from 1 to max_batch_size, which is 8",
    "-1": "parameter batch_sizes in config.pbtxt is '-1': expected sizes from 1 to max_batch_size, which is 8",
    "16": "parameter batch_sizes in config.pbtxt is '16': expected sizes from 1 to max_batch_size, which is 8",
}


@pytest.mark.parametrize("stated", REFUSED)
def test_sizes_that_make_no_sense_are_refused_in_a_sentence(stated: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(REFUSED[stated])}$"):
        stated_batch_sizes(config_of(8, batch_sizes=stated))


def test_sizes_for_a_model_of_any_width_are_refused_in_a_sentence() -> None:
    sentence = "parameter batch_sizes in config.pbtxt is '4', but some dims are -1: what has no fixed dims cannot be planned"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        stated_batch_sizes(config_of(8, 3, -1, batch_sizes="4"))


def publish_look_up(repository: Path, name: str, nodes: Sequence[onnx.NodeProto], **weights: npt.ArrayLike) -> None:
    """Requests wait half a second, so that they share a batch."""
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    onnx.save(model_of(nodes, PIXEL, VALUE, table=TABLE, **weights), folder / "model.onnx")
    config = pb.ModelConfig(
        name=name,
        backend="onnxruntime",
        max_batch_size=8,
        input=[pb.ModelInput(name="pixel", data_type=pb.TYPE_UINT8, dims=[1])],
        output=[pb.ModelOutput(name="value", data_type=pb.TYPE_FP32, dims=[1])],
        dynamic_batching=pb.ModelDynamicBatching(preferred_batch_size=[8], max_queue_delay_microseconds=500_000),
        instance_group=[pb.ModelInstanceGroup(kind=pb.ModelInstanceGroup.KIND_CPU, count=1)],
    )
    config.parameters["batch_sizes"].string_value = "3"
    (folder.parent / "config.pbtxt").write_text(text_format.MessageToString(config))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three models at fixed sizes, the last of which cannot be planned since it fails for a pixel of 0; and one as it always was."""
    repository = tmp_path_factory.mktemp("fixed") / "models"
    publish_tiny(repository, parameters={"batch_sizes": "1,3"})
    publish_tiny(repository, "free")
    publish_look_up(repository, "fragile", look_up_nodes())
    backwards = helper.make_node("Sub", ["ten", "pixel"], ["turned"])
    publish_look_up(repository, "backwards", [backwards, *look_up_nodes("turned")], ten=np.uint8(10))
    with start_server(repository, replace(UNREPORTED, log_file=repository.parent / "log")) as started:
        yield started


def ask(server: Server, model: str, tensors: Mapping[str, npt.NDArray[np.uint8]], output: str) -> npt.NDArray[Any]:
    with tritonclient.http.InferenceServerClient(server.http_url.removeprefix("http://")) as client:
        inputs = []
        for name, array in tensors.items():
            inputs.append(tritonclient.http.InferInput(name, array.shape, "UINT8"))
            inputs[-1].set_data_from_numpy(array)
        return np.asarray(client.infer(model, inputs).as_numpy(output))


def look_up(server: Server, model: str) -> Callable[[int], float | str]:
    def answer(pixel: int) -> float | str:
        try:
            return float(ask(server, model, {"pixel": np.array([[pixel]], np.uint8)}, "value")[0, 0])
        except InferenceServerException as error:
            return str(error.message())

    return answer


@pytest.mark.triton
def test_the_log_says_at_which_sizes_a_model_is_asked(server: Server) -> None:
    lines = re.findall(r'"(\w+: (?:asked in|a batch of).*)"$', server.log_file.read_text(encoding="utf-8"), re.MULTILINE)
    planned = [line for line in lines if " asked " in line]
    assert sorted(planned) == ["fragile: asked in batches of 3, 8 alone, on cpu:0", "tiny: asked in batches of 1, 3, 8 alone, on cpu:0"]
    failed = [line.partition(" : Non-zero")[0] for line in lines if line not in planned]
    assert failed == [f"backwards: a batch of {size} cannot be planned: INVALID_ARGUMENT" for size in (8, 3)]


@pytest.mark.triton
def test_requests_of_every_size_side_by_side_get_their_own_answers(server: Server, in_process: InProcess) -> None:
    file = server.log_file.parent / "models" / "tiny" / "1" / "model.onnx"

    def right(at: int) -> bool:
        pixels = np.random.default_rng(at).integers(0, 256, (1 + at % 8, 6, 5, 3), np.uint8)
        answer = ask(server, "tiny", {"pixels": pixels}, "probabilities")
        return np.allclose(answer, in_process(file, pixels), rtol=0, atol=1e-6)

    in_process(file, np.zeros((1, 6, 5, 3), np.uint8))
    with concurrent.futures.ThreadPoolExecutor(16) as callers:
        assert all(callers.map(right, range(400)))


@pytest.mark.triton
def test_a_request_that_fails_does_not_fail_those_that_share_its_fixed_batch(server: Server) -> None:
    pixels = [0, 1, 200, 4, 9]
    with concurrent.futures.ThreadPoolExecutor(len(pixels)) as callers:
        answers = dict(zip(pixels, callers.map(look_up(server, "fragile"), pixels), strict=True))
    assert str(answers.pop(200)).startswith("ONNX Runtime cannot answer: Non-zero status code returned while running Gather node.")
    assert answers == {pixel: float(TABLE[pixel]) for pixel in answers}


@pytest.mark.triton
def test_a_model_that_cannot_be_planned_answers_at_the_size_of_each_batch(server: Server) -> None:
    with concurrent.futures.ThreadPoolExecutor(3) as callers:
        assert list(callers.map(look_up(server, "backwards"), [1, 5, 10])) == [float(TABLE[index]) for index in (9, 5, 0)]


@pytest.mark.triton
def test_a_parameter_that_makes_no_sense_ends_the_start_with_its_sentence(tmp_path: Path) -> None:
    publish_tiny(tmp_path, parameters={"batch_sizes": "16"})
    with pytest.raises(ServerStartError) as refused, start_server(tmp_path, UNREPORTED):
        pass
    assert str(refused.value).endswith(f"model tiny version 1: {REFUSED['16']}")


@pytest.mark.gpu
@pytest.mark.triton
def test_a_gpu_answers_every_size_as_the_cpu_does(tmp_path: Path, in_process: InProcess) -> None:
    try:
        machine()
    except MachineError as error:
        pytest.skip(str(error))
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider: install sightline[all-gpu]")
    repository = tmp_path / "models"
    version = publish_tiny(repository, parameters={"batch_sizes": "auto"})
    file = version.parent / "config.pbtxt"
    file.write_text(file.read_text(encoding="utf-8").replace("KIND_CPU", "KIND_GPU"), encoding="utf-8")
    with start_server(repository, replace(UNREPORTED, log_file=tmp_path / "log")) as server:
        for rows in itertools.chain(range(1, 9), range(8, 0, -1)):
            pixels = np.random.default_rng(rows).integers(0, 256, (rows, 6, 5, 3), np.uint8)
            answer = ask(server, "tiny", {"pixels": pixels}, "probabilities")
            np.testing.assert_allclose(answer, in_process(version / "model.onnx", pixels), rtol=0, atol=1e-5)
        assert "tiny: asked in batches of 1, 2, 4, 8 alone, on cuda:" in server.log_file.read_text(encoding="utf-8")
        assert server.notices[1:] == ()
