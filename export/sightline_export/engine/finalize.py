"""From a published version to a TensorRT plan beside it, on the machine that serves: build, inspect, gate, publish.

The ONNX file stays the model. The plan is held to its answers with the thresholds of its precision, and to the golden images.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from sightline.batches import Predict, in_batches
from sightline.card import ModelCard
from sightline.errors import BuildError, ContractError, MachineError, RepositoryError
from sightline.host.gpu import machine
from sightline.host.text import one_line
from sightline.repository.golden import GoldenSet, read_golden
from sightline.repository.layout import ONNX_FILE, REPORT_FILE
from sightline.repository.publish_plan import check_writable, publish_plan
from sightline.repository.read import ModelVersion, PublishedModel, check_files, model_named
from sightline.repository.tensorrt_plan import Fingerprint, Plan, check_plan, identity, plan_folders, profile_for, read_plan
from sightline_export.engine.build import LoadedPlan, build, load, tensorrt_version
from sightline_export.engine.inspector import check_inspected, inspected_precisions
from sightline_export.engine.timing_cache import default_timing_cache, read_cache, write_cache
from sightline_export.gate.checks import Check, Verdict, at_most, exactly
from sightline_export.gate.compare import ComparedImages, Reference, hold_to
from sightline_export.graph.layers import layers
from sightline_export.graph.runtimes import in_onnx_runtime
from sightline_export.precisions import PRECISIONS, PrecisionSpec
from sightline_export.settings import FinalizeSettings

REFERENCE: Final = "ONNX Runtime"
GOLDEN_DELTA_P: Final = "golden pictures: max |Δp|"
"""The name of a check in published records, which never changes."""


@dataclass(frozen=True)
class Finalized:
    """What became of a version on this machine."""

    plan: Plan
    already: bool
    """Whether this very plan was there, unharmed, so that nothing was built."""


def finalize(
    repository: Path,
    name: str,
    number: int | None = None,
    settings: FinalizeSettings | None = None,
    *,
    images: Callable[[ModelCard], ComparedImages] | None = None,
    notify: Callable[[str], None] = lambda _sentence: None,
) -> Finalized:
    """Build a plan of version `number` of the model `name` (the newest that is served) for this machine's first GPU.

    The gate compares it with the ONNX file in ONNX Runtime on the version's golden images, or on those that `images` gives for its card.

    Raises RepositoryError (the version or its files), BuildError (TensorRT refuses, or built another precision), GateRefused, MachineError
    (no GPU, nothing can be written), UsageError (a batch that the card does not allow), MissingExtra (no TensorRT), and what `images`
    raises. Nothing was published then.
    """
    settings = settings or FinalizeSettings()
    model = model_named(repository, name)
    version = _version(model, number)
    check_files(version)
    card, precision = model.card, precision_of(version)
    profile = profile_for(card.max_batch_size, settings.opt_batch)
    content = (version.folder / ONNX_FILE).read_bytes()
    check_quantisation(onnx.load_from_string(content), version)
    here = fingerprint_here(version.report.files[ONNX_FILE], tensorrt_version())
    hardware, version_compatible = settings.plan.hardware, settings.plan.version_compatible
    wanted = identity(here, profile, hardware, version_compatible=version_compatible)
    if not settings.again and (plan := _present(version, wanted)):
        return Finalized(plan, already=True)
    check_writable(version, notify)
    golden = read_golden(version, card)
    compared = None if images is None else images(card)
    notify(f"building a plan of {name} version {version.number} ({precision.name}) for {here.gpu}, TensorRT {here.tensorrt}")
    cache = settings.timing_cache or default_timing_cache(here)
    built = build(content, card, profile, settings.plan, timing_cache=read_cache(cache), notify=notify)
    write_cache(cache, built.timing_cache, notify)
    loaded = load(built.plan, card, code_allowed=version_compatible)
    notify(f"comparing the plan with {REFERENCE} on {len(compared or golden.pixels):,} images")
    verdict, shares = judge(loaded, content, card, precision, golden, compared)
    demand_precision(verdict, f"{name} version {version.number}")
    verdict.require(f"the TensorRT plan of {name} version {version.number}")
    notify("the gate let it pass; publishing")
    record = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "precision": precision.name,
        "fingerprint": asdict(here),
        "profile": asdict(profile),
        "hardware_compatibility": hardware,
        "version_compatible": version_compatible,
        "tf32": False,
        "build_seconds": round(built.seconds, 3),
        "realised": shares,
        "gate": {**verdict.as_json(), "reference": REFERENCE, "golden": len(golden.pixels)},
    }
    return Finalized(publish_plan(version, built.plan, loaded.layers, record, notify), already=False)


def judge(
    plan: LoadedPlan, model: bytes, card: ModelCard, precision: PrecisionSpec, golden: GoldenSet, images: ComparedImages | None = None
) -> tuple[Verdict, dict[str, float]]:
    """Hold a plan to the serialised ONNX `model` that it was built from, in ONNX Runtime on the CPU: the verdict, and its real types.

    Compared are `images`, or, without any, the golden ones; the golden ones are held to their published answers too. The first check is
    the precision that was really built.
    """
    shares = inspected_precisions(plan.layers, [node.name for node in layers(onnx.load_from_string(model))])
    images = images or ComparedImages(golden.pixels, golden.labels)
    probabilities = in_batches(in_onnx_runtime(model, card), images.pixels, card.max_batch_size)
    reference = Reference(REFERENCE, probabilities, exactly("the reference's answers", "given", "given"))
    checks = (
        check_inspected(precision.plan_layers, shares),
        *hold_to("the plan", plan.predict, reference, card, images, precision.thresholds),
        *_check_golden(golden, plan.predict),
    )
    return Verdict(precision.thresholds, len(images), checks), shares


def demand_precision(verdict: Verdict, what: str) -> None:
    """Raise BuildError if TensorRT built another precision than the file's, whatever the plan answers."""
    inspected = verdict.checks[0]
    if not inspected.passed:
        raise BuildError(f"TensorRT built {what} in another precision than {verdict.thresholds.precision}: {inspected}")


