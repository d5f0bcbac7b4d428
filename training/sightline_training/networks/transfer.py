"""A network in two parts: a trunk that makes features of an image, and a head that answers from them."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional


class Headed(nn.Module):
    """float32 [N, C, H, W] → features [N, F] (`trunk`) → logits [N, classes] (`head`)."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, planes: Tensor) -> Tensor:
        """Logits of normalised images."""
        logits: Tensor = self.head(self.trunk(planes))
        return logits


class BothWays(Headed):
    """A network that answers from an image and from its mirror image, as VGG's authors do (arXiv:1409.1556, section 3.2).

    They take the mean of the probabilities, this of the logits. Only for images whose mirror image shows the same. It learns from
    one of the two, and takes twice as long to answer.
    """

    def forward(self, planes: Tensor) -> Tensor:
        """While it learns, logits of normalised images; else the means of theirs and their mirror images'."""
        logits = super().forward(planes)
        return logits if self.training else (logits + super().forward(planes.flip(3))) / 2


class Transferred(Headed):
    """A head on a trunk that was trained elsewhere.

    The trunk never leaves evaluation mode: the statistics of its batch normalisation are those of the many images that it
    learned from, and a few hundred of ours would only blur them. Its weights can learn all the same.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__(trunk, head)
        # Modules are born in training mode, and nobody need ever call `train`.
        self.trunk.eval()

    def train(self, mode: bool = True) -> Self:
        """Put the head into training or evaluation mode."""
        super().train(mode)
        self.trunk.eval()
        return self


class PooledFeatures(nn.Module):
    """The convolutional part of a torchvision classifier, averaged over the image: float32 [N, C, H, W] → [N, F].

    Its tensors have torchvision's names (`features.0.weight`), so that weights travel both ways.
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, planes: Tensor) -> Tensor:
        """Features of normalised images."""
        maps: Tensor = self.features(planes)
        return maps.mean(dim=(2, 3))


class PooledBlocks(nn.Module):
    """The same with the maps of every block: each block's averages, brought to mean 0 and variance 1, side by side [N, F].

    The first blocks know colours and textures, the last ones the classes that they were trained for; a head chooses (Hariharan et al.
    2015, arXiv:1411.5752). What each says is brought to one scale first, since averages of the last maps are many times smaller
    (Liu et al. 2015, arXiv:1506.04579, section 3.3, divide by the norm).
    """

    def __init__(self, features: nn.Sequential, ends: Sequence[int]) -> None:
        """`ends` are the places in `features` of the modules that end a block."""
        super().__init__()
        self.features = features
        self.ends = frozenset(ends)

    def forward(self, planes: Tensor) -> Tensor:
        """Features of normalised images."""
        averages = []
        for at, module in enumerate(self.features):
            planes = module(planes)
            if at in self.ends:
                average = planes.mean(dim=(2, 3))
                averages.append(functional.layer_norm(average, average.shape[1:]))
        return torch.cat(averages, dim=1)


def learning(body: nn.Module, trunk_share: float) -> frozenset[str]:
    """The names of the parameters of `body` that learn when only so much of a trunk does; all of them if `body` has no trunk.

    `trunk_share` is the share (0 to 1) of those of the trunk's modules that own weights, counted from the output: 0 freezes the
    trunk, anything more frees at least one module, 1 frees all. The head always learns.
    """
    names = [name for name, _ in body.named_parameters()]
    if not isinstance(body, Headed):
        return frozenset(names)
    owners = [name for name, module in body.trunk.named_modules() if any(True for _ in module.parameters(recurse=False))]
    count = 0 if trunk_share <= 0 else max(1, round(trunk_share * len(owners)))
    freed = {f"trunk.{owner}" if owner else "trunk" for owner in owners[len(owners) - count :]}
    return frozenset(name for name in names if name.startswith("head.") or name.rpartition(".")[0] in freed)
