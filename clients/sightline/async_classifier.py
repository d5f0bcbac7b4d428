"""The SDK for event loops: what `Classifier` does, to be awaited. It holds nothing else up: images are decoded and reformatted by threads.

async with AsyncClassifier("fruit", url="grpc://localhost:8001") as fruit:
    for guess in await fruit.classify(["a.jpg", "b.png"], top=3):
        print(guess.label, guess.probability)

What is asked and how an answer is read stands in `sightline.served_model`, once for both.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from sightline.async_flow import async_flow
from sightline.card import ModelCard
from sightline.classifier import DEFAULT_URL
from sightline.client_settings import AsyncClientOptions, ClientSettings, settings_of
from sightline.errors import ImageError, UsageError
from sightline.flow import AHEAD, FlowSettings
from sightline.host.cpu import usable_cores
from sightline.image import ImageInput
from sightline.readers import ThreadReaders
from sightline.served_model import Guess, Request, ServedModel, demand_top, listed, open_served
from sightline.transport import AsyncTransport, InferResult, connect_async
from sightline.transport.failures import closed
from sightline.transport.patience import Patience, patiently_awaited

Answer = TypeVar("Answer")
Value = TypeVar("Value")
Images = ImageInput | Iterable[ImageInput] | AsyncIterable[ImageInput]
"""One image, or an iterable of them, asynchronous or not. One that is not is iterated over in the event loop: it should not wait."""


class AsyncClassifier:
    """One model on one server, for the tasks of one event loop. `async with` opens it; `open` and `aclose` are for where no block fits.

    Any number of tasks may share it. A task that is cancelled, or whose time is up, leaves nothing behind: its requests are cancelled,
    its threads end with the image that they are at. Another event loop, thread or process opens one of its own.
    """

    def __init__(self, model: str, url: str = DEFAULT_URL, **options: Unpack[AsyncClientOptions]) -> None:
        """Settle what will be opened; nothing is sent. `sightline.client_settings.ClientSettings` describes the options.

        Raises UsageError.
        """
        self._settle(model, url, settings_of(options), options.get("transport"))

    def _settle(self, model: str, url: str, settings: ClientSettings, transport: AsyncTransport | None) -> None:
        self.model, self.version = model, settings.version
        self._url, self._settings, self._given = url, settings, transport
        self._opened: _Opened | None = None
        self._closed = False

    async def open(self) -> Self:
        """Connect, ask for the model's card, and check it as `Classifier` does; once only.

        Raises ServerUnavailable, DeadlineExceeded, ModelNotFound, ContractError, UsageError or, with `check=True`, ModelError.
        """
        if self._opened is not None or self._closed:
            raise UsageError(f"the classifier of {self.model} was opened before: make another one")
        settings = self._settings
        transport = self._given or connect_async(self._url, settings.timeout_s, settings.tls, settings.headers_to(self._url))
        try:
            config = await patiently_awaited(lambda: transport.config(self.model, settings.version), self._patience())
            served = open_served(config, settings.version, transport.url, settings.max_pixels)
            readers = ThreadReaders(usable_cores(), AHEAD.pixels)
            self._opened = _Opened(transport, served, readers, asyncio.get_running_loop())
            self._ready()
            if settings.check:
                await self._check()
        except BaseException:
            self._closed = True
            await transport.aclose()
            raise
        return self

    @property
    def url(self) -> str:
        """The server's address."""
        return self._url if self._given is None else self._given.url

    @property
    def card(self) -> ModelCard:
        """The model's card, as the server has it. Raises UsageError before it is opened."""
        return self._ready().served.card

    @property
    def batch_size(self) -> int:
        """The most images that one request carries: bounded by the model and by 32 MiB. Raises UsageError before it is opened."""
        return self._ready().served.batch_size

    async def classify(self, images: Images, top: int = 1) -> list[Guess]:
        """Return a guess for each image, in order, as `Classifier.classify` does. Raises ImageError for one that cannot be read."""
        demand_top(top)
        return await self._readable(images, partial(self.classify_pixels, top=top))

    def stream(self, images: Images, top: int = 1, ahead: FlowSettings = AHEAD) -> AsyncGenerator[Guess | ImageError]:
        """Yield, in order, a guess or the ImageError for each image; `ahead` bounds how far it goes ahead of its caller.

        Use it up, or close it: `async with contextlib.aclosing(mnist.stream(images)) as guesses`.
        """
        demand_top(top)
        return self._outcomes(images, partial(self.classify_pixels, top=top), ahead)

    async def probabilities(self, images: Images) -> npt.NDArray[np.float32]:
        """Return float32 [N, classes] for the images, in order. Takes images and raises ImageError as `classify` does."""

        async def rows(pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
            return list(await self.probabilities_of_pixels(pixels))

        return self._ready().served.stacked(await self._readable(images, rows))

    async def classify_pixels(self, pixels: npt.NDArray[np.uint8], top: int = 1) -> list[Guess]:
        """Return a guess for each reformatted image of uint8 [N, H, W, C], in as few requests as the model and 32 MiB allow."""
        demand_top(top)
        return self._ready().served.guesses(pixels, await self._answers(pixels), top)

    async def probabilities_of_pixels(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return float32 [N, classes] for reformatted images, uint8 [N, H, W, C], in as few requests as the model and 32 MiB allow."""
        return self._ready().served.joined(await self._answers(pixels))

    async def served_version(self) -> str:
        """Return the version of the model that answers, as `Classifier.served_version` does."""
        opened = self._ready()
        return opened.served.newest_of(await self._patiently(opened.transport.models, self._patience()))

    async def aclose(self) -> None:
        """Close the connections. What is asked from now on raises UsageError, and so do calls and streams in flight."""
        self._closed = True
        if self._opened is not None:
            # A thread that is at an image ends when it is done; to wait for it would hold the event loop up.
            self._opened.readers.end(wait=False)
            await self._opened.transport.aclose()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __reduce__(self) -> tuple[Callable[..., "AsyncClassifier"], tuple[object, ...]]:
        """Pickled, it is what it was made with, and not yet open."""
        return _made_anew, (self.model, self._url, self._settings, self._given)

    async def _readable(self, images: Images, ask: Callable[[npt.NDArray[np.uint8]], Awaitable[Sequence[Answer]]]) -> list[Answer]:
        """Return the answers to all images. Raises the ImageError of the first that cannot be read."""
        answers: list[Answer] = []
        async with aclosing(self._outcomes(images, ask, AHEAD)) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, ImageError):
                    raise outcome
                answers.append(outcome)
        return answers

    async def _outcomes(
        self, images: Images, ask: Callable[[npt.NDArray[np.uint8]], Awaitable[Sequence[Answer]]], ahead: FlowSettings
    ) -> AsyncGenerator[Answer | ImageError]:
        opened = self._here()
        served = opened.served
        source = images if isinstance(images, AsyncIterable) else listed(images)
        # All tasks share the threads, unless a stream asks for its own number, as for files that lie far away.
        readers = opened.readers if ahead.readers is None else ThreadReaders(ahead.readers, ahead.pixels)
        try:
            outcomes = async_flow(source, served.reformatted, ask, served.batch_size, ahead.within(served.request_bytes), readers)
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    self._ready()
                    yield outcome
        except (RuntimeError, asyncio.CancelledError):
            # Threads that are no more, and what waited for them.
            task = asyncio.current_task()
            if self._closed and (task is None or not task.cancelling()):
                raise closed(self.url) from None
            raise
        finally:
            if readers is not opened.readers:
                readers.end(wait=False)

    async def _answers(self, pixels: npt.NDArray[np.uint8]) -> list[InferResult]:
        return [await self._answer(request) for request in self._ready().served.requests(pixels)]

    async def _answer(self, request: Request) -> InferResult:
        opened, patience = self._ready(), self._patience()
        result = await self._patiently(lambda: opened.transport.infer(*request.arguments()), patience)
        if patience.waited:
            await self._recognise(opened)
        return opened.served.checked(result, len(request.pixels))

    async def _recognise(self, opened: "_Opened") -> None:
        """Make sure that what came back is the model that was opened."""
        config = await self._patiently(lambda: opened.transport.config(self.model, self.version), self._patience())
        opened.served.demand_same(config)
        if self._settings.check:
            await self._check()

    async def _check(self) -> None:
        """Hold the answer to the golden sample to the published one."""
        opened = self._ready()
        sample = opened.served.sample_of(await self.served_version())
        request = opened.served.sample_request(sample)
        result = await self._patiently(lambda: opened.transport.infer(*request.arguments()), self._patience())
        opened.served.demand_published(sample, result)

    def _patience(self) -> Patience:
        return Patience(self._settings.wait_s, self._settings.on_wait)

    async def _patiently(self, call: Callable[[], Awaitable[Value]], patience: Patience) -> Value:
        async def asked() -> Value:
            self._here()
            return await call()

        return await patiently_awaited(asked, patience)

    def _ready(self) -> "_Opened":
        """Return what is open. Raises UsageError before and after that, and in another event loop."""
        if self._closed:
            raise closed(self.url)
        if self._opened is None:
            raise UsageError(f"the classifier of {self.model} is not open yet: use it in an `async with` block, or await its open()")
        return self._opened

    def _here(self) -> "_Opened":
        """Return what is open, to this event loop. Raises UsageError as `_ready` does, and in another one."""
        opened = self._ready()
        if opened.loop is not asyncio.get_running_loop():
            raise UsageError(f"the classifier of {self.model} belongs to another event loop: open one in each")
        return opened


@dataclass(frozen=True)
class _Opened:
    """What an open classifier has."""

    transport: AsyncTransport
    served: ServedModel
    readers: ThreadReaders
    loop: asyncio.AbstractEventLoop


def _made_anew(model: str, url: str, settings: ClientSettings, transport: AsyncTransport | None) -> AsyncClassifier:
    classifier = AsyncClassifier.__new__(AsyncClassifier)
    classifier._settle(model, url, settings, transport)
    return classifier
