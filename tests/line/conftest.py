"""The whole line for real: a network trained on scikit-learn's digits, exported, published, and served by Triton."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sightline import cli
from sightline_serving.server import Server, start_server
from sightline_serving.settings import FREE_PORTS
from sightline_training.run.run import load_run
from support.line import Line, Prove, make_line


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return make_line(tmp_path_factory.mktemp("line"), seed=0)


@pytest.fixture(scope="session")
def other_line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Another model of the same shape, with the same card."""
    return make_line(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="session")
def server(line: Line) -> Iterator[Server]:
    with start_server(line.repository, FREE_PORTS) as started:
        yield started


@pytest.fixture(scope="session")
def digit_files(line: Line, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten test images as PNG files, one of each digit, called by their label."""
    folder = tmp_path_factory.mktemp("digits")
    tests = load_run(line.run).images("test")
    files = []
    for digit in range(10):
        files.append(folder / f"{digit}.png")
        tests.open(int((tests.labels == digit).argmax())).save(files[-1])
    return files


@pytest.fixture
def spoiled(line: Line, tmp_path: Path) -> Line:
    return line.copied(tmp_path)


@pytest.fixture
def prove() -> Prove:
    """`sightline verify` of a line against a server."""

    def verify(line: Line, server: Server, *options: str) -> None:
        urls = ["--grpc-url", server.grpc_url, "--http-url", server.http_url]
        cli.run(["verify", "mnist", "--run", str(line.run), "--repository", str(line.repository), *urls, *options])

    return verify
