"""A small network on scikit-learn's bundled handwritten digits."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from sightline.card import ModelCard
from sightline.preprocess import PreprocessV1
from sightline_export.graph.torch_to_onnx import export_onnx
from sightline_training.recipes import recipe_named
from sightline_training.settings import TrainSettings
from sightline_training.train import train

DIGITS = ModelCard(
    name="digits",
    description="Handwritten digits, 8 × 8 pixels.",
    labels=tuple("0123456789"),
    preprocess=PreprocessV1(
        version=1,
        mode="L",
        size=(8, 8),
        fit="stretch",
        crop_fraction=1.0,
        resample="bilinear",
        background=(0,),
        exif="ignore",
        polarity="as-is",
        mean=(0.3,),
        std=(0.4,),
    ),
    max_batch_size=16,
)


class Net(nn.Module):
    """uint8 pixels [N, 8, 8, 1] → probabilities float32 [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 10))

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        normal = (pixels.to(torch.float32) / 255 - 0.3) / 0.4
        logits: torch.Tensor = self.body(normal.permute(0, 3, 1, 2))
        return logits

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.logits(pixels), dim=1)


@dataclass(frozen=True)
class Trained:
    card: ModelCard
    network: Net
    pixels: npt.NDArray[np.uint8]
    """Test images, uint8 [360, 8, 8, 1]."""
    labels: npt.NDArray[np.int64]
    model: bytes
    """The network as ONNX."""


@pytest.fixture(scope="session")
def trained() -> Trained:
    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
    labels = labels.astype(np.int64)
    torch.set_num_threads(1)  # so small a network only waits for a second one
    torch.manual_seed(0)
    network = Net()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    known, answers = torch.from_numpy(pixels[:-360]), torch.from_numpy(labels[:-360])
    for _ in range(30):
        for chosen in torch.randperm(len(known)).split(64):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            nn.functional.cross_entropy(network.logits(known[chosen]), answers[chosen]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    network.eval()
    return Trained(DIGITS, network, pixels[-360:], labels[-360:], export_onnx(network, DIGITS))


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as `sightline train mnist --data digits --epochs 4` makes it. Tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    train(recipe_named("mnist"), folder, TrainSettings(dataset="digits", epochs=4))
    return folder
