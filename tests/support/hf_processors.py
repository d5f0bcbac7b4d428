"""Hugging Face's preprocessor files, as its hub has them."""

from typing import Any

import pytest

transformers = pytest.importorskip("transformers")

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
RESCALED = {"do_rescale": True, "rescale_factor": 0.00392156862745098}


VIT = {
    "image_processor_type": "ViTFeatureExtractor",
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "do_normalize": True,
    **HALF,
    **RESCALED,
}


CONVNEXT = {
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "do_resize": True,
    "size": 224,
    "crop_pct": 0.875,
    "resample": 3,
    "do_normalize": True,
    **IMAGENET,
}


MOBILENET = {
    "image_processor_type": "MobileNetV2FeatureExtractor",
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 2,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_normalize": True,
    **HALF,
    **RESCALED,
}


DEIT = {
    "feature_extractor_type": "DeiTFeatureExtractor",
    "do_resize": True,
    "size": 256,
    "resample": 3,
    "do_center_crop": True,
    "crop_size": 224,
    "do_normalize": True,
    **IMAGENET,
}


def processor(config: dict[str, Any]) -> Any:
    kind = (config.get("image_processor_type") or config["feature_extractor_type"]).replace("FeatureExtractor", "ImageProcessor")
    return getattr(transformers, f"{kind}Pil")(**{key: value for key, value in config.items() if not key.endswith("_type")})
