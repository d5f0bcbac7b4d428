"""The client for event loops: the same answers and sentences as the blocking one, and nothing left behind by what ends early."""

import asyncio
import contextlib
import pickle
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sightline import AsyncClassifier, AsyncTransport, Classifier, ImageInput, Transport
from sightline.errors import (
    DeadlineExceeded,
    ImageError,
    ModelError,
    ModelNotFound,
    ServerError,
    ServerUnavailable,
    SightlineError,
    UsageError,
)
from sightline.flow import FlowSettings
from sightline.testing import AsyncFakeTransport, FakeTransport
from sightline.transport import InferResult, connect, connect_async
from support.fake_network import brightest, card
from support.strange_servers import Raw, answer_with, drip, hostile, id_of, infer_answer, slow_once

if TYPE_CHECKING:
    from sightline_serving.server import Server

PIXELS = np.random.default_rng(1).integers(0, 256, (5, 6, 5, 3), dtype=np.uint8)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, served: "tuple[Server, Path]") -> str:
    return served[0].grpc_url if request.param == "grpc" else served[0].http_url


def plain(colour: str) -> Image.Image:
    return Image.new("RGB", (20, 20), colour)


def colours(network: Any = brightest, **options: Any) -> AsyncClassifier:
    return AsyncClassifier("colours", transport=AsyncFakeTransport(card(), network), **options)


def test_the_fake_is_a_transport_for_event_loops() -> None:
    assert isinstance(AsyncFakeTransport(card(), brightest), AsyncTransport)
    assert isinstance(connect("http://localhost:1"), Transport)

    async def connected() -> None:
        for scheme in ("http", "grpc"):
            async with connect_async(f"{scheme}://localhost:1") as transport:
                assert isinstance(transport, AsyncTransport)

    run(connected())


def test_all_four_questions_have_the_answers_of_the_blocking_client(tmp_path: Path) -> None:
    images: list[ImageInput] = [plain("blue"), plain("red"), plain("lime")] * 3
    with Classifier("colours", transport=FakeTransport(card(), brightest)) as blocking:
        pixels = np.stack([np.asarray(image) for image in [plain("blue").resize((6, 8))] * 9])
        expected = (
            blocking.classify(images, top=2),
            blocking.probabilities(images),
            blocking.classify_pixels(pixels, top=2),
            blocking.probabilities_of_pixels(pixels),
        )

    async def ask() -> None:
        async with colours() as awaited:
            assert await awaited.classify(images, top=2) == expected[0]
            assert np.array_equal(await awaited.probabilities(images), expected[1])
            assert await awaited.classify_pixels(pixels, top=2) == expected[2]
            assert np.array_equal(await awaited.probabilities_of_pixels(pixels), expected[3])
            assert [guess async for guess in awaited.stream(images, 2)] == expected[0]
            assert await awaited.classify([]) == []
            assert (await awaited.probabilities(())).shape == (0, 3)
            assert await awaited.served_version() == "1"

    run(ask())


@pytest.mark.parametrize(("most", "sizes"), [(4, [3, 4, 4]), (1, [1] * 11)])
def test_requests_are_cut_as_those_of_the_blocking_client(most: int, sizes: list[int]) -> None:
    model = card(max_batch_size=most)
    transports = FakeTransport(model, brightest), AsyncFakeTransport(model, brightest)
    images = [plain(colour) for colour in ["red", "lime", "blue"] * 4][:11]
    labels = [guess.label for guess in Classifier("colours", transport=transports[0]).classify(images)]
    assert labels == (["red", "green", "blue"] * 4)[:11]
    transports[0].requests.clear()

    async def ask() -> None:
        async with AsyncClassifier("colours", transport=transports[1]) as awaited:
            assert [guess.label for guess in await awaited.classify(images)] == labels

    Classifier("colours", transport=transports[0]).probabilities(images)
    run(ask())
    # Which of the requests in flight is first, only the clock knows.
    assert [sorted(len(request) for request in transport.requests) for transport in transports] == [sizes] * 2


