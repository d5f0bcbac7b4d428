"""How a batch job is done, as one value that is validated when it is made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sightline.errors import UsageError
from sightline.flow import FlowSettings


@dataclass(frozen=True)
class ScoreSettings:
    """How images are scored. Raises UsageError if a value makes no sense."""

    top: int = 1
    """Classes to write for each image, at most as many as the model has."""
    readers: int | None = None
    """Images that are read at the same time; None: as many as there are cores."""
    requests: int = 4
    """Requests in flight at the same time."""
    labelled: bool = False
    """Whether rows say which class the image has, by the first folder below what was listed, or by the list."""
    raw_cells: bool = False
    """Whether cells of CSV that a spreadsheet would take for formulas are written as they are."""
    overwrite: bool = False
    """Whether an output that exists, or a job that was begun, is replaced."""
    resume: bool = False
    """Whether a job that was begun goes on; where none was, it begins."""
    engine: Literal["local", "ray"] = "local"
    """What reads the images and asks the server: this process and its readers, or Ray Data. The rows are the same."""
    ray_address: str = ""
    """Of the cluster, `host:6379`; empty finds one, as `sightline.scoring.ray_cluster.connected` says, or starts one on this machine."""
    checkpoint_s: float = 1.0
    """Seconds after which the rows are brought to the disk: what is lost at most when the job is killed."""

    def __post_init__(self) -> None:
        """Validate."""
        if self.top < 1:
            raise UsageError(f"the number of classes to write must be at least 1, not {self.top}", settings=("top",))
        if not 0 <= self.checkpoint_s < float("inf"):
            raise UsageError(f"the time between checkpoints must be 0 s or more, not {self.checkpoint_s:g}", settings=("checkpoint_s",))
        if self.overwrite and self.resume:
            raise UsageError("a job that was begun is resumed or overwritten, not both", settings=("resume", "overwrite"))
        if self.engine not in ("local", "ray"):
            raise UsageError(f"the engine is local or ray, not {self.engine!r}", settings=("engine",))
        if self.ray_address and self.engine != "ray":
            raise UsageError("an address of a Ray is for the engine ray alone", settings=("ray_address", "engine"))
        _ = self.flow

    @property
    def flow(self) -> FlowSettings:
        """How far images and requests go ahead of the rows; each request has the same number of images."""
        return FlowSettings(self.readers, self.requests, full_batches=True)


@dataclass(frozen=True)
class ScoreProgress:
    """How far a job has come."""

    rows: int
    """That are written, those of an earlier run included."""
    resumed_rows: int
    """Of these, those that an earlier run wrote."""
    broken: int


@dataclass(frozen=True)
class ScoreSummary:
    """What a finished job did."""

    rows: int
    broken: int
    """Rows that hold an error instead of a label."""
    passed_over: int
    """Files that are no images, neither by their name nor by their content, and links to folders."""
    out: Path
    remarked: int = 0
    """Rows that hold a remark beside the label: there is nothing to read on the image."""
    guarded: int = 0
    """Cells of CSV in which a formula was made harmless."""
    resumed_rows: int = 0
    """Rows that an earlier run wrote; all of them if there was nothing to do."""
    version: str = ""
    """Of the model; empty if there was nothing to do."""
