"""From a published version to a TensorRT plan beside it, on the machine that serves: build, inspect, gate, publish.

The ONNX file stays the model. The plan is held to its answers with the thresholds of its precision, and to the golden images.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, get_args

import numpy as np
import onnx

from sightline.card import ModelCard
from sightline.errors import ContractError, MachineError, RepositoryError
from sightline.host.gpu import machine
from sightline.repository.config import MODEL_FILE
from sightline.repository.edit import published_model
from sightline.repository.golden_reader import Golden, read_golden
from sightline.repository.history import served_of
from sightline.repository.plan_store import check_writable, publish_plan
from sightline.repository.read import Version, check_files, read_version, versions
from sightline.repository.tensorrt_plan import Fingerprint, Hardware, Plan, check_plan, identity, plan_folders, profile_for, read_plan
from sightline_export.engine.build import build, load, tensorrt_version
from sightline_export.engine.inspector import check_realised, realised
from sightline_export.engine.timing_cache import default_timing_cache, read_cache, write_cache
from sightline_export.gate.checks import THRESHOLDS, Check, Precision, Verdict, at_most, holds, said
from sightline_export.gate.compare import Answer, Labels, Pixels, held_to, in_onnx_runtime
from sightline_export.graph.layers import layers
from sightline_export.pipeline import fitting, spread
from sightline_training.run.run import load_run

REFERENCE: Final = "ONNX Runtime"


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
    *,
    run: Path | None = None,
    data: Path | None = None,
    images: int | None = None,
    opt_batch: int | None = None,
    timing_cache: Path | None = None,
    hardware: Hardware = "none",
    version_compatible: bool = False,
    again: bool = False,
    notify: Callable[[str], None] = lambda _sentence: None,
) -> Finalized:
    """Build a plan of version `number` of the model `name` (the newest that is served) for this machine's first GPU.

    The gate compares it with the ONNX file in ONNX Runtime on the version's golden images, and on up to `images` test images
    of `run` if one is named. `timing_cache` is a file that is read and written. A plan of the same file, machine and settings that is
    there already is not built `again` unless asked for.

    Raises RepositoryError (the version, its files, or TensorRT's refusal), GateRefused, MachineError (no GPU), UsageError (a batch that the
    card does not allow), MissingExtra (no TensorRT), DataError (the run). Nothing was published then.
    """
    model = published_model(repository, name)
    version = _version(model.folder, number, served_of(model, versions(model.folder)))
    check_files(version)
    card, precision = model.card, precision_of(version)
    profile = profile_for(card.max_batch_size, opt_batch)
    content = (version.folder / MODEL_FILE).read_bytes()
    network = onnx.load_from_string(content)
    check_integers(network, version)
    here = fingerprint_here(version.files[MODEL_FILE], tensorrt_version())
    wanted = identity(here, profile, hardware, version_compatible=version_compatible)
    if not again and (there := _there(version, wanted)):
        return Finalized(there, already=True)
    check_writable(version.folder, notify)
    golden = read_golden(version.folder, card)
    tested = _tested(run, data, card, images)
    notify(f"building a plan of {name} version {version.number} ({precision}) for {here.gpu}, TensorRT {here.tensorrt}")
    cache = timing_cache or default_timing_cache(here)
    built = build(
        content, card, profile, hardware=hardware, version_compatible=version_compatible, timing_cache=read_cache(cache), notify=notify
    )
    write_cache(cache, built.timing_cache, notify)
    loaded = load(built.plan, card, brings_code=version_compatible)
    notify(f"comparing the plan with {REFERENCE} on {len((tested or golden.pair)[0]):,} images")
    verdict, shares = judge(loaded.answer, loaded.layers, content, card, precision, golden, tested)
    verdict.require(f"the TensorRT plan of {name} version {version.number}")
    notify("the gate let it pass; publishing")
    record = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "precision": precision,
        "fingerprint": asdict(here),
        "profile": asdict(profile),
        "hardware_compatibility": hardware,
        "version_compatible": version_compatible,
        "tf32": False,
        "build_seconds": round(built.seconds, 3),
        "realised": shares,
        "gate": {**verdict.as_json(), "reference": REFERENCE, "golden": len(golden.pixels)},
    }
    return Finalized(publish_plan(version.folder, built.plan, loaded.layers, record, notify), already=False)


def judge(
    answer: Answer,
    layers_text: str,
    model: bytes,
    card: ModelCard,
    precision: Precision,
    golden: Golden,
    tested: tuple[Pixels, Labels] | None = None,
) -> tuple[Verdict, dict[str, float]]:
    """Hold a plan to the serialised ONNX `model` that it was built from, in ONNX Runtime on the CPU: the verdict, and its real types.

    `answer` is the plan's, `layers_text` what the engine inspector says of it. Compared are the images of `tested`, or, without any,
    the golden ones; the golden ones are held to their published answers too.
    """
    shares = realised(layers_text, [node.name for node in layers(onnx.load_from_string(model))])
    pixels, labels = tested or golden.pair
    ask, size = in_onnx_runtime(model, card), card.max_batch_size
    expected = np.concatenate([ask(pixels[start : start + size]) for start in range(0, len(pixels), size)])
    thresholds = THRESHOLDS[precision]
    checks = (
        check_realised(precision, shares),
        *held_to("the plan", answer, expected, REFERENCE, card, pixels, labels, thresholds),
        *_golden(golden, answer),
    )
    return Verdict(thresholds, len(pixels), checks), shares


def precision_of(version: Version) -> Precision:
    """What the version's report says that its ONNX file is in. Raises RepositoryError."""
    said = version.report.get("precision")
    for precision in get_args(Precision):
        if said == precision:
            return precision  # type: ignore[no-any-return]
    raise RepositoryError(f"{version.folder / 'report.json'} names no precision that is known here ({said!r}): export the model again")


