"""Both protocols against the real Triton, and against things that are no Triton."""

import gzip
import os
import shutil
import signal
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sightline import Classifier
from sightline.errors import DeadlineExceeded, ModelError, ModelNotFound, ServerError, ServerUnavailable, SightlineError, UsageError
from sightline.transport import Tls, Transport, connect
from sightline.transport.failures import from_triton
from sightline.transport.http_wire import MAX_CONNECTIONS
from sightline.transport.patience import Patience, patiently
from support.cards import LABELS, tiny_card
from support.strange_servers import Raw, answer_with, drip, hostile, id_of, infer_answer, slow_once

if TYPE_CHECKING:
    from sightline_serving.server import Server

PIXELS = np.random.default_rng(1).integers(0, 256, (5, 6, 5, 3), dtype=np.uint8)


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, served: "tuple[Server, Path]") -> str:
    return served[0].grpc_url if request.param == "grpc" else served[0].http_url


@pytest.fixture
def transport(url: str) -> Iterator[Transport]:
    with connect(url) as opened:
        yield opened


@pytest.mark.triton
def test_the_served_card_is_the_published_one_letter_for_letter(url: str) -> None:
    with Classifier("tiny", url) as classifier:
        assert classifier.card == tiny_card()
        assert classifier.card.labels == LABELS


@pytest.mark.triton
def test_both_protocols_say_the_same_of_models_and_configuration(served: "tuple[Server, Path]") -> None:
    with connect(served[0].grpc_url) as grpc, connect(served[0].http_url) as http:
        assert grpc.config("tiny") == http.config("tiny")
        assert (
            sorted((m.name, m.version) for m in grpc.models())
            == sorted((m.name, m.version) for m in http.models())
            == [("other", "1"), ("tiny", "1")]
        )


@pytest.mark.triton
def test_both_protocols_give_the_same_answer_bit_for_bit(served: "tuple[Server, Path]") -> None:
    with connect(served[0].grpc_url) as grpc, connect(served[0].http_url) as http:
        answers = [transport.infer("tiny", "1", "pixels", PIXELS, "probabilities") for transport in (grpc, http)]
    assert answers[0].version == answers[1].version == "1"
    assert answers[0].values.dtype == np.float32
    assert np.array_equal(answers[0].values, answers[1].values)


@pytest.mark.triton
@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (lambda t: t.config("nope"), ModelNotFound, "has no such model or version: Request for unknown model: 'nope' is not found"),
        (
            lambda t: t.config("tiny", "9"),
            ModelNotFound,
            "has no such model or version: Request for unknown model: 'tiny' version 9 is not found",
        ),
        (lambda t: t.infer("nope", "", "pixels", PIXELS, "probabilities"), ModelNotFound, "'nope' is not found"),
        (lambda t: t.infer("tiny", "7", "pixels", PIXELS, "probabilities"), ModelNotFound, "'tiny' version 7 is not found"),
        (
            lambda t: t.infer("tiny", "", "pixel", PIXELS, "probabilities"),
            ModelError,
            "refused the request: unexpected inference input 'pixel'",
        ),
        (
            lambda t: t.infer("tiny", "", "pixels", PIXELS, "logits"),
            ModelError,
            "refused the request: unexpected inference output 'logits'",
        ),
        (lambda t: t.infer("tiny", "", "pixels", PIXELS[:, :4], "probabilities"), ModelError, "refused the request: "),
        (
            lambda t: t.infer("tiny", "", "pixels", np.repeat(PIXELS, 3, 0), "probabilities"),
            ModelError,
            "batch-size must be <= 8 for 'tiny'",
        ),
    ],
)
def test_what_triton_refuses_is_a_sentence_of_the_right_kind(
    transport: Transport, call: Callable[[Transport], Any], kind: type, sentence: str
) -> None:
    with pytest.raises(SightlineError) as refusal:
        call(transport)
    assert type(refusal.value) is kind
    assert sentence in str(refusal.value)
    assert transport.url in str(refusal.value)


