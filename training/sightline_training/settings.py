"""What a caller may settle about a training, besides the recipe and the run folder: one frozen value, validated when it is made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from sightline.errors import UsageError

DeviceChoice = Literal["auto", "cpu", "gpu"]

MAX_EPOCHS: Final = 100_000
MAX_SEED: Final = 2**31 - 1
MIN_SIZE_PX, MAX_SIZE_PX = 16, 1024
"""Pixels a side of the images that a backbone gets."""

BACKBONE_SETTINGS: Final = ("backbone", "weights", "weights_key", "size", "every_block")
"""Those that only a recipe on a pre-trained network has."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The settings of one training. Raises UsageError, naming the setting, for a value that is out of its range."""

    dataset: str | None = None
    """The name of another dataset than the recipe's own; None for that."""
    data: Path | None = None
    """The data folder, or the folder of the user's own images; None for the one that SIGHTLINE_DATA names, else `data/`."""
    seed: int = 0
    """Decides all that is drawn at random."""
    epochs: int | None = None
    """The most epochs of each stage; None for the recipe's."""
    restart: bool = False
    """Whether an earlier run in the folder is deleted first."""
    device: DeviceChoice = "auto"
    backbone: str | None = None
    """torchvision's name of the classifier to build on; None for the recipe's."""
    weights: str | None = None
    """What the backbone has learned before, see `weights_from`; None for torchvision's weights."""
    weights_key: str | None = None
    """Which entry of a checkpoint holds them, where several do; None where one does."""
    size: int | None = None
    """Pixels a side of the images that a backbone gets; None for its weights'."""
    every_block: bool = False
    """Whether the head gets what each block of the backbone's convolutional part makes, not what the last one makes alone."""
    name: str | None = None
    """The model's name on its card; None for the recipe's."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("seed", self.seed, 0, MAX_SEED),
            ("epochs", self.epochs, 1, MAX_EPOCHS),
            ("size", self.size, MIN_SIZE_PX, MAX_SIZE_PX),
        ):
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name} must be from {low:,} to {high:,}, not {value:,}", settings=(name,))
        if self.device not in get_args(DeviceChoice):
            raise UsageError(f"device must be one of {', '.join(get_args(DeviceChoice))}, not {self.device!r:.40}", settings=("device",))

    @property
    def of_backbone(self) -> tuple[str, ...]:
        """The names of the settings that were given and that only a recipe on a pre-trained network has."""
        return tuple(name for name in BACKBONE_SETTINGS if getattr(self, name) not in (None, False))
