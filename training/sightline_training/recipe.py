"""What a recipe is: one frozen value that says everything about training one classifier, so that the loop needs no special cases."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from sightline.card import ModelCard


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stretch of training with its own optimizer: AdamW under a one-cycle schedule, cross-entropy, early stopping."""

    epochs: int
    """The most passes over the training pictures; the schedule is stretched over them."""
    batch_size: int
    """The most pictures a step; an epoch is cut into steps of equal size, so that no picture is dropped and no batch is tiny."""
    learning_rate: float
    """The peak of the one-cycle schedule (Smith and Topin 2017, arXiv:1708.07120)."""
    weight_decay: float
    """AdamW's decoupled decay (Loshchilov and Hutter 2017, arXiv:1711.05101)."""
    patience: int
    """Epochs without a better one, by validation accuracy and then validation loss, after which the stage stops early."""
    label_smoothing: float = 0.0
    """Szegedy et al. 2015, arXiv:1512.00567, section 7. Validation loss is never smoothed."""
    learns: str = ""
    """Only parameters of the network's body whose name begins so learn in this stage; "" means all of them."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A classifier that can be trained by name."""

    name: str
    """What `sightline train` calls it."""
    card: ModelCard
    """Labels and preprocessing: the only place where preprocessing constants stand."""
    network: Callable[[ModelCard], nn.Module]
    """Makes the untrained body: normalised float32 [N, C, H, W] in, logits [N, classes] out."""
    data: str
    """Name of its dataset in `sightline_training.datasets`."""
    stages: tuple[Stage, ...]
    """Run one after the other, each from the best weights of the one before."""
    target_accuracy: float
    """What the test pictures of `data` must reach."""
    stand_in: str | None = None
    """A dataset with the same labels that needs no download; `--data` takes its name in place of a folder."""
    augmentation: Callable[[Tensor], Tensor] | None = None
    """Applied to each training batch: pixels [N, H, W, C] (uint8) to float32 of the same shape, still on the 0..255 scale."""
    augmented: "Recipe | None" = None
    """What `--augment` trains instead: the same card and the same layers; stages and dropout may differ."""

    def with_epochs(self, epochs: int) -> "Recipe":
        """The same recipe with every stage cut or stretched to `epochs`."""
        return replace(self, stages=tuple(replace(stage, epochs=epochs) for stage in self.stages))