def test_an_asynchronous_iterable_is_read_no_further_ahead_than_its_requests_in_flight(tmp_path: Path) -> None:
    missing, taken = tmp_path / "missing.png", []

    async def endless() -> AsyncIterator[ImageInput]:
        for number in range(10**9):
            taken.append(number)
            await asyncio.sleep(0)
            yield missing if number % 2 else plain("red")

    async def ask() -> list[Any]:
        outcomes = []
        async with colours() as awaited, contextlib.aclosing(awaited.stream(endless(), ahead=FlowSettings(requests=2))) as stream:
            async for outcome in stream:
                outcomes.append(outcome)
                if len(outcomes) == 6:
                    break
            await asyncio.sleep(0.1)
        return outcomes

    outcomes = run(ask())
    assert [isinstance(outcome, ImageError) for outcome in outcomes] == [False, True] * 3
    assert str(outcomes[1]) == f"{missing}: cannot be read: No such file or directory"
    assert len(taken) == (2 + 2) * 4  # batches of four: two in flight, one that is read ahead, one that is given out


def test_a_stream_with_full_batches_fills_its_requests_up() -> None:
    transport = AsyncFakeTransport(card(), brightest)

    async def ask() -> None:
        async with AsyncClassifier("colours", transport=transport) as awaited:
            settings = FlowSettings(full_batches=True)
            assert [guess.label async for guess in awaited.stream([plain("blue")] * 5, ahead=settings)] == ["blue"] * 5  # type: ignore[union-attr]

    run(ask())
    assert [len(request) for request in transport.requests] == [4, 4]


