"""The SDK: asks a server how it wants its images, reformats them that way, and gives back guesses.

with Classifier("fruit", url="grpc://localhost:8001") as fruit:
    for guess in fruit.classify(["a.jpg", "b.png"], top=3):
        print(guess.label, guess.probability)

What is asked and how an answer is read stands in `sightline.served_model`; `AsyncClassifier` has the same methods, to be awaited.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Self, TypeVar, Unpack, cast

import numpy as np
import numpy.typing as npt

from sightline.card import ModelCard
from sightline.client_settings import ClientOptions, ClientSettings, settings_of
from sightline.errors import ImageError
from sightline.flow import AHEAD, FlowSettings, flow
from sightline.image import ImageInput
from sightline.readers import Readers
from sightline.served_model import ClassProbability, Guess, Request, demand_top, listed, open_served, served_card
from sightline.transport import InferResult, Transport, connect
from sightline.transport.failures import closed
from sightline.transport.patience import Patience, patiently

__all__ = ["DEFAULT_URL", "ClassProbability", "Classifier", "Guess", "served_card"]

DEFAULT_URL: Final = "grpc://localhost:8001"

Answer = TypeVar("Answer")
Value = TypeVar("Value")


class Classifier:
    """One model on one server. Safe to share between threads and with forked or spawned processes; close it, or use it in a `with` block.

    Opening it asks the server for the model's card and checks the card's hash and its fit with the model's configuration.
    Raises ServerUnavailable, DeadlineExceeded, ModelNotFound, ContractError, UsageError or, with `check=True`, ModelError.
    """

    def __init__(self, model: str, url: str = DEFAULT_URL, **options: Unpack[ClientOptions]) -> None:
        """Connect to `model` at `url`. `sightline.client_settings.ClientSettings` describes the options."""
        self._open(model, url, settings_of(options), options.get("transport"))

    def _open(self, model: str, url: str, settings: ClientSettings, transport: Transport | None) -> None:
        self.model, self.version = model, settings.version
        self._settings = settings
        self._opening = Opening(model, url, settings, transport)
        self._closed = False
        if transport is None:
            transport = connect(url, settings.timeout_s, settings.tls, settings.headers_to(url))
        self._transport = transport
        try:
            config = self._patiently(lambda: transport.config(model, settings.version), Patience(settings.wait_s, settings.on_wait))
            self._served = open_served(config, settings.version, transport.url, settings.max_pixels)
            if settings.check:
                self._check()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.url

    @property
    def card(self) -> ModelCard:
        """The model's card, as the server has it."""
        return self._served.card

    @property
    def batch_size(self) -> int:
        """The most images that one request carries: bounded by the model and by 32 MiB."""
        return self._served.batch_size

    @property
    def max_pixels(self) -> int:
        """The most pixels that an image may have."""
        return self._settings.max_pixels

    def classify(self, images: ImageInput | Iterable[ImageInput], top: int = 1) -> list[Guess]:
        """Return a guess for each image, in order. `images` is any iterable of images, or a single one, which counts as a list of one.

        A guess with a `remark` is the answer to an image on which there is nothing to read. Raises ImageError, naming the image, if
        one cannot be read: no image ever gets a label by accident. Use `stream` to go on after a broken image.
        """
        return _readable(self.stream(images, top))

    def stream(
        self, images: ImageInput | Iterable[ImageInput], top: int = 1, ahead: FlowSettings = AHEAD, readers: Readers | None = None
    ) -> Iterator[Guess | ImageError]:
        """Yield, in order, a guess or the ImageError for each image; `ahead` bounds how far it goes ahead of its caller.

        Images are read by `readers` (`sightline.readers.reading_processes`) or by threads of the stream, and requests are sent by others;
        its threads end with it: use it up, or close it.
        """
        demand_top(top)
        return self._outcomes(listed(images), partial(self.classify_pixels, top=top), ahead, readers)

    def probabilities(self, images: ImageInput | Iterable[ImageInput]) -> npt.NDArray[np.float32]:
        """Return float32 [N, classes] for the images, in order. Takes images and raises ImageError as `classify` does."""

        def rows(pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
            return list(self.probabilities_of_pixels(pixels))

        return self._served.stacked(_readable(self._outcomes(listed(images), rows, AHEAD)))

    def classify_pixels(self, pixels: npt.NDArray[np.uint8], top: int = 1) -> list[Guess]:
        """Return a guess for each reformatted image of uint8 [N, H, W, C], in as few requests as the model and 32 MiB allow."""
        demand_top(top)
        return self._served.guesses(pixels, self._answers(pixels), top)

    def probabilities_of_pixels(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return float32 [N, classes] for reformatted images, uint8 [N, H, W, C], in as few requests as the model and 32 MiB allow."""
        return self._served.joined(self._answers(pixels))

    def served_version(self) -> str:
        """Return the version of the model that answers: the one that was asked for, else the newest that the server has loaded.

        Raises ModelNotFound if it is not loaded any more.
        """
        return self._served.newest_of(self._patiently(self._transport.models, Patience(self._settings.wait_s, self._settings.on_wait)))

    def close(self) -> None:
        """Close the connections. What is asked from now on raises UsageError, and so do calls and streams in flight."""
        self._closed = True
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., "Classifier"], tuple[object, ...]]:
        """Pickled, it is what it was opened with: another process opens its own, and asks the server for the card again."""
        return Opening.opened, (self._opening,)

    def opening(self) -> "Opening":
        """Return what opens another one like it in a process elsewhere. Who waits for a server there is told to nobody here."""
        return replace(self._opening, settings=self._settings.elsewhere())

    def _outcomes(
        self,
        images: Iterable[ImageInput],
        ask: Callable[[npt.NDArray[np.uint8]], Sequence[Answer]],
        ahead: FlowSettings,
        readers: Readers | None = None,
    ) -> Iterator[Answer | ImageError]:
        served = self._served
        outcomes = flow(images, served.reformatted, ask, served.batch_size, ahead.within(served.request_bytes), readers)
        self._demand_open()
        with closing(cast("Generator[Answer | ImageError]", outcomes)):
            for outcome in outcomes:
                self._demand_open()
                yield outcome

    def _answers(self, pixels: npt.NDArray[np.uint8]) -> list[InferResult]:
        self._demand_open()
        return [self._answer(request) for request in self._served.requests(pixels)]

    def _answer(self, request: Request) -> InferResult:
        patience = Patience(self._settings.wait_s, self._settings.on_wait)
        result = self._patiently(lambda: self._transport.infer(*request.arguments()), patience)
        if patience.waited:
            self._recognise()
        return self._served.checked(result, len(request.pixels))

    def _recognise(self) -> None:
        """Make sure that what came back is the model that was opened."""
        patience = Patience(self._settings.wait_s, self._settings.on_wait)
        self._served.demand_same(self._patiently(lambda: self._transport.config(self.model, self.version), patience))
        if self._settings.check:
            self._check()

    def _check(self) -> None:
        """Hold the answer to the golden sample to the published one."""
        sample = self._served.sample_of(self.served_version())
        request = self._served.sample_request(sample)
        patience = Patience(self._settings.wait_s, self._settings.on_wait)
        self._served.demand_published(sample, self._patiently(lambda: self._transport.infer(*request.arguments()), patience))

    def _patiently(self, call: Callable[[], Value], patience: Patience) -> Value:
        def asked() -> Value:
            self._demand_open()
            return call()

        return patiently(asked, patience)

    def _demand_open(self) -> None:
        if self._closed:
            raise closed(self.url)


@dataclass(frozen=True)
class Opening:
    """What a classifier was opened with: a value that travels to where another one like it is wanted."""

    model: str
    url: str
    settings: ClientSettings
    transport: Transport | None = None

    def opened(self) -> Classifier:
        """Open one. Raises as `Classifier` does."""
        classifier = Classifier.__new__(Classifier)
        classifier._open(self.model, self.url, self.settings, self.transport)
        return classifier


def _readable(outcomes: Iterable[Answer | ImageError]) -> list[Answer]:
    """Return the outcomes. Raises the first that is an ImageError."""
    answers: list[Answer] = []
    for outcome in outcomes:
        if isinstance(outcome, ImageError):
            raise outcome
        answers.append(outcome)
    return answers
