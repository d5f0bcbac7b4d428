"""The convolutional network: blocks in the order that the courses teach, answers that do not depend on who else is asked about."""

import pytest
import safetensors.torch
import torch
from torch import nn

from sightline_training.networks.convnet import convnet


def small(shape: tuple[int, int, int] = (28, 28, 1)) -> nn.Sequential:
    torch.manual_seed(0)
    return convnet(shape, (4, 6, 8), 10, 5, map_dropout=0.1, dropout=0.2)


def test_a_block_is_convolution_normalisation_relu_dropout_pooling_and_there_are_three() -> None:
    kinds = [type(layer) for layer in small()[:-1]]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout2d, nn.MaxPool2d] * 3


def test_a_deeper_block_convolves_more_often_before_it_is_thinned_and_halved() -> None:
    layers = convnet((28, 28, 1), (4, 6), 10, 5, depth=2, map_dropout=0.1, dropout=0.2)
    once = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert [type(layer) for layer in layers[:-1]] == [*once, *once, nn.Dropout2d, nn.MaxPool2d] * 2
    assert [(convolution.in_channels, convolution.out_channels) for convolution in layers if isinstance(convolution, nn.Conv2d)] == [
        (1, 4),
        (4, 4),
        (4, 6),
        (6, 6),
    ]
    assert layers(torch.randn(3, 1, 28, 28)).shape == (3, 5)


@pytest.mark.parametrize("shape", [(28, 28, 1), (31, 40, 3), (8, 8, 1)])
def test_images_of_any_shape_that_can_be_halved_give_logits(shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    assert small(shape)(torch.randn(3, channels, height, width)).shape == (3, 5)


def test_an_image_too_small_for_so_many_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^images of 7 x 28 pixels cannot be halved 3 times$"):
        small((7, 28, 1))


def test_an_image_is_answered_alike_alone_and_among_others() -> None:
    network = small().eval()
    planes = torch.randn(7, 1, 28, 28)
    together = network(planes)
    alone = torch.cat([network(plane[None]) for plane in planes])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["as pixels come", "channels first"])
def test_the_maps_lie_with_channels_last_whatever_comes_in_and_the_weights_can_be_saved(layout: str) -> None:
    network = small()
    planes = torch.randn(2, 28, 28, 1).permute(0, 3, 1, 2) if layout == "as pixels come" else torch.randn(2, 1, 28, 28)
    maps = network[:-1](planes)
    assert maps.shape == (2, 8, 3, 3)
    assert maps.is_contiguous(memory_format=torch.channels_last)
    saved = safetensors.torch.load(safetensors.torch.save(network.state_dict()))
    fresh = small().eval()
    fresh.load_state_dict(saved)
    assert torch.equal(fresh(planes), network.eval()(planes))
