"""Golden samples in `config.pbtxt`: of each version one golden image as the network gets it, with the published answer, for `--check`.

A client has the server alone, and what a server hands out is the configuration. So each version's sample stands among its parameters
(`sightline.golden_sample`). It is made of the version's own golden images, so that it can be made again, and held to them.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from sightline.card import SAMPLE_KEY, ModelCard
from sightline.errors import ContractError, ImageError, RepositoryError
from sightline.golden_sample import MAX_SAMPLE_BYTES, GoldenSample, seal_sample, unseal_sample
from sightline.host.files import read_bytes
from sightline.reformatting import reformat
from sightline.repository.config import ModelConfig
from sightline.repository.config_text import config_text, parse_config
from sightline.repository.golden import GoldenIndex
from sightline.repository.layout import CONFIG_FILE, FILE_NAME, GOLDEN_FOLDER, GOLDEN_INDEX, MAX_TEXT_BYTES, VERSION_NAME
from sightline.repository.read import ModelFolder, ModelVersion, PublishedModel
from sightline.repository.report import parse_document

MAX_SAMPLES_BYTES: Final = 2 * MAX_SAMPLE_BYTES
"""Of all samples in one configuration, which every client fetches: some twenty of photos of 224 × 224, thousands of digits. Those of the
oldest versions make room; a rollback makes them again."""


def sample_of(card: ModelCard, number: int, read: Callable[[str], bytes]) -> str | None:
    """Return the sealed sample of version `number` of `card`'s model; None if it has no golden images, or none that fits a sample.

    `read` gives the content of a file of the version, and raises OSError or KeyError where there is none. Of the golden images that one is
    chosen whose best class has the smallest probability: another network hardly ever answers such an image in the same way. Raises
    RepositoryError if the images are not those of the version's index.
    """
    index = _index_of(read)
    if index is None:
        return None
    if index.card_sha256 != card.sha256:
        raise RepositoryError(f"the golden images of {card.name} version {number} belong to another card: export the model again")
    for image in sorted(index.images, key=lambda image: max(image.probabilities, default=1.0)):
        if "/" in image.file or not FILE_NAME.fullmatch(image.file):
            continue
        try:
            pixels = reformat(read(f"{GOLDEN_FOLDER}/{image.file}"), card.preprocess)
        except (OSError, KeyError, ImageError) as error:
            raise RepositoryError(f"the golden image {image.file} of {card.name} version {number} cannot be read: {error}") from None
        if hashlib.sha256(pixels.tobytes()).hexdigest() != image.pixels_sha256 or len(image.probabilities) != len(card.labels):
            raise RepositoryError(f"the golden image {image.file} of {card.name} version {number} is not the one in {GOLDEN_INDEX}")
        probabilities = np.array(image.probabilities, np.float32)
        sealed = seal_sample(GoldenSample(card.name, number, card.sha256, pixels, probabilities, index.tolerance))
        if len(sealed) <= MAX_SAMPLE_BYTES:
            return sealed
    return None


def key_of(number: int) -> str:
    """Return the key of a version's sample."""
    return f"{SAMPLE_KEY}{number}"


def samples_in(config: ModelConfig) -> dict[str, str]:
    """Return those of a configuration's parameters that are samples."""
    return {key: value for key, value in config.parameters.items() if key.startswith(SAMPLE_KEY)}


def with_sample(config: ModelConfig, number: int, sealed: str, served: Iterable[int] = ()) -> ModelConfig:
    """Return `config` with the sample of a version; the oldest others that are not `served` make room for it."""
    parameters = {**config.parameters, key_of(number): sealed}
    kept = {key_of(each) for each in (*served, number)}
    samples = sorted((key for key in parameters if key.startswith(SAMPLE_KEY)), key=lambda key: (len(key), key))
    for key in samples:
        if sum(len(parameters[each]) for each in samples if each in parameters) > MAX_SAMPLES_BYTES and key not in kept:
            del parameters[key]
    return replace(config, parameters=parameters)


def text_with_sample(text: str, model: PublishedModel, number: int, sealed: str) -> str:
    """Return the text of a configuration with one more sample: at its end, so that whatever was written by hand stays as it is.

    It is written anew only where samples had to make room. Raises RepositoryError if it holds settings that would then be lost.
    """
    config = with_sample(model.config, number, sealed, model.served)
    appended = f"{text.rstrip()}\n{config_text(ModelConfig(name='', parameters={key_of(number): sealed}))}"
    if parse_config(appended, str(model.folder / CONFIG_FILE)).parameters == config.parameters:
        return appended
    if model.config.unknown_settings:
        raise RepositoryError(f"{model.folder / CONFIG_FILE} holds settings of a newer Triton than this program knows")
    return config_text(config)


def completed(model: PublishedModel, numbers: Iterable[int]) -> Mapping[str, str]:
    """Return the parameters of a model's configuration with the samples of the versions `numbers`, made again where there is none."""
    config = model.config
    numbers = tuple(numbers)
    for number in numbers:
        if key_of(number) not in config.parameters and (sealed := _made_again(model.version(number), model.card)):
            config = with_sample(config, number, sealed, numbers)
    return config.parameters


def check_samples(model: ModelFolder, card: ModelCard) -> None:
    """Raise ContractError or RepositoryError, naming the sample, unless each is sealed and is one of its version's golden images."""
    where = f"{CONFIG_FILE} of model {model.name} in {model.folder.parent}"
    versions = {version.number: version for version in model.versions}
    for key, sealed in samples_in(model.config).items():
        number = key.removeprefix(SAMPLE_KEY)
        if not VERSION_NAME.fullmatch(number):
            raise ContractError(f"{where}: parameters[{key!r:.80}] names no version. Restore the file that was published")
        sample = unseal_sample(sealed, card, int(number), f'parameters["{key}"] in {where}')
        version = versions.get(int(number))
        index = _index_of(_reader(version)) if version is not None else None
        if index is None:
            continue
        digest = hashlib.sha256(sample.pixels.tobytes()).hexdigest()
        if not any(
            image.pixels_sha256 == digest
            and np.array_equal(np.array(image.probabilities, np.float32), sample.probabilities)
            and index.tolerance == sample.tolerance
            for image in index.images
        ):
            raise RepositoryError(
                f'parameters["{key}"] in {where} is none of the golden images of version {number}, or has another answer than they. '
                "Restore the file that was published"
            )


def _made_again(version: ModelVersion, card: ModelCard) -> str | None:
    try:
        return sample_of(card, version.number, _reader(version))
    except RepositoryError:
        return None  # what is wrong with the version is told when it is served


def _reader(version: ModelVersion) -> Callable[[str], bytes]:
    return lambda name: read_bytes(version.folder / name, MAX_TEXT_BYTES)


def _index_of(read: Callable[[str], bytes]) -> GoldenIndex | None:
    try:
        content = read(f"{GOLDEN_FOLDER}/{GOLDEN_INDEX}")
    except (OSError, KeyError):
        return None
    try:
        return parse_document(GoldenIndex, content.decode("utf-8", "replace"), "no index of golden images of schema 1")
    except RepositoryError as error:
        raise RepositoryError(f"{GOLDEN_INDEX} is {error}: export the model again") from None
