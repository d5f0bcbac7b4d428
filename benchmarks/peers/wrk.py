"""The one load generator: wrk, which sends the requests of all images in turn over so many connections and counts the answers."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from peers.wire import Request

SCRIPT: Final = Path(__file__).with_name("post.lua")
FIGURES: Final = re.compile(r"^RACE (\{.*\})$", re.MULTILINE)
TIMEOUT_S: Final = 60
"""Of a request: a slow network with 32 requests in front of it takes seconds."""


class LoadError(Exception):
    """wrk gave no figures, or some requests failed; it says which."""


@dataclass(frozen=True)
class Load:
    """What wrk counted in one window."""

    requests: int
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @property
    def per_s(self) -> float:
        """Requests/s."""
        return self.requests / self.seconds


def find_wrk() -> str:
    """Return the program. Raises LoadError that says how to get it."""
    program = shutil.which("wrk")
    if program is None:
        raise LoadError("wrk, the load generator, is not installed: apt-get install wrk")
    return program


def load(port: int, requests: Sequence[Request], concurrency: int, window_s: float) -> Load:
    """Keep `concurrency` requests under way for `window_s`, whole seconds. Raises LoadError if one of them fails."""
    with tempfile.TemporaryDirectory(prefix="sightline-race-") as folder_name:
        folder = Path(folder_name)
        headers = folder / "headers"
        headers.write_text("".join(f"{name}: {value}\n" for name, value in requests[0].headers.items()), encoding="ascii")
        bodies = [folder / f"{number}.body" for number in range(len(requests))]
        for file, request in zip(bodies, requests, strict=True):
            file.write_bytes(request.body)
        command = [find_wrk(), "--threads", "1", "--connections", str(concurrency), "--duration", f"{max(1, round(window_s))}s"]
        command += ["--timeout", f"{TIMEOUT_S}s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}{requests[0].path}", "--"]
        command += [str(headers), *map(str, bodies)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=window_s + 2 * TIMEOUT_S)
    return read(done.stdout, done.stderr)


def read(output: str, complaints: str = "") -> Load:
    """Read what post.lua printed at the end. Raises LoadError if it is not there, or if requests failed."""
    line = FIGURES.search(output)
    if line is None:
        raise LoadError(f"wrk printed no figures: {(complaints or output).strip()[-300:] or 'nothing at all'}")
    figures = json.loads(line[1])
    errors = {name: figures[name] for name in ("connect", "read", "write", "status", "timeout") if figures[name]}
    if errors:
        kinds = ", ".join(f"{count} × {name}" for name, count in errors.items())
        raise LoadError(f"of {figures['requests']} requests some failed: {kinds}")
    if not figures["requests"]:
        raise LoadError("no request was answered within the window")
    milliseconds = (figures[name] / 1000 for name in ("p50", "p95", "p99"))
    return Load(figures["requests"], figures["duration"] / 1e6, *milliseconds)
