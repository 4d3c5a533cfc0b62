"""Each rewrite leaves the numbers as they are: outputs, gradients and statistics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from nets import conv, image, losses, names, norm, set_statistics

import caffe


@pytest.fixture(params=[False, True], ids=["kept", "recompute"])
def recompute(request: pytest.FixtureRequest) -> None:
    caffe.set_recompute(request.param)


FROZEN = "param { lr_mult: 0 }"

# Pieces of nets, from x (2 x 3 x 9 x 10) to losses, and names of nodes that their plan must have.
BODIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "a convolution's output is taken twice": (
        conv("c", "x", "y") + norm("a", "y", "n") + losses("y", "n"),
        ("c", "a+a_s+a_r"),
    ),
    "sum of two": (
        conv("c", "x", "y")
        + norm("a", "y", "n", relu=False)
        + conv("d", "x", "z")
        + norm("b", "z", "m", relu=False)
        + 'layer { name: "sum" type: "Eltwise" bottom: "n" bottom: "m" top: "s" }'
        + 'layer { name: "r" type: "ReLU" bottom: "s" top: "s" }'
        + conv("e", "s", "t")
        + norm("f", "t")
        + losses("t"),
        ("a+a_s", "b+b_s", "sum", "r", "f+f_s+f_r"),
    ),
    "residual": (
        conv("c", "x", "y")
        + norm("a", "y", "n")
        + conv("d", "n", "z")
        + norm("b", "z", "m")
        + 'layer { name: "sum" type: "Eltwise" bottom: "n" bottom: "m" top: "s" }'
        + conv("e", "s", "t")
        + losses("t"),
        ("a+a_s+a_r", "sum"),
    ),
    "one for two convolutions": (
        conv("c", "x", "y")
        + norm("a", "y")
        + conv("d", "y", "z")
        + norm("b", "z")
        + conv("e", "y", "w", how="kernel_size: 1 bias_term: false")
        + norm("f", "w")
        + losses("z", "w"),
        ("a+a_s+a_r", "b+b_s+b_r", "f+f_s+f_r"),
    ),
    "slope": (
        conv("c", "x", "y")
        + norm("a", "y", relu=False)
        + 'layer { name: "r" type: "ReLU" bottom: "y" top: "y" relu_param { negative_slope: 0.1 } }'
        + conv("d", "y", "z")
        + losses("z"),
        ("a+a_s", "r"),
    ),
    "no shift": (
        conv("c", "x", "y") + norm("a", "y", bias="false") + conv("d", "y", "z") + losses("z"),
        ("a+a_s+a_r",),
    ),
    "pooling": (
        conv("c", "x", "y")
        + norm("a", "y")
        + 'layer { name: "p" type: "Pooling" bottom: "y" top: "p" pooling_param { pool: MAX'
        + " kernel_size: 2 stride: 2 } }"
        + conv("d", "p", "z")
        + losses("z"),
        ("p",),
    ),
    "pooling that rounds down": (
        conv("c", "x", "y")
        + 'layer { name: "p" type: "Pooling" bottom: "y" top: "p" pooling_param { pool: MAX'
        + " kernel_size: 2 stride: 2 round_mode: FLOOR } }"
        + losses("p"),
        ("p",),
    ),
    "pooling and unpooling": (
        conv("c", "x", "y")
        + norm("a", "y")
        + 'layer { name: "p" type: "Pooling" bottom: "y" top: "p" top: "k" pooling_param {'
        + " pool: MAX kernel_size: 2 stride: 2 } }"
        + conv("d", "p", "z")
        + norm("b", "z")
        + 'layer { name: "u" type: "Unpooling" bottom: "z" bottom: "k" top: "u" unpooling_param {'
        + " output_h: 9 output_w: 10 } }"
        + conv("e", "u", "w")
        + norm("f", "w")
        + losses("w"),
        ("p", "u"),
    ),
    "a mask that is an output": (
        conv("c", "x", "y")
        + 'layer { name: "p" type: "Pooling" bottom: "y" top: "p" top: "k" pooling_param {'
        + " pool: MAX kernel_size: 2 stride: 2 } }"
        + losses("p"),
        ("p",),
    ),
    "shared weights": (
        conv("c", "x", "y", 3, more='param { name: "w" }')
        + norm("a", "y")
        + conv("d", "y", "z", 3, more='param { name: "w" }')
        + norm("b", "z")
        + losses("z"),
        ("c", "d"),
    ),
    "frozen first": (
        conv("c", "x", "y", more=FROZEN) + norm("a", "y") + conv("d", "y", "z") + losses("z"),
        ("a", "a_s", "a_r"),
    ),
    "frozen second": (
        conv("c", "x", "y")
        + norm("a", "y")
        + conv("d", "y", "z", more=FROZEN)
        + norm("b", "z")
        + losses("z"),
        ("a+a_s+a_r", "d"),
    ),
    "frozen gain": (
        conv("c", "x", "y")
        + norm("a", "y").replace('type: "Scale"', f'type: "Scale" {FROZEN} {FROZEN}')
        + conv("d", "y", "z")
        + losses("z"),
        ("a+a_s+a_r",),
    ),
    "propagate_down: false": (
        conv("c", "x", "y")
        + norm("a", "y")
        + conv("d", "y", "z", more="propagate_down: false")
        + norm("b", "z")
        + losses("z"),
        ("d",),
    ),
    "propagate_down: true where nothing learns": (
        norm("a", "x", "y").replace('"BatchNorm"', '"BatchNorm" propagate_down: true')
        + conv("d", "y", "z")
        + losses("z"),
        ("d",),
    ),
    "statistics that stay": (
        conv("c", "x", "y")
        + norm("a", "y").replace(
            '"BatchNorm"', '"BatchNorm" batch_norm_param { use_global_stats: true }'
        )
        + losses("y"),
        ("a", "a_s", "a_r"),
    ),
    "one value a channel": (
        'layer { name: "g" type: "Pooling" bottom: "x" top: "g" pooling_param { pool: AVE'
        + " global_pooling: true } }"
        + 'layer { name: "half" type: "Slice" bottom: "g" top: "h" top: "i" slice_param {'
        + " axis: 0 } }"
        + conv("c", "h", "y", how="kernel_size: 1 bias_term: false")
        + norm("a", "y")
        + 'layer { name: "both" type: "Concat" bottom: "y" bottom: "y" top: "z" concat_param {'
        + " axis: 0 } }"
        + losses("z"),
        ("a+a_s+a_r",),
    ),
    "samples x channels": (
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {'
        + ' num_output: 4 bias_term: false weight_filler { type: "msra" } } }'
        + norm("a", "y")
        + losses("y"),
        ("a+a_s+a_r",),
    ),
    "output in between": (
        conv("c", "x", "y")
        + norm("a", "y")
        + conv("d", "y", "z")
        + losses("z")
        + 'layer { name: "keep" type: "Power" bottom: "y" top: "kept" }',
        ("a+a_s+a_r", "keep"),
    ),
}


@pytest.mark.parametrize("body", BODIES)
def test_nets_train_alike(body: str, pair, same_passes, recompute: None) -> None:
    text, expected = BODIES[body]
    nets = pair(image(2, 3, 9, 10) + text)
    assert set(expected) <= set(names(nets[1]))
    same_passes(nets, backward=True)


@pytest.mark.parametrize("body", BODIES)
def test_nets_predict_alike(body: str, pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + BODIES[body][0], caffe.TEST)
    set_statistics(
        nets, *(n for n, layer in nets[0].layer_dict.items() if layer.type == "BatchNorm")
    )
    same_passes(nets, backward=False)


@pytest.mark.parametrize("axes", [(10,), (5, 9, 10)], ids=["1-D", "3-D"])
def test_other_numbers_of_axes(axes: tuple[int, ...], pair, same_passes) -> None:
    nets = pair(image(2, 3, *axes) + conv("c", "x", "y") + norm("a", "y") + losses("y"))
    same_passes(nets, backward=True)


def test_force_backward(pair, same_passes) -> None:
    """Even BatchNorm's statistics are asked for a gradient then, and have none."""
    body = conv("c", "x", "y") + norm("a", "y") + losses("y")
    nets = pair("force_backward: true " + image(2, 3, 9, 10) + body)
    same_passes(nets, backward=True)
    assert not any(blob.diff.any() for blob in nets[1].params["a"])


