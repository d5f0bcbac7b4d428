"""The whole line: a network trained on the bundled digits, exported and published."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sightline import cli
from sightline_serving.server import Server


@dataclass(frozen=True)
class Line:
    """Where one trained and published model lies."""

    run: Path
    repository: Path

    def copied(self, to: Path) -> "Line":
        """A copy that a test may spoil."""
        shutil.copytree(self.run, to / "run")
        shutil.copytree(self.repository, to / "models")
        for path in (to / "models").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return Line(to / "run", to / "models")


def make_line(folder: Path, seed: int) -> Line:
    """Train `mnist` on the digits for a few epochs, and publish it."""
    line = Line(folder / "run", folder / "models")
    cli.run(["train", "mnist", "--data", "digits", "--epochs", "4", "--seed", str(seed), "--run", str(line.run)])
    cli.run(["export", str(line.run), "--repository", str(line.repository)])
    return line


class Prove(Protocol):
    """`sightline verify` of a line against a server."""

    def __call__(self, line: Line, server: Server, *options: str) -> None: ...


def table(printed: str) -> dict[str, str]:
    """Hop → verdict."""
    rows = [re.split(r"\s{2,}", row.strip()) for row in printed.splitlines()]
    return {row[0]: row[-1] for row in rows if row[0].startswith(("card:", "weights:", "file:", "pixels:", "answers:", "labels:"))}
