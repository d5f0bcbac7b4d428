"""Asks a Triton until it is ready: readiness is asked for, never slept for."""

import http.client
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sightline.errors import ServerStartError
from sightline_serving.process.log_summary import TritonLog
from sightline_serving.process.ports import Ports
from sightline_serving.process.process import TritonProcess
from sightline_serving.process.reservation import port_taken

IN_USE: Final = re.compile(r"Socket '[^']*:(\d+)' already in use")
POLL_S: Final = 0.05
TIMEOUT_S: Final = 5.0
"""Of one question."""
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True)
class Endpoints:
    """Where a Triton is asked, and the name by which it is known from another server at the same address."""

    host: str
    ports: Ports
    server_name: str
    """What it was given with `--id`."""


def wait_until_ready(triton: TritonProcess, endpoints: Endpoints, ready_paths: Sequence[str], timeout_s: float, log: TritonLog) -> str:
    """Ask until Triton, its metrics and all of `ready_paths` (of its HTTP API) answer. Returns Triton's version.

    Raises ServerStartError, which ends with the reason from the log, if Triton ends or is not ready after `timeout_s` seconds.
    """
    deadline_s = time.monotonic() + timeout_s
    while (end := triton.ended(POLL_S)) is None:
        version = _version_if_ready(endpoints, ready_paths)
        if version:
            return version
        if time.monotonic() > deadline_s:
            raise ServerStartError(
                f"Triton was not ready after {timeout_s:g} s; a longer startup timeout gives it more. The end of its log: {log.summary()}"
            )
    summary = log.summary()
    if in_use := IN_USE.search(summary):
        port = int(in_use[1])
        protocols = {number: protocol for protocol, number in endpoints.ports.by_protocol.items()}
        raise ServerStartError(port_taken(protocols.get(port, "unknown"), endpoints.host, port))
    how = "" if end.startswith("with exit code") else f" (it ended, {end})"
    raise ServerStartError(f"Triton did not start{how}: {summary}")


def _version_if_ready(endpoints: Endpoints, ready_paths: Sequence[str]) -> str | None:
    host, ports = endpoints.host, endpoints.ports
    try:
        metadata = json.loads(_get(host, ports.http, "/v2") or b"null")
        # Another server may have come to listen at this address in the meantime.
        if not isinstance(metadata, dict) or metadata.get("name") != endpoints.server_name:
            return None
        if any(_get(host, ports.http, path) is None for path in ready_paths) or _get(host, ports.metrics, "/metrics") is None:
            return None
        return str(metadata.get("version"))
    except (OSError, ValueError, http.client.HTTPException):
        return None


def _get(host: str, port: int, path: str) -> bytes | None:
    """The body of an answer of 200, as much of it as is read; None for any other answer."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.read(MAX_ANSWER_BYTES) if response.status == 200 else None
    finally:
        connection.close()
