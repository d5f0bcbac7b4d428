"""Precisions are entries of a registry: what all of them share is done once, and a new one is an entry and a converter."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sightline.errors import GateRefused, UsageError
from sightline.host.cpu import integer_instructions
from sightline.repository.layout import version_numbers
from sightline.repository.read import read_version
from sightline_export.commands.export import export as command
from sightline_export.gate.compare import ComparedImages
from sightline_export.gate.thresholds import FP16, DtypeShare
from sightline_export.graph.calibration import Calibration
from sightline_export.graph.runtimes import in_onnx_runtime, in_torch
from sightline_export.graph.torch_to_onnx import export_onnx
from sightline_export.pipeline import Listeners, export_candidate
from sightline_export.precisions import PRECISIONS, PrecisionSpec, precision_named
from sightline_export.settings import ExportSettings
from sightline_export.sources.run import candidate_from_run, load_run
from support.digits import DIGITS, Trained
from support.precisions import conversion, surely_classified, verdict_on
from support.reports import as_json


class Counting(nn.Module):
    """Counts the images that a network is asked about in batches."""

    def __init__(self, network: nn.Module, calls: Counter[str]) -> None:
        super().__init__()
        self.network, self.asked = network, calls

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_exporting() and len(pixels) > 1:
            self.asked["images"] += len(pixels)
        probabilities: torch.Tensor = self.network(pixels)
        return probabilities


def test_several_precisions_load_the_run_export_and_ask_torch_once(digits_run: Path, tmp_path: Path) -> None:
    candidate, calls, sentences = surely_classified(digits_run), Counter[str](), list[str]()
    images = candidate.images(1000)

    def network() -> nn.Module:
        calls["loaded"] += 1
        return Counting(candidate.network(), calls).eval()

    settings = ExportSettings(precisions=("fp32", "fp16", "int8", "fp16"))
    exported = export_candidate(replace(candidate, network=network), tmp_path / "models", settings, Listeners(notify=sentences.append))
    assert [result.published.report.precision for result in exported] == ["fp32", "fp16", "int8"]
    assert calls == {"loaded": 1, "images": len(images)}
    assert sum(sentence.startswith("exporting mnist to ONNX") for sentence in sentences) == 1


def test_each_precision_is_told_before_the_next_one_may_be_refused(digits_run: Path, tmp_path: Path) -> None:
    candidate, exported = candidate_from_run(load_run(digits_run)), list[str]()
    black = Calibration("nothing but black", np.zeros((4, 28, 28, 1), np.uint8), np.zeros((4, 28, 28, 1), np.uint8))
    listeners = Listeners(exported=lambda result: exported.append(result.published.report.precision))
    with pytest.raises(GateRefused, match=r"mnist was refused by the gate \(int8, "):
        export_candidate(
            replace(candidate, calibration=lambda _card, _settings: black),
            tmp_path / "models",
            ExportSettings(precisions=("fp32", "int8")),
            listeners,
        )
    assert exported == ["fp32"]
    assert version_numbers(tmp_path / "models" / "mnist") == [1]


def test_a_precision_of_ones_own_is_an_entry_and_a_converter(digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounded = PrecisionSpec(
        thresholds=replace(FP16, precision="rounded", golden_tolerance=0.03),
        converter="support.throwaway:to_rounded",
        weights=DtypeShare("float32", 1.0),
        plan_layers=DtypeShare("float32", 1.0),
    )
    monkeypatch.setitem(PRECISIONS, rounded.name, rounded)
    sentences: list[str] = []
    exported = export_candidate(
        candidate_from_run(load_run(digits_run)),
        tmp_path / "models",
        ExportSettings(precisions=("fp32", "rounded"), images=50),
        Listeners(notify=sentences.append),
    )
    report = as_json(read_version(exported[1].published.folder).report)
    assert (report["precision"], report["gate"]["precision"], report["conversion"]["bits"]) == ("rounded", "rounded", 12)
    assert "share of the layers' weights in float32" in {check["name"] for check in report["gate"]["checks"]}
    assert {"converting to rounded", "rounding"} <= set(sentences)
    assert '"tolerance": 0.03' in (exported[1].published.folder / "golden" / "golden.json").read_text()


def test_the_commands_choices_are_the_registrys_and_every_converter_is_there() -> None:
    (choice,) = (parameter for parameter in command.params if parameter.name == "precisions")
    assert list(getattr(choice.type, "choices", ())) == list(PRECISIONS)
    assert {name: spec.load_converter() is not None for name, spec in PRECISIONS.items()} == {"fp32": False, "fp16": True, "int8": True}


def test_an_unknown_precision_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"^there is no precision 'fp4', only fp32, fp16, int8$"):
        precision_named("fp4")
    with pytest.raises(UsageError, match=r"^there is no precision 'fp4', only fp32, fp16, int8$"):
        ExportSettings(precisions=("fp4",))
    with pytest.raises(UsageError, match=r"^the gate needs at least one image to compare, not 0$"):
        ExportSettings(images=0)


def saturating() -> Trained:
    """A network whose 8-bit products overflow 16 bits where they are added up in pairs: bright pixels, and weights all alike."""
    network = nn.Sequential(Scaled(), nn.Linear(64, 32), nn.Linear(32, 10), nn.Softmax(dim=1)).eval()
    with torch.no_grad():
        for number in (1, 2):
            layer = network[number]
            assert isinstance(layer, nn.Linear)
            layer.weight.fill_(0.02)
            layer.bias.zero_()
        last = network[2]
        assert isinstance(last, nn.Linear)
        last.weight.mul_(torch.linspace(0.5, 1.5, 10)[:, None])
    pixels = np.random.default_rng(0).integers(200, 256, (360, 8, 8, 1)).astype(np.uint8)
    labels = in_torch(network)(pixels).argmax(axis=1).astype(np.int64)
    return Trained(DIGITS, network, pixels, labels, export_onnx(network, DIGITS))  # type: ignore[arg-type]


class Scaled(nn.Module):
    """Pixels as 0..1, flat."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels.to(torch.float32) / 255).reshape(-1, 64)