@pytest.mark.triton
def test_more_images_than_the_model_takes_are_cut_into_requests(url: str, served: "tuple[Server, Path]") -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (53, 6, 5, 3), dtype=np.uint8)
    with Classifier("tiny", url) as classifier:
        together = classifier.probabilities_of_pixels(pixels)
        alone = np.concatenate([classifier.probabilities_of_pixels(pixels[at : at + 1]) for at in range(53)])
    assert together.shape == (53, 4)
    assert np.abs(together - alone).max() < 1e-6
    assert np.array_equal(together.argmax(1), alone.argmax(1))


@pytest.mark.triton
def test_32_threads_share_a_classifier_and_no_answer_lands_with_another(url: str) -> None:
    images = np.random.default_rng(3).integers(0, 256, (32, 6, 5, 3), dtype=np.uint8)
    failures: list[str] = []
    with Classifier("tiny", url) as classifier:
        expected = classifier.probabilities_of_pixels(images)

        def ask(first: int) -> None:
            random = np.random.default_rng(first)
            try:
                for _ in range(20):
                    chosen = random.integers(0, 32, random.integers(1, 20))
                    if np.abs(classifier.probabilities_of_pixels(images[chosen]) - expected[chosen]).max() > 1e-6:
                        failures.append(f"thread {first} got another's answer")
            except SightlineError as error:
                failures.append(repr(error))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.triton
def test_a_server_that_hangs_costs_the_deadline_and_no_more_and_is_used_again_when_it_wakes(
    url: str, served: "tuple[Server, Path]"
) -> None:
    with Classifier("tiny", url, timeout_s=1.0) as classifier:
        classifier.probabilities_of_pixels(PIXELS)
        os.kill(served[0].pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded) as late:
                classifier.probabilities_of_pixels(PIXELS)
            assert 0.9 < time.monotonic() - began < 20
        finally:
            os.kill(served[0].pid, signal.SIGCONT)
        assert str(late.value) == f"no answer from {url} within 1 s: the server is overloaded, or the time allowed is too short"
    with Classifier("tiny", url) as classifier:
        assert classifier.probabilities_of_pixels(PIXELS).shape == (5, 4)


@pytest.mark.triton
def test_a_closed_classifier_says_that_it_is_closed(url: str) -> None:
    classifier = Classifier("tiny", url)
    classifier.close()
    classifier.close()
    with pytest.raises(UsageError) as refusal:
        classifier.probabilities_of_pixels(PIXELS)
    assert str(refusal.value) == f"the connection to {url} was closed by this program: open another one"


@pytest.mark.triton
def test_a_grpc_client_on_the_http_port_and_the_other_way_round_get_a_sentence(served: "tuple[Server, Path]") -> None:
    for address in (served[0].http_url.replace("http", "grpc"), served[0].grpc_url.replace("grpc", "http")):
        with connect(address, 5) as transport, pytest.raises(ServerError) as refusal:
            transport.models()
        assert address in str(refusal.value)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nobody_at_the_address_is_one_sentence_that_says_what_to_do(scheme: str) -> None:
    with socket.socket() as occupied:  # bound but not listening: nobody else can take it meanwhile
        occupied.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{occupied.getsockname()[1]}"
        with pytest.raises(ServerUnavailable) as refusal:
            Classifier("tiny", url, timeout_s=5)
    assert str(refusal.value).startswith(f"no Triton server answers at {url}: ")
    assert str(refusal.value).endswith(" Is it running? `sightline serve` starts one.")


def test_a_host_that_does_not_exist_is_one_sentence() -> None:
    for url in ("grpc://no-such-host.invalid:8001", "http://no-such-host.invalid:8000"):
        with pytest.raises((ServerUnavailable, DeadlineExceeded)) as refusal:
            Classifier("tiny", url, timeout_s=5)
        assert url in str(refusal.value)


