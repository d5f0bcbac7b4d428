"""The proof: follows the same images from the trainer to every client and names the first hop where two answers part.

Four questions, hop by hop. Is the card the same everywhere, and the file the one that was published? Are the pixels that a
client sends the ones that the network was trained with, bit for bit? Does the published ONNX file answer as the trained network
does? Does the server, over gRPC and over HTTP, answer as that file does?
"""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from sightline.batches import Probabilities, batch_size_for, in_batches
from sightline.card import CARD_KEY, ModelCard, unseal
from sightline.classifier import Classifier
from sightline.errors import ContractError, DataError, ModelError, ModelNotFound, RepositoryError
from sightline.in_triton import ENCODED, IMAGE, REFORMAT
from sightline.preprocess import AnyPreprocess
from sightline.reformatting import reformat
from sightline.repository.integrity import check_shared
from sightline.repository.layout import CONFIG_FILE, GOLDEN_FOLDER, GOLDEN_INDEX, ONNX_FILE, version_numbers
from sightline.repository.read import ModelVersion, check_files, read_folder, read_version
from sightline.repository.report import FROM
from sightline.served_model import MAX_REQUEST_BYTES, Pixels
from sightline.transport import Transport, connect
from sightline_export.gate.thresholds import FP32
from sightline_export.graph.runtimes import in_onnx_runtime, in_torch
from sightline_export.precisions import PRECISIONS
from sightline_export.settings import Endpoints, ImageSelection
from sightline_export.sources.run import Run, is_finished_run, load_run
from sightline_export.verify.answers import AnswerComparison, compare_pixels
from sightline_export.verify.card_copies import GRPC, HTTP, RUN, compare_copies, read_copies
from sightline_export.verify.hops import Hop, HopKind, Proof, Tally

CHUNK: Final = 500
"""Images under way at a time; bounds memory and paces the progress bar."""

BATCH: Final = 64

Progress = Callable[[int, int], None]


