"""A door for cats and dogs: ImageNet's 1000 classes summed into cat, dog and other inside the network. Nothing is trained.

    sightline train doggy_door --backbone mobilenet_v2 --weights mobilenet_v2_imagenet.safetensors     3 of 3 photos

happy_dog → dog, brown_bear → other, sleepy_cat → cat, in a second.

The default is VGG16, whose own weights were not available: tests/line/test_vgg16.py takes it through the line with random weights.
"""

from typing import Final

import torch
from torch import Tensor, nn

from sightline.card import ModelCard
from sightline_training.datasets.imagenet_labels import CATS, DOGS, LABELS
from sightline_training.networks.backbones import Backbone, whole
from sightline_training.networks.transfer import Headed
from sightline_training.recipe import Recipe
from sightline_training.recipes.imagenet import PREPROCESS

GROUPS: Final = {
    "cat": tuple(CATS),
    "dog": tuple(DOGS),
    "other": tuple(index for index in range(len(LABELS)) if index not in CATS and index not in DOGS),
}
"""Label → the classes of ImageNet that it stands for."""


class Summed(nn.Module):
    """Logits [N, 1000] → logits [N, 3] whose softmax is the sum of the classes' probabilities, group by group.

    With p = exp(x) / Σ exp(x), the sum of p over a group is exp(logsumexp of its x) / Σ exp(x): so the group's logit is the
    logsumexp of its members'.
    """

    def __init__(self) -> None:
        super().__init__()
        for label, members in GROUPS.items():
            # Constants of the recipe, and no part of the saved weights.
            self.register_buffer(label, torch.tensor(members), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """As the class says."""
        return torch.stack([logits[:, self.get_buffer(label)].logsumexp(dim=1) for label in GROUPS], dim=1)


def _network(_: ModelCard, backbone: Backbone) -> nn.Module:
    return Headed(whole(backbone), Summed())


DOGGY_DOOR: Final = Recipe(
    name="doggy_door",
    card=ModelCard(
        name="doggy_door",
        description="Cat, dog or something else: a network of torchvision trained on ImageNet, its classes summed.",
        labels=tuple(GROUPS),
        preprocess=PREPROCESS,
        max_batch_size=32,
    ),
    transfer=_network,
    data="doggy_door",
    stages=(),
    target_accuracy=None,
)
