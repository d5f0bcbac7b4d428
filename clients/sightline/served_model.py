"""A model as a server offers it: what a request to it is made of, how an answer is read and checked, and what it says of an image.

Values in, values out: nothing here sends anything, so that the blocking client and the one for event loops share all of it.
"""

import os
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from sightline.card import CARD_KEY, SAMPLE_KEY, ModelCard, unseal
from sightline.errors import ContractError, ImageError, ModelError, ModelNotFound, UsageError
from sightline.golden_sample import GoldenSample, unseal_sample
from sightline.image import Admit, ImageInput
from sightline.preprocess import Preprocess
from sightline.reformatting import reformat
from sightline.remarks import remarks_of
from sightline.transport import InferResult, ServedConfig, ServedVersion

MAX_REQUEST_BYTES: Final = 32 * 1024 * 1024
"""Half of the 64 MiB that Triton's HTTP endpoint takes in one body."""

SINGLE: Final = (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, np.ndarray)
"""What is one image, though some of it could be iterated over; so is whatever has a method `read`."""

Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]


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
class Request:
    """One batch for a transport's `infer`, in the order of its arguments."""

    model: str
    version: str
    input_name: str
    pixels: Pixels
    """uint8 [N, H, W, C], contiguous."""
    output_name: str

    def arguments(self) -> tuple[str, str, str, Pixels, str]:
        """Return what `infer` takes."""
        return self.model, self.version, self.input_name, self.pixels, self.output_name


@dataclass(frozen=True)
class Reformatted:
    """`sightline.reformat` by one specification, as what a stream reads its images with."""

    spec: Preprocess
    max_pixels: int

    def __call__(self, image: ImageInput, admit: Admit | None = None) -> Pixels | ImageError:
        """Return the network's input of an image, uint8 [H, W, C], or why there is none."""
        try:
            return reformat(image, self.spec, self.max_pixels, admit)
        except ImageError as error:
            return error