def test_seven_bits_of_weights_are_right_on_every_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline_export.graph.int8.integer_instructions", lambda: ())
    network = saturating()
    quantised = conversion(network, "int8", Calibration("tests", network.pixels[:50], network.pixels[50:100]))
    assert (quantised.notes["seven_bits"], quantised.notes["weights"]) == (True, "int8 per channel, 7 bits of it")
    expected = in_torch(network.network)(network.pixels)
    assert np.abs(in_onnx_runtime(quantised.model, DIGITS)(network.pixels) - expected).max() < 0.02


@pytest.mark.skipif(bool(integer_instructions()), reason="this processor adds products of 8-bit integers up exactly")
def test_eight_bits_of_weights_are_refused_on_a_processor_that_adds_products_up_in_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline_export.graph.int8.integer_instructions", lambda: ("avx512_vnni",))
    network = saturating()
    quantised = conversion(network, "int8", Calibration("tests", network.pixels[:50], network.pixels[50:100]))
    assert quantised.notes["seven_bits"] is False
    images = ComparedImages(network.pixels, network.labels)
    with pytest.raises(GateRefused, match=r"^digits was refused by the gate \(int8, 360 images\) and not published: "):
        verdict_on(quantised.model, network.network, DIGITS, images, "int8").require("digits")


FORBIDDEN = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "lightning", "pytorch_lightning", "sightline_training"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
import importlib, pkgutil
"""


@pytest.mark.parametrize("package", ["sightline.repository", "sightline_export.engine", "sightline_export.graph.int8", "sightline_serving"])
def test_what_finalizes_and_serves_needs_no_torch(package: str) -> None:
    code = f"""{FORBIDDEN}
root = importlib.import_module({package!r})
for module in pkgutil.walk_packages(getattr(root, "__path__", []), {package!r} + "."):
    importlib.import_module(module.name)
print("imported")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "imported\n", "")


def test_finalize_judges_a_plan_without_torch(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(trained.model)
    code = f"""{FORBIDDEN}
from pathlib import Path
import numpy as np
from sightline.card import CARD_KEY, unseal
import onnx
from sightline.repository.golden import GoldenSet
from sightline_export.engine.build import LoadedPlan
from sightline_export.engine.finalize import judge
from sightline_export.graph.runtimes import in_onnx_runtime
from sightline_export.precisions import PRECISIONS
model = Path({str(tmp_path / "model.onnx")!r}).read_bytes()
card = unseal(onnx.load_from_string(model).metadata_props[0].value, "test")
predict = in_onnx_runtime(model, card)
pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1)).astype(np.uint8)
golden = GoldenSet(pixels, np.full(20, -1), np.concatenate([predict(image[None]) for image in pixels]), 1e-4)
verdict, shares = judge(LoadedPlan(predict, ""), model, card, PRECISIONS["fp32"], golden)
print([check.name for check in verdict.failed])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['computing layers that the engine inspector tells of']\n", "")