def test_a_tls_file_that_is_missing_is_a_sentence(tmp_path: Path) -> None:
    for url in ("grpcs://localhost:1", "https://localhost:1"):
        with pytest.raises(UsageError, match="a TLS file cannot be read: "):
            connect(url, tls=Tls(ca_file=tmp_path / "missing.pem"))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (answer_with(b"<html>hello</html>"), "is not one that Triton gives"),
        (answer_with(b"[]"), "is not one that Triton gives"),
        (answer_with(b"{}"), "is not one that Triton gives"),
        (answer_with(b"\xff\xfe\x00"), "is not one that Triton gives"),
        (answer_with(b"[" * 100_000), "is not one that Triton gives"),
        (answer_with(b'{"name": "tiny", "max_batch_size": "eight", "input": [], "output": []}'), "is not one that Triton gives"),
        (answer_with(b" " * (33 * 1024**2)), "longer than 33,554,432 bytes"),
        (answer_with(gzip.compress(b" " * 10_000_000), Content_Encoding="gzip"), "compressed, which was not asked for"),
        (answer_with(b"no", status=500), "failed: "),
        (answer_with(b'{"error": "teapot"}', status=418), "failed: teapot (418)"),
    ],
)
def test_an_answer_that_is_not_tritons_is_refused_without_being_swallowed_whole(answer: Any, sentence: str) -> None:
    with hostile(answer) as url, connect(url, 10) as transport:
        with pytest.raises(ServerError) as refusal:
            transport.config("tiny")
        assert sentence in str(refusal.value)
        assert len(str(refusal.value)) < 1000


def test_an_answer_that_drips_in_ends_at_the_deadline() -> None:
    with hostile(drip) as url, connect(url, 1.0) as transport:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            transport.config("tiny")
        assert time.monotonic() - began < 10


def ask(transport: Transport) -> float:
    return float(transport.infer("tiny", "", "pixels", PIXELS[:1], "probabilities").values[0, 0])


def test_an_http_answer_to_another_request_is_an_error_and_its_connection_is_not_used_again() -> None:
    ids: list[str] = []

    def swapped(body: bytes) -> bytes:
        ids.append(id_of(body))
        return infer_answer(ids[0], len(ids))

    with Raw(swapped) as server, connect(server.url, 10) as transport:
        assert ask(transport) == 1.0
        with pytest.raises(ServerError, match=rf"^the answer of {server.url} is to another request \({ids[0]}\), and is not used: "):
            ask(transport)
    assert len(set(ids)) == 2


def test_an_http_answer_that_names_no_request_is_an_error() -> None:
    with Raw(lambda _: infer_answer("")) as server, connect(server.url, 10) as transport, pytest.raises(ServerError, match="it names none"):
        ask(transport)


