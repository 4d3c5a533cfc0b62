"""ConvLSTM: what the recordings of DAVSOD's code do not show."""

import pytest
import torch

import caffe

PARAM = "lstm_conv_param { num_output: 2 kernel_size: 3 pad: 1 }"


def test_a_batch_goes_on_where_the_last_one_ended(layer_of):
    text = f'type: "ConvLSTM" {PARAM}'
    whole = layer_of(text, (4, 1, 2, 3, 3), (4, 1))
    halves = layer_of(text, (2, 1, 2, 3, 3), (2, 1))
    torch.manual_seed(1)
    blobs = [torch.randn(blob.shape) * 0.3 for blob in whole.blobs]
    x, cont = torch.randn(4, 1, 2, 3, 3), torch.tensor([[0.0], [1], [1], [1]])
    (expected,) = whole.forward([x, cont], blobs)
    parts = [halves.forward([x[i : i + 2], cont[i : i + 2]], blobs)[0] for i in (0, 2)]
    torch.testing.assert_close(torch.cat(parts), expected)


def test_a_static_input_counts_in_each_step(layer_of):
    """It is convolved with a weight of its own, and added to the gates of all steps."""
    x, cont, still = torch.zeros(2, 1, 1, 3, 3), torch.ones(2, 1), torch.randn(1, 1, 1, 3, 3)
    layer = layer_of(f'type: "ConvLSTM" {PARAM}', x.shape, cont.shape, still.shape)
    plain = layer_of(f'type: "ConvLSTM" {PARAM}', x.shape, cont.shape)
    torch.manual_seed(1)
    blobs = [torch.randn(blob.shape) * 0.3 for blob in layer.blobs]
    (top,) = layer.forward([x, cont, still], blobs)
    # The same by an input that is the static one in each step, and has its weight.
    (expected,) = plain.forward([still.expand(2, 1, 1, 3, 3), cont], blobs[1:])
    torch.testing.assert_close(top, expected)


def test_a_kernel_that_shrinks_the_image(layer_of):
    with pytest.raises(caffe.CaffeError, match="does not keep the image's size"):
        layer_of(
            'type: "ConvLSTM" lstm_conv_param { num_output: 2 kernel_size: 3 }',
            (2, 1, 1, 4, 4),
            (2, 1),
        )
