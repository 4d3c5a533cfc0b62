"""DenseBlock: facts that its row and recordings do not state."""

import torch
from cases import Case, make_layer

import caffe

TEXT = """denseblock_param { numTransition: 2 initChannel: 2 growthRate: 1 use_BC: true
    moving_average_fraction: 0.25 Filter_Filler { type: "xavier" }
    BN_Scaler_Filler { value: 1 } }"""


def test_a_bottom_with_more_channels_gives_the_start_of_its_memory():
    layer = make_layer("DenseBlock", Case(TEXT, [(2, 3, 4, 4)], phase=caffe.TEST))
    x = torch.randn(2, 3, 4, 4)
    blobs = [b.tensor(torch.device("cpu")) for b in layer.blobs]
    y = layer.forward([x], blobs)
    assert y.shape == (2, 4, 4, 4)
    torch.testing.assert_close(y[0, :2], x[0, :2])
    torch.testing.assert_close(y[1, :2], torch.stack([x[0, 2], x[1, 0]]))


def test_training_moves_the_running_statistics_by_the_fraction():
    layer = make_layer("DenseBlock", Case(TEXT, [(2, 2, 4, 4)]))
    x = torch.randn(2, 2, 4, 4)
    blobs = [b.tensor(torch.device("cpu")) for b in layer.blobs]
    layer.forward([x], blobs)
    # Blobs 6 and 8 are the first step's mean, which was 0, and variance, which was 1.
    torch.testing.assert_close(blobs[6].flatten(), 0.25 * x.mean((0, 2, 3)))
    torch.testing.assert_close(blobs[8].flatten(), 0.75 + 0.25 * x.var((0, 2, 3)))
    assert [layer.statistic(i) for i in (0, 2, 6, 8, 10, 16, 20)] == [
        *[False, False, True, True],
        *[False, True, True],
    ]
