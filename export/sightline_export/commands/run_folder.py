"""Finds the run that a command names."""

from pathlib import Path
from typing import Final

from sightline.errors import DataError

RUNS: Final = Path("runs")


def run_folder(run: str) -> Path:
    """Return the folder that RUN means: a path, or the name of a folder below runs/. Raises DataError that lists the runs."""
    path = Path(run)
    for folder in (path, *([RUNS / path] if len(path.parts) == 1 else [])):
        if folder.is_dir():
            return folder
    names = sorted(folder.name for folder in RUNS.iterdir() if folder.is_dir()) if RUNS.is_dir() else []
    known = f"the runs there are: {', '.join(names)}" if names else "there are no runs yet: make one with `sightline train`"
    raise DataError(f"there is no run folder {run}{f' and none in {RUNS}/' if len(path.parts) == 1 else ''}; {known}")