@dataclass(frozen=True)
class ServedModel:
    """The model that a client has opened."""

    name: str
    version: str
    """The version that was asked for; "" lets the server choose."""
    url: str
    card: ModelCard
    batch_size: int
    """The most images that one request carries: bounded by the model, its configuration and MAX_REQUEST_BYTES."""
    max_pixels: int
    samples: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Version → sealed golden sample."""

    @property
    def reformatted(self) -> "Reformatted":
        """What images are read with."""
        return Reformatted(self.card.preprocess, self.max_pixels)

    @property
    def request_bytes(self) -> int:
        """Of the pixels of a full request."""
        return self.batch_size * int(np.prod(self.card.preprocess.shape))

    def requests(self, pixels: Pixels) -> Iterator[Request]:
        """Cut reformatted images, uint8 [N, H, W, C], into requests. Raises UsageError for another shape or type."""
        shape = self.card.preprocess.shape
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != shape:
            described = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else f"a {type(pixels).__name__}"
            raise UsageError(f"pixels must be uint8 [N, {', '.join(map(str, shape))}], not {described}")
        batches = (np.ascontiguousarray(pixels[start : start + self.batch_size]) for start in range(0, len(pixels), self.batch_size))
        return (Request(self.name, self.version, self.card.input, batch, self.card.output) for batch in batches)

    def checked(self, result: InferResult, count: int) -> InferResult:
        """Return the answer to `count` images. Raises ModelError unless it holds a distribution for each."""
        values, expected = result.values, (count, len(self.card.labels))
        if not isinstance(values, np.ndarray) or values.shape != expected or values.dtype != np.float32:
            described = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else "nothing"
            raise ModelError(f"the model {self.name} on {self.url} answered {described} instead of float32 {expected}")
        if not np.isfinite(values).all():
            raise ModelError(
                f"the model {self.name} on {self.url} answered with numbers that are not finite: it is broken, no label is given"
            )
        if values.min() < -1e-3 or np.abs(values.sum(axis=1, dtype=np.float64) - 1).max() > 1e-2:
            raise ModelError(f"the model {self.name} on {self.url} answered with numbers that are no probabilities: no label is given")
        return result

    def joined(self, results: Sequence[InferResult]) -> Probabilities:
        """Return the answers to all requests, float32 [N, classes]."""
        return np.concatenate([result.values for result in results]) if results else np.zeros((0, len(self.card.labels)), np.float32)

    def stacked(self, rows: Sequence[Probabilities]) -> Probabilities:
        """Return answers to single images, float32 [classes] each, as float32 [N, classes]."""
        return np.stack(rows) if rows else np.zeros((0, len(self.card.labels)), np.float32)

    def guesses(self, pixels: Pixels, results: Sequence[InferResult], top: int) -> list[Guess]:
        """Return what the answers `results` to all requests say of the reformatted images `pixels`."""
        versions = [result.version for result in results for _ in result.values]
        probabilities, labels = self.joined(results), self.card.labels
        # Equal probabilities keep the order of the labels.
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        values_of_best = np.take_along_axis(probabilities, best, axis=1)
        remarks = remarks_of(pixels, self.card.preprocess)
        guesses = []
        for indices, values, version, remark in zip(best.tolist(), values_of_best.tolist(), versions, remarks, strict=True):
            classes = tuple([ClassProbability(labels[index], value, index) for index, value in zip(indices, values, strict=True)])
            guesses.append(Guess(classes[0].label, classes[0].probability, classes[0].index, classes, version, remark))
        return guesses

    def newest_of(self, models: Iterable[ServedVersion]) -> str:
        """Return the version that answers: the one that was asked for, else the newest that is loaded. Raises ModelNotFound."""
        loaded = [served.version for served in models if served.name == self.name and self.version in ("", served.version)]
        if not loaded:
            version = f" version {self.version}" if self.version else ""
            raise ModelNotFound(f"the server at {self.url} has no such model or version any more: {self.name}{version}")
        return max(loaded, key=lambda version: (len(version), version))

    def demand_same(self, config: ServedConfig) -> None:
        """Raise ContractError if a configuration that was fetched again holds another card than the one that was opened."""
        card = served_card(config, self.url)
        if card.sha256 != self.card.sha256:
            raise ContractError(
                f"the model {self.name} on {self.url} changed while it was in use: its card was {self.card.sha256[:12]}…, after the server "
                f"came back it is {card.sha256[:12]}…: open the model again, and begin the job anew"
            )

    def sample_of(self, version: str) -> GoldenSample:
        """Return the golden sample of a version. Raises ContractError if the server has none, or none that is valid."""
        if version not in self.samples:
            raise ContractError(
                f"the model {self.name} version {version} on {self.url} carries no golden sample, so that its answers cannot be checked: "
                "it was published before there were samples (`sightline rollback` adds one, and so does an export), or its images are too "
                "large for one"
            )
        return unseal_sample(
            self.samples[version],
            self.card,
            int(version),
            f'parameters["{SAMPLE_KEY}{version}"] of the model {self.name} on {self.url}',
        )

    def sample_request(self, sample: GoldenSample) -> Request:
        """Return what asks the sample's own version about the sample."""
        return Request(self.name, str(sample.version), self.card.input, sample.pixels[None], self.card.output)

    def demand_published(self, sample: GoldenSample, result: InferResult) -> None:
        """Raise ModelError unless the answer to the golden sample is the published one, within its tolerance."""
        values = self.checked(result, 1).values[0]
        delta = float(np.abs(values.astype(np.float64) - sample.probabilities).max())
        if result.version != str(sample.version) or not delta <= sample.tolerance:
            raise ModelError(
                f"the model {self.name} version {sample.version} on {self.url} is not the one that was published: its answer to the golden "
                f"sample differs by |Δp| {delta:.3g}, and {sample.tolerance:g} is allowed. Was its file replaced? No label is given"
            )


def open_served(config: ServedConfig, version: str, url: str, max_pixels: int) -> ServedModel:
    """Return the model that a served configuration describes. Raises ContractError as `served_card` does."""
    card = served_card(config, url)
    largest = min(card.max_batch_size, config.max_batch_size)
    batch_size = max(1, min(largest, MAX_REQUEST_BYTES // int(np.prod(card.preprocess.shape))))
    return ServedModel(config.name, version, url, card, batch_size, max_pixels, config.samples)


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


def listed(images: ImageInput | Iterable[ImageInput]) -> Iterable[ImageInput]:
    """Return the images of one call, a single one as a list of one. An array of four dimensions is a batch of images [N, H, W, C].

    Raises UsageError for what is neither an image nor an iterable of images.
    """
    batch = isinstance(images, np.ndarray) and images.ndim == 4
    if not batch and (isinstance(images, SINGLE) or hasattr(images, "read")):
        return [cast("ImageInput", images)]
    if isinstance(images, Iterable) and not isinstance(images, Mapping):
        return cast("Iterable[ImageInput]", images)
    hint = " (an asynchronous iterable is for `AsyncClassifier`)" if isinstance(images, AsyncIterable) else ""
    raise UsageError(f"images must be an image or an iterable of images, not {type(images).__name__}{hint}")


def demand_top(top: int) -> None:
    """Raise UsageError unless at least one class is to be shown."""
    if top < 1:
        raise UsageError(f"the number of classes to show must be at least 1, not {top}")
