"""Any classifier of torchvision is a trunk: all of it but its last layer, under its own names, seen as its weights see."""

import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from _pytest.mark.structures import ParameterSet
from PIL import Image
from torch import nn
from torchvision import models
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms
from torchvision.transforms._presets import ImageClassification

from sightline.errors import UsageError
from sightline.reformatting import reformat
from sightline_training.networks import backbones
from sightline_training.networks.backbones import (
    Backbone,
    feature_count,
    known_backbones,
    last_layer,
    preprocess_of,
    published,
    structure,
    trunk_of,
    whole,
)
from sightline_training.networks.transfer import BothWays, Headed, PooledBlocks, PooledFeatures, Transferred, learning
from sightline_training.networks.weights import load_weights, weights_from

SMALL = (
    "mobilenet_v3_small",
    "squeezenet1_1",
    "resnet18",
    "shufflenet_v2_x0_5",
    "mnasnet0_5",
    "regnet_x_400mf",
    "googlenet",
    "densenet121",
)
"""One of a kind, with few weights."""

LARGEST = 150_000_000
"""Weights of a network that is filled here: three copies of it take 2 GB."""

FEATURES = {
    "vgg16": (4096, 512),
    "vgg16_bn": (4096, 512),
    "alexnet": (4096, 256),
    "mobilenet_v2": (1280, 1280),
    "mobilenet_v3_small": (1024, 576),
    "squeezenet1_1": (512, 512),
    "resnet50": (2048, 2048),
    "densenet121": (1024, 1024),
    "convnext_tiny": (768, 768),
    "inception_v3": (2048, 2048),
    "efficientnet_b0": (1280, 1280),
    "swin_t": (768, 768),
}


def _all(names: tuple[str, ...]) -> list[str | ParameterSet]:
    slow = [pytest.param(name, marks=pytest.mark.slow) for name in known_backbones() if name not in names]
    return [*names, *slow]


def test_every_classifier_of_torchvision_is_known() -> None:
    assert known_backbones() == tuple(sorted(models.list_models(module=models)))
    assert {"vgg16", "mobilenet_v2", "vit_b_16"} < set(known_backbones())


@pytest.mark.parametrize("ask", [trunk_of, whole, feature_count, preprocess_of])
def test_an_unknown_name_is_answered_with_the_nearest_ones(ask: Callable[[Backbone], object]) -> None:
    with pytest.raises(UsageError) as refused:
        ask(Backbone("ResNet-18"))
    assert str(refused.value) == "torchvision has no classifier 'ResNet-18'. Did you mean resnet18, resnet152, resnet101?"


def test_a_name_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(UsageError) as refused:
        trunk_of(Backbone("?"))
    assert str(refused.value).startswith("torchvision has no classifier '?'. Known are alexnet, convnext_base, ")


