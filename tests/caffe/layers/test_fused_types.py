"""Types in one: the numbers of the layers that they stand for."""

import torch
import torch.nn.functional as F
from cases import Case, make_layer


def test_convolution_relu_pool_lrn_is_these_four():
    text = """convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "gaussian" } }
    pooling_param { kernel_size: 2 stride: 2 } lrn_param { local_size: 3 alpha: 0.3 }"""
    layer = make_layer("ConvolutionReLUPoolLRN", Case(text, [(2, 3, 8, 8)]))
    x = torch.randn(2, 3, 8, 8)
    blobs = [b.tensor(torch.device("cpu")) for b in layer.blobs]
    y = F.max_pool2d(F.conv2d(x, *blobs).relu(), 2)
    y = F.local_response_norm(y, 3, 0.3, 0.75, 1)
    torch.testing.assert_close(layer.forward([x], blobs), y)


def test_the_gradient_of_inner_product_relu_dropout_passes_where_the_relu_is_shut():
    layer = make_layer(
        "InnerProductReLUDropout", Case("inner_product_param { num_output: 1 }", [(1, 2)])
    )
    weight, x = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 5.0]], requires_grad=True)
    y = layer.forward([x], [weight, torch.zeros(1)])
    y.sum().backward()
    assert y.item() == 0  # of -3
    assert x.grad.tolist() == [[2, -1]]
