"""A running server notices nothing of what is published under it, or of what fails to be: no request fails, and the old version answers."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sightline import Classifier
from sightline.cli import run as sightline
from sightline.errors import MachineError
from sightline.repository.history import rollback
from sightline_export.settings import ExportSettings
from sightline_export.sources.run import export_run
from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS
from support.line import Line

pytestmark = pytest.mark.triton


def test_the_old_version_answers_every_request_while_versions_come_fail_and_go(
    spoiled: Line, digit_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, started = threading.Event(), threading.Barrier(3)

    def ask(url: str) -> Counter[tuple[str, str]]:
        """Ask until told to stop; an error ends the thread and the test."""
        seen: Counter[tuple[str, str]] = Counter()
        with Classifier("mnist", url) as mnist:
            while not stop.is_set():
                seen.update((guess.version, guess.label) for guess in mnist.classify(digit_files))
                if seen.total() == len(digit_files):
                    started.wait(60)
        return seen

    anew = ExportSettings(again=True, images=20)
    with start_server(spoiled.repository, FREE_PORTS) as server, ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(ask, url) for url in (server.grpc_url, server.http_url)]
        try:
            started.wait(60)
            assert export_run(spoiled.run, spoiled.repository, anew)[0].published.number == 2
            sightline(["export", str(spoiled.run), "--repository", str(spoiled.repository), "--precision", "int8", "--images", "20"])
            with monkeypatch.context() as patch:
                patch.setattr("os.rename", _no_space)
                with pytest.raises(MachineError, match="No space left on device"):
                    export_run(spoiled.run, spoiled.repository, anew)
            assert rollback(spoiled.repository, "mnist") == 2
        finally:
            stop.set()
        seen = [client.result(60) for client in clients]
    assert {version for answers in seen for version, _ in answers} == {"1"}
    assert all(len({label for _, label in answers}) > 5 for answers in seen)
    assert sorted(int(path.name) for path in (spoiled.repository / "mnist").iterdir() if path.name.isdigit()) == [1, 2, 3]
    with (
        start_server(spoiled.repository, FREE_PORTS) as server,
        Classifier("mnist", server.grpc_url) as mnist,
    ):
        assert {guess.version for guess in mnist.classify(digit_files)} == {"2"}


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")
