"""The Ray that a job runs on: found or started, and held to make the rows that this machine would make."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, cast

import PIL

from sightline.errors import MachineError, MissingExtra, UsageError
from sightline.host.files import reason_of
from sightline.host.text import one_line, printable
from sightline.scoring.entries import Entry
from sightline.transport import parse_url
from sightline.transport.headers import is_loopback

CONNECT_S: Final = 10.0
PROBE_S: Final = 60.0
"""A machine of the cluster answers within, or the job does not begin."""


def demand_ray() -> None:
    """Raise MissingExtra if Ray Data is not installed."""
    try:
        import ray.data  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra("the engine ray needs Ray Data: pip install 'sightline[ray]'") from None


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to the Ray at `address` for the block.

    Without an address it is the one that this process is connected to, else that of the environment variable RAY_ADDRESS, else one that
    runs on this machine, else one that is started, on all cores, and ends with the block. Raises UsageError where there is none.
    """
    import ray

    if ray.is_initialized():
        ours = ray.get_runtime_context().gcs_address
        if address not in ("", "auto", ours):
            raise UsageError(
                f"{printable(address)}: this process is connected to another Ray, at {ours}: leave it first", settings=("ray_address",)
            )
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS", "")
    _demand_answer(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with _signals_kept():
        try:
            ray.init(address=address or None, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            logging.getLogger("ray.data").setLevel(logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(f"{printable(address) or 'here'}: no Ray to use: {one_line(error)}", settings=("ray_address",)) from None
    try:
        yield
    finally:
        ray.shutdown()


def _demand_answer(address: str) -> None:
    """Demand that something listens at an address: Ray itself would try for minutes, and then end this process. Raises UsageError."""
    if address in ("", "auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if address.startswith("ray://") or not (host and port.isascii() and port.isdigit()):
        raise UsageError(
            f"{printable(address)}: an address of a Ray is HOST:PORT, as `ray start` prints it, used on a machine of the cluster: "
            "Ray Data does not run through Ray's client",
            settings=("ray_address",),
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else one_line(error)
        raise UsageError(f"{printable(address)}: no Ray answers there: {reason}", settings=("ray_address",)) from None


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep what this process does at signals: Ray sets a handler of its own, which would end a job without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


@contextmanager
def failures_told() -> Iterator[None]:
    """Make one sentence of what Ray raises where its own attempts to go on have failed."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        raise MachineError(f"Ray gave up: {type(cause).__name__}: {one_line(cause)}") from None


@dataclass(frozen=True)
class Node:
    """What a machine of the cluster has, as far as rows depend on it."""

    sightline: str
    pillow: str
    file: tuple[int, int] | str
    """Size and time of the first image, or why it cannot be seen."""


def _looked_at(path: str) -> Node:
    try:
        status = os.stat(path) if path else None
        file: tuple[int, int] | str = (status.st_size, status.st_mtime_ns) if status is not None else ""
    except OSError as error:
        file = reason_of(error)
    return Node(version("sightline"), PIL.__version__, file)


def demand_nodes_alike(first: Entry, url: str) -> None:
    """Demand that each machine of the cluster makes the rows that this one makes. Raises UsageError that names one that would not."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.util.get_node_ip_address()
    nodes = {str(node["NodeID"]): str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}
    elsewhere = sorted({address for address in nodes.values() if address != here})
    if elsewhere and is_loopback(parse_url(url).host):
        raise UsageError(
            f"{url}: on {elsewhere[0]}, a machine of the cluster, that is another server: name the server's host", settings=("url",)
        )
    path = os.path.abspath(first.image) if isinstance(first.image, (str, os.PathLike)) else ""
    look = ray.remote(_looked_at)
    asked = {
        address: look.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(number, soft=False)).remote(path)
        for number, address in nodes.items()
    }
    ours = _looked_at(path)
    for address, answer in asked.items():
        with failures_told():
            theirs = cast("Node", ray.get(answer, timeout=PROBE_S))
        demand_alike(address, theirs, ours, path)


def demand_alike(address: str, theirs: Node, ours: Node, path: str) -> None:
    """Demand that a machine would make the rows that this one makes of the image `path`, or of any if it is empty. Raises UsageError."""
    for what, there, this in (("Sightline", theirs.sightline, ours.sightline), ("Pillow", theirs.pillow, ours.pillow)):
        if there != this:
            raise UsageError(f"{address}, a machine of the cluster, has {what} {there}, and this one {this}: rows could differ")
    if theirs.file != ours.file:
        seen = theirs.file if isinstance(theirs.file, str) else "it has another size or time"
        raise UsageError(
            f"{address}, a machine of the cluster, does not see {printable(path)} as this one does ({seen}): share it, or use URLs"
        )
