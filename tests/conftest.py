"""What every test may ask for."""

import os
from pathlib import Path

import pytest

# As the command line does (sightline.cli.main): threads of torch that wait for one another sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread over two processes (`make test`): one server at a time, and the tests of a file together, since they share what they made."""
    for item in items:
        serves = item.get_closest_marker("triton") or item.path.parent.name in ("serving", "line")
        item.add_marker(pytest.mark.xdist_group("triton" if serves else str(item.path)))


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
