"""8-bit integers on a processor that would get them wrong: another version answers, and it is said; without one, nothing is served."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.classifier import Classifier
from sightline.errors import ContractError
from sightline.host.cpu import EXACT, integer_instructions
from sightline.repository.read import read_version
from sightline_serving.selection import preflight as repositories
from sightline_serving.selection.int8_check import reason_not_fit
from sightline_serving.selection.preflight import select_models
from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS
from support.cards import LABELS
from support.tiny_models import InProcess, Publish


def int8(version: Path, **conversion: Any) -> Path:
    """Let the version's report say that it is INT8, made on a processor with VNNI."""
    report = json.loads((version / "report.json").read_text())
    conversion_report = {"from_sha256": "ab" * 32, "integer_instructions": ["avx512_vnni"], "seven_bits": False} | conversion
    (version / "report.json").write_text(json.dumps({**report, "precision": "int8", "conversion": conversion_report}))
    return version


@pytest.fixture
def old_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without instructions that add integers up in 32 bits."""
    monkeypatch.setattr(repositories, "integer_instructions", lambda: ())


@pytest.mark.parametrize(
    ("flags", "listed"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8", ("amx_int8", "avx512_vnni")),
        ("flags\t\t: fpu avx2 avx_vnni", ("avx_vnni",)),
        ("flags\t\t: fpu avx2 avx512_vnni_of_another_name", ()),
        ("Features\t: fp asimd asimddp", ("asimddp",)),
        ("model name\t: avx512_vnni", ()),
    ],
)
def test_the_instructions_are_read_as_linux_lists_them(flags: str, listed: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n\nprocessor\t: 1\n")
    assert integer_instructions(tmp_path / "cpuinfo") == listed
    assert integer_instructions(tmp_path / "missing") == ()


def test_only_integers_that_were_tried_on_a_better_processor_are_unfit(publish: Publish, tmp_path: Path) -> None:
    version = publish(tmp_path / "models")
    assert reason_not_fit(read_version(version), ()) is None
    assert reason_not_fit(read_version(int8(version)), ("avx_vnni",)) is None
    reason = reason_not_fit(read_version(version), ())
    assert reason is not None
    assert reason.startswith("it is INT8, calibrated and tried on a processor with avx512_vnni, and this one (")
    assert ", ".join(EXACT) in reason
    assert reason_not_fit(read_version(int8(version, seven_bits=True)), ()) is None
    assert reason_not_fit(read_version(int8(version, integer_instructions=[])), ()) is None


@pytest.mark.parametrize("report", ["", "[]", '{"conversion": 3, "precision": "int8"}', "[" * 100_000])
def test_a_report_that_says_nothing_is_no_reason(report: str, publish: Publish, tmp_path: Path) -> None:
    version = publish(tmp_path / "models")
    (version / "report.json").write_text(report)
    assert reason_not_fit(read_version(version), ()) is None


@pytest.mark.triton
def test_an_older_version_answers_instead_and_the_repository_stays_as_it_is(
    old_processor: None, publish: Publish, in_process: InProcess, tmp_path: Path
) -> None:
    first = publish(tmp_path / "models", seed=1)
    int8(publish(tmp_path / "models", version=2, seed=2))
    publish(tmp_path / "models", "other")
    before = {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.rglob("*") if file.is_file()}
    with start_server(tmp_path / "models", FREE_PORTS) as server:
        assert {model.name: model.versions for model in server.models} == {"other": (1,), "tiny": (1,)}
        notices = [notice for notice in server.notices if notice.startswith("tiny version 1 is served instead of version 2: it is INT8, ")]
        assert len(notices) == 1
        pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), np.uint8)
        with Classifier("tiny", server.grpc_url) as tiny:
            assert tiny.card.labels == LABELS
            assert np.abs(tiny.probabilities_of_pixels(pixels) - in_process(first / "model.onnx", pixels)).max() < 1e-6
    assert {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_without_another_version_nothing_is_served(old_processor: None, publish: Publish, tmp_path: Path) -> None:
    int8(publish(tmp_path / "models"))
    with pytest.raises(
        ContractError, match=r"tiny version 1 is not served: it is INT8, .* holds no version to fall back on\. Export it in FP32"
    ):
        select_models(tmp_path / "models")
