"""Records of TensorRT plans beside tiny models, and machines to hold them against.

The plans' own bytes are no plans: nothing that reads them here gets as far as TensorRT.
"""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from sightline.host.gpu import Gpu, Machine
from sightline.repository.layout import LAYERS_FILE, PLAN_FILE, RECORD_FILE
from sightline.repository.tensorrt_plan import Fingerprint, identity, profile_for
from sightline_serving.selection.plan_selection import TensorRtMachine

H200 = Gpu("NVIDIA H200", "9.0")
H100 = Gpu("NVIDIA H100 80GB HBM3", "9.0")
A100 = Gpu("NVIDIA A100-SXM4-80GB", "8.0")
T4 = Gpu("Tesla T4", "7.5")


def here(*gpus: Gpu, tensorrt: str = "11.4.0.106") -> TensorRtMachine:
    return TensorRtMachine(Machine("Linux x86_64", "590.48.01", "13.2", gpus or (H200,)), tensorrt)


def fingerprint(version: Path, gpu: Gpu = H200, /, **changed: str) -> Fingerprint:
    """Of a plan built from `version` where `here(gpu)` is."""
    there = here(gpu)
    fingerprint = Fingerprint(
        tensorrt=there.tensorrt,
        cuda=there.machine.cuda,
        driver=there.machine.driver,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        system=there.machine.system,
        onnx_sha256=hashlib.sha256((version / "model.onnx").read_bytes()).hexdigest(),
    )
    return replace(fingerprint, **changed)


GATE: Final = {"precision": "fp32", "pictures": 1, "passed": True, "checks": []}
"""What a plan's record says that the gate found."""


def record_plan(version: Path, gpu: Gpu = H200, /, *, content: bytes = b"no plan", batch: int = 8, **changed: Any) -> Path:
    """Write the files of a plan for `version`, as `sightline finalize` does; fields of the fingerprint or the record may be `changed`."""
    of_machine = {name: changed.pop(name) for name in list(changed) if name in Fingerprint.__dataclass_fields__}
    built = fingerprint(version, gpu, **of_machine)
    hardware, compatible = changed.get("hardware_compatibility", "none"), changed.get("version_compatible", False)
    profile = profile_for(batch)
    folder = version.parent / "plans" / version.name / identity(built, profile, hardware, version_compatible=compatible)
    folder.mkdir(parents=True)
    files = {PLAN_FILE: content, LAYERS_FILE: b'{"Layers": []}'}
    for name, file_content in files.items():
        (folder / name).write_bytes(file_content)
    record = {
        "schema": 1,
        "model": version.parent.name,
        "version": int(version.name),
        "created": "2026-11-21T12:00:00+00:00",
        "precision": "fp32",
        "fingerprint": asdict(built),
        "profile": asdict(profile),
        "hardware_compatibility": hardware,
        "version_compatible": compatible,
        "tf32": False,
        "build_seconds": 12.5,
        "realised": {"float32": 1.0},
        "gate": GATE,
        "files": {name: hashlib.sha256(file_content).hexdigest() for name, file_content in files.items()},
    }
    (folder / RECORD_FILE).write_text(json.dumps({**record, **changed}))
    return folder
