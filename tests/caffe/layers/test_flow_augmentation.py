"""FlowNet2's augmentation layers: what the recordings do not show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import caffe

MEAN = "augmentation_param { recompute_mean: 2 mean_per_pixel: false }"


def test_the_mean_is_that_of_the_first_passes(layer_of):
    layer = layer_of(f'type: "DataAugmentation" {MEAN}', (2, 1, 1, 2))
    blobs = [blob.tensor() for blob in layer.blobs]
    tops = []
    for value in (1.0, 3.0, 9.0):
        x = torch.tensor([value - 1, value + 1]).view(1, 1, 1, 2).expand(2, 1, 1, 2)
        tops.append(layer.forward([x], blobs)[0][0, 0, 0].tolist())
    assert tops == [[-1, 1], [0, 2], [6, 8]]  # minus 1, 2 and 2
    assert blobs[0].item() == 3
    assert blobs[2].item() == 2


def test_weights_for_another_size_bring_the_mean_of_their_channels(net_of, tmp_path):
    layer = f'layer {{ name: "l" type: "DataAugmentation" bottom: "x" top: "y" {MEAN} }}'
    small, large = net_of(layer, x=(1, 2, 2, 2)), net_of(layer, x=(1, 2, 4, 6))
    small.params["l"][0].data[...] = 5
    small.params["l"][1].data[...] = np.arange(8).reshape(1, 2, 2, 2)
    small.params["l"][2].data[...] = [[[[1.5]], [[5.5]]]]
    small.save(str(tmp_path / "w.caffemodel"))
    large.copy_from(str(tmp_path / "w.caffemodel"))
    assert large.params["l"][0].data.item() == 5
    np.testing.assert_array_equal(large.params["l"][1].data[0, :, 1, 1], [1.5, 5.5])
    y = large.forward(x=np.zeros((1, 2, 4, 6)))["y"]
    np.testing.assert_array_equal(y[0, :, 0, 0], [-1.5, -5.5])


def test_a_net_that_wants_random_transformations_is_told(net_of, capfd):
    param = 'augmentation_param { rotate { rand_type: "uniform" spread: 0.4 } }'
    net_of(
        f'layer {{ name: "l" type: "DataAugmentation" bottom: "x" top: "y" {param} }}',
        x=(1, 3, 4, 4),
    )
    assert "augmentation_param.rotate" in capfd.readouterr().err


def test_a_crop_larger_than_the_image(layer_of):
    text = 'type: "DataAugmentation" augmentation_param { crop_width: 9 crop_height: 2 }'
    with pytest.raises(caffe.CaffeError, match="crop_height and crop_width are 2 and 9"):
        layer_of(text, (1, 3, 4, 4))


def test_images_alone_ask_for_no_transformation(layer_of):
    layer = layer_of('type: "GenerateAugmentationParameters"', (2, 3, 4, 4))
    assert not layer.forward([torch.ones(2, 3, 4, 4)], []).any()