def verify(
    model: str,
    run_folder: Path,
    repository: Path,
    endpoints: Endpoints,
    images: ImageSelection | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Proof:
    """Compare every hop of `model` on the images that its run was tested with.

    In FP32, labels must agree on every image, and probabilities within the gate's `max_delta_p`. In a lower precision, the published
    file is held to the network as the gate held it, and the server to the file within its golden images' tolerance. A hop that
    differs is in the result, and `Proof.check` raises for it. What makes a comparison impossible is raised here: no server
    (ServerUnavailable), no such model (ModelNotFound), no run or images (DataError), no published version (RepositoryError).
    """
    model_folder = repository / model
    if not is_finished_run(run_folder):
        for number in version_numbers(model_folder)[-1:] if model_folder.is_dir() else ():
            _demand_run(model_folder / str(number))
        load_run(run_folder)  # says what is missing
    with ExitStack() as stack:
        over_grpc = stack.enter_context(connect(endpoints.grpc_url, endpoints.timeout_s))
        over_http = stack.enter_context(connect(endpoints.http_url, endpoints.timeout_s))
        version = _served_version(over_grpc, model)
        _demand_run(model_folder / str(version))
        copies = read_copies(run_folder, model_folder, version, over_grpc, over_http)
        classifiers = {
            name: stack.enter_context(Classifier(model, version=str(version), transport=transport))
            for name, transport in ((GRPC, over_grpc), (HTTP, over_http))
            if not isinstance(copies[name], ContractError)
        }
        takes_encoded = model + IMAGE in {served.name for served in over_grpc.models()}
        clients = _Clients(classifiers, {GRPC: over_grpc, HTTP: over_http} if takes_encoded else {})
        tallies = _Tallies(clients)
        # Without the run's card nobody can say what is right, and no other hop is reached.
        if not isinstance(copies[RUN], ContractError) and (run := _run(run_folder, tallies.weights)):
            published = read_version(model_folder / str(version))
            _compare_hashes(tallies, run, published)
            _compare_images(tallies, clients, run, published, images or ImageSelection(), progress)
        return Proof(model=model, version=version, hops=(*compare_copies(copies), *tallies.hops()))


@dataclass(frozen=True)
class _Clients:
    """Who asks the server: our own client over each protocol whose card can be believed, and one that sends encoded images."""

    classifiers: Mapping[str, Classifier]
    encoded: Mapping[str, Transport]


class _Tallies:
    """The hops behind those of the card, in the order of the line."""

    def __init__(self, clients: _Clients) -> None:
        self.weights, self.file = Tally(HopKind.WEIGHTS, "run", "version"), Tally(HopKind.FILE, "published", "on disk")
        self.pixels = {name: Tally(HopKind.PIXELS, "training", f"{name} client", counts_images=True) for name in (GRPC, HTTP)}
        self.onnx = Tally(HopKind.ANSWERS, "torch", "ONNX", counts_images=True)
        self.clients = {name: Tally(HopKind.ANSWERS, "ONNX", name, counts_images=True) for name in (GRPC, HTTP)}
        self.encoded = {name: Tally(HopKind.ANSWERS, "ONNX", f"{name}, encoded", counts_images=True) for name in clients.encoded}
        self.labels = {name: Tally(HopKind.LABELS, "card", f"Triton, {name}") for name in clients.encoded}

    def answers(self) -> tuple[Tally, ...]:
        return self.onnx, *self.clients.values(), *self.encoded.values()

    def hops(self) -> list[Hop]:
        return [tally.hop() for tally in (self.weights, self.file, *self.pixels.values(), *self.answers(), *self.labels.values())]


def _served_version(transport: Transport, model: str) -> int:
    served = [int(served.version) for served in transport.models() if served.name == model and served.version.isdigit()]
    if not served:
        raise ModelNotFound(
            f"the server at {transport.url} has no model {model}: `sightline models --url {transport.url}` lists what it has"
        )
    return max(served)


def _demand_run(folder: Path) -> None:
    """Raise DataError if the version in `folder` was not exported from a run: then nothing here knows what it should answer."""
    described = read_version(folder).described
    if described is None:
        return  # what is wrong with it, the hops will tell
    source = described.provenance.get(FROM)
    if source is not None:
        raise DataError(
            f"{folder.parent.name} version {folder.name} was imported from {str(source)[:120]}, and has no run to compare it with. Check "
            f"its golden images instead: classify those in {folder / GOLDEN_FOLDER}, and hold the answers to {GOLDEN_INDEX} beside them"
        )


def _run(folder: Path, weights: Tally) -> Run | None:
    try:
        return load_run(folder)
    except DataError as error:
        # A finished run whose files contradict each other is where the line is broken.
        weights.differs(str(error))
        return None


def _compare_hashes(tallies: _Tallies, run: Run, version: ModelVersion) -> None:
    exported = version.report.provenance.get("weights_sha256")
    if exported == run.weights_sha256:
        tallies.weights.same()
    else:
        tallies.weights.differs(
            f"{run.folder} holds other weights (sha256 {run.weights_sha256[:12]}…) than version {version.number} was exported from "
            f"({str(exported)[:12]}…): export the run again, or name the right one"
        )
    try:
        _check_files_of_line(version)
        tallies.file.same()
    except (RepositoryError, ContractError) as error:
        tallies.file.differs(str(error))


def _check_files_of_line(version: ModelVersion) -> None:
    """Raise RepositoryError unless every file that decides an answer is the published one: also beside the version, and of `_image`."""
    check_files(version)
    folder = version.folder.parent
    model = read_folder(folder)
    card = unseal(model.config.parameters[CARD_KEY], str(folder / CONFIG_FILE)) if CARD_KEY in model.config.parameters else None
    check_shared(model)
    for name in (folder.name + REFORMAT, folder.name + IMAGE):
        if (folder.parent / name).is_dir():
            ensemble = read_folder(folder.parent / name)
            check_shared(ensemble, card_of=lambda _: card)
            for its_version in ensemble.versions:
                check_files(its_version)


def _compare_images(
    tallies: _Tallies, clients: _Clients, run: Run, version: ModelVersion, wanted: ImageSelection, progress: Progress
) -> None:
    precision = PRECISIONS.get(version.report.precision)
    allowed = FP32 if precision is None else precision.thresholds
    comparison, card = AnswerComparison(run.card.labels, allowed), run.card
    images = run.images(run.judged_on, wanted.data)
    predict_torch = in_torch(run.network())
    predict_onnx = in_onnx_runtime((version.folder / ONNX_FILE).read_bytes(), card)
    total = min(wanted.limit or len(images), len(images))
    size = min(CHUNK, batch_size_for(card.preprocess.shape))
    for start in range(0, total, size):
        indices = np.arange(start, min(start + size, total))
        trained = images.pixels(card.preprocess, indices)
        of_torch, of_onnx = in_batches(predict_torch, trained, BATCH), in_batches(predict_onnx, trained, BATCH)
        comparison.compare(tallies.onnx, indices, of_torch, of_onnx, allowed.max_delta_p)
        files = [_as_png(images.open(int(index))) for index in indices]
        seen: dict[AnyPreprocess, Pixels] = {}
        for name, classifier in clients.classifiers.items():
            # Both protocols serve the same card, unless something is wrong.
            spec = classifier.card.preprocess
            sent = seen[spec] = seen[spec] if spec in seen else np.stack([reformat(content, spec) for content in files])
            compare_pixels(tallies.pixels[name], indices, trained, sent)
            if len(classifier.card.labels) == len(card.labels):
                comparison.compare(
                    tallies.clients[name], indices, of_onnx, classifier.probabilities_of_pixels(sent), allowed.golden_tolerance
                )
            else:
                tallies.clients[name].differs(f"{len(card.labels)} classes were trained, {len(classifier.card.labels)} are served")
        for name, transport in clients.encoded.items():
            comparison.compare(tallies.encoded[name], indices, of_onnx, _ask_encoded(transport, card, files), allowed.golden_tolerance)
        if start == 0:
            for name, transport in clients.encoded.items():
                _compare_labels(tallies.labels[name], card, transport, files[0])
        progress(int(indices[-1]) + 1, total)
    for tally in tallies.answers():
        comparison.settle(tally)


def _compare_labels(tally: Tally, card: ModelCard, transport: Transport, image: bytes) -> None:
    """Hold what Triton's own classification calls the classes, which curl prints, to the card."""
    names = transport.labels(card.name + IMAGE, ENCODED, image, card.output, len(card.labels))
    wrong = [(index, label) for index, label in enumerate(card.labels) if names.get(index) != label]
    if wrong:
        index, label = wrong[0]
        tally.differs(f"class {index} is {label} in the card, and Triton calls it {names.get(index)!r} (labels.txt of {card.name}{IMAGE})")
    else:
        tally.same()


def _ask_encoded(transport: Transport, card: ModelCard, files: Sequence[bytes]) -> Probabilities:
    """Return what `<model>_image` answers to encoded images. Raises ModelError if it answers anything but the card's classes."""
    batches, start = [], 0
    while start < len(files):
        count = 1
        while start + count < len(files) and count < min(BATCH, card.max_batch_size):
            if sum(map(len, files[start : start + count + 1])) > MAX_REQUEST_BYTES:
                break
            count += 1
        answer = transport.infer_encoded(card.name + IMAGE, "", ENCODED, files[start : start + count], card.output).values
        if answer.shape != (count, len(card.labels)):
            raise ModelError(f"{card.name}{IMAGE} on {transport.url} answered {answer.shape}, not {(count, len(card.labels))}")
        batches.append(answer)
        start += count
    return np.concatenate(batches)


def _as_png(image: Image.Image) -> bytes:
    """Encode a test image as the file that a client would be given. PNG loses nothing."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
