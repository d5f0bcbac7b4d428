"""What a recipe is: one frozen value that says everything about training one classifier, so that the loop needs no special cases."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import ValidationError
from torch import nn

from sightline.card import ModelCard
from sightline.errors import UsageError
from sightline.host.text import first_problem
from sightline.preprocess import Preprocess
from sightline_training.augment.kornia_ops import Augmentation
from sightline_training.networks.backbones import Backbone


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stretch of training with its own optimizer: a one-cycle schedule, cross-entropy, early stopping."""

    epochs: int
    """The most passes over the training images; the schedule is stretched over them."""
    batch_size: int
    """The most images a step; an epoch is cut into steps of equal size, so that no image is dropped and no batch is tiny."""
    learning_rate: float
    """The peak of the one-cycle schedule (Smith and Topin 2017, arXiv:1708.07120)."""
    weight_decay: float
    """AdamW's decoupled decay, or the L2 penalty of SGD."""
    patience: int
    """Epochs without a better one, by validation accuracy and then validation loss, after which the stage stops early; if the dataset
    has no validation images besides those that it is judged on, nothing stops early."""
    label_smoothing: float = 0.0
    """Szegedy et al. 2015, arXiv:1512.00567, section 7. Validation loss is never smoothed."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101), or SGD with Nesterov momentum of 0.9 (Sutskever et al. 2013)."""
    mixed_precision: bool = False
    """Whether products are computed in bfloat16 where the processor has instructions for it; weights stay float32."""
    trunk_share: float = 1.0
    """Of a network with a trunk, the share of the trunk's layers that learn, counted from its output; the head always learns."""
    views: int = 0
    """While the trunk is frozen (`trunk_share` 0), its features of each training image and of so many augmented views of it are
    computed once, and the head draws one of them at each step."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A classifier that can be trained by name."""

    name: str
    """What `sightline train` calls it."""
    card: ModelCard
    """Labels and preprocessing: the only place where preprocessing constants stand, but for those that belong to a backbone's weights."""
    data: str
    """Name of its dataset in `sightline_training.datasets`."""
    stages: tuple[Stage, ...]
    """Run one after the other, each from the weights that the one before kept. None at all: the network answers as it is."""
    target_accuracy: float | None
    """What the judged images of `data` must reach; None if nobody can promise."""
    target_on_run: float | None = None
    """The same, built on another run's trunk: one that knows fewer kinds of images than ImageNet has."""
    network: Callable[[ModelCard], nn.Module] | None = None
    """Makes the untrained body: normalised float32 [N, C, H, W] in, logits [N, classes] out."""
    transfer: Callable[[ModelCard, Backbone], nn.Module] | None = None
    """Instead of `network`: makes the body around a pre-trained backbone; the weights are filled in by the training."""
    backbone: str = "vgg16"
    """With `transfer`: torchvision's name of the backbone that is used if nobody names another."""
    own_images: bool = False
    """Whether labels and the model's name come with the user's images, so that those of `card` only hold their places."""
    stand_in: str | None = None
    """A dataset with the same labels that needs no download; `--data` takes its name in place of a folder."""
    augmentation: Augmentation | None = None
    """Applied to each training batch."""
    augmented: "Recipe | None" = None
    """What `--augment` trains instead: the same card and the same layers; stages and dropout may differ."""

    def build(self, card: ModelCard, backbone: Backbone | None) -> nn.Module:
        """Return the untrained body: normalised float32 [N, C, H, W] in, logits [N, classes] out. `backbone` belongs to `transfer`."""
        if self.transfer is not None and backbone is not None:
            return self.transfer(card, backbone)
        if self.network is not None and backbone is None:
            return self.network(card)
        raise ValueError(f"the recipe {self.name} and the backbone {backbone} do not go together")

    def with_epochs(self, epochs: int) -> "Recipe":
        """Return the same recipe with every stage cut or stretched to `epochs`."""
        return replace(self, stages=tuple(replace(stage, epochs=epochs) for stage in self.stages))

    def with_preprocess(self, of_weights: Preprocess, size: int | None) -> "Recipe":
        """Return the same recipe for the images that its pre-trained weights know; `size` (pixels a side) instead of theirs.

        What is not trained gets images exactly as it was trained. What learns anew keeps the way in which this recipe's card fits an
        image, and takes size, mean and deviation from the weights.
        """
        preprocess = of_weights
        if self.stages:
            preprocess = self.card.preprocess.with_fields(size=of_weights.size, mean=of_weights.mean, std=of_weights.std)
        if size is not None:
            preprocess = preprocess.with_fields(size=(size, size))
        return self.with_card(preprocess=preprocess)

    def with_card(self, **changes: object) -> "Recipe":
        """Return the same recipe with these fields of its card changed, checked like any card. Raises UsageError."""
        try:
            return replace(self, card=ModelCard.model_validate({**dict(self.card), **changes}))
        except ValidationError as error:
            raise UsageError(f"no card can be made: {first_problem(error)}") from None
