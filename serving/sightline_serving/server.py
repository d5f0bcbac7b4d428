"""Starts a real Triton Inference Server over a model repository, and ends it with its block.

Everything that a newcomer would have to know is set here: loopback, no control over models from outside, restricted interfaces,
no guessed configuration, readiness that is asked for.
"""

import contextlib
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from sightline.errors import ServerStartError, UsageError
from sightline_serving.backend.busy import FOLDER as BUSY_FOLDER
from sightline_serving.process.installation import CONTAINER, Installation, find_triton, prepare_backends
from sightline_serving.process.log_summary import TritonLog, open_log
from sightline_serving.process.ports import Ports
from sightline_serving.process.process import TritonProcess, follow, run
from sightline_serving.process.readiness import Endpoints, wait_until_ready
from sightline_serving.process.reservation import reserve
from sightline_serving.selection.overlay import choose_view, overlay
from sightline_serving.selection.plan_selection import ALLOW_CODE, Replacement
from sightline_serving.selection.preflight import SelectedModel, Selection, demand_signatures, select_models
from sightline_serving.settings import ServeSettings

AGE: Final = (
    "The wheel's Triton 2.51 (24.10) is old: NVIDIA's bulletins to 2026-08-18 name at least 56 vulnerabilities fixed in later releases, "
    "some of which let a stranger run code"
)
RESTRICTED: Final = "shared-memory,model-repository,trace,logging"
"""Interfaces that no client of a classifier needs, over HTTP and gRPC."""
EXITING_S: Final = 2.0
"""Triton, having waited for its requests, needs a second or two more to unload its models."""
SHM_PREFIX: Final = "sightline-"


class TritonDied(ServerStartError):
    """A Triton that was ready has ended by itself."""


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
    ports: Ports
    _process: TritonProcess = field(repr=False, compare=False)
    _log: TritonLog = field(repr=False, compare=False)

    def wait(self, timeout_s: float | None = None) -> None:
        """Return after `timeout_s` seconds if Triton still runs then. Raises TritonDied, with the cause, as soon as it has ended."""
        end = self._process.ended(timeout_s)
        if end is not None:
            # What it logged since it was ready: before, every machine without a GPU has complaints of CUDA in it.
            summary = self._log.summary(errors_only=True)
            raise TritonDied(f"Triton (process {self.pid}) ended, {end}{f': {summary}' if summary else ''}")


@contextlib.contextmanager
def start_server(repository: Path | str, settings: ServeSettings = ServeSettings()) -> Iterator[Server]:  # noqa: B008 - it is frozen
    """Serve the models of `repository` as `settings` say until the block ends. All of them are ready when it begins.

    Raises ServerStartError if there is no Triton, a port is taken, or a model cannot be loaded (its message ends with the reason);
    ContractError if a published file was changed; UsageError if the wheel's old Triton would listen on a network; MachineError if the
    log file or the engine cache cannot be written.
    """
    repository = Path(repository).resolve()
    selection = select_models(repository, settings.models, verify_hashes=settings.verify_hashes, unreported=settings.allow_unreported)
    if settings.require_signature is not None:
        demand_signatures(repository, selection, settings.require_signature)
    with start_selection(repository, selection, settings) as server:
        yield server


@contextlib.contextmanager
def start_selection(
    repository: Path, selection: Selection, settings: ServeSettings, replacements: Mapping[str, Replacement] = MappingProxyType({})
) -> Iterator[Server]:
    """Serve what was selected of `repository` until the block ends, with `replacements` of models; raises as `start_server` does."""
    triton = find_triton(repository)
    if triton.bundled and not settings.ip.is_loopback and not settings.outdated_beyond_loopback:
        raise UsageError(
            f"refused to listen at {settings.ip}. {AGE}. Stay on 127.0.0.1, serve with NVIDIA's container {CONTAINER}, "
            "or insist on it (outdated-beyond-loopback)"
        )
    view = choose_view(selection, triton, settings, replacements)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=SHM_PREFIX, ignore_cleanup_errors=True)))
        log = open_log(settings.log_file or folder / "triton.log")
        if settings.verbose:
            stack.enter_context(follow(log.file, log.start_byte, sys.stderr.buffer))
        backends = folder / "backends"
        backends.mkdir()
        backends = prepare_backends(triton, backends)
        token = f"{SHM_PREFIX}{secrets.token_hex(8)}"
        with reserve(settings.ip, settings.ports) as ports:
            links = overlay(repository, selection, view, folder)
            command = _command(triton, links, backends, settings.ip, ports, token, settings.stop_timeout_s)
            if any(replacement.brings_code for replacement in view.replacements.values()):
                command.append(f"--backend-config={ALLOW_CODE}")
            grace_s = settings.stop_timeout_s + EXITING_S
            busy = folder / "busy"
            busy.mkdir()
            environment = {**triton.environment(), BUSY_FOLDER: str(busy)}
            process = stack.enter_context(run(command, environment, log.file, shm_prefix=token, folders=[folder], grace_s=grace_s))
            host = str(settings.ip) if int(settings.ip) else "127.0.0.1"
            endpoints = Endpoints(host, ports, server_name=token)
            version = wait_until_ready(process, endpoints, _ready_paths(selection.models), settings.startup_timeout_s, log)
            process.watch_workers()
        yield Server(
            http_url=f"http://{host}:{ports.http}",
            grpc_url=f"grpc://{host}:{ports.grpc}",
            metrics_url=f"http://{host}:{ports.metrics}/metrics",
            pid=process.pid,
            triton=f"{version} ({triton.origin})",
            models=selection.models,
            notices=(*_notices(triton, settings.ip, selection), *view.notices, *log.on_the_cpu()),
            log_file=log.file,
            ports=ports,
            _process=process,
            _log=log.from_now_on(),
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
        # Of a model's idle instances the first is asked, as their groups' priorities say. Without it they take turns.
        "--rate-limit=execution_count",
        # Triton counts this in whole seconds; the supervisor holds it to ours.
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


def _ready_paths(models: Sequence[SelectedModel]) -> list[str]:
    """What answers 200 when Triton and each version of each model are ready, in its HTTP API."""
    versions = [(quote(model.name, safe=""), version) for model in models for version in model.versions]
    return ["/v2/health/ready", *(f"/v2/models/{name}/versions/{version}/ready" for name, version in versions)]


def _notices(triton: Installation, ip: IPv4Address, selection: Selection) -> Iterator[str]:
    if triton.bundled and ip.is_loopback:
        yield f"{AGE}. It listens on this machine only; production is NVIDIA's container ({CONTAINER})"
    elif triton.bundled:
        yield f"DANGER: listening at {ip}, as you insisted. {AGE}. Use NVIDIA's container ({CONTAINER})"
    yield from selection.substituted.values()
    if selection.ignored:
        yield f"left out, since no version was ever published in it: {', '.join(selection.ignored)}"
