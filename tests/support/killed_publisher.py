"""A publisher that is killed with SIGKILL at its k-th step on the disk. The steps are found from outside: production code has no hook.

A step is whatever Python's audit events report under the workspace (opening, making, renaming, removing), locking, each half of a write,
and each fsync. The process dies right before step k, which is right after step k - 1.
"""

import builtins
import fcntl
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

from sightline.errors import SightlineError
from sightline.host import files as host_files
from sightline.repository.config import ModelConfig
from sightline.repository.layout import LOCK_FILE
from sightline.repository.publish import agreed_card, publish
from sightline.repository.report import VersionReport
from support.forking import forked, fresh

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree", "fcntl.flock"}

fresh.set_forkserver_preload(["sightline.repository.publish"])


def published(repository: Path, card: Any, config: ModelConfig, files: dict[str, bytes], note: str) -> int:
    """All that an export does in a repository."""
    agreed = agreed_card(repository, card, lambda _sentence: None)
    return publish(repository, agreed, config, files, VersionReport.model_validate({"note": note})).number


@contextmanager
def killer() -> Iterator[Callable[[int, Path, tuple[Any, ...]], int]]:
    """Give a function that publishes in a process that dies before a step, with exit code -9; 0 if it had fewer steps."""
    with forked(_publish_as_ordered) as done:
        yield lambda step, workspace, what: done((step, str(workspace), what))


def _publish_as_ordered(order: tuple[int, str, tuple[Any, ...]]) -> None:
    _publish_until(*order)


def in_process(target: Callable[..., None], *arguments: Any) -> int:
    process = fresh.Process(target=target, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def _publish_until(last: int, workspace: str, what: tuple[Any, ...]) -> None:
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and (event == "fcntl.flock" or workspace in str(arguments[0])):
            step()

    class Torn:
        def __init__(self, file: BinaryIO) -> None:
            self.file = file

        def write(self, content: bytes) -> None:
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            step()
            self.file.write(content[len(content) // 2 :])

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

    def opened(file: Any, mode: str, **more: Any) -> Any:
        return Torn(builtins.open(file, "wb")) if mode == "wb" else builtins.open(file, mode, **more)

    def synced(_descriptor: int) -> None:
        # Without the real one: what a killed process has written is kept by the kernel, and hundreds of them take minutes.
        step()

    sys.addaudithook(heard)
    os.fsync = synced  # type: ignore[assignment]
    host_files.open = opened  # type: ignore[attr-defined]
    published(*what)


def publish_without_room(most_bytes: int, sentence: str, what: tuple[Any, ...]) -> None:
    """Publish where no file may grow beyond `most_bytes`, as on a disk that is nearly full; the error's text goes to a file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    try:
        published(*what)
    except SightlineError as error:
        Path(sentence).write_text(str(error))
        sys.exit(error.exit_code)


def publish_several(count: int, what: tuple[Any, ...]) -> None:
    for _ in range(count):
        published(*what)


def hold_lock(repository: str, ready: Any) -> None:
    """Hold the repository's lock until this process is killed."""
    lock = open(Path(repository, LOCK_FILE), "ab")  # noqa: SIM115
    fcntl.flock(lock, fcntl.LOCK_EX)
    ready.send("held")
    signal.pause()
