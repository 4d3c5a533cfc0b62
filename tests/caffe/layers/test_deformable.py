"""DeformableConvolution, by plain convolutions of moved images."""

import pytest
import torch
import torch.nn.functional as F
from cases import Case, make_layer

PARAM = "num_output: 3 kernel_size: 3 pad: 1 deformable_group: 2 stride: {stride}"


def top(images: torch.Tensor, moves: torch.Tensor, weight: torch.Tensor, stride: int = 1):
    text = f"deformable_convolution_param {{ {PARAM.format(stride=stride)} bias_term: false }}"
    layer = make_layer("DeformableConvolution", Case(text, [images.shape, moves.shape]))
    return layer.forward([images, moves], [weight])


@pytest.fixture
def drawn():
    torch.manual_seed(0)
    return torch.randn(2, 4, 6, 7), torch.randn(3, 4, 3, 3)


@pytest.mark.parametrize("stride", [1, 2])
def test_without_moves_it_is_a_convolution(drawn, stride):
    images, weight = drawn
    expected = F.conv2d(images, weight, stride=stride, padding=1)
    moves = torch.zeros(2, 36, *expected.shape[2:])
    torch.testing.assert_close(top(images, moves, weight, stride), expected)


def test_moves_are_down_and_right_and_each_group_of_channels_has_its_own(drawn):
    images, weight = drawn
    moves = torch.zeros(2, 36, 6, 7)
    moves[:, 18::2], moves[:, 19::2] = 1, 2  # the second group: one down, two to the right
    moved = images.clone()
    moved[:, 2:] = F.pad(images[:, 2:], (0, 2, 0, 1))[:, :, 1:, 2:]
    found, expected = top(images, moves, weight), F.conv2d(moved, weight, padding=1)
    # At the upper and left border a moved place lies in the image, where the other is padding.
    torch.testing.assert_close(found[:, :, 1:, 1:], expected[:, :, 1:, 1:])


def test_half_a_pixel_is_the_mean_of_two(drawn):
    images, weight = drawn
    moves = torch.zeros(2, 36, 6, 7)
    moves[:, 1::2] = 0.5
    between = (images + F.pad(images, (0, 1))[..., 1:]) / 2
    found, expected = top(images, moves, weight), F.conv2d(between, weight, padding=1)
    torch.testing.assert_close(found[..., 1:-2], expected[..., 1:-2])
