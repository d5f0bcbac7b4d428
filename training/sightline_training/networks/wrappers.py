"""The network around a recipe's body: uint8 pixels in, arithmetic of the card first, so that nobody can normalise twice or not at all."""

import torch
from torch import Tensor, nn

from sightline.batches import Pixels, Probabilities, batch_size_for, in_batches
from sightline.card import ModelCard
from sightline.preprocess import Preprocess


class Normalise(nn.Module):
    """The card's arithmetic: pixels [N, H, W, C] on the 0..255 scale (uint8, or float after augmentation) → float32 [N, C, H, W].

    (x / 255 - mean) / std, folded into one multiplication and one subtraction a pixel. The two constants are computed from the
    card and are no part of the saved weights: the card stays their only home.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, spec: Preprocess) -> None:
        super().__init__()
        mean, std = torch.tensor(spec.mean, dtype=torch.float64), torch.tensor(spec.std, dtype=torch.float64)
        self.register_buffer("scale", (1 / (255 * std)).float(), persistent=False)
        self.register_buffer("shift", (mean / std).float(), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """As the class says."""
        return (pixels.to(torch.float32) * self.scale - self.shift).permute(0, 3, 1, 2)


class Network(nn.Module):
    """What is trained: pixels [N, H, W, C] → logits float32 [N, classes]."""

    def __init__(self, card: ModelCard, body: nn.Module) -> None:
        super().__init__()
        self.normalise = Normalise(card.preprocess)
        self.body = body

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels on the 0..255 scale → logits."""
        logits: Tensor = self.body(self.normalise(pixels))
        return logits


class Answering(nn.Module):
    """What is exported and served: uint8 pixels [N, H, W, C] → probabilities float32 [N, classes]."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Softmax of the network's logits."""
        return torch.softmax(self.network(pixels), dim=1)


def probabilities_of(network: nn.Module, pixels: Pixels) -> Probabilities:
    """Return what an `Answering` network in eval mode gives for pixels [N, H, W, C], computed in batches where its weights lie."""
    device = next(network.parameters()).device

    def predict(batch: Pixels) -> Probabilities:
        probabilities: Probabilities = network(torch.from_numpy(batch).to(device)).cpu().numpy()
        return probabilities

    with torch.inference_mode():
        return in_batches(predict, pixels, batch_size_for(pixels.shape[1:]))
