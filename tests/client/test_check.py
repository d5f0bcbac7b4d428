"""`check=True`: a model whose file was replaced by another of the same shape is caught before it is asked about an image."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sightline import AsyncClassifier, Classifier, ModelError, cli, seal
from sightline.errors import ContractError, ServerUnavailable, SightlineError
from sightline.golden_sample import MAX_SAMPLE_BYTES, GoldenSample, seal_sample, unseal_sample
from sightline.repository.config import VersionPolicy
from sightline.repository.edit import set_policy
from sightline.repository.history import rollback
from sightline.repository.read import model_named
from sightline.testing import AsyncFakeTransport, FakeTransport
from sightline.transport import InferResult, ServedConfig
from support.cards import tiny_card
from support.fake_network import brightest, card

if TYPE_CHECKING:
    from sightline_serving.server import Server

PIXELS = np.random.default_rng(3).integers(0, 256, (8, 6, 3), dtype=np.uint8)


def sample(**changes: Any) -> GoldenSample:
    chosen: dict[str, Any] = {
        "model": "colours",
        "version": 1,
        "card_sha256": card().sha256,
        "pixels": PIXELS,
        "probabilities": brightest(PIXELS[None])[0],
        "tolerance": 1e-4,
    }
    return GoldenSample(**{**chosen, **changes})


def darkest(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return brightest(np.bitwise_not(pixels))


def open_both(network: Any, sample: GoldenSample | None, **options: Any) -> list[str]:
    """Open with both clients; what each was told."""
    sentences = []

    async def opened() -> None:
        async with AsyncClassifier("colours", transport=AsyncFakeTransport(card(), network, sample=sample), check=True, **options):
            pass

    def blocking() -> None:
        Classifier("colours", transport=FakeTransport(card(), network, sample=sample), check=True, **options)

    for way in (blocking, lambda: asyncio.run(opened())):
        try:
            way()
        except SightlineError as error:
            sentences.append(f"{type(error).__name__}: {error}")
        else:
            sentences.append("")
    return sentences


def test_the_published_answer_opens_and_another_one_does_not() -> None:
    assert open_both(brightest, sample()) == ["", ""]
    delta = np.abs(darkest(PIXELS[None]).astype(np.float64) - brightest(PIXELS[None])).max()
    sentence = (
        "ModelError: the model colours version 1 on fake:// is not the one that was published: its answer to the golden sample differs by "
        f"|Δp| {delta:.3g}, and 0.0001 is allowed. Was its file replaced? No label is given"
    )
    assert open_both(darkest, sample()) == [sentence] * 2


def test_a_model_without_a_sample_is_no_model_that_was_checked() -> None:
    sentence = (
        "ContractError: the model colours version 1 on fake:// carries no golden sample, so that its answers cannot be checked: it was "
        "published before there were samples (`sightline rollback` adds one, and so does an export), or its images are too large for one"
    )
    assert open_both(brightest, None) == [sentence] * 2


def test_a_sealed_sample_comes_back_as_it_was() -> None:
    back = unseal_sample(seal_sample(sample()), card(), 1, "here")
    assert np.array_equal(back.pixels, PIXELS)
    assert np.array_equal(back.probabilities, sample().probabilities)
    assert (back.model, back.version, back.card_sha256, back.tolerance) == ("colours", 1, card().sha256, 1e-4)


def resealed(**changes: Any) -> str:
    """What somebody writes who knows how the hash is made."""
    from sightline.golden_sample import _canonical, _digest, _Sample

    written = {**json.loads(seal_sample(sample()))["sample"], **changes}
    return _canonical({"sample": written, "sha256": _digest(_Sample.model_construct(**written))})


def png(image: Image.Image) -> str:
    import base64
    import io

    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON"),
        ("{}", "sample: Field required"),
        (" " * (MAX_SAMPLE_BYTES + 1), "the text is 1,048,577 letters long, more than the 1,048,576 that a sample may have"),
        (seal_sample(sample()).replace('"tolerance":0.0001', '"tolerance":0.9'), "it was changed after it was written"),
        (resealed(version=2), "it belongs to colours version 2, or to another card of it"),
        (resealed(card_sha256="0" * 64), "or to another card of it"),
        (resealed(png="%"), "not base64"),
        (resealed(png="AAAA"), "not an image in a format that is read here"),
        (resealed(png=png(Image.new("RGB", (3000, 3000)))), "pixels"),
        (resealed(png=png(Image.new("RGB", (8, 6)))), "it holds uint8 (6, 8, 3) and 3 numbers, which the card contradicts"),
        (resealed(png=png(Image.new("L", (6, 8)))), "it holds uint8 (8, 6, 1) and 3 numbers, which the card contradicts"),
        (resealed(probabilities="AAAA"), "buffer size must be a multiple of element size"),
        (resealed(probabilities="AAAAAA=="), "it holds uint8 (8, 6, 3) and 1 numbers, which the card contradicts"),
        (resealed(tolerance=0.0), "tolerance: Input should be greater than 0"),
        (resealed(tolerance=2.0), "tolerance: Input should be less than or equal to 1"),
    ],
)
def test_a_hostile_sample_is_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(ContractError) as refusal:
        unseal_sample(text, card(), 1, "here")
    assert str(refusal.value).startswith("here: no valid golden sample: ")
    assert words in str(refusal.value)
    assert len(str(refusal.value)) < 600


class Replaced(FakeTransport):
    """Nobody answers once; what comes back then is `after`."""

    def __init__(self, after: dict[str, Any], network: Any = brightest) -> None:
        super().__init__(card(), brightest, sample=sample())
        self.after, self.later, self.gone = after, network, False

    def infer(self, *arguments: Any) -> InferResult:
        if not self.gone and len(self.requests) == 1:
            self.gone, self._network = True, self.later
            raise ServerUnavailable("nobody")
        return super().infer(*arguments)

    def config(self, model: str, version: str = "") -> ServedConfig:
        config = super().config(model, version)
        return ServedConfig(**{**vars(config), **self.after}) if self.gone else config


class AsyncReplaced(AsyncFakeTransport):
    """The same, to be awaited."""

    def __init__(self, replaced: Replaced) -> None:
        self._fake, self.url, self.requests = replaced, replaced.url, replaced.requests


def after_it_came_back(after: dict[str, Any], network: Any) -> list[str]:
    sentences = []
    for kind in ("blocking", "awaited"):
        transport = Replaced(after, network)

        async def ask(transport: Replaced = transport) -> None:
            async with AsyncClassifier("colours", transport=AsyncReplaced(transport), check=True) as awaited:
                await awaited.classify(PIXELS)

        try:
            if kind == "blocking":
                Classifier("colours", transport=transport, check=True).classify(PIXELS)
            else:
                asyncio.run(ask())
        except SightlineError as error:
            sentences.append(f"{type(error).__name__}: {error}")
        else:
            sentences.append("")
    return sentences


def test_after_a_server_came_back_its_card_and_its_sample_are_looked_at_again() -> None:
    assert after_it_came_back({}, brightest) == ["", ""]
    other = card(labels=("rot", "grün", "blau"))
    sentence = (
        f"ContractError: the model colours on fake:// changed while it was in use: its card was {card().sha256[:12]}…, after the server "
        f"came back it is {other.sha256[:12]}…: open the model again, and begin the job anew"
    )
    assert after_it_came_back({"sealed_card": seal(other)}, brightest) == [sentence] * 2
    for sentence in after_it_came_back({}, darkest):
        assert sentence.startswith("ModelError: the model colours version 1 on fake:// is not the one that was published: ")


@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_another_model_in_the_place_of_the_one_that_was_opened_is_told(protocol: str, tmp_path: Path) -> None:
    """A server goes, and another comes up at its address, with a model of the same name and other labels."""
    from sightline_serving.server import start_server
    from sightline_serving.settings import FREE_PORTS
    from support.tiny_models import publish_sampled

    pixels = np.zeros((1, 6, 5, 3), np.uint8)
    publish_sampled(tmp_path / "before")
    other = tiny_card().model_copy(update={"labels": ("four", "other", "labels", "here")})
    publish_sampled(tmp_path / "after", card=other)

    async def ask() -> None:
        with start_server(tmp_path / "before", FREE_PORTS) as server:
            url = server.grpc_url if protocol == "grpc" else server.http_url
            ports = replace(FREE_PORTS, http_port=server.ports.http, grpc_port=server.ports.grpc)
            blocking, awaited = Classifier("tiny", url, wait_s=60), await AsyncClassifier("tiny", url, wait_s=60).open()
            assert np.array_equal(await awaited.probabilities_of_pixels(pixels), blocking.probabilities_of_pixels(pixels))
        in_a_thread = asyncio.to_thread(blocking.classify_pixels, pixels)
        calls = [asyncio.create_task(call) for call in (in_a_thread, awaited.classify_pixels(pixels))]
        await asyncio.sleep(0.5)
        with start_server(tmp_path / "after", ports):
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(outcome, ContractError)
                assert str(outcome) == (
                    f"the model tiny on {url} changed while it was in use: its card was {tiny_card().sha256[:12]}…, after the server "
                    f"came back it is {other.sha256[:12]}…: open the model again, and begin the job anew"
                )
        blocking.close()
        await awaited.aclose()

    asyncio.run(ask())


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Server]":
    """A server with honest versions 1 and 2 of a model; version 3 is, by its file, another network; the model `old` has no samples."""
    from sightline_serving.server import start_server
    from sightline_serving.settings import FREE_PORTS
    from support.tiny_models import publish_sampled, publish_tiny, swap_weights

    repository = tmp_path_factory.mktemp("swapped") / "models"
    for seed in (0, 1):
        publish_sampled(repository, seed=seed)
    swap_weights(publish_sampled(repository, seed=2), seed=3)
    publish_tiny(repository, "old")
    set_policy(model_named(repository, "tiny"), VersionPolicy("all"))
    with start_server(repository, replace(FREE_PORTS, verify_hashes=False)) as server:
        yield server


@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_swapped_file_is_caught_over_both_protocols_by_clients_and_commands(protocol: str, swapped: "Server", tmp_path: Path) -> None:
    url = swapped.grpc_url if protocol == "grpc" else swapped.http_url
    image = tmp_path / "a.png"
    Image.new("RGB", (20, 20), "red").save(image)

    async def opened(**options: Any) -> str:
        async with AsyncClassifier("tiny", url, check=True, **options) as awaited:
            return await awaited.served_version()

    for version in ("1", "2"):
        with Classifier("tiny", url, version=version, check=True) as tiny:
            assert tiny.served_version() == tiny.classify(image)[0].version == version
        assert asyncio.run(opened(version=version)) == version
        cli.run(["classify", "tiny", str(image), "--check", "--version", version, "--url", url])
    words = rf"^the model tiny version 3 on {url} is not the one that was published: its answer to the golden sample differs by \|Δp\| 0\."
    for way in (
        lambda: Classifier("tiny", url, check=True),
        lambda: asyncio.run(opened()),
        lambda: cli.run(["classify", "tiny", str(image), "--check", "--url", url]),
        lambda: cli.run(["show", "tiny", str(image), "--out", str(tmp_path / "seen.png"), "--check", "--url", url]),
        lambda: cli.run(["score", "tiny", str(tmp_path), "--out", str(tmp_path / "rows.csv"), "--check", "--url", url]),
        lambda: cli.run(["bench", "tiny", "--images", str(tmp_path), "--check", "--grpc-url", swapped.grpc_url]),
    ):
        with pytest.raises(ModelError, match=words.replace(url, r"\S+")) as refusal:
            way()
        assert str(refusal.value).endswith(", and 0.0001 is allowed. Was its file replaced? No label is given")
        assert refusal.value.exit_code == 9
    assert not (tmp_path / "rows.csv").exists()
    with pytest.raises(ContractError, match=rf"^the model old version 1 on {url} carries no golden sample"):
        Classifier("old", url, check=True)
    with Classifier("tiny", url) as unchecked:
        assert unchecked.served_version() == "3"


@pytest.mark.triton
def test_a_version_that_is_served_again_is_checked_by_its_own_sample(tmp_path: Path) -> None:
    from sightline_serving.server import start_server
    from sightline_serving.settings import FREE_PORTS
    from support.tiny_models import publish_sampled

    for seed in (0, 1):
        publish_sampled(tmp_path / "models", seed=seed)
    assert rollback(tmp_path / "models", "tiny") == 1
    with (
        start_server(tmp_path / "models", FREE_PORTS) as server,
        Classifier("tiny", server.grpc_url, check=True) as tiny,
    ):
        assert tiny.served_version() == "1"