def precision_of(version: ModelVersion) -> PrecisionSpec:
    """Return the precision that the version's report says its ONNX file is in. Raises RepositoryError."""
    name = version.report.precision
    if name in PRECISIONS:
        return PRECISIONS[name]
    raise RepositoryError(f"{version.folder / REPORT_FILE} names no precision that is known here ({name!r}): export the model again")


def check_quantisation(model: onnx.ModelProto, version: ModelVersion) -> None:
    """Raise RepositoryError if the graph holds 8-bit integers that TensorRT does not take: it knows signed ones, and a zero point of 0."""
    unsigned = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.UINT8}
    shifted = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and onnx.numpy_helper.to_array(tensor).any()
    }
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        if node.input[2] in unsigned or node.input[2] in shifted:
            kind = "unsigned" if node.input[2] in unsigned else "not around 0"
            raise RepositoryError(
                f"version {version.number} of {version.folder.parent.name} is INT8 with activations that are {kind}, as ONNX Runtime on "
                "processors wants them; TensorRT takes signed ones around 0 only. Finalize a version in FP16 instead"
            )


def fingerprint_here(onnx_sha256: str, tensorrt: str) -> Fingerprint:
    """Return the fingerprint of a plan built here from the ONNX file. Raises MachineError if there is no NVIDIA driver or no GPU."""
    try:
        host = machine()
    except MachineError as error:
        raise MachineError(
            f"{error}, and a plan is built on the GPU that it is for: run `sightline finalize` on the machine that serves, in the "
            "image of docker/Dockerfile.finalize"
        ) from None
    gpu = host.gpus[0]
    return Fingerprint(tensorrt, host.cuda, host.driver, gpu.name, gpu.compute_capability, host.system, onnx_sha256)


def _check_golden(golden: GoldenSet, predict: Predict) -> Iterator[Check]:
    """Compare the golden images one by one, as a client asks, with the probabilities that were published with them."""
    try:
        probabilities = in_batches(predict, golden.pixels, 1)
    except Exception as error:  # noqa: BLE001 - whatever it is that answers may raise anything
        yield exactly(GOLDEN_DELTA_P, one_line(error), "a number")
        return
    yield at_most(GOLDEN_DELTA_P, float(np.abs(probabilities.astype(np.float64) - golden.probabilities).max()), golden.tolerance)


def _version(model: PublishedModel, number: int | None) -> ModelVersion:
    if number is not None:
        return model.version(number)
    if not model.served:
        raise RepositoryError(f"{model.name} in {model.folder.parent} has no version that is served: export it, or name a version")
    return model.version(model.served[-1])


def _present(version: ModelVersion, wanted: str) -> Plan | None:
    """The plan of this identity, if its record can be believed and its files are the recorded ones."""
    for folder in plan_folders(version.folder.parent, version.number):
        if folder.name == wanted:
            try:
                plan = read_plan(folder)
                check_plan(plan)
            except ContractError:
                return None
            return plan
    return None
