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
import numpy.typing as npt
from PIL import Image

from sightline.card import ModelCard
from sightline.classifier import MAX_REQUEST_BYTES, Classifier
from sightline.errors import ContractError, DataError, HopDiffers, ModelError, ModelNotFound, RepositoryError
from sightline.in_triton import ENCODED, IMAGE
from sightline.reformat import reformat
from sightline.repository.read import FROM, Version, check_files, read_version, versions
from sightline.transport import Transport, connect
from sightline_export.gate.checks import FP32, THRESHOLDS, Thresholds
from sightline_export.gate.compare import in_onnx_runtime, in_torch
from sightline_export.verify.card_copies import GRPC, HTTP, RUN, Copies, differences, read_copies
from sightline_training.networks.wrappers import comfortable_batch
from sightline_training.run.run import Run, load_run

Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]

CHUNK: Final = 500
"""Images under way at a time; bounds memory and paces the progress bar."""

BATCH: Final = 64

SAME, DIFFERS, NOT_REACHED = "same", "DIFFERS", "not reached"


@dataclass
class Hop:
    """One row of the table."""

    name: str
    images: int | None = None
    """How many were compared; None for a hop that compares no images."""
    agreeing: int = 0
    """Images with the same most probable class at both ends; for pixels, those with every byte the same."""
    max_delta: float = 0.0
    """Largest |Δp| over all images and classes; for pixels, the largest difference of a byte."""
    verdict: str = NOT_REACHED
    reason: str = ""
    """What differs first."""

    def count(self, images: int, agreeing: int, max_delta: float) -> None:
        """Add a chunk of compared images."""
        self.images = (self.images or 0) + images
        self.agreeing += agreeing
        self.max_delta = float(np.maximum(self.max_delta, max_delta))  # NaN stays

    def same(self) -> None:
        """Note that what was compared agrees; an earlier difference stays."""
        if self.verdict == NOT_REACHED:
            self.verdict = SAME

    def differs(self, reason: str) -> None:
        """Note the first difference; later ones change nothing."""
        if self.verdict != DIFFERS:
            self.verdict, self.reason = DIFFERS, reason


@dataclass(frozen=True)
class Proof:
    """All hops of a model, in the order of the line."""

    model: str
    version: int
    hops: tuple[Hop, ...]

    def check(self) -> None:
        """Raise HopDiffers, naming the first broken hop, unless the answers are the same at every hop."""
        for verdict in (DIFFERS, NOT_REACHED):
            for hop in self.hops:
                if hop.verdict == verdict:
                    what = (
                        f"the answers part at the hop “{hop.name}”" if verdict == DIFFERS else f"the hop “{hop.name}” could not be reached"
                    )
                    raise HopDiffers(f"{self.model} version {self.version}: {what}: {hop.reason or 'see the hops before it'}")


