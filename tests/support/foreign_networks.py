"""Networks of other libraries, small enough to build here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sightline_training.networks.backbones import last_layer
from support.comparison_images import smooth
from support.hf_processors import CONVNEXT, MOBILENET, VIT, processor

transformers = pytest.importorskip("transformers")


TEN = tuple(f"class {number}" for number in range(10))


def as_tensor(preprocessing: dict[str, Any]) -> Callable[[Image.Image], torch.Tensor]:
    """transformers' own preprocessing: an image → normalised float32 [3, H, W]."""
    own = processor(preprocessing)
    return lambda image: torch.tensor(np.asarray(own(image, return_tensors="np")["pixel_values"][0]))


def saved(folder: Path, name: str, preprocessing: dict[str, Any] | None = None, **config: Any) -> Path:
    """A folder as Hugging Face's hub has it, with a small network of random weights."""
    kind, public, small = SMALL[name]
    config_of_kind = getattr(transformers, f"{kind}Config")(**small, **{"id2label": dict(enumerate(TEN)), **config})
    torch.manual_seed(0)
    # Wider than transformers begins: answers that differ from image to image are what a comparison needs.
    config_of_kind.initializer_range = 0.1
    network = lively(getattr(transformers, f"{kind}ForImageClassification")(config_of_kind), as_tensor(public))
    assert isinstance(network, transformers.PreTrainedModel)
    network.save_pretrained(folder / name)
    (folder / name / "preprocessor_config.json").write_text(json.dumps(preprocessing or public))
    return folder / name


SMALL: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vit-base-patch16-224": ("ViT", VIT, {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}),
    "convnext-tiny-224": ("ConvNext", CONVNEXT, {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}),
    "mobilenet_v2_1.0_224": ("MobileNetV2", MOBILENET, {"depth_multiplier": 0.35}),
}


def lively(network: nn.Module, transform: Callable[[Image.Image], torch.Tensor]) -> nn.Module:
    """Random weights whose answers differ from image to image: layers as they begin say the same of all of them, or of none.

    Batch normalisation gets the statistics of some images, and the last layer is scaled until its answers to them differ by 1.
    """
    planes = torch.stack([transform(smooth(number, (320, 280))) for number in range(16)])
    last: Any = network.get_submodule(last_layer(network))
    nn.init.normal_(last.weight, std=0.1)
    for module in network.eval().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.train()
    with torch.no_grad():
        network(planes)
        raw_logits = network.eval()(planes)
        logits = getattr(raw_logits, "logits", raw_logits)
        spread = (logits - logits.mean(dim=0)).std()
        last.weight /= spread
        last.bias.copy_((last.bias - logits.mean(dim=0)) / spread)
    return network
