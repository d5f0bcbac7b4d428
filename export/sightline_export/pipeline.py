"""The way of a trained network into a model repository: export, gate, golden images, publish. Each step refuses rather than guesses."""

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch
from torch.utils.flop_counter import FlopCounterMode

from sightline.card import ModelCard
from sightline.errors import RepositoryError
from sightline.host.cpu import usable_cores
from sightline.reformatting import reformat
from sightline.repository.card_config import config_for
from sightline.repository.golden import first_image, golden_files
from sightline.repository.image_ensemble import check_image_ensemble, publish_image_ensemble
from sightline.repository.instances import InstanceSettings, instances_of, warm_up_sizes
from sightline.repository.layout import ONNX_FILE, WARM_UP_FILE, WARM_UP_FOLDER, version_numbers
from sightline.repository.publish import PublishedVersion, agreed_card, publish
from sightline.repository.read import check_files, read_published, read_version
from sightline.repository.report import ConversionReport, ShapeReport, VersionReport, json_text
from sightline.repository.shape import choose
from sightline_export.candidate import ComparisonImages, ExportCandidate
from sightline_export.gate.accuracy import accuracy_of
from sightline_export.gate.checks import Verdict
from sightline_export.gate.compare import ComparedImages, Reference, ask_torch, gate
from sightline_export.gate.shape import measure
from sightline_export.gate.speed import side_by_side
from sightline_export.graph.calibration import Calibration
from sightline_export.graph.convert import Conversion, convert
from sightline_export.graph.runtimes import in_onnx_runtime, in_torch, onnx_runtime_version
from sightline_export.graph.sampling import fitting, spread
from sightline_export.graph.torch_to_onnx import OPSET, export_onnx
from sightline_export.precisions import PrecisionSpec, precision_named
from sightline_export.settings import ExportSettings

TOOLS: Final = ("sightline", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True)
class Exported:
    """What became of a candidate in one precision."""

    published: PublishedVersion
    already: bool
    """Whether the newest version was this very model, so that nothing was published."""
    image_model: str | None = None
    """The model that takes encoded images, if it was published too."""


@dataclass(frozen=True)
class Listeners:
    """Who is told of an export while it goes on."""

    notify: Callable[[str], None] = lambda _sentence: None
    """Gets a sentence at each step."""
    progress: Callable[[int, int], None] = lambda _done, _total: None
    """Gets the gate's count of answers, done and in all."""
    exported: Callable[[Exported], None] = lambda _exported: None
    """Gets each precision's result as soon as it is there: a later one may still be refused."""


NOBODY: Final = Listeners()


def export_candidate(
    candidate: ExportCandidate, repository: Path, settings: ExportSettings | None = None, listeners: Listeners = NOBODY
) -> tuple[Exported, ...]:
    """Publish `candidate` as the next versions of its model in `repository`, one for each precision of the settings.

    The network is loaded, exported to FP32 and asked once for all of them. If the newest version holds the same model in a precision,
    unharmed, nothing is published for it unless the settings say so. Raises what its parts raise, GateRefused or RepositoryError; nothing
    was published then but the precisions before the one that failed.
    """
    settings = settings or ExportSettings()
    card = agreed_card(repository, candidate.card, listeners.notify)
    if settings.image_ensemble:
        check_image_ensemble(repository, card)
    network = candidate.network()
    listeners.notify(f"exporting {card.name} to ONNX (opset {OPSET})")
    work = _Work(candidate, card, settings, listeners, network, export_onnx(network, card))
    results = []
    for name in dict.fromkeys(settings.precisions):
        exported = _export(work, precision_named(name), repository)
        if settings.image_ensemble and (models := publish_image_ensemble(repository, card)):
            exported = replace(exported, image_model=models[-1])
        listeners.exported(exported)
        results.append(exported)
    return tuple(results)


@dataclass(frozen=True, eq=False)
class _Work:
    """What all precisions of one export share; what takes time is done once, when it is first needed."""

    candidate: ExportCandidate
    card: ModelCard
    settings: ExportSettings
    listeners: Listeners
    network: torch.nn.Module
    fp32: bytes

    @cached_property
    def calibration(self) -> Calibration:
        return self.candidate.calibration(self.card, self.settings.calibration)

    @cached_property
    def source(self) -> ComparisonImages:
        return self.candidate.images(self.settings.images or fitting(self.card))

    @cached_property
    def images(self) -> ComparedImages:
        indices = spread(len(self.source), self.settings.images or fitting(self.card))
        n, accuracy = self.candidate.reported or (0, None)
        reported = accuracy if len(indices) == len(self.source) == n else None
        return ComparedImages(self.source.pixels(self.card.preprocess, indices), self.source.labels[indices], reported)

    @cached_property
    def reference(self) -> Reference:
        total = 2 * len(self.images)
        return ask_torch(self.network, self.card, self.images, lambda done: self.listeners.progress(done, total))

    @cached_property
    def flop(self) -> int:
        return flop_per_image(self.network, self.card)


