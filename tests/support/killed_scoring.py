"""Batch jobs in processes of their own, to be killed with SIGKILL: after some time, or at their k-th step on the disk."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline import Classifier
from sightline.scoring import ScoreSettings, score
from sightline.testing import FakeTransport
from support.fake_network import brightest, card
from support.forking import forked, fresh

RESUMED = ScoreSettings(resume=True, checkpoint_s=0.01)
EVENTS = {"open", "os.rename", "os.remove", "os.truncate"}

fresh.set_forkserver_preload(
    ["support.killed_scoring", "sightline.transport.over_grpc", "sightline.transport.over_http", "pyarrow.parquet"]
)


@dataclass(frozen=True)
class Order:
    """A job, and when it is to be killed."""

    source: str
    out: Path
    url: str = ""
    """Of a real server with the model `tiny`; empty asks the fake one."""
    after_s: float | None = None
    at_step: int | None = None
    at_bytes: int | None = None
    """When the part is as long as this."""
    settings: ScoreSettings = RESUMED
    environment: tuple[tuple[str, str], ...] = ()


def jobs() -> AbstractContextManager[Callable[[Order], int]]:
    """Give a function that does what it is ordered and returns the exit code: 0, that of an error, or -9."""
    return forked(_do, _kill_in_time)


def _kill_in_time(child: int, order: Order) -> None:
    if order.after_s is None and order.at_bytes is None:
        return
    deadline_s = time.monotonic() + (60 if order.after_s is None else order.after_s)
    part = order.out.with_name(f"{order.out.name}.part")
    while time.monotonic() < deadline_s and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if order.at_bytes is not None and part.exists() and part.stat().st_size >= order.at_bytes:
            break
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)


def _do(order: Order) -> None:
    os.environ.update(dict(order.environment))
    if order.at_step is not None:
        _die_at(order.at_step, str(order.out))
    with _classifier(order.url) as classifier:
        score(classifier, order.source, order.out, order.settings)


def _classifier(url: str) -> Classifier:
    return Classifier("tiny", url, version="1") if url else Classifier("colours", transport=FakeTransport(card(), brightest))


def _die_at(last: int, out: str) -> None:
    """Die right before the step `last`: the opening, renaming, removing or cutting of a file of the job, or a flush to the disk."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        # A truncation names a descriptor.
        if event in EVENTS and (event == "os.truncate" or Path(out).name in str(arguments[0])):
            step()

    def synced(_descriptor: int) -> None:
        # Without the real one: what a killed process has written is kept by the kernel.
        step()

    sys.addaudithook(heard)
    os.fsync = synced  # type: ignore[assignment]
