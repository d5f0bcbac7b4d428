"""What a user chooses, as values that are checked at once. Nothing heavy is imported: commands collect their options into these."""

from dataclasses import dataclass, field
from pathlib import Path

from sightline.errors import UsageError
from sightline.repository.tensorrt_plan import Hardware
from sightline_export.graph.calibration import CalibrationSettings
from sightline_export.precisions import precision_named


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What is exported of a model, and how it is proven."""

    precisions: tuple[str, ...] = ("fp32",)
    """Each becomes a version, in this order; one that stands here twice counts once."""
    images: int | None = None
    """How many images the gate compares at most, spread evenly; None: as many as memory allows."""
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    again: bool = False
    """Whether a version is published though the newest one is this very model."""
    image_ensemble: bool = True
    """Whether `<model>_image`, which takes encoded images, stands beside the model."""

    def __post_init__(self) -> None:
        """Raise UsageError for what makes no sense."""
        if not self.precisions:
            raise UsageError("name at least one precision to export in")
        for name in self.precisions:
            precision_named(name)
        if self.images is not None and self.images < 1:
            raise UsageError(f"the gate needs at least one image to compare, not {self.images}")


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """What a user says of a model that was trained elsewhere."""

    weights: str | None = None
    """None (the published ones, or those in the folder), `random`, or a file."""
    weights_key: str | None = None
    """Which entry of a checkpoint is meant, such as `state_dict_ema`; None where only one can be."""
    preprocess: tuple[str, ...] = ()
    """What is stated of the preprocessing: the name of a file, and KEY=VALUE for fields; what is not stated is the source's."""
    name: str | None = None
    """The model's in the repository; None: the network's."""
    labels: Path | None = None
    """A text file with a label a line; None: the source's own."""
    images_from: Path | None = None
    """A folder of images to compare on; None: generated ones. Folders in it that are called as labels say what the images show."""


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Which other machines than the one that builds a TensorRT plan may load it. It may be slower then."""

    hardware: Hardware = "none"
    version_compatible: bool = False
    """Whether newer TensorRTs may load it; it then contains code."""


@dataclass(frozen=True, kw_only=True)
class FinalizeSettings:
    """How a TensorRT plan is built."""

    opt_batch: int | None = None
    """The batch that it is fastest for; None: half of the card's largest."""
    timing_cache: Path | None = None
    """A file that is read and written; None: this machine's own."""
    plan: PlanSettings = field(default_factory=PlanSettings)
    again: bool = False
    """Whether it is built though a plan of the same file, machine and settings is there."""


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Where a server answers."""

    grpc_url: str
    http_url: str
    timeout_s: float = 30.0
    """Each call may take."""


@dataclass(frozen=True, kw_only=True)
class ImageSelection:
    """Which of a run's test images are compared."""

    data: Path | None = None
    """The data folder; None: where the run had them from."""
    limit: int | None = None
    """At most so many; None: all, or as many as memory allows."""