def _export(work: _Work, precision: PrecisionSpec, repository: Path) -> Exported:
    card, notify = work.card, work.listeners.notify
    calibration = work.calibration if precision.needs_calibration else None
    if not work.settings.again and (newest := _newest(repository / card.name, precision, work.fp32, calibration)):
        return Exported(newest, already=True)
    model, conversion = work.fp32, None
    if converter := precision.load_converter():
        notify(f"converting to {precision.name}")
        conversion = convert(work.fp32, card, converter, calibration, notify)
        model = conversion.model
    verdict = _judge(work, precision, model)
    verdict.require(card.name)
    notify("the gate let it pass; publishing")
    # What a server is held to is this file's answers; those of FP32 are the trained network's own.
    predict = in_torch(work.network) if conversion is None else in_onnx_runtime(model, card)
    golden = golden_files(card, work.source.open, work.source.labels, predict, precision.thresholds.golden_tolerance)
    shape, settings = _served(work, model, repository / card.name)
    report = _report(work, precision, model, conversion, verdict, settings.threads).model_copy(update={"shape": shape})
    config = config_for(card, settings, warm_up_sizes(settings, card.max_batch_size))
    warm_up = reformat(first_image(golden), card.preprocess).tobytes()
    shared = {f"{WARM_UP_FOLDER}/{WARM_UP_FILE}": warm_up}
    published = publish(repository, card, config, {ONNX_FILE: model, **golden}, report, notify, shared=shared)
    return Exported(published, already=False)


def _served(work: _Work, model: bytes, folder: Path) -> tuple[ShapeReport | None, InstanceSettings]:
    """How the model is spread over this machine: as measured, unless its folder says it already, whose configuration is kept."""
    if (there := read_published(folder)) is not None:
        return None, instances_of(there.config)
    work.listeners.notify("measuring how it is served fast on this machine")
    shape = measure(model, work.card, work.images.pixels, usable_cores())
    settings = choose(shape, len(model), work.flop)
    work.listeners.notify(f"it is served as {settings}")
    return shape, settings


def _judge(work: _Work, precision: PrecisionSpec, model: bytes) -> Verdict:
    source, listeners = work.source, work.listeners
    count = len(spread(len(source), work.settings.images or fitting(work.card)))
    listeners.notify(f"comparing ONNX Runtime with torch on {count:,} of {len(source):,} {source.split} images of {source.name}")
    return gate(
        model,
        work.card,
        work.images,
        work.reference,
        thresholds=precision.thresholds,
        weights=precision.weights,
        progress=lambda done: listeners.progress(count + done, 2 * count),
    )


def _report(
    work: _Work, precision: PrecisionSpec, model: bytes, conversion: Conversion | None, verdict: Verdict, threads: int
) -> VersionReport:
    """What a version's report says, but for what publishing adds; its speed beside FP32 is measured with so many threads."""
    card, source, origin = work.card, work.source, work.candidate.preprocess_origin
    accuracy = accuracy_of(verdict, work.images)
    against_fp32 = None
    if conversion is not None:
        speed = side_by_side({"fp32": work.fp32, precision.name: model}, card, work.images.pixels, threads)
        against_fp32 = {"bytes": len(work.fp32), "speed": speed}
    content: dict[str, object] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "precision": precision.name,
        "conversion": None if conversion is None else dict(conversion.notes),
        "against_fp32": against_fp32,
        "opset": OPSET,
        "card_sha256": card.sha256,
        "provenance": work.candidate.provenance,
        **({} if origin is None else {"preprocess_origin": origin.model_dump(mode="json")}),
        "gate": {
            **verdict.as_json(),
            "data": {"name": source.name, "split": source.split, "fingerprint": source.fingerprint},
            **({} if accuracy is None else {"accuracy": accuracy.model_dump(mode="json")}),
        },
        "model_bytes": len(model),
        "parameters": sum(parameter.numel() for parameter in work.network.parameters()),
        "flop_per_picture": work.flop,
        "tools": {"python": platform.python_version(), **{tool: _version_of(tool) for tool in TOOLS}},
    }
    # Through JSON, as it will be read: sources describe themselves with tuples too.
    return VersionReport.model_validate_json(json_text(content))


def _version_of(tool: str) -> str:
    """Of ONNX Runtime, there are two packages with one module."""
    return onnx_runtime_version() if tool == "onnxruntime" else version(tool)


def flop_per_image(network: torch.nn.Module, card: ModelCard) -> int:
    """Count the floating-point operations for one image in matrix products and convolutions, as torch's own counter does."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros((1, *card.preprocess.shape), dtype=torch.uint8))
    return int(counter.get_total_flops())


def _newest(model: Path, precision: PrecisionSpec, fp32: bytes, calibration: Calibration | None) -> PublishedVersion | None:
    """The newest version, if it was made of the same FP32 file in the same way and none of its files was changed."""
    sha256 = hashlib.sha256(fp32).hexdigest()
    numbers = version_numbers(model) if model.is_dir() else []
    if not numbers:
        return None
    newest = read_version(model / str(numbers[-1]))
    try:
        report = newest.report
        if report.precision != precision.name:
            return None
        if precision.converter is None:
            if report.files.get(ONNX_FILE) != sha256:
                return None
        elif not _converted_alike(report.conversion, sha256, calibration):
            return None
        check_files(newest)
    except RepositoryError:
        return None  # damaged: publishing anew is the remedy
    return PublishedVersion(model.name, newest.number, newest.folder, report)


def _converted_alike(conversion: ConversionReport | None, fp32_sha256: str, calibration: Calibration | None) -> bool:
    if conversion is None or conversion.from_sha256 != fp32_sha256:
        return False
    images = conversion.calibration
    return calibration is None or (images is not None and images.sha256 == calibration.sha256)
