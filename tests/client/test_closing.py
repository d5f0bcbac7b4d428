"""Closed means closed: every verb says so, what is in flight ends with the same sentence, and no thread, socket or channel remains."""

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sightline import AsyncClassifier, Classifier, ImageInput
from sightline.errors import UsageError
from sightline.flow import FlowSettings
from sightline.testing import AsyncFakeTransport, FakeTransport
from support.fake_network import brightest, card

if TYPE_CHECKING:
    from sightline_serving.server import Server

PIXELS = np.random.default_rng(1).integers(0, 256, (5, 6, 5, 3), dtype=np.uint8)
IMAGE = np.zeros((9, 9, 3), np.uint8)


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, served: "tuple[Server, Path]") -> str:
    return served[0].grpc_url if request.param == "grpc" else served[0].http_url


def endless() -> Iterator[ImageInput]:
    while True:
        yield IMAGE


def held() -> tuple[int, int]:
    """Threads, those of gRPC's core too, and descriptors of this process."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


USES = 10
LATE = 2
"""gRPC's core opens an event descriptor, or starts a thread of its pool, when it first needs it. One that each use left would be USES."""


def no_more_than(before: tuple[int, int], within_s: float = 20) -> bool:
    give_up_s = time.monotonic() + within_s
    while any(now > then + LATE for now, then in zip(held(), before, strict=True)):
        if time.monotonic() > give_up_s:
            return False
        time.sleep(0.05)
        gc.collect()  # tracebacks hold on to what was closed, in circles
    return True


@contextlib.contextmanager
def stopped(server: "Server") -> Iterator[None]:
    """A server that takes requests and does not answer."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def refused(call: Callable[[], Any], url: str) -> None:
    with pytest.raises(UsageError) as refusal:
        call()
    assert str(refusal.value) == f"the connection to {url} was closed by this program: open another one"


def demand_closed(classifier: Classifier, url: str) -> None:
    for call in (
        lambda: classifier.classify(IMAGE),
        lambda: list(classifier.stream([IMAGE])),
        lambda: classifier.probabilities([IMAGE]),
        lambda: classifier.classify_pixels(PIXELS),
        lambda: classifier.probabilities_of_pixels(PIXELS),
        classifier.served_version,
    ):
        refused(call, url)


async def demand_closed_async(classifier: AsyncClassifier, url: str) -> None:
    for call in (
        classifier.classify(IMAGE),
        anext(classifier.stream([IMAGE])),
        classifier.probabilities([IMAGE]),
        classifier.classify_pixels(PIXELS),
        classifier.probabilities_of_pixels(PIXELS),
        classifier.served_version(),
    ):
        with pytest.raises(UsageError) as refusal:
            await call
        assert str(refusal.value) == f"the connection to {url} was closed by this program: open another one"


def test_through_a_transport_of_the_callers_own_every_verb_is_closed_too() -> None:
    classifier = Classifier("colours", transport=FakeTransport(card(), brightest))
    classifier.close()
    demand_closed(classifier, "fake://")

    async def ask() -> None:
        awaited = AsyncClassifier("colours", transport=AsyncFakeTransport(card(), brightest))
        async with awaited:
            await awaited.classify(IMAGE)
        await awaited.aclose()
        await demand_closed_async(awaited, "fake://")

    asyncio.run(ask())


@pytest.mark.triton
def test_a_closed_classifier_leaves_no_thread_and_no_descriptor(url: str) -> None:
    def use() -> None:
        with Classifier("tiny", url) as classifier:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: classifier.probabilities_of_pixels(PIXELS), range(40)))
            stream = classifier.stream(endless(), ahead=FlowSettings(readers=4))
            next(stream)
            classifier.close()
            refused(lambda: next(stream), url)
            demand_closed(classifier, url)

    use()  # what libraries keep for good is there now
    before = held()
    for _ in range(USES):
        use()
    assert no_more_than(before), (before, held(), [thread.name for thread in threading.enumerate()])


@pytest.mark.triton
def test_a_closed_asynchronous_classifier_leaves_no_thread_and_no_descriptor(url: str) -> None:
    async def use() -> None:
        async with AsyncClassifier("tiny", url) as awaited:
            await asyncio.gather(*(awaited.probabilities_of_pixels(PIXELS) for _ in range(40)))
            stream = awaited.stream(endless(), ahead=FlowSettings(readers=4))
            await anext(stream)
            await awaited.aclose()
            with pytest.raises(UsageError, match=f"^the connection to {url} was closed by this program"):
                await anext(stream)
            await demand_closed_async(awaited, url)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(use())
    before = held()
    for _ in range(USES):
        asyncio.run(use())
    assert no_more_than(before), (before, held(), [thread.name for thread in threading.enumerate()])


@pytest.mark.triton
def test_closing_ends_calls_in_flight_at_once(url: str, served: "tuple[Server, Path]") -> None:
    classifier = Classifier("tiny", url, timeout_s=60)
    classifier.probabilities_of_pixels(PIXELS)
    with ThreadPoolExecutor(3) as pool, stopped(served[0]):
        calls: list[Future[Any]] = [pool.submit(classifier.probabilities_of_pixels, PIXELS) for _ in range(2)]
        calls.append(pool.submit(lambda: list(classifier.stream([IMAGE] * 100))))
        time.sleep(0.5)
        began = time.monotonic()
        classifier.close()
        for call in calls:
            refused(lambda call=call: call.result(30), url)  # type: ignore[misc]
        assert time.monotonic() - began < 10


@pytest.mark.triton
def test_closing_ends_awaited_calls_in_flight_at_once(url: str, served: "tuple[Server, Path]") -> None:
    async def ask() -> None:
        awaited = await AsyncClassifier("tiny", url, timeout_s=60).open()
        await awaited.probabilities_of_pixels(PIXELS)
        with stopped(served[0]):
            calls: list[asyncio.Task[Any]] = [asyncio.create_task(awaited.probabilities_of_pixels(PIXELS)) for _ in range(2)]
            calls.append(asyncio.create_task(awaited.probabilities([IMAGE] * 100)))
            await asyncio.sleep(0.5)
            began = time.monotonic()
            await awaited.aclose()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - began < 10
        sentence = f"the connection to {url} was closed by this program: open another one"
        assert [(type(outcome), str(outcome)) for outcome in outcomes] == [(UsageError, sentence)] * 3

    asyncio.run(ask())