def verify(
    model: str,
    run_folder: Path,
    repository: Path,
    *,
    grpc_url: str,
    http_url: str,
    data: Path | None = None,
    limit: int | None = None,
    timeout_s: float = 30.0,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Proof:
    """Compare every hop of `model` on the images that its run was tested with (the first `limit` of them, or all).

    In FP32, labels must agree on every image, and probabilities within the gate's `max_delta_p`. In a lower precision, the published
    file is held to the network as the gate held it, and the server to the file within its golden images' tolerance. A hop that
    differs is in the result, and `Proof.check` raises for it. What makes a comparison impossible is raised here: no server
    (ServerUnavailable), no such model
    (ModelNotFound), no run or images (DataError), no published version (RepositoryError).
    """
    if not (run_folder / "report.json").is_file():
        if (model_folder := repository / model).is_dir():
            for number in versions(model_folder)[-1:]:
                _demand_run(model_folder / str(number))
        load_run(run_folder)  # says what is missing
    with ExitStack() as stack:
        over_grpc = stack.enter_context(connect(grpc_url, timeout_s))
        over_http = stack.enter_context(connect(http_url, timeout_s))
        version = _served_version(over_grpc, model)
        _demand_run(repository / model / str(version))
        copies = read_copies(run_folder, repository / model, version, over_grpc, over_http)
        hops = _card_hops(copies)
        clients = {}
        for name, transport in ((GRPC, over_grpc), (HTTP, over_http)):
            if not isinstance(copies[name], ContractError):
                clients[name] = stack.enter_context(Classifier(model, version=str(version), transport=transport))
        served = {each.name for each in over_grpc.models()}
        encoded = {GRPC: over_grpc, HTTP: over_http} if model + IMAGE in served else {}
        hops += _published_hops(run_folder, repository / model, version, copies, clients, encoded, data, limit, progress)
    return Proof(model, version, tuple(hops))


def _served_version(transport: Transport, model: str) -> int:
    versions = [int(served.version) for served in transport.models() if served.name == model and served.version.isdigit()]
    if not versions:
        raise ModelNotFound(
            f"the server at {transport.url} has no model {model}: `sightline models --url {transport.url}` lists what it has"
        )
    return max(versions)


def _demand_run(folder: Path) -> None:
    """Raise DataError if the version in `folder` was not exported from a run: then nothing here knows what it should answer."""
    try:
        provenance = read_version(folder).report.get("provenance")
    except RepositoryError:
        return  # what is wrong with it, the hops will tell
    source = provenance.get(FROM) if isinstance(provenance, dict) else None
    if source is not None:
        raise DataError(
            f"{folder.parent.name} version {folder.name} was brought with `sightline export --from {str(source)[:120]}`, and has no run to "
            f"compare it with. Check its golden images instead: classify those in {folder / 'golden'}, and hold the answers to "
            "golden.json beside them"
        )


def _card_hops(copies: Copies) -> list[Hop]:
    origin = copies[RUN]
    others = {name: copy for name, copy in copies.items() if name != RUN}
    hops = []
    if isinstance(origin, ContractError):
        hops.append(Hop("card: run"))
        hops[0].differs(str(origin))
    alone = len({None if isinstance(copy, ContractError) else copy.sha256 for copy in others.values()}) == 1
    for name, copy in others.items():
        hop = Hop(f"card: run → {name}")
        hops.append(hop)
        if isinstance(copy, ContractError):
            hop.differs(str(copy))
        elif isinstance(origin, ContractError):
            continue
        elif copy != origin:
            hint = "; all the other copies agree, so the run's is the one that changed" if alone else ""
            hop.differs("; ".join(differences(origin, copy))[:300] + hint)
        else:
            hop.same()
    return hops


def _published_hops(
    run_folder: Path,
    model_folder: Path,
    version: int,
    copies: Copies,
    clients: Mapping[str, Classifier],
    encoded: Mapping[str, Transport],
    data: Path | None,
    limit: int | None,
    progress: Callable[[int, int], None],
) -> list[Hop]:
    """Compare weights, file, pixels and answers. Without the run's card nobody can say what is right, and none is reached."""
    weights, file = Hop("weights: run → version"), Hop("file: published → on disk")
    pixels = {name: Hop(f"pixels: training → {name} client", 0) for name in (GRPC, HTTP)}
    to_onnx = Hop("answers: torch → ONNX", 0)
    to_client = {GRPC: Hop("answers: ONNX → gRPC", 0), HTTP: Hop("answers: ONNX → HTTP", 0)}
    to_image = {name: Hop(f"answers: ONNX → {name}, encoded", 0) for name in encoded}
    hops = [weights, file, *pixels.values(), to_onnx, *to_client.values(), *to_image.values()]
    if isinstance(copies[RUN], ContractError):
        return hops
    try:
        run = load_run(run_folder)
    except DataError as error:
        # A finished run whose files contradict each other is where the line is broken.
        weights.differs(str(error))
        return hops
    published = read_version(model_folder / str(version))
    _compare_hashes(weights, file, run, published)
    allowed = THRESHOLDS.get(published.report.get("precision", FP32.precision), FP32)
    images = run.images(run.judged_on, data)
    ask_torch = in_torch(run.network())
    ask_onnx = in_onnx_runtime((model_folder / str(version) / "model.onnx").read_bytes(), run.card)
    total = min(limit or len(images), len(images))
    size = min(CHUNK, comfortable_batch(run.card.preprocess.shape))
    for start in range(0, total, size):
        chosen = np.arange(start, min(start + size, total))
        trained = images.pixels(run.card.preprocess, chosen)
        before, after = _batched(ask_torch, trained), _batched(ask_onnx, trained)
        _compare_answers(to_onnx, before, after, chosen, run.card.labels, allowed, allowed.max_delta_p)
        files = [_as_png(images.open(int(index))) for index in chosen]
        for name, client in clients.items():
            sent = np.stack([reformat(content, client.card.preprocess) for content in files])
            _compare_pixels(pixels[name], trained, sent, chosen)
            if len(client.card.labels) == len(run.card.labels):
                _compare_answers(to_client[name], after, client.answer(sent), chosen, run.card.labels, allowed, allowed.golden_tolerance)
            else:
                to_client[name].differs(f"{len(run.card.labels)} classes were trained, {len(client.card.labels)} are served")
        for name, transport in encoded.items():
            answers = _ask_encoded(transport, run.card, files)
            _compare_answers(to_image[name], after, answers, chosen, run.card.labels, allowed, allowed.golden_tolerance)
        progress(int(chosen[-1]) + 1, total)
    for hop in (to_onnx, *to_client.values(), *to_image.values()):
        _settle(hop, allowed)
    return hops


def _compare_hashes(weights: Hop, file: Hop, run: Run, version: Version) -> None:
    exported = version.report.get("provenance", {}).get("weights_sha256")
    if exported == run.weights_sha256:
        weights.same()
    else:
        weights.differs(
            f"{run.folder} holds other weights (sha256 {run.weights_sha256[:12]}…) than version {version.number} was exported from "
            f"({str(exported)[:12]}…): export the run again, or name the right one with --run"
        )
    try:
        check_files(version)
        file.same()
    except RepositoryError as error:
        file.differs(str(error))


def _batched(answer: Callable[[Pixels], Probabilities], pixels: Pixels) -> Probabilities:
    return np.concatenate([answer(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)])


def _ask_encoded(transport: Transport, card: ModelCard, files: Sequence[bytes]) -> Probabilities:
    """What `<model>_image` says of encoded images. Raises ModelError if it answers anything but the card's classes."""
    parts, start = [], 0
    while start < len(files):
        count = 1
        while start + count < len(files) and count < min(BATCH, card.max_batch_size):
            if sum(map(len, files[start : start + count + 1])) > MAX_REQUEST_BYTES:
                break
            count += 1
        answer = transport.infer_encoded(card.name + IMAGE, "", ENCODED, files[start : start + count], card.output).values
        if answer.shape != (count, len(card.labels)):
            raise ModelError(f"{card.name}{IMAGE} on {transport.url} answered {answer.shape}, not {(count, len(card.labels))}")
        parts.append(answer)
        start += count
    return np.concatenate(parts)


def _as_png(image: Image.Image) -> bytes:
    """Encode a test image as the file that a client would be given. PNG loses nothing."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _compare_pixels(hop: Hop, trained: Pixels, sent: Pixels, chosen: npt.NDArray[np.int64]) -> None:
    if trained.shape != sent.shape:
        hop.differs(f"training used pixels of shape {trained.shape[1:]}, the client sends {sent.shape[1:]}")
        return
    delta = np.abs(trained.astype(np.int16) - sent).reshape(len(trained), -1).max(axis=1)
    hop.count(len(trained), int((delta == 0).sum()), float(delta.max()))
    if delta.any():
        hop.differs(f"the client's pixels of image {chosen[delta.argmax()]} differ from training's by up to {delta.max()} of 255")
    hop.same()


def _compare_answers(
    hop: Hop,
    before: Probabilities,
    after: Probabilities,
    chosen: npt.NDArray[np.int64],
    labels: Sequence[str],
    allowed: Thresholds,
    max_delta_p: float,
) -> None:
    ends = hop.name.partition(": ")[2].split(" → ")
    top, top_after = before.argmax(axis=1), after.argmax(axis=1)
    delta = np.abs(before.astype(np.float64) - after).max(axis=1)
    hop.count(len(before), int((top == top_after).sum()), float(delta.max()))
    # NaN compares false, so it counts as a difference.
    wrong = ~(delta <= max_delta_p)
    if allowed.precision == FP32.precision:
        wrong |= top != top_after
    if wrong.any():
        worst = int(np.nan_to_num(delta, nan=np.inf).argmax())
        said = [
            f"{end} says {labels[row.argmax()]} ({row.max():.4f})" for end, row in zip(ends, (before[worst], after[worst]), strict=True)
        ]
        hop.differs(f"of image {chosen[worst]}, {' and '.join(said)}: |Δp| {delta[worst]:.2g}, allowed {max_delta_p:.0e}")


def _settle(hop: Hop, allowed: Thresholds) -> None:
    """After the last image: in a lower precision a few labels may differ, as many as the gate allows."""
    if not hop.images:
        return
    agreement = hop.agreeing / hop.images
    if agreement < allowed.min_agreement:
        hop.differs(f"{agreement:.2%} of the labels agree, at least {allowed.min_agreement:.2%} must in {allowed.precision}")
    hop.same()
