"""Measures a model at each address, with each size of batch and each concurrency, and holds its answers to the expected ones."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sightline.bench.expected import ExpectedAnswers, expected_answers, hold_under_load, published_answers
from sightline.bench.perf_analyzer import PerfAnalyzer, find_perf_analyzer, input_data
from sightline.bench.settings import DEFAULTS, MOST_IMAGES, BenchSettings, Load, Measurement
from sightline.card import ModelCard
from sightline.errors import ContractError, UsageError
from sightline.image import MAX_PIXELS, ImageInput
from sightline.reformatting import reformat
from sightline.repository.golden import GoldenSet
from sightline.served_model import ServedModel, open_served
from sightline.transport import ServerTransport, connect, parse_url


def bench(
    card: ModelCard,
    images: Iterable[ImageInput],
    urls: Sequence[str],
    settings: BenchSettings = DEFAULTS,
    progress: Callable[[str, Load], None] = lambda _protocol, _load: None,
    golden: GoldenSet | None = None,
) -> list[Measurement]:
    """Measure the model of `card` at each of `urls` (gRPC or HTTP) with each size of batch and each concurrency.

    `images` are read and reformatted first; ImageError if one cannot be. The server must give the published answers to `golden`, or,
    without them, to the golden sample that it has. Raises ModelError for a wrong answer, before or during the measurements;
    ServerError or ModelError with perf_analyzer's own words if a measurement fails; MissingExtra if there is no perf_analyzer.
    """
    program = find_perf_analyzer()
    demand_batches(card, settings)
    addresses = [parse_url(url) for url in urls]
    pixels = [reformat(image, card.preprocess) for image, _ in zip(images, range(MOST_IMAGES), strict=False)]
    if not pixels:
        raise UsageError("there are no images to measure with")
    rows: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as scratch:
        for address in addresses:
            with connect(address.url, settings.timeout_s, settings.tls, settings.headers) as transport:
                served = opened(transport, card, settings.version)
                expected = expected_answers(transport, served, pixels, published_answers(served, golden))
                analyzer = PerfAnalyzer(program, card, served.version, address, settings)
                rows += _Sweep(transport, served, expected, analyzer, Path(scratch)).rows(progress)
    return rows


def demand_batches(card: ModelCard, settings: BenchSettings) -> None:
    """Raise UsageError for a size of batch that the model does not take."""
    for batch in settings.batches:
        if not 1 <= batch <= card.max_batch_size:
            raise UsageError(f"the batch must be between 1 and {card.max_batch_size}, the model's largest, not {batch}")


def opened(transport: ServerTransport, card: ModelCard, version: str) -> ServedModel:
    """Return the model as the server has it, with the version that answers. Raises ContractError if its card is another one."""
    served = open_served(transport.config(card.name, version), version, transport.url, MAX_PIXELS)
    if served.card.sha256 != card.sha256:
        raise ContractError(
            f"the model {card.name} on {transport.url} has the card {served.card.sha256[:12]}…, not {card.sha256[:12]}… as the first "
            "server: measure one of the two"
        )
    return replace(served, version=served.newest_of(transport.models()))


@dataclass(frozen=True)
class _Sweep:
    """The measurements at one address."""

    transport: ServerTransport
    served: ServedModel
    expected: ExpectedAnswers
    analyzer: PerfAnalyzer
    scratch: Path

    def rows(self, progress: Callable[[str, Load], None]) -> Iterator[Measurement]:
        """Measure with every load."""
        for batch in self.analyzer.settings.batches:
            with_answers, without = self._data(batch, self.expected.answers), self._data(batch, None)
            to_the_bit = True
            for concurrency in self.analyzer.settings.concurrencies:
                load = Load(concurrency, batch)
                progress(self.analyzer.address.protocol, load)
                row = self.analyzer.measure(load, with_answers, self.scratch / "report.csv") if to_the_bit else None
                if row is not None:
                    yield replace(row, check="every answer")
                    continue
                # A wrong answer, or other last bits: what follows tells the one from the other.
                to_the_bit = False
                yield self._held(load, without)

    def _held(self, load: Load, data: Path) -> Measurement:
        """Measure, and hold answers to the expected ones before and after."""
        checked = hold_under_load(self.transport, self.served, self.expected, load)
        row = self.analyzer.measure(load, data, self.scratch / "report.csv")
        assert row is not None  # without expected answers none can differ
        checked += hold_under_load(self.transport, self.served, self.expected, load)
        return replace(row, check="under load", checked=checked)

    def _data(self, batch: int, answers: npt.NDArray[np.float32] | None) -> Path:
        """The file of images for requests of `batch`; some come twice, so that the last request is as full as the others."""
        count = len(self.expected.pixels)
        indices = np.arange(-(-count // batch) * batch) % count
        file = self.scratch / f"images-{batch}-{'held' if answers is not None else 'free'}.json"
        chosen = None if answers is None else answers[indices]
        file.write_text(input_data(self.analyzer.card, self.expected.pixels[indices], chosen), encoding="ascii")
        return file
