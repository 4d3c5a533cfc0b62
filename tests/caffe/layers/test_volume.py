"""Videos and volumes: worked cases, and both ways of C3D to give parameters."""

import math

import numpy as np
import pytest
import torch

import caffe
from caffe.formats.prototext import parse
from caffe.formats.upgrade import upgrade_net
from caffe.proto import caffe_pb2 as pb

LABELS = torch.tensor([[[[[0.0, 1.0, 7.0]]]]])


def test_voxels_without_a_label_count_and_have_the_gradient_of_none(layer_of):
    """Two classes as likely: two labels cost log 2 each, the third is no class."""
    layer = layer_of('type: "VoxelSoftmaxLoss"', (1, 2, 1, 1, 3), LABELS.shape)
    x = torch.zeros(1, 2, 1, 1, 3, requires_grad=True)
    loss = layer.forward([x, LABELS], [])
    assert loss.item() == pytest.approx(2 * math.log(2) / 3)
    loss.backward()
    expected = np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5]]) / 3
    np.testing.assert_allclose(x.grad[0, :, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["Convolution3D", "Pooling3D"])
def test_parameters_of_both_versions(layer_of, name):
    more = "num_output: 2" if name.startswith("Conv") else "pool: MAX"
    text = f"{{ {more} kernel_size: 2 kernel_depth: 3 stride: 2 temporal_stride: 1 }}"
    old = "convolution_param" if name.startswith("Conv") else "pooling_param"
    layers = [
        layer_of(f'type: "{name}" {p} {text}', (1, 2, 4, 6, 6))
        for p in (old, f"{old[:-6]}3d_param")
    ]
    shapes = [layer.infer_shapes([(1, 2, 4, 6, 6)]) for layer in layers]
    assert shapes[0] == shapes[1] == [(1, 2, 2, 3, 3)]


def test_a_net_of_c3ds_first_version_is_brought_to_todays_form():
    text = """
      input: "x" input_shape { dim: 1 dim: 3 dim: 16 dim: 8 dim: 8 }
      layers { name: "c" type: CONVOLUTION3D bottom: "x" top: "c"
        convolution_param { num_output: 2 kernel_size: 3 kernel_depth: 3 pad: 1 temporal_pad: 1 } }
      layers { name: "p" type: POOLING3D bottom: "c" top: "p"
        pooling_param { kernel_size: 2 kernel_depth: 1 stride: 2 temporal_stride: 1 } }
      layers { name: "s" type: VOXEL_SOFTMAX bottom: "p" top: "s" }
    """
    net = caffe.Net(upgrade_net(parse(text.encode(), pb.NetParameter, "net")), caffe.TEST)
    assert [layer.type for layer in net.layers[-3:]] == [
        "Convolution3D",
        "Pooling3D",
        "VoxelSoftmax",
    ]
    assert net.blobs["s"].shape == (1, 2, 16, 4, 4)


def test_padding_is_for_averages(layer_of):
    text = 'type: "Pooling3D" pooling3d_param { kernel_size: 2 kernel_depth: 1 pad: 1 }'
    with pytest.raises(caffe.CaffeError, match="pad is for AVE only"):
        layer_of(text, (1, 1, 2, 4, 4))
