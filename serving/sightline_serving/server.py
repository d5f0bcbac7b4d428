"""Starts a real Triton Inference Server over a model repository, and ends it with its block.

Everything that a newcomer would have to know is set here: loopback, no control over models from outside, restricted interfaces,
no guessed configuration, readiness that is asked for.
"""

import contextlib
import http.client
import json
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sightline.errors import ServerStartError, UsageError
from sightline_serving.process.installation import CONTAINER, Installation, find_triton, prepare_backends
from sightline_serving.process.log_summary import last_words
from sightline_serving.process.ports import Ports, ip_of, reserve, taken
from sightline_serving.process.process import Running, follow, run
from sightline_serving.selection.overlay import choose_replacements, overlay
from sightline_serving.selection.plan_selection import ALLOW_CODE
from sightline_serving.selection.preflight import SelectedModel, Selection, select_models

AGE: Final = (
    "The wheel's Triton 2.51 (24.10) is old: NVIDIA's bulletins to 2026-08-18 name at least 56 vulnerabilities fixed in later releases, "
    "some of which let a stranger run code"
)
RESTRICTED: Final = "shared-memory,model-repository,trace,logging"
"""Interfaces that no client of a classifier needs, over HTTP and gRPC."""
EXITING_S: Final = 2.0
"""Triton, having waited for its requests, needs a second or two more to unload its models."""
SHM_PREFIX: Final = "sightline-"
IN_USE: Final = re.compile(r"Socket '[^']*:(\d+)' already in use")


@dataclass(frozen=True)
class Server:
    """A Triton that is ready: where it listens, and the models that it serves."""

    http_url: str
    grpc_url: str
    metrics_url: str
    pid: int
    """Triton's own process id."""
    triton: str
    """Its version and where it came from."""
    models: tuple[SelectedModel, ...]
    notices: tuple[str, ...]
    """What whoever started it should read: sentences for people."""
    log_file: Path
    _running: Running = field(repr=False, compare=False)
    _log_start: int = field(repr=False, compare=False)

    def wait(self, timeout_s: float | None = None) -> None:
        """Return after `timeout_s` seconds if Triton still runs then. Raises ServerStartError as soon as it has ended by itself."""
        ended = self._running.ended(timeout_s)
        if ended is not None:
            words = last_words(self.log_file, self._log_start, errors_only=True)
            raise ServerStartError(f"Triton (process {self.pid}) ended, {ended}{f': {words}' if words else ''}. Start it again")


@contextlib.contextmanager
def start_server(
    repository: Path | str,
    *,
    http_port: int = 8000,
    grpc_port: int = 8001,
    metrics_port: int = 8002,
    address: str = "127.0.0.1",
    models: Sequence[str] = (),
    startup_timeout_s: float = 120.0,
    stop_timeout_s: float = 5.0,
    log_file: Path | None = None,
    verbose: bool = False,
    verify_hashes: bool = True,
    outdated_beyond_loopback: bool = False,
    plans: bool = True,
    version_compatible: bool = False,
    engine_cache: Path | None = None,
) -> Iterator[Server]:
    """Serve the models of `repository` (or only those named) until the block ends. All of them are ready when it begins.

    A port of 0 becomes a free one. Triton's output goes to `log_file` (appended) or to a temporary file, and with `verbose` to
    stderr too. At the end, requests in flight and clients that keep a connection open have `stop_timeout_s` seconds. With
    `verify_hashes`, files of the served versions must be those that were published. `outdated_beyond_loopback` lets the wheel's
    old Triton listen on a network. Models are answered by their TensorRT plans where these fit this machine, unless `plans` is false;
    `version_compatible` admits plans that bring code along. With `engine_cache`, ONNX Runtime's TensorRT provider answers for the others.

    Raises ServerStartError if there is no Triton, a port is taken, or a model cannot be loaded (its message ends with the reason);
    ContractError if a published file was changed; UsageError if the arguments make no sense.
    """
    repository = Path(repository).resolve()
    ip = ip_of(address)
    selection = select_models(repository, models, verify_hashes=verify_hashes)
    triton = find_triton(repository)
    if triton.bundled and not ip.is_loopback and not outdated_beyond_loopback:
        raise UsageError(
            f"refused to listen at {ip}. {AGE}. Stay on 127.0.0.1, serve with NVIDIA's container {CONTAINER}, "
            "or override with --outdated-beyond-loopback"
        )
    replacements, refusals = choose_replacements(
        selection, triton, plans=plans, version_compatible=version_compatible, engine_cache=engine_cache
    )
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=SHM_PREFIX, ignore_cleanup_errors=True)))
        log_path = log_file or folder / "triton.log"
        log_start = _begun(log_path)
        if verbose:
            stack.enter_context(follow(log_path, log_start, sys.stderr.buffer))
        backends = folder / "backends"
        backends.mkdir()
        backends = prepare_backends(triton, backends)
        token = f"{SHM_PREFIX}{secrets.token_hex(8)}"
        with reserve(ip, Ports(http_port, grpc_port, metrics_port)) as ports:
            command = _command(triton, overlay(repository, selection, replacements, folder), backends, ip, ports, token, stop_timeout_s)
            if any(replacement.brings_code for replacement in replacements.values()):
                command.append(f"--backend-config={ALLOW_CODE}")
            running = stack.enter_context(
                run(command, triton.environment(), log_path, shm_prefix=token, folders=[folder], grace_s=stop_timeout_s + EXITING_S)
            )
            host = str(ip) if int(ip) else "127.0.0.1"
            version = _wait_until_ready(running, host, ports, token, selection.models, startup_timeout_s, log_path, log_start)
            running.watch_workers()
        yield Server(
            http_url=f"http://{host}:{ports.http}",
            grpc_url=f"grpc://{host}:{ports.grpc}",
            metrics_url=f"http://{host}:{ports.metrics}/metrics",
            pid=running.pid,
            triton=f"{version} ({triton.called})",
            models=selection.models,
            notices=(*_notices(triton, ip, selection), *refusals),
            log_file=log_path,
            _running=running,
            _log_start=log_start,
        )