@pytest.mark.parametrize("name", _all(SMALL))
def test_a_trunk_is_the_network_less_its_last_layer(name: str) -> None:
    if next(iter(published(name).values())).meta["num_params"] > LARGEST:
        pytest.skip("too large to fill here")
    weights = weights_from(name, "random")
    network, trunk = whole(Backbone(name)).eval(), trunk_of(Backbone(name)).eval()
    load_weights(network, weights)
    load_weights(trunk, weights)
    last = network.get_submodule(last_layer(network))
    seen = []
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    height, width = preprocess_of(Backbone(name)).size
    planes = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits, features = network(planes), trunk(planes)
    assert logits.shape == (2, 1000)
    assert features.shape == (2, feature_count(Backbone(name)))
    into_last = seen[0] if seen[0].ndim == 2 else seen[0].mean(dim=(2, 3))
    assert torch.allclose(features, into_last, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", _all(SMALL))
def test_a_trunk_keeps_torchvisions_names_and_draws_nothing_at_random(name: str) -> None:
    if next(iter(published(name).values())).meta["num_params"] > LARGEST:
        pytest.skip("too large to fill here")
    before = torch.random.get_rng_state()
    network, trunk = whole(Backbone(name)), trunk_of(Backbone(name))
    assert torch.equal(torch.random.get_rng_state(), before)
    remaining = [name_of_layer for name_of_layer in network.state_dict() if not name_of_layer.startswith(f"{last_layer(network)}.")]
    assert list(trunk.state_dict()) == remaining
    assert not any(tensor.is_meta for tensor in (*network.state_dict().values(), *trunk.state_dict().values()))
    assert all(parameter.requires_grad for parameter in trunk.parameters())


@pytest.mark.parametrize(("name", "counts"), FEATURES.items())
def test_features_are_counted(name: str, counts: tuple[int, int]) -> None:
    assert (feature_count(Backbone(name)), feature_count(Backbone(name, "features"))) == counts


def test_the_convolutional_part_is_averaged_over_the_image() -> None:
    backbone = Backbone("mobilenet_v3_small", "features")
    trunk = trunk_of(backbone).eval()
    assert isinstance(trunk, PooledFeatures)
    load_weights(trunk, weights_from(backbone.name, "random"))
    planes = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(trunk(planes), nn.functional.adaptive_avg_pool2d(trunk.features(planes), 1).flatten(1), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # Its five poolings.
        ("vgg11_bn", 64 + 128 + 256 + 512 + 512),
        # Where a stride of 2 halves the maps, and the last convolution.
        ("mobilenet_v3_small", 16 + 16 + 24 + 40 + 96 + 576),
    ],
)
def test_every_block_speaks_at_one_scale_under_torchvisions_names(name: str, count: int) -> None:
    backbone = Backbone(name, "blocks")
    trunk = trunk_of(backbone).eval()
    assert isinstance(trunk, PooledBlocks)
    assert feature_count(backbone) == count
    assert list(trunk.state_dict()) == [
        name_of_layer for name_of_layer in structure(name).state_dict() if name_of_layer.startswith("features.")
    ]
    load_weights(trunk, weights_from(name, "random"))
    planes = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features, last = trunk(planes), trunk.features(planes).mean(dim=(2, 3))
    assert features.shape == (2, count)
    mine = features[:, -last.shape[1] :]
    assert torch.allclose(mine, (last - last.mean(1, keepdim=True)) / (last.var(1, correction=0, keepdim=True) + 1e-5).sqrt(), atol=1e-4)
    assert torch.allclose(mine.mean(1), torch.zeros(2), atol=1e-5)


def test_what_a_backbone_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError) as refused:
        trunk_of(Backbone("vit_b_16", "features"))
    assert str(refused.value) == "vit_b_16 has no convolutional part of its own. Transfer the whole network."
    with pytest.raises(UsageError) as refused:
        whole(Backbone("vgg16", "features"))
    assert str(refused.value) == "only the convolutional part of vgg16 is there: it has no classifier of its own to answer with."
    with pytest.raises(UsageError, match=r"^vit_b_16 has no convolutional part in blocks to learn from\.$"):
        trunk_of(Backbone("vit_b_16", "blocks"))
    with pytest.raises(UsageError, match=r"^vgg16 is to answer with its own classifier, .*: not on every block\.$"):
        whole(Backbone("vgg16", "blocks"))


@pytest.mark.parametrize("name", known_backbones())
def test_the_preprocessing_of_all_published_weights_can_be_said(name: str) -> None:
    for version, weights in published(name).items():
        spec, meant = preprocess_of(Backbone(name), version), weights.transforms()
        assert spec.size == (meant.crop_size[0],) * 2
        assert round(spec.size[0] / spec.crop_fraction) == meant.resize_size[0]
        assert spec.resample == meant.interpolation.value
        assert (spec.mean, spec.std) == (tuple(meant.mean), tuple(meant.std))
    assert preprocess_of(Backbone(name)) == preprocess_of(Backbone(name), next(iter(published(name))))