def test_a_gradient_that_is_one_number(pair, same_passes) -> None:
    """The gradient of a sum is an expanded scalar."""
    body = conv("c", "x", "y") + norm("a", "y", "n")
    body += 'layer { name: "loss" type: "Reduction" bottom: "n" top: "loss" loss_weight: 1 }'
    same_passes(pair(image(2, 3, 9, 10) + body), backward=True)


def test_dropout_draws_alike_by_plan(make_net: Callable[..., caffe.Net]) -> None:
    """The same seed, the same gradient; another draw in the next pass."""
    body = conv("c", "x", "y") + norm("a", "y")
    body += 'layer { name: "drop" type: "Dropout" bottom: "y" top: "y" }' + conv("d", "y", "z")
    net = make_net(image(2, 3, 9, 10) + body + losses("z"))
    net.observed = False
    net.blobs["x"].data[...] = np.random.default_rng(1).normal(size=(2, 3, 9, 10))
    found = []
    for seed in (4, 4, 5):
        caffe.set_random_seed(seed)
        net.clear_param_diffs()
        net.forward()
        net.backward()
        found.append(net.params["c"][0].diff.copy())
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_gradients_add_up_over_passes(pair) -> None:
    """As iter_size asks for: the diffs of two passes are the sum of each alone."""
    nets = pair(image(2, 3, 9, 10) + conv("c", "x", "y") + norm("a", "y") + losses("y"))
    net, alone = nets[1], []
    inputs = np.random.default_rng(2).normal(size=(2, 2, 3, 9, 10))
    for values in inputs:
        net.clear_param_diffs()
        net.forward(**{"x": values, "y_t": net.blobs["y_t"].data})
        net.backward()
        alone.append(net.params["c"][0].diff.copy())
    net.clear_param_diffs()
    for values in inputs:
        net.forward(**{"x": values, "y_t": net.blobs["y_t"].data})
        net.backward()
    np.testing.assert_allclose(net.params["c"][0].diff, sum(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_inputs_that_do_not_fit_get_the_same_line(phase: int, pair) -> None:
    nets = pair(image(2, 3, 9, 10) + conv("c", "x", "y", how="kernel_size: 3"), phase)
    for shape in ((2, 5, 9, 10), (2, 3, 9), (2, 3, 1, 10)):
        lines = []
        for net in nets:
            net.blobs["x"].reshape(*shape)
            with pytest.raises(caffe.CaffeError) as error:
                net.forward()
            lines.append(str(error.value))
        assert lines[0] == lines[1]