def check_integers(model: onnx.ModelProto, version: Version) -> None:
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
                "processors wants them; TensorRT takes signed ones around 0 only. Finalize a version in FP16 instead (--version)"
            )


def fingerprint_here(onnx_sha256: str, tensorrt: str) -> Fingerprint:
    """The fingerprint of a plan built here from the ONNX file. Raises MachineError if there is no NVIDIA driver or no GPU."""
    try:
        here = machine()
    except MachineError as error:
        raise MachineError(
            f"{error}, and a plan is built on the GPU that it is for: run `sightline finalize` on the machine that serves, in the "
            "image of docker/Dockerfile.finalize"
        ) from None
    gpu = here.gpus[0]
    return Fingerprint(tensorrt, here.cuda, here.driver, gpu.name, gpu.compute_capability, here.system, onnx_sha256)


def _golden(golden: Golden, answer: Answer) -> Iterator[Check]:
    """The golden images one by one, as a client asks, against the probabilities that were published with them."""
    try:
        given = np.concatenate([answer(pixels[None]) for pixels in golden.pixels])
    except Exception as error:  # noqa: BLE001 - whatever it is that answers may raise anything
        yield holds("golden images: max |Δp|", said(error), "a number")
        return
    yield at_most("golden images: max |Δp|", float(np.abs(given.astype(np.float64) - golden.probabilities).max()), golden.tolerance)


def _version(folder: Path, number: int | None, served: list[int]) -> Version:
    there = versions(folder)
    if number is None:
        if not served:
            raise RepositoryError(f"{folder.name} in {folder.parent} has no version that is served: export it, or name one with --version")
        number = served[-1]
    if number not in there:
        raise RepositoryError(f"{folder.name} in {folder.parent} has no version {number}: there is {', '.join(map(str, there)) or 'none'}")
    return read_version(folder / str(number))


def _there(version: Version, wanted: str) -> Plan | None:
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


def _tested(run: Path | None, data: Path | None, card: ModelCard, images: int | None) -> tuple[Pixels, Labels] | None:
    if run is None:
        return None
    loaded = load_run(run)
    if loaded.card.sha256 != card.sha256 and loaded.card.model_copy(update={"description": card.description}).sha256 != card.sha256:
        raise RepositoryError(f"the run {run} is of another model ({loaded.card.name}) or of another card: name the run that was exported")
    tried = loaded.images(loaded.judged_on, data)
    indices = spread(len(tried), images or fitting(card))
    return tried.pixels(card.preprocess, indices), tried.labels[indices]