@pytest.mark.parametrize("size", [(301, 477), (640, 283), (256, 256)])
@pytest.mark.parametrize("name", ["vgg16", "efficientnet_b1", "inception_v3"])
def test_an_image_is_seen_as_torchvision_sees_it(name: str, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    meant = next(iter(published(name).values())).transforms()
    expected = transforms.center_crop(transforms.resize(image, meant.resize_size, meant.interpolation), meant.crop_size)
    actual = reformat(image, preprocess_of(Backbone(name)))
    # Pillow rounds once more between the two directions if it scales the height first, as it does with tall images.
    assert np.abs(actual.astype(int) - np.asarray(expected).astype(int)).max() <= 2


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(UsageError) as refused:
        preprocess_of(Backbone("mobilenet_v2"), "V9")
    assert str(refused.value) == "torchvision has no weights V9 of mobilenet_v2, only IMAGENET1K_V1, IMAGENET1K_V2."


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"crop_size": 256, "resize_size": 224},
            "scales the shorter side to 224 pixels and pads the crop of 256 with black, which a card cannot say.",
        ),
        (
            {"crop_size": 224, "interpolation": InterpolationMode.HAMMING},
            "resizes with 'hamming', which a card cannot say: it knows nearest, box, bilinear, bicubic, lanczos.",
        ),
    ],
)
def test_what_a_card_cannot_say_is_refused(settings: dict[str, object], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(SimpleNamespace):
        def __str__(self) -> str:
            return "ODD_V1"

    monkeypatch.setattr(backbones, "published", lambda _: {"V1": Odd(transforms=partial(ImageClassification, **settings))})
    with pytest.raises(UsageError) as refused:
        preprocess_of.__wrapped__(Backbone("vgg16"))
    assert str(refused.value) == f"the preprocessing of vgg16 with torchvision's ODD_V1 {reason}"


def _body() -> Transferred:
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.Dropout(), nn.Flatten())
    return Transferred(trunk, nn.Sequential(nn.Dropout(), nn.Linear(16, 2)))


@pytest.mark.parametrize("body", [_body(), _body().train(), nn.Sequential(_body()).train()[0]], ids=["born", "trained", "inside"])
def test_the_trunk_of_a_transferred_network_stays_in_evaluation_mode_and_its_head_does_not(body: Transferred) -> None:
    assert body.training
    assert body.head.training
    assert isinstance(body.head, nn.Sequential)
    assert body.head[0].training
    assert not any(module.training for module in body.trunk.modules())
    before = {name: tensor.clone() for name, tensor in body.trunk.state_dict().items()}
    body(torch.randn(8, 3, 6, 6)).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in body.trunk.state_dict().items())
    assert all(parameter.grad is not None for parameter in body.parameters())
    assert not any(module.training for module in body.eval().modules())


HEAD = {"head.1.weight", "head.1.bias"}


@pytest.mark.parametrize(
    ("share", "freed"),
    [
        (0.0, set()),
        (0.01, {"trunk.3.weight"}),
        (0.34, {"trunk.3.weight"}),
        (0.67, {"trunk.3.weight", "trunk.1.weight", "trunk.1.bias"}),
        (1.0, {"trunk.3.weight", "trunk.1.weight", "trunk.1.bias", "trunk.0.weight", "trunk.0.bias"}),
    ],
)
def test_a_share_of_the_trunks_layers_learns_counted_from_the_output(share: float, freed: set[str]) -> None:
    assert learning(_body(), share) == HEAD | freed


def test_what_a_trunk_owns_itself_learns_with_the_last_share() -> None:
    body = Headed(trunk_of(Backbone("vit_b_32")), nn.Linear(768, 2))
    assert "trunk.class_token" in learning(body, 1.0)
    assert "trunk.class_token" not in learning(body, 0.9)
    assert "trunk.encoder.ln.weight" in learning(body, 0.01)


def test_a_network_without_a_trunk_learns_whole() -> None:
    assert learning(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), 0.0) == {"0.weight", "0.bias", "1.weight", "1.bias"}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121"])
def test_the_last_share_of_a_real_trunk_is_its_last_blocks(name: str) -> None:
    body = Transferred(trunk_of(Backbone(name)), nn.Linear(feature_count(Backbone(name)), 2))
    names = [name_of_layer for name_of_layer, _ in body.trunk.named_parameters()]
    freed = [name_of_layer.removeprefix("trunk.") for name_of_layer in learning(body, 0.25) if name_of_layer.startswith("trunk.")]
    assert sorted(freed, key=names.index) == names[len(names) - len(freed) :]
    assert math.isclose(len(freed) / len(names), 0.25, abs_tol=0.03)


def test_a_network_that_looks_both_ways_says_the_same_of_a_mirror_image_but_learns_from_one() -> None:
    torch.manual_seed(0)
    body = BothWays(PooledFeatures(torch.nn.Conv2d(3, 4, 3)), torch.nn.Linear(4, 2))
    planes = torch.rand(5, 3, 8, 8)
    plain = Headed(body.trunk, body.head)
    with torch.inference_mode():
        assert torch.equal(body.train()(planes), plain(planes))
        logits = body.eval()(planes)
        assert torch.allclose(logits, body(planes.flip(3)), atol=1e-6)
        assert torch.allclose(logits, (plain(planes) + plain(planes.flip(3))) / 2)
        assert not torch.allclose(logits, plain(planes), atol=1e-3)
