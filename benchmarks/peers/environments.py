"""A virtual environment for each peer, made from its requirements file: exact versions of what it names itself."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final

REQUIREMENTS: Final = Path(__file__).parent / "requirements"
PINNED: Final = "=="
INSTALL_S: Final = 1200


class InstallError(Exception):
    """A peer cannot be installed here; it says why."""


def python_of(name: str, folder: Path) -> Path:
    """Return the interpreter of an environment below `folder`, made if it is not there or its requirements are others now.

    Raises InstallError with the installer's last words.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    environment = folder / name
    python, stamp = environment / "bin" / "python", environment / "made-from"
    if stamp.is_file() and stamp.read_text(encoding="ascii") == digest:
        return python
    uv = Path(sys.executable).parent / "uv"
    _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment])
    _run([uv, "pip", "install", "--quiet", "--python", python, "--requirements", requirements])
    stamp.write_text(digest, encoding="ascii")
    return python


def _run(command: list[str | Path]) -> None:
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        raise InstallError(f"it was not installed within {INSTALL_S} s") from None
    if done.returncode:
        raise InstallError(f"it cannot be installed: {' '.join(done.stderr.split())[-300:]}")


def pins(requirements: Path) -> dict[str, str]:
    """Return package → exact version of a requirements file. Raises ValueError if a line pins nothing or names where to fetch from."""
    versions = {}
    for line in requirements.read_text(encoding="utf-8").splitlines():
        words = line.partition("#")[0].strip()
        if not words:
            continue
        package, pinned, version = words.partition(PINNED)
        if not pinned or package.startswith("-") or "://" in words or not version:
            raise ValueError(f"{requirements.name}: {words!r} is no exact version of a package")
        versions[package] = version
    return versions