def _command(
    triton: Installation, repository: Path, backends: Path, ip: IPv4Address, ports: Ports, token: str, stop_timeout_s: float
) -> list[str]:
    # A process's arguments can be read by every user of the machine, and Triton takes this secret in no other way. No header can
    # carry a line break, so nobody can send this one, not even who has read it.
    secret = f"sightline={secrets.token_hex(32)}\n{secrets.token_hex(32)}"
    return [
        str(triton.binary),
        f"--id={token}",
        f"--model-repository={repository}",
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        "--strict-readiness=true",
        # Triton counts this in whole seconds; the leash holds it to ours.
        f"--exit-timeout-secs={max(1, int(stop_timeout_s))}",
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={token}",
        f"--http-address={ip}",
        f"--grpc-address={ip}",
        f"--metrics-address={ip}",
        f"--http-port={ports.http}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-port={ports.metrics}",
        f"--http-restricted-api={RESTRICTED}:{secret}",
        f"--grpc-restricted-protocol={RESTRICTED}:{secret}",
        "--allow-sagemaker=false",
        "--allow-vertex-ai=false",
    ]


def _wait_until_ready(
    running: Running,
    host: str,
    ports: Ports,
    token: str,
    models: Sequence[SelectedModel],
    timeout_s: float,
    log: Path,
    log_start: int,
) -> str:
    """Ask until Triton and every model version say that they are ready. Returns Triton's version."""
    deadline_s = time.monotonic() + timeout_s
    while (ended := running.ended(0.05)) is None:
        version = _ready(host, ports, token, models)
        if version:
            return version
        if time.monotonic() > deadline_s:
            words = last_words(log, log_start)
            raise ServerStartError(f"Triton was not ready after {timeout_s:g} s (--startup-timeout gives it more). Its last words: {words}")
    words = last_words(log, log_start)
    in_use = IN_USE.search(words)
    if in_use:
        what = {ports.http: "HTTP", ports.grpc: "gRPC", ports.metrics: "metrics"}
        port = int(in_use[1])
        raise ServerStartError(taken(what.get(port, "a port"), host, port))
    how = "" if ended.startswith("with exit code") else f" (it ended, {ended})"
    raise ServerStartError(f"Triton did not start{how}: {words}")


def _ready(host: str, ports: Ports, token: str, models: Sequence[SelectedModel]) -> str | None:
    try:
        server = json.loads(_get(host, ports.http, "/v2") or b"null")
        # Another server may have come to listen at this address in the meantime.
        if not isinstance(server, dict) or server.get("name") != token:
            return None
        paths = ["/v2/health/ready"]
        paths += [f"/v2/models/{quote(model.name, safe='')}/versions/{version}/ready" for model in models for version in model.versions]
        if any(_get(host, ports.http, path) is None for path in paths) or _get(host, ports.metrics, "/metrics") is None:
            return None
        return str(server.get("version"))
    except (OSError, ValueError, http.client.HTTPException):
        return None


def _get(host: str, port: int, path: str) -> bytes | None:
    """The body of an answer of 200, at most 16 MiB of it; None for any other answer."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.read(16 * 1024 * 1024) if response.status == 200 else None
    finally:
        connection.close()


def _begun(log: Path) -> int:
    """Where our part of the log begins. Raises UsageError if it cannot be written."""
    try:
        with log.open("ab") as opened:
            return opened.tell()
    except OSError as error:
        raise UsageError(f"the log file {log} cannot be written: {error.strerror}") from None


def _notices(triton: Installation, ip: IPv4Address, selection: Selection) -> Iterator[str]:
    if triton.bundled and ip.is_loopback:
        yield f"{AGE}. It listens on this machine only; production is NVIDIA's container ({CONTAINER})"
    elif triton.bundled:
        yield f"DANGER: listening at {ip}, as you insisted. {AGE}. Use NVIDIA's container ({CONTAINER})"
    yield from selection.substituted.values()
    if selection.ignored:
        yield f"left out, since no version was ever published in it: {', '.join(selection.ignored)}"