def test_a_grpc_answer_to_another_request_is_an_error() -> None:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    class Swapping(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # tritonclient has no types
        def ModelInfer(self, request: Any, context: object) -> Any:  # noqa: N802 - its name in the protocol
            return service_pb2.ModelInferResponse(id="somebody-else", model_name=request.model_name, model_version="1")

    server = grpc.server(ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Swapping(), server)
    url = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with (
            connect(url, 10) as transport,
            pytest.raises(ServerError, match=rf"^the answer of {url} is to another request \(somebody-else\)"),
        ):
            ask(transport)
    finally:
        server.stop(None)


def test_a_call_that_is_interrupted_leaves_nothing_behind_for_the_next_one() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Raw(slow_once()) as server, connect(server.url, 60) as transport:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(KeyboardInterrupt):
                ask(transport)
            began = time.monotonic()
            assert ask(transport) == 0.25
            assert time.monotonic() - began < 30
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_connection_that_ends_before_an_answer_is_nobody_who_answers_and_asked_again() -> None:
    requests: list[bytes] = []

    def breaking(body: bytes) -> bytes | None:
        requests.append(body)
        return None if len(requests) < 3 else infer_answer(id_of(body))

    with Raw(breaking) as server, connect(server.url, 10) as transport:
        with pytest.raises(ServerUnavailable, match=rf"^no Triton server answers at {server.url}: "):
            ask(transport)
        assert patiently(lambda: ask(transport), Patience(5)) == 0.25
    assert len(requests) == 3


def test_an_answer_that_breaks_off_is_nobody_who_answers() -> None:
    with (
        Raw(lambda body: infer_answer(id_of(body))[:-20], closing=True) as server,
        connect(server.url, 10) as transport,
        pytest.raises(ServerUnavailable, match="the connection was closed in the middle of an answer"),
    ):
        ask(transport)


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    def unmeasured(body: bytes) -> bytes:
        head, _, rest = infer_answer(id_of(body)).partition(b"\r\n\r\n")
        return b"HTTP/1.1 100 Continue\r\n\r\n" + head.partition(b"\r\n")[0] + b"\r\nConnection: close\r\n\r\n" + rest

    with Raw(unmeasured, closing=True) as server, connect(server.url, 10) as transport:
        assert [ask(transport) for _ in range(3)] == [0.25] * 3


def test_a_connection_that_the_server_has_closed_meanwhile_is_not_used() -> None:
    """A server may close what is idle for long: the next call notices it before it sends anything."""
    with Raw(lambda body: infer_answer(id_of(body)), closing=True) as server, connect(server.url, 10) as transport:
        for _ in range(5):
            assert ask(transport) == 0.25
            time.sleep(0.05)


def test_headers_that_never_end_take_neither_the_memory_nor_the_time() -> None:
    def endless(_: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (number, b"a" * 60_000) for number in range(1000))

    with Raw(endless) as server, connect(server.url, 30) as transport:
        tracemalloc.start()
        try:
            with pytest.raises(ServerError, match=r"is not one that Triton gives \(its headers are longer than 262,144 bytes\)"):
                ask(transport)
            # The server's own 60 MB are of this process too.
            assert tracemalloc.get_traced_memory()[1] < 160_000_000
        finally:
            tracemalloc.stop()


@pytest.mark.triton
def test_600_threads_that_come_and_go_leave_no_descriptor_open(url: str) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    with Classifier("tiny", url) as classifier:
        classifier.probabilities_of_pixels(PIXELS)
        before = descriptors()
        for _ in range(60):
            threads = [threading.Thread(target=classifier.probabilities_of_pixels, args=(PIXELS,)) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert descriptors() <= before + MAX_CONNECTIONS


@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_caller_who_waits_outlasts_a_server_that_starts_anew(protocol: str, served: "tuple[Server, Path]", tmp_path: Path) -> None:
    from sightline_serving.server import start_server
    from sightline_serving.settings import FREE_PORTS

    shutil.copytree(served[1], tmp_path / "models")
    with start_server(tmp_path / "models", FREE_PORTS) as server:
        ports = {name: int(address.rpartition(":")[2]) for name, address in (("http", server.http_url), ("grpc", server.grpc_url))}
        classifier = Classifier("tiny", server.grpc_url if protocol == "grpc" else server.http_url, wait_s=60)
        expected = classifier.probabilities_of_pixels(PIXELS)
    with ThreadPoolExecutor(1) as pool, classifier:
        waiting = pool.submit(classifier.probabilities_of_pixels, PIXELS)
        time.sleep(1.5)
        assert not waiting.done()
        with start_server(tmp_path / "models", replace(FREE_PORTS, http_port=ports["http"], grpc_port=ports["grpc"])):
            assert np.array_equal(waiting.result(60), expected)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("Request for unknown model: 'tiny' has no available versions", "400"),
        ("Request for unknown model: 'tiny' version 1 is not at ready state", "StatusCode.UNAVAILABLE"),
        ("Server not ready", "400"),
    ],
)
def test_a_model_of_a_server_that_goes_down_is_not_ready_and_not_unknown(words: str, status: str) -> None:
    error = from_triton(status, words, "grpc://here:1", 10, "tiny")
    assert type(error) is ServerUnavailable
    assert str(error) == f"the model tiny on grpc://here:1 is not ready: {words}. The server is coming up or going down"
