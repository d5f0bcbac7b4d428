"""What every test may ask for."""

import functools
import os
import sys
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[1]

# As the command line does (sightline.cli.main): threads of torch that wait for one another sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class OneServerAtATime(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Spreads over the processes of `make test`: the tests of a file stay together, and those that start servers in one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        text = (ROOT / file).read_text(encoding="utf-8")
        return "servers" if "mark.triton" in text or Path(file).parent.name in ("server", "line") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> OneServerAtATime:
    return OneServerAtATime(config, log)


def pytest_runtest_setup() -> None:
    """Let torch build its table of ONNX functions once in a process: it reads the sources of 500 functions anew for each export."""
    module = sys.modules.get("torch.onnx._internal.exporter._registration")
    if module is not None and not isinstance(module.ONNXRegistry.__dict__["from_torchlib"], staticmethod):
        module.ONNXRegistry.from_torchlib = staticmethod(functools.cache(module.ONNXRegistry.from_torchlib))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data; without it the test is skipped, and the summary says why."""
    named = os.environ.get("SIGHTLINE_DATA")
    if not named:
        pytest.skip("SIGHTLINE_DATA is not set: no real data to test on")
    folder = Path(named).resolve()
    if not (folder / "mnist").is_dir():
        pytest.fail(f"SIGHTLINE_DATA names {folder}, but there is no folder mnist/ in it")
    return folder
