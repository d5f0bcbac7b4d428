"""The SDK: asks a server how it wants its images, reformats them that way, and gives back guesses.

with Classifier("fruit", url="grpc://localhost:8001") as fruit:
    for guess in fruit.classify(["a.jpg", "b.png"], top=3):
        print(guess.label, guess.probability)
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from sightline.card import CARD_KEY, ModelCard, unseal
from sightline.errors import ContractError, ImageError, ModelError, UsageError
from sightline.flow import AHEAD, FlowSettings, flow
from sightline.image import MAX_PIXELS, Admit, ImageInput
from sightline.preprocess import Preprocess
from sightline.readers import Readers
from sightline.reformat import reformat
from sightline.remarks import remarks_of
from sightline.transport import ServedConfig, Tls, Transport, connect
from sightline.transport.patience import WAIT_S, demand_wait, patiently

MAX_REQUEST_BYTES: Final = 32 * 1024 * 1024
"""Half of the 64 MiB that Triton's HTTP endpoint takes in one body."""


@dataclass(frozen=True)
class ClassProbability:
    """A class and its probability."""

    label: str
    probability: float
    """0..1."""
    index: int
    """Position in the card's labels."""


@dataclass(frozen=True)
class Guess:
    """What the model says of one image."""

    label: str
    """The most probable class."""
    probability: float
    """Of that class, 0..1."""
    index: int
    """Its position in the card's labels."""
    top: tuple[ClassProbability, ...]
    """The most probable classes, best first, as many as were asked for; `top[0]` is the label above."""
    version: str
    """Version of the model that answered."""
    remark: str = ""
    """What makes the answer doubtful, in a sentence: the reformatted image is of one colour (`sightline.remarks`). Empty if nothing."""


@dataclass(frozen=True)
class Reformatted:
    """`sightline.reformat` as what a stream reads images with."""

    spec: Preprocess
    max_pixels: int

    def __call__(self, image: ImageInput, admit: Admit) -> npt.NDArray[np.uint8] | ImageError:
        """Return the network's input of an image, uint8 [H, W, C], or why there is none."""
        try:
            return reformat(image, self.spec, self.max_pixels, admit)
        except ImageError as error:
            return error


