"""What each extra brings: ONNX Runtime for CPUs or for GPUs, never both, and nothing in the base install that binds it to one system."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def brought_by(extra: str) -> dict[str, Requirement]:
    """Every requirement of an extra by its name, those of the extras that it names too."""
    requirements: dict[str, Requirement] = {}
    for line in EXTRAS[extra]:
        requirement = Requirement(line)
        if requirement.name == "sightline":
            for other in requirement.extras:
                requirements |= brought_by(other)
        else:
            requirements[requirement.name] = requirement
    return requirements


@pytest.mark.parametrize("extra", EXTRAS)
def test_no_extra_brings_both_packages_of_onnx_runtime(extra: str) -> None:
    assert not {"onnxruntime", "onnxruntime-gpu"} <= set(brought_by(extra))


@pytest.mark.parametrize("extra", ["export", "serve", "bring", "all"])
def test_each_extra_with_onnx_runtime_has_a_twin_that_differs_in_that_package_alone(extra: str) -> None:
    cpu, gpu = brought_by(extra), brought_by(f"{extra}-gpu")
    assert set(cpu) - set(gpu) == {"onnxruntime"}
    assert set(gpu) - set(cpu) == {"onnxruntime-gpu"}
    assert cpu["onnxruntime"].specifier == gpu["onnxruntime-gpu"].specifier
    # The CUDA and cuDNN that it was built against come with it: one command is enough.
    assert gpu["onnxruntime-gpu"].extras == {"cuda", "cudnn"}


def test_tritons_wheel_binds_the_extra_serve_alone() -> None:
    assert PROJECT["requires-python"] == ">=3.11"
    for name in ("nvidia-pytriton", "numpy"):
        marker = brought_by("serve")[name].marker
        assert marker is not None
        assert marker.evaluate({"python_version": "3.12", "sys_platform": "linux", "platform_machine": "x86_64"})
        for elsewhere in ({"python_version": "3.13"}, {"sys_platform": "darwin"}, {"platform_machine": "aarch64"}):
            assert not marker.evaluate({"python_version": "3.12", "sys_platform": "linux", "platform_machine": "x86_64", **elsewhere})
    assert all(Requirement(line).marker is None for line in PROJECT["dependencies"])
