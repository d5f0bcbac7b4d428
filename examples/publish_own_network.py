"""Publish a torch network of your own with its preprocessing: python examples/publish_own_network.py REPOSITORY IMAGES

IMAGES is a folder of images such as the model will see: the gate compares ONNX Runtime with torch on them.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from sightline import ModelCard, PreprocessV1
from sightline_export.candidate import ExportCandidate
from sightline_export.graph.calibration import calibration_from
from sightline_export.pipeline import export_candidate
from sightline_export.settings import ExportSettings
from sightline_export.sources.probe_images import images_below

CARD = ModelCard(
    name="own",
    description="Cat or dog, by a network of our own.",
    labels=("cat", "dog"),
    preprocess=PreprocessV1(
        version=1,
        mode="RGB",
        size=(32, 32),
        fit="crop",
        crop_fraction=1.0,
        resample="bilinear",
        background=(255, 255, 255),
        exif="apply",
        polarity="as-is",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    max_batch_size=16,
)


class Own(nn.Module):
    """uint8 pixels [N, 32, 32, 3] to probabilities float32 [N, 2]: normalisation and softmax are part of the network."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(CARD.preprocess.mean))
        self.register_buffer("std", torch.tensor(CARD.preprocess.std))
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))

    def forward(self, pixels: Tensor) -> Tensor:
        """Answer a batch."""
        planes = ((pixels.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)
        return torch.softmax(self.body(planes), dim=1)


def load() -> nn.Module:
    """Give the trained network; load your weights here."""
    torch.manual_seed(0)
    return Own().eval()


if __name__ == "__main__":
    repository, images = Path(sys.argv[1]), Path(sys.argv[2])
    candidate = ExportCandidate(
        card=CARD,
        network=load,
        images=lambda most: images_below(images, CARD, most),
        calibration=lambda card, settings: calibration_from(images, card, settings.count),
        provenance={"from": "examples/publish_own_network.py"},
    )
    for exported in export_candidate(candidate, repository, ExportSettings(precisions=("fp32",))):
        print(f"published {exported.published.folder}")
