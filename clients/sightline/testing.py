"""Transports without a server, for the tests of applications that use `Classifier` or `AsyncClassifier`: real reformatting, no network."""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from sightline.card import ModelCard, seal
from sightline.errors import ModelNotFound
from sightline.golden_sample import GoldenSample, seal_sample
from sightline.transport import InferResult, ServedConfig, ServedVersion, TensorSpec

Network = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""uint8 pixels [N, H, W, C] to float32 probabilities [N, classes]."""


class FakeTransport:
    """Answers from a function, in this process, with the contract of a real server. A `sightline.Transport`.

    transport = FakeTransport(card, lambda pixels: np.tile(np.float32([0.9, 0.1]), (len(pixels), 1)))
    with Classifier("cats", transport=transport) as cats:
        assert cats.classify("any.jpg")[0].label == card.labels[0]

    `requests` keeps the pixels of each request, uint8 [N, H, W, C], so that a test can look at what was sent. An exception of the
    function reaches the caller as a server's would: raise one of the error tree to test how your application takes it. With a `sample`,
    `check=True` can be tested too.
    """

    def __init__(self, card: ModelCard, network: Network, version: str = "1", sample: GoldenSample | None = None) -> None:
        self.url = "fake://"
        self.requests: list[npt.NDArray[np.uint8]] = []
        self._card = card
        self._network = network
        self._version = version
        self._samples = {} if sample is None else {str(sample.version): seal_sample(sample)}

    def models(self) -> list[ServedVersion]:
        """List the one model."""
        return [ServedVersion(self._card.name, self._version, sum(len(pixels) for pixels in self.requests))]

    def config(self, model: str, version: str = "") -> ServedConfig:
        """Return the configuration that an export of this card would have."""
        self._known(model, version)
        card = self._card
        return ServedConfig(
            name=card.name,
            max_batch_size=card.max_batch_size,
            inputs=(TensorSpec(card.input, "TYPE_UINT8", card.preprocess.shape),),
            outputs=(TensorSpec(card.output, "TYPE_FP32", (len(card.labels),)),),
            sealed_card=seal(card),
            samples=self._samples,
        )

    def infer(self, model: str, version: str, input_name: str, pixels: npt.NDArray[np.uint8], output_name: str) -> InferResult:  # noqa: ARG002
        """Call the function."""
        self._known(model, version)
        self.requests.append(pixels)
        return InferResult(np.asarray(self._network(pixels), dtype=np.float32), self._version)

    def infer_encoded(self, model: str, version: str, input_name: str, images: Sequence[bytes], output_name: str) -> InferResult:  # noqa: ARG002
        """Refuse: a card has no model of its own for encoded images."""
        raise ModelNotFound(f"the fake transport has no model for encoded images, and so not {model} {version}")

    def labels(self, model: str, input_name: str, image: bytes, output_name: str, classes: int) -> dict[int, str]:  # noqa: ARG002
        """Refuse, as `infer_encoded` does."""
        raise ModelNotFound(f"the fake transport has no model for encoded images, and so not {model}")

    def close(self) -> None:
        """Nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _known(self, model: str, version: str) -> None:
        if model != self._card.name or version not in ("", self._version):
            raise ModelNotFound(f"the fake transport has {self._card.name} version {self._version}, not {model} {version}")


class AsyncFakeTransport:
    """`FakeTransport` for `AsyncClassifier`: the same, to be awaited. A `sightline.AsyncTransport`.

    The function is called in the event loop.


    async with AsyncClassifier("cats", transport=AsyncFakeTransport(card, function)) as cats:
        assert (await cats.classify("any.jpg"))[0].label == card.labels[0]
    """

    def __init__(self, card: ModelCard, network: Network, version: str = "1", sample: GoldenSample | None = None) -> None:
        self._fake = FakeTransport(card, network, version, sample)
        self.url, self.requests = self._fake.url, self._fake.requests

    async def models(self) -> list[ServedVersion]:
        """List the one model."""
        return self._fake.models()

    async def config(self, model: str, version: str = "") -> ServedConfig:
        """Return the configuration that an export of this card would have."""
        return self._fake.config(model, version)

    async def infer(self, model: str, version: str, input_name: str, pixels: npt.NDArray[np.uint8], output_name: str) -> InferResult:
        """Call the function."""
        return self._fake.infer(model, version, input_name, pixels, output_name)

    async def infer_encoded(self, model: str, version: str, input_name: str, images: Sequence[bytes], output_name: str) -> InferResult:
        """Refuse: a card has no model of its own for encoded images."""
        return self._fake.infer_encoded(model, version, input_name, images, output_name)

    async def labels(self, model: str, input_name: str, image: bytes, output_name: str, classes: int) -> dict[int, str]:
        """Refuse, as `infer_encoded` does."""
        return self._fake.labels(model, input_name, image, output_name, classes)

    async def aclose(self) -> None:
        """Nothing to close."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
