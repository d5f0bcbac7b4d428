"""What the served model answers is what ONNX Runtime answers in this process: alone, in batches, and for 32 callers at once."""

import concurrent.futures
import random
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from sightline.card import CARD_KEY, unseal
from sightline_serving.server import Server
from support.tiny_models import InProcess, Served

pytestmark = pytest.mark.triton

LABELS = ("ape", 'bear "brown"', "cat, house", "dög")


def images(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 5, 3), np.uint8)


def asked(kind: str, server: Server) -> tuple[Any, Any]:
    module = tritonclient.grpc if kind == "grpc" else tritonclient.http
    url = server.grpc_url if kind == "grpc" else server.http_url
    return module, module.InferenceServerClient(url.partition("//")[2])


def ask(
    kind: str, server: Server, pixels: npt.NDArray[Any], model: str = "tiny", *, datatype: str = "UINT8", top: int = 0
) -> npt.NDArray[Any]:
    module, client = asked(kind, server)
    with client:
        tensor = module.InferInput("pixels", pixels.shape, datatype)
        tensor.set_data_from_numpy(pixels)
        wanted = module.InferRequestedOutput("probabilities", class_count=top)
        return np.asarray(client.infer(model, [tensor], outputs=[wanted]).as_numpy("probabilities"))


@pytest.fixture(params=["http", "grpc"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_a_batch_of_any_size_is_answered_as_in_process(kind: str, served: Served, in_process: InProcess, count: int) -> None:
    server, folder = served
    pixels = images(count, seed=count)
    answer = ask(kind, server, pixels)
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, in_process(folder / "tiny/1/model.onnx", pixels), rtol=0, atol=1e-6)
    np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-5)


def test_two_models_are_not_taken_for_each_other(kind: str, served: Served, in_process: InProcess) -> None:
    server, folder = served
    pixels = images(3)
    tiny, other = ask(kind, server, pixels, "tiny"), ask(kind, server, pixels, "other")
    assert np.abs(tiny - other).max() > 0.01
    np.testing.assert_allclose(other, in_process(folder / "other/1/model.onnx", pixels), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_32_callers_with_batches_of_every_size_each_get_their_own_answers(kind: str, served: Served, in_process: InProcess) -> None:
    """Every caller's images are its own, so that an answer that belongs to another caller, or to another row, differs."""
    server, folder = served
    module, _ = asked(kind, server)
    apart = threading.Barrier(32)

    def call(caller: int) -> float:
        shuffled = random.Random(caller)
        _, client = asked(kind, server)
        worst = 0.0
        with client:
            apart.wait()
            for turn in range(25):
                pixels = images(shuffled.randint(1, 8), seed=1000 * caller + turn)
                tensor = module.InferInput("pixels", pixels.shape, "UINT8")
                tensor.set_data_from_numpy(pixels)
                answer = client.infer("tiny", [tensor]).as_numpy("probabilities")
                expected = in_process(folder / "tiny/1/model.onnx", pixels)
                assert answer.shape == expected.shape
                worst = max(worst, float(np.abs(answer - expected).max()))
        return worst

    in_process(folder / "tiny/1/model.onnx", images(1))
    before = batches(server)
    with concurrent.futures.ThreadPoolExecutor(32) as callers:
        worst = max(callers.map(call, range(32)))
    assert worst <= 1e-6
    requests, executions = (after - then for after, then in zip(batches(server), before, strict=True))
    assert requests == 32 * 25
    assert executions < requests, "no two requests were ever answered in one run: this test has shown nothing about batching"


def batches(server: Server) -> tuple[int, int]:
    _, client = asked("http", server)
    with client:
        statistics = client.get_inference_statistics("tiny")["model_stats"][0]
    return statistics["inference_stats"]["success"]["count"], statistics["execution_count"]


def test_the_classification_extension_answers_with_labels(kind: str, served: Served, in_process: InProcess) -> None:
    server, folder = served
    pixels = images(5, seed=3)
    answer = ask(kind, server, pixels, top=2)
    expected = in_process(folder / "tiny/1/model.onnx", pixels)
    for row, probabilities in zip(answer, expected, strict=True):
        best = [text.decode().split(":", 2) for text in row]
        assert [int(index) for _, index, _ in best] == np.argsort(-probabilities)[:2].tolist()
        assert [label for _, _, label in best] == [LABELS[index] for index in np.argsort(-probabilities)[:2]]


def test_one_image_more_than_the_largest_batch_is_refused(kind: str, served: Served) -> None:
    server, _ = served
    with pytest.raises(InferenceServerException, match="inference request batch-size must be <= 8 for 'tiny'"):
        ask(kind, server, images(9))


def test_pixels_of_another_type_are_refused(kind: str, served: Served) -> None:
    server, _ = served
    with pytest.raises(InferenceServerException, match="inference input 'pixels' data-type is 'FP32', but model 'tiny' expects 'UINT8'"):
        ask(kind, server, images(1).astype(np.float32), datatype="FP32")


def test_pixels_of_another_shape_are_refused(kind: str, served: Served) -> None:
    server, _ = served
    with pytest.raises(
        InferenceServerException, match=r"unexpected shape for input 'pixels' for model 'tiny'. Expected \[-1,6,5,3\], got \[1,5,6,3\]"
    ):
        ask(kind, server, np.ascontiguousarray(images(1).transpose(0, 2, 1, 3)))


def test_the_card_comes_back_as_it_was_sealed(kind: str, served: Served) -> None:
    server, _ = served
    _, client = asked(kind, server)
    with client:
        config = client.get_model_config("tiny", as_json=True)["config"] if kind == "grpc" else client.get_model_config("tiny")
    card = unseal(config["parameters"][CARD_KEY]["string_value"], "the served config")
    assert card.labels == LABELS
    assert card.description == 'Quotes " and \\ and\nnew lines, ümläuts, 漢字.'
