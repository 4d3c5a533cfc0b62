"""Lstm and its helpers: what the recordings of the forks' code do not show."""

import numpy as np
import pytest
import torch

import caffe


def values(layer, seed=1):
    """Parameters for a layer."""
    torch.manual_seed(seed)
    return [torch.randn(blob.shape) for blob in layer.blobs]


def test_with_indicators_a_batch_goes_on_where_the_last_one_ended(layer_of):
    text = 'type: "Lstm" lstm_param { num_output: 2 }'
    whole, halves = layer_of(text, (6, 3), (6, 1)), layer_of(text, (3, 3), (3, 1))
    blobs, x = values(whole), torch.randn(6, 3)
    cont = torch.tensor([[0.0], [1], [1], [1], [0], [1]])
    expected = whole.forward([x, cont], blobs)
    parts = [halves.forward([x[i : i + 3], cont[i : i + 3]], blobs) for i in (0, 3)]
    torch.testing.assert_close(torch.cat(parts), expected)
    halves.reset()
    first = halves.forward([x[3:], cont[3:]], blobs)
    assert not torch.allclose(first, expected[3:])


def test_steps_of_streams_on_one_axis_or_on_two(layer_of):
    flat = layer_of('type: "Lstm" lstm_param { num_output: 2 batch_size: 3 }', (12, 5))
    steps = layer_of('type: "Lstm" lstm_param { num_output: 2 }', (4, 3, 5))
    blobs, x = values(flat), torch.randn(12, 5)
    a, b = flat.forward([x], blobs), steps.forward([x.view(4, 3, 5)], blobs)
    assert a.shape == (12, 2)
    assert b.shape == (4, 3, 2)
    torch.testing.assert_close(a, b.view(12, 2))


def test_streams_that_do_not_fit(layer_of):
    with pytest.raises(caffe.CaffeError, match="expected a multiple of batch_size, 5, first"):
        layer_of('type: "Lstm" lstm_param { num_output: 2 batch_size: 5 }', (12, 5))


def test_an_axis_that_transpose_misses(layer_of):
    with pytest.raises(caffe.CaffeError, match="each of the axes of the bottom"):
        layer_of('type: "Transpose" transpose_param { dim: 0 dim: 0 }', (2, 3))


def test_reverse_time_leaves_what_follows_a_stream(layer_of):
    x, lengths = torch.arange(6.0).view(3, 2), torch.tensor([3.0, 2.0])
    for copied, rest in (("true", 5), ("false", 0)):
        text = f'type: "ReverseTime" reverse_time_param {{ copy_remaining: {copied} }}'
        top = layer_of(text, x.shape, lengths.shape).forward([x, lengths], [])
        np.testing.assert_array_equal(top, [[4, 3], [2, 1], [0, rest]])