class Classifier:
    """One model on one server. Safe to share between threads and with forked or spawned processes; close it, or use it in a `with` block.

    Opening it asks the server for the model's card and checks the card's hash and its fit with the model's configuration.
    Raises ServerUnavailable, DeadlineExceeded, ModelNotFound, ContractError or UsageError.
    """

    def __init__(  # noqa: PLR0913 - seven settings that have defaults, each of its own kind
        self,
        model: str,
        url: str = "grpc://localhost:8001",
        *,
        version: str = "",
        timeout_s: float = 10.0,
        wait_s: float = WAIT_S,
        tls: Tls | None = None,
        transport: Transport | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Connect to `model` at `url`, or through `transport`. `version` "" lets the server choose; `timeout_s` bounds each call.

        An image of more than `max_pixels` is refused; one of 200 million takes 600 MB while it is decoded.

        Where nobody answers, or the model is not ready, each call is repeated for `wait_s` seconds: 30 outlast a server that starts anew.
        """
        if version and not (version.isascii() and version.isdigit() and len(version) < 20):
            raise UsageError(f"a model's version is a whole number, not {version!r}")
        if not timeout_s > 0:
            raise UsageError(f"the time allowed for a call must be more than 0 s, not {timeout_s:g}")
        if max_pixels < 1:
            raise UsageError(f"the most pixels that an image may have must be at least 1, not {max_pixels}")
        self._wait_s = demand_wait(wait_s)
        self._max_pixels = max_pixels
        self.model = model
        self.version = version
        self._reopen = partial(
            Classifier,
            model,
            url,
            version=version,
            timeout_s=timeout_s,
            wait_s=wait_s,
            tls=tls,
            transport=transport,
            max_pixels=max_pixels,
        )
        self._transport = transport if transport is not None else connect(url, timeout_s, tls)
        try:
            config = patiently(lambda: self._transport.config(model, version), wait_s)
            self.card = served_card(config, self.url)
        except BaseException:
            self._transport.close()
            raise
        largest = min(self.card.max_batch_size, config.max_batch_size)
        self._batch = max(1, min(largest, MAX_REQUEST_BYTES // int(np.prod(self.card.preprocess.shape))))

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.url

    @property
    def batch_size(self) -> int:
        """The most images that one request carries: bounded by the model and by MAX_REQUEST_BYTES."""
        return self._batch

    def classify(self, images: ImageInput | Sequence[ImageInput], top: int = 1) -> list[Guess]:
        """Return a guess for each image, in order. A single image counts as a list of one.

        A guess with a `remark` is the answer to an image on which there is nothing to read. Raises ImageError, naming the image, if
        one cannot be read: no image ever gets a label by accident. Use `stream` to go on after a broken image.
        """
        listed: Sequence[ImageInput] = images if isinstance(images, (list, tuple)) else [images]  # type: ignore[list-item]
        guesses = []
        for outcome in self.stream(listed, top):
            if isinstance(outcome, ImageError):
                raise outcome
            guesses.append(outcome)
        return guesses

    def stream(
        self, images: Iterable[ImageInput], top: int = 1, ahead: FlowSettings = AHEAD, readers: Readers | None = None
    ) -> Iterator[Guess | ImageError]:
        """Yield, in order, a guess or the ImageError for each image; `ahead` bounds how far it goes ahead of its caller.

        Images are read and requests are sent by threads of the stream, which end with it: use it up, or close it.
        """
        if top < 1:
            raise UsageError(f"the number of classes to show must be at least 1, not {top}")

        request_bytes = self._batch * int(np.prod(self.card.preprocess.shape))
        return flow(
            images,
            Reformatted(self.card.preprocess, self._max_pixels),
            partial(self.guesses, top=top),
            self._batch,
            ahead.within(request_bytes),
            readers,
        )

    def guesses(self, pixels: npt.NDArray[np.uint8], top: int = 1) -> list[Guess]:
        """Return a guess for each of the reformatted images: uint8 [N, H, W, C]."""
        probabilities, versions = self._infer(pixels)
        labels = self.card.labels
        # Equal probabilities keep the order of the labels.
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        guesses = []
        for indices, values, version, remark in zip(
            best.tolist(),
            np.take_along_axis(probabilities, best, axis=1).tolist(),
            versions,
            remarks_of(pixels, self.card.preprocess),
            strict=True,
        ):
            classes = tuple(ClassProbability(labels[index], value, index) for index, value in zip(indices, values, strict=True))
            guesses.append(Guess(classes[0].label, classes[0].probability, classes[0].index, classes, version, remark))
        return guesses

    def probabilities(self, images: Sequence[ImageInput]) -> npt.NDArray[np.float32]:
        """Return float32 [N, classes] for the images, in order. Raises ImageError as `classify` does."""
        if not images:
            return np.zeros((0, len(self.card.labels)), np.float32)
        return self._infer(np.stack([reformat(image, self.card.preprocess, self._max_pixels) for image in images]))[0]

    def answer(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return float32 [N, classes] for reformatted images, uint8 [N, H, W, C], in as few requests as the model allows."""
        return self._infer(pixels)[0]

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[], "Classifier"], tuple[()]]:
        """Pickled, it is what it was opened with: another process opens its own, and asks the server for the card again."""
        return self._reopen, ()

    def _infer(self, pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], list[str]]:
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self.card.preprocess.shape:
            raise UsageError(
                f"pixels must be uint8 [N, {', '.join(map(str, self.card.preprocess.shape))}], not {pixels.dtype} {pixels.shape}"
            )
        batches, versions = [], []
        for start in range(0, len(pixels), self._batch):
            batch = np.ascontiguousarray(pixels[start : start + self._batch])
            result = patiently(
                partial(self._transport.infer, self.model, self.version, self.card.input, batch, self.card.output), self._wait_s
            )
            batches.append(self._checked(result.values, len(batch)))
            versions += [result.version] * len(batch)
        return np.concatenate(batches) if batches else np.zeros((0, len(self.card.labels)), np.float32), versions

    def _checked(self, values: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        expected = (count, len(self.card.labels))
        if not isinstance(values, np.ndarray) or values.shape != expected or values.dtype != np.float32:
            described = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else "nothing"
            raise ModelError(f"the model {self.model} on {self.url} answered {described} instead of float32 {expected}")
        if not np.isfinite(values).all():
            raise ModelError(
                f"the model {self.model} on {self.url} answered with numbers that are not finite: it is broken, no label is given"
            )
        if values.min() < -1e-3 or np.abs(values.sum(axis=1, dtype=np.float64) - 1).max() > 1e-2:
            raise ModelError(f"the model {self.model} on {self.url} answered with numbers that are no probabilities: no label is given")
        return values


def served_card(config: ServedConfig, url: str) -> ModelCard:
    """Read the card out of a served configuration and check that the two agree.

    Raises ContractError if there is no card, if its hash is wrong, or if the configuration contradicts it.
    """
    where = f"config.pbtxt of the model {config.name} on {url}"
    if config.pictures_of is not None:
        model = unseal(config.pictures_of, where).name
        raise ContractError(
            f"{config.name} on {url} takes encoded images, for clients that cannot reformat by themselves: ask the model {model} itself"
        )
    if config.sealed_card is None:
        raise ContractError(
            f'{where}: there is no model card under parameters["{CARD_KEY}"]: this model was not exported by `sightline export`, '
            "so nobody can say how its images must be reformatted"
        )
    card = unseal(config.sealed_card, where)
    expected = (card.name, [(card.input, "TYPE_UINT8", card.preprocess.shape)], [(card.output, "TYPE_FP32", (len(card.labels),))])
    served = (config.name, *([(t.name, t.datatype, t.dims) for t in tensors] for tensors in (config.inputs, config.outputs)))
    for what, in_card, in_config in zip(("name", "input", "output"), expected, served, strict=True):
        if in_card != in_config:
            raise ContractError(
                f"{where}: the card says that the {what} is {in_card}, the configuration says {in_config}: export the model again"
            )
    if config.max_batch_size < 1:
        raise ContractError(f"{where}: max_batch_size is {config.max_batch_size}, so the model takes no batches: export the model again")
    return card