def test_the_first_unreadable_image_ends_a_classification(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("not an image")

    async def ask() -> None:
        async with colours() as awaited:
            await awaited.classify([plain("red"), broken])

    with pytest.raises(ImageError, match=f"^{broken}: not an image in a format that is read here"):
        run(ask())


def test_before_it_is_opened_and_in_another_event_loop_it_says_so() -> None:
    classifier = colours()
    with pytest.raises(UsageError) as early:
        classifier.card  # noqa: B018 - reading it is the test
    assert str(early.value) == "the classifier of colours is not open yet: use it in an `async with` block, or await its open()"
    run(classifier.open())
    with pytest.raises(UsageError, match=r"^the classifier of colours belongs to another event loop: open one in each$"):
        run(classifier.classify(plain("red")))
    with pytest.raises(UsageError, match=r"^the classifier of colours was opened before: make another one$"):
        run(classifier.open())


def test_a_pickled_one_is_opened_anew_with_the_same_settings() -> None:
    classifier = AsyncClassifier("colours", "http://localhost:1", version="3", timeout_s=2, token="secret-token-of-mine")
    copy = pickle.loads(pickle.dumps(classifier))
    assert (copy.model, copy.url, copy.version, copy._settings) == ("colours", "http://localhost:1", "3", classifier._settings)
    assert "secret" not in repr(classifier.__reduce__())


class Slow(AsyncFakeTransport):
    """Counts its calls in flight, and takes a while; a request whose first image is blue is answered at once."""

    def __init__(self, pause_s: float) -> None:
        super().__init__(card(), brightest)
        self.pause_s, self.flying, self.most, self.cancelled = pause_s, 0, 0, 0

    async def infer(self, *arguments: Any) -> InferResult:
        red, _, blue = arguments[3][0, 0, 0]
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(0 if blue > red else self.pause_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.flying -= 1
        return await super().infer(*arguments)


def test_a_stream_has_no_more_requests_in_flight_than_were_allowed() -> None:
    transport = Slow(0.02)

    async def ask() -> None:
        async with AsyncClassifier("colours", transport=transport) as awaited:
            async for _ in awaited.stream([plain("red")] * 60, ahead=FlowSettings(requests=3)):
                pass

    run(ask())
    assert transport.most == 3


@pytest.mark.parametrize("way", ["timeout", "cancel", "break"])
def test_what_ends_early_leaves_no_task_no_thread_and_no_request(way: str) -> None:
    transport = Slow(60)
    threads = threading.active_count()

    async def ask() -> None:
        async with AsyncClassifier("colours", transport=transport) as awaited:
            if way == "timeout":
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(2):
                        await awaited.classify([plain("red")] * 40)
            elif way == "cancel":
                task = asyncio.create_task(awaited.probabilities([plain("red")] * 40))
                while not transport.flying:
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                async with contextlib.aclosing(awaited.stream([*[plain("blue")] * 4, *[plain("red")] * 400])) as stream:
                    async for _ in stream:
                        break
                    while not transport.flying:
                        await asyncio.sleep(0.01)
            assert transport.flying == 0
            assert asyncio.all_tasks() == {asyncio.current_task()}
            transport.pause_s = 0
            assert (await awaited.classify(plain("blue")))[0].label == "blue"

    run(ask())
    assert transport.cancelled >= 1
    assert eventually(lambda: threading.active_count() <= threads)


def eventually(condition: Callable[[], bool], within_s: float = 10) -> bool:
    give_up_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up_s:
            return False
        time.sleep(0.02)
    return True


def test_images_are_decoded_by_threads_while_the_event_loop_goes_on(tmp_path: Path) -> None:
    photo = tmp_path / "large.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (2500, 2500, 3), dtype=np.uint8)).save(photo, compress_level=1)
    began = time.monotonic()
    Image.open(photo).load()
    alone_s = time.monotonic() - began

    async def ask() -> float:
        longest_s, last_s = 0.0, time.monotonic()
        async with colours() as awaited:
            task = asyncio.create_task(awaited.classify([photo] * 12))
            while not task.done():
                await asyncio.sleep(0.002)
                longest_s, last_s = max(longest_s, time.monotonic() - last_s), time.monotonic()
            await task
        return longest_s

    assert run(ask()) < max(0.25, 4 * alone_s)


class Flaky(AsyncFakeTransport):
    """Nobody answers the first `absences` times."""

    def __init__(self, absences: int) -> None:
        super().__init__(card(), brightest)
        self.absences, self.asked = absences, 0

    async def infer(self, *arguments: Any) -> InferResult:
        self.asked += 1
        if self.asked <= self.absences:
            raise ServerUnavailable("nobody")
        return await super().infer(*arguments)


def test_nobody_is_asked_again_for_as_long_as_the_caller_waits_and_the_caller_is_told() -> None:
    told: list[tuple[str, float]] = []

    async def ask(transport: Flaky, wait_s: float) -> str:
        options: Any = {"wait_s": wait_s, "on_wait": lambda error, waited_s: told.append((str(error), waited_s))}
        async with AsyncClassifier("colours", transport=transport, **options) as awaited:
            return (await awaited.classify(plain("red")))[0].label

    assert run(ask(Flaky(2), 5)) == "red"
    assert [words for words, _ in told] == ["nobody", "nobody"]
    assert 0 <= told[0][1] < told[1][1] < 2
    began = time.monotonic()
    with pytest.raises(ServerUnavailable):
        run(ask(Flaky(1000), 0.3))
    assert 0.3 <= time.monotonic() - began < 10


def test_a_failure_of_the_model_is_not_asked_again() -> None:
    def broken(_: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        raise ModelError("broken")

    async def ask() -> None:
        async with colours(broken) as awaited:
            await awaited.classify(plain("red"))

    with pytest.raises(ModelError, match=r"^broken$"):
        run(ask())


# Over the network


def told(error: SightlineError) -> tuple[type, str]:
    """Its class and its sentence, in which Triton may name the request."""
    return type(error), re.sub(r"request id: [0-9a-f]{16}-", "request id: ", str(error))


async def sentence_of(call: Awaitable[Any]) -> tuple[type, str]:
    try:
        await call
    except SightlineError as error:
        return told(error)
    raise AssertionError("it was not refused")


def sentence_of_blocking(call: Callable[[], Any]) -> tuple[type, str]:
    with pytest.raises(SightlineError) as refusal:
        call()
    return told(refusal.value)


@pytest.mark.triton
def test_answers_and_refusals_of_the_real_server_are_those_of_the_blocking_client(url: str) -> None:
    with Classifier("tiny", url) as blocking, connect(url) as transport:
        expected = blocking.classify_pixels(PIXELS, top=4)
        models, config = sorted(served.name for served in transport.models()), transport.config("tiny")
        calls: list[Callable[[Any], Any]] = [
            lambda t: t.config("nope"),
            lambda t: t.config("tiny", "9"),
            lambda t: t.infer("nope", "", "pixels", PIXELS, "probabilities"),
            lambda t: t.infer("tiny", "7", "pixels", PIXELS, "probabilities"),
            lambda t: t.infer("tiny", "", "pixels", PIXELS, "logits"),
            lambda t: t.infer("tiny", "", "pixels", np.repeat(PIXELS, 3, 0), "probabilities"),
        ]
        refusals = [sentence_of_blocking(lambda call=call: call(transport)) for call in calls]  # type: ignore[misc]

    async def ask() -> None:
        async with AsyncClassifier("tiny", url) as awaited:
            assert await awaited.classify_pixels(PIXELS, top=4) == expected
            assert await awaited.served_version() == "1"
        async with connect_async(url) as transport:
            assert sorted(served.name for served in await transport.models()) == models
            assert await transport.config("tiny") == config
            assert [await sentence_of(call(transport)) for call in calls] == refusals
        with pytest.raises(ModelNotFound):
            await AsyncClassifier("nope", url).open()

    run(ask())


@pytest.mark.triton
def test_tasks_share_a_classifier_and_no_answer_lands_with_another(url: str) -> None:
    images = np.random.default_rng(3).integers(0, 256, (64, 6, 5, 3), dtype=np.uint8)
    with Classifier("tiny", url) as blocking:
        expected = blocking.probabilities_of_pixels(images)

    async def ask() -> None:
        async with AsyncClassifier("tiny", url) as awaited:

            async def some(first: int) -> float:
                worst = 0.0
                for step in range(12):
                    chosen = (first + 7 * step) % 64
                    answer = await awaited.probabilities_of_pixels(images[chosen : chosen + 1])
                    worst = max(worst, float(np.abs(answer[0] - expected[chosen]).max()))
                return worst

            assert max(await asyncio.gather(*map(some, range(64)))) < 1e-6

    run(ask())


@pytest.mark.triton
def test_cancelled_calls_leave_nothing_for_the_next_ones(url: str) -> None:
    async def ask() -> None:
        async with AsyncClassifier("tiny", url) as awaited:
            expected = await awaited.probabilities_of_pixels(PIXELS)
            for pause_s in (0.0, 0.0005, 0.001, 0.002, 0.004):
                tasks = [asyncio.create_task(awaited.probabilities_of_pixels(PIXELS[::-1])) for _ in range(20)]
                await asyncio.sleep(pause_s)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                assert np.abs(await awaited.probabilities_of_pixels(PIXELS) - expected).max() < 1e-6

    run(ask())


@pytest.mark.triton
def test_it_works_within_anyio_as_in_starlette_and_fastapi(url: str) -> None:
    import anyio

    async def serve() -> list[int]:
        counts = []
        async with AsyncClassifier("tiny", url) as awaited, anyio.create_task_group() as group:

            async def one() -> None:
                counts.append(len(await awaited.classify_pixels(PIXELS)))

            for _ in range(8):
                group.start_soon(one)
        with anyio.move_on_after(0.2) as scope:
            async with AsyncClassifier("tiny", url) as awaited:
                async for _ in awaited.stream(endless()):
                    pass
        assert scope.cancelled_caught
        return counts

    async def endless() -> AsyncIterator[ImageInput]:
        while True:
            await asyncio.sleep(0)
            yield plain("red")

    assert anyio.run(serve) == [5] * 8


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nobody_at_the_address_is_the_same_sentence(scheme: str) -> None:
    import socket

    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{occupied.getsockname()[1]}"
        refusal = run(sentence_of(AsyncClassifier("tiny", url, timeout_s=5).open()))
    assert refusal[0] is ServerUnavailable
    assert refusal[1].startswith(f"no Triton server answers at {url}: ")
    assert "Connection refused" in refusal[1]


async def ask_once(transport: AsyncTransport) -> float:
    return float((await transport.infer("tiny", "", "pixels", PIXELS[:1], "probabilities")).values[0, 0])


def test_an_answer_to_another_request_is_an_error_and_its_connection_is_not_used_again() -> None:
    ids: list[str] = []

    def swapped(body: bytes) -> bytes:
        ids.append(id_of(body))
        return infer_answer(ids[0], len(ids))

    async def ask(url: str) -> None:
        async with connect_async(url, 10) as transport:
            assert await ask_once(transport) == 1.0
            with pytest.raises(ServerError, match=rf"^the answer of {url} is to another request \({ids[0]}\), and is not used: "):
                await ask_once(transport)

    with Raw(swapped) as server:
        run(ask(server.url))
    assert len(set(ids)) == 2


def test_a_call_that_is_cancelled_leaves_nothing_behind_for_the_next_one() -> None:
    async def ask(url: str) -> None:
        async with connect_async(url, 60) as transport:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await ask_once(transport)
            assert await ask_once(transport) == 0.25

    with Raw(slow_once()) as server:
        run(ask(server.url))


@pytest.mark.parametrize(
    ("answer", "closing", "expected"),
    [
        (lambda body: infer_answer(id_of(body)), True, 0.25),
        (lambda _: None, False, "the connection was closed before an answer came"),
        (lambda body: infer_answer(id_of(body))[:-20], True, "the connection was closed in the middle of an answer"),
        (lambda _: b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", False, "(302)"),
        (
            lambda _: b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (number, b"a" * 60_000) for number in range(100)),
            False,
            "its headers are longer than 262,144 bytes",
        ),
    ],
)
def test_http_keeps_the_bounds_of_the_blocking_client(answer: Any, closing: bool, expected: Any) -> None:
    async def ask(url: str) -> Any:
        async with connect_async(url, 10) as transport:
            if isinstance(expected, float):
                answers = []
                for _ in range(3):
                    answers.append(await ask_once(transport))
                    time.sleep(0.05)  # the event loop hears of nothing meanwhile
                return answers
            return (await sentence_of(ask_once(transport)))[1]

    with Raw(answer, closing=closing) as server:
        answered = run(ask(server.url))
    assert expected in answered


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (answer_with(b"<html>hello</html>"), ServerError, "is not one that Triton gives"),
        (answer_with(b" " * (33 * 1024**2)), ServerError, "longer than 33,554,432 bytes"),
        (answer_with(b"", Content_Encoding="gzip"), ServerError, "compressed, which was not asked for"),
        (answer_with(b'{"error": "teapot"}', status=418), ServerError, "failed: teapot (418)"),
        (drip, DeadlineExceeded, "within 1 s"),
    ],
)
def test_an_answer_that_is_not_tritons_is_refused(answer: Any, kind: type, words: str) -> None:
    async def ask(url: str) -> tuple[type, str]:
        async with connect_async(url, 1 if answer is drip else 10) as transport:
            return await sentence_of(transport.config("tiny"))

    with hostile(answer) as url:
        refusal = run(ask(url))
    assert refusal[0] is kind
    assert words in refusal[1]
