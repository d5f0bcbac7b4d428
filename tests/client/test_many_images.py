"""Any iterable of images, and more of them than one message may carry."""

import asyncio
import io
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from sightline import AsyncClassifier, Classifier, ImageError
from sightline.errors import UsageError
from sightline.testing import AsyncFakeTransport, FakeTransport
from support.cards import tiny_card
from support.fake_network import brightest, card

if TYPE_CHECKING:
    from sightline_serving.server import Server

BLUE = np.full((9, 9, 3), (0, 0, 255), np.uint8)


def encoded(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


async def asynchronous(images: Any) -> Any:
    for image in images:
        yield image


ITERABLES: dict[str, Any] = {
    "a list": lambda: [BLUE] * 3,
    "a tuple": lambda: (BLUE,) * 3,
    "a generator": lambda: (BLUE for _ in range(3)),
    "an iterator": lambda: iter([BLUE] * 3),
    "a deque": lambda: deque([BLUE] * 3),
    "a mapping's values": lambda: dict.fromkeys("abc", BLUE).values(),
    "an array of a batch": lambda: np.stack([BLUE] * 3),
}
SINGLE: dict[str, Any] = {
    "an array": lambda: BLUE,
    "a grey array": lambda: BLUE[..., 2],
    "an image": lambda: Image.fromarray(BLUE),
    "an encoded file": lambda: encoded(BLUE),
    "an open file": lambda: io.BytesIO(encoded(BLUE)),
}


def asked(images: Any) -> list[list[str]]:
    """The labels that each verb of both clients gives."""

    async def awaited() -> list[list[str]]:
        async with AsyncClassifier("colours", transport=AsyncFakeTransport(card(), brightest)) as client:
            return [
                [guess.label for guess in await client.classify(images())],
                [guess.label async for guess in client.stream(images()) if not isinstance(guess, ImageError)],
                [client.card.labels[row.argmax()] for row in await client.probabilities(images())],
            ]

    with Classifier("colours", transport=FakeTransport(card(), brightest)) as client:
        return [
            [guess.label for guess in client.classify(images())],
            [guess.label for guess in client.stream(images()) if not isinstance(guess, ImageError)],
            [client.card.labels[row.argmax()] for row in client.probabilities(images())],
            *asyncio.run(awaited()),
        ]


@pytest.mark.parametrize("name", ITERABLES)
def test_any_iterable_of_images_will_do(name: str) -> None:
    assert asked(ITERABLES[name]) == [["blue"] * 3] * 6


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_image_counts_as_a_list_of_one(name: str, tmp_path: Path) -> None:
    labels = asked(SINGLE[name])
    assert [len(answers) for answers in labels] == [1] * 6


def test_an_asynchronous_iterable_is_for_the_asynchronous_client() -> None:
    async def awaited() -> list[str]:
        async with AsyncClassifier("colours", transport=AsyncFakeTransport(card(), brightest)) as client:
            return [guess.label for guess in await client.classify(asynchronous([BLUE] * 3))]

    assert asyncio.run(awaited()) == ["blue"] * 3
    with pytest.raises(UsageError) as refusal:
        Classifier("colours", transport=FakeTransport(card(), brightest)).classify(asynchronous([BLUE]))
    assert str(refusal.value) == (
        "images must be an image or an iterable of images, not async_generator (an asynchronous iterable is for `AsyncClassifier`)"
    )


@pytest.mark.parametrize("images", [None, 7, {"a": BLUE}], ids=["none", "a number", "a mapping"])
def test_what_is_no_image_and_no_iterable_of_images_is_refused(images: Any) -> None:
    client = Classifier("colours", transport=FakeTransport(card(), brightest))
    for verb in (client.classify, client.stream, client.probabilities):
        with pytest.raises(UsageError) as refusal:
            verb(images)
        assert str(refusal.value) == f"images must be an image or an iterable of images, not {type(images).__name__}"


def test_a_generator_is_not_read_before_it_is_needed() -> None:
    taken = []

    def images() -> Iterator[Any]:
        for number in range(1000):
            taken.append(number)
            yield BLUE

    stream = Classifier("colours", transport=FakeTransport(card(), brightest)).stream(images())
    assert taken == []
    next(stream)
    assert 0 < len(taken) < 50


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Server]":
    """A model whose images are of 3 MiB each: 22 of them are more than what Triton takes in one body."""
    from sightline_serving.server import start_server
    from sightline_serving.settings import FREE_PORTS
    from support.tiny_models import publish_sampled

    card = tiny_card(max_batch_size=64)
    card = card.model_copy(update={"preprocess": card.preprocess.model_copy(update={"size": (1024, 1024)})})
    repository = tmp_path_factory.mktemp("large") / "models"
    publish_sampled(repository, card=card, hidden=1)
    with start_server(repository, FREE_PORTS) as server:
        yield server


@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_more_than_64_mib_of_pixels_pass_in_several_requests(protocol: str, large: "Server") -> None:
    url = large.grpc_url if protocol == "grpc" else large.http_url
    pixels = np.random.default_rng(5).integers(0, 256, (24, 1024, 1024, 3), dtype=np.uint8)
    assert pixels.nbytes > 64 * 1024**2

    async def awaited() -> Any:
        async with AsyncClassifier("tiny", url, timeout_s=60) as client:
            assert client.batch_size == 10
            return await client.probabilities_of_pixels(pixels)

    with Classifier("tiny", url, timeout_s=60) as client:
        assert client.batch_size == 10
        together = client.probabilities_of_pixels(pixels)
        alone = np.concatenate([client.probabilities_of_pixels(image[None]) for image in pixels])
        assert len(client.classify_pixels(pixels)) == 24
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(asyncio.run(awaited()) - alone).max() < 1e-5
