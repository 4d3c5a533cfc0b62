"""Each rewrite leaves the numbers as they are: outputs, gradients and statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

import caffe
from caffe.plan.plan import Plan
from caffe.plan.rewrites import softmax_in_order

NO_BIAS = (
    "pad: 1 kernel_size: 3 bias_term: false"  # before BatchNorm it has no gradient but rounding
)
FROZEN = "param { lr_mult: 0 }"

# type, convolution_param, channels in and out, whether it has a bias
GEOMETRIES = {
    "plain": ("Convolution", "pad: 1 kernel_size: 3", 6, 4),
    "groups": ("Convolution", "pad: 1 kernel_size: 3 group: 2", 6, 4),
    "depthwise": ("Convolution", "pad: 1 kernel_size: 3 group: 4", 4, 4),
    "dilation": ("Convolution", "pad: 2 kernel_size: 3 dilation: 2", 6, 4),
    "stride": ("Convolution", "pad: 1 kernel_size: 3 stride: 2", 6, 4),
    "beyond the image": ("Convolution", "kernel_size: 11 stride: 4", 6, 4),
    "1x1": ("Convolution", "kernel_size: 1", 6, 4),
    "5x3": ("Convolution", "kernel_h: 5 kernel_w: 3 pad_h: 2 pad_w: 0", 6, 4),
    "one channel": ("Convolution", "pad: 1 kernel_size: 3", 1, 4),
    "winograd": ("Convolution", "pad: 1 kernel_size: 3", 64, 128),
    "transposed": ("Deconvolution", "pad: 1 kernel_size: 3", 6, 4),
    "transposed, stride": ("Deconvolution", "pad: 1 kernel_size: 4 stride: 2", 6, 4),
    "transposed, stride, groups": (
        "Deconvolution",
        "pad: 1 kernel_size: 4 stride: 2 group: 2",
        6,
        4,
    ),
    "transposed, groups": ("Deconvolution", "pad: 1 kernel_size: 3 group: 2", 6, 4),
    "transposed, dilation": ("Deconvolution", "kernel_size: 3 dilation: 2", 6, 4),
    "transposed, cut": ("Deconvolution", "pad: 3 kernel_size: 3", 6, 4),
    "transposed, one channel": ("Deconvolution", "pad: 1 kernel_size: 3", 1, 4),
    "transposed, winograd": ("Deconvolution", "pad: 1 kernel_size: 3", 64, 128),
}


def image(*shape: int, name: str = "x") -> str:
    dims = " ".join(f"dim: {d}" for d in shape)
    head = f'name: "{name}" type: "Input" top: "{name}"'
    return f"layer {{ {head} input_param {{ shape {{ {dims} }} }} }}"


def conv(
    name: str,
    bottom: str,
    top: str,
    outputs: int = 4,
    how: str = NO_BIAS,
    kind: str = "Convolution",
    more: str = "",
) -> str:
    return f"""
    layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {more}
      convolution_param {{ num_output: {outputs} {how} weight_filler {{ type: "msra" }}
        bias_filler {{ type: "gaussian" }} }} }}
    """


def norm(name: str, bottom: str, top: str = "", relu: bool = True, bias: str = "true") -> str:
    """BatchNorm, Scale and ReLU: layers NAME, NAME_s, NAME_r."""
    top = top or bottom
    text = f"""
    layer {{ name: "{name}" type: "BatchNorm" bottom: "{bottom}" top: "{top}" }}
    layer {{ name: "{name}_s" type: "Scale" bottom: "{top}" top: "{top}" scale_param {{
      bias_term: {bias} filler {{ type: "gaussian" mean: 1 std: 0.2 }}
      bias_filler {{ type: "gaussian" std: 0.3 }} }} }}
    """
    if relu:
        text += f'layer {{ name: "{name}_r" type: "ReLU" bottom: "{top}" top: "{top}" }}'
    return text


def losses(*blobs: str, more: str = "") -> str:
    """For each blob the distance of three weighted sums of it from given numbers."""
    return "".join(
        f"""
        layer {{ name: "{b}_ip" type: "InnerProduct" bottom: "{b}" top: "{b}_ip"
          inner_product_param {{ num_output: 3 weight_filler {{ type: "gaussian" std: 0.1 }} }} }}
        {image(2, 3, name=f"{b}_t")}
        layer {{ name: "{b}_loss" type: "EuclideanLoss" bottom: "{b}_ip" bottom: "{b}_t"
          top: "{b}_loss" loss_weight: {weight} }}
        """
        for weight, b in enumerate(blobs, 1)
    )


def set_statistics(nets: Sequence[caffe.Net], *names: str) -> None:
    for net in nets:
        rng = np.random.default_rng(7)
        for name in names:
            mean, variance, factor = net.params[name]
            mean.data[...] = rng.normal(size=mean.shape)
            variance.data[...] = rng.uniform(0.5, 2, variance.shape)
            factor.data[...] = 1.5


def names(net: caffe.Net) -> list[str]:
    return [node.name for node in Plan(net.wiring, train=net.phase == caffe.TRAIN).nodes]


@pytest.fixture(params=[False, True], ids=["kept", "recompute"])
def recompute(request: pytest.FixtureRequest) -> None:
    caffe.set_recompute(request.param)


def _geometry(name: str, bias: bool) -> tuple[str, str]:
    """The convolution from y to z after a 1x1 one from x to y, and the input."""
    kind, how, inputs, outputs = GEOMETRIES[name]
    size = (24, 33) if inputs == 64 else (9, 10)
    how += "" if bias else " bias_term: false"
    before = conv("before", "x", "y", inputs, "kernel_size: 1 bias_term: false")
    return image(2, 3, *size) + before, conv("conv", "y", "z", outputs, how, kind)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolutions_train_alike(geometry: str, pair, same_passes, recompute: None) -> None:
    before, layer = _geometry(geometry, bias=True)
    same_passes(pair(before + layer + losses("z")), backward=True)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolutions_with_batch_norm_train_alike(
    geometry: str, pair, same_passes, recompute: None
) -> None:
    before, layer = _geometry(geometry, bias=False)
    nets = pair(before + layer + norm("bn", "z") + losses("z"))
    assert "bn+bn_s+bn_r" in names(nets[1])
    same_passes(nets, backward=True)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolutions_predict_alike(geometry: str, bias: bool, pair, same_passes) -> None:
    before, layer = _geometry(geometry, bias)
    nets = pair(before + layer + norm("bn", "z"), caffe.TEST)
    set_statistics(nets, "bn")
    assert names(nets[1])[-1] == "conv+bn+bn_s+bn_r"
    same_passes(nets, backward=False)


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("how", ["", "group: 2", "bias_term: false", "stride: 2"])
@pytest.mark.parametrize("after", ["nothing", "ReLU", "BatchNorm"])
def test_weights_larger_than_the_image_predict_alike(
    kind: str, how: str, after: str, pair, same_passes
) -> None:
    text = image(1, 64, 3, 4) + conv("conv", "x", "y", 128, f"pad: 1 kernel_size: 3 {how}", kind)
    text += norm("bn", "y") if after == "BatchNorm" else ""
    text += 'layer { name: "r" type: "ReLU" bottom: "y" top: "y" }' if after == "ReLU" else ""
    nets = pair(text, caffe.TEST)
    if after == "BatchNorm":
        set_statistics(nets, "bn")
    same_passes(nets, backward=False)
    for net in nets:
        net.params["conv"][0].data[...] *= 2
    same_passes(nets, backward=False)


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


@pytest.mark.parametrize("axis", [0, 1, -2, -1])
@pytest.mark.parametrize("shape", [(2, 3, 9, 10), (4, 5, 1, 1), (6, 7), (2, 3, 4, 5, 2)], ids=str)
@pytest.mark.parametrize("piece", [1, 50, 1 << 18], ids=["rows", "some rows", "whole"])
def test_probabilities_alike(
    shape: tuple[int, ...], axis: int, piece: int, pair, same_passes, monkeypatch
) -> None:
    monkeypatch.setattr(softmax_in_order, "PIECE", piece)
    body = f"""layer {{ name: "p" type: "Softmax" bottom: "x" top: "p"
      softmax_param {{ axis: {axis} }} }}"""
    nets = pair(image(*shape) + body, caffe.TEST)
    same_passes(nets, backward=False)
    np.testing.assert_allclose(nets[1].blobs["p"].data.sum(axis), 1, rtol=1e-6)


def test_probabilities_are_written_where_they_are_seen(pair, same_passes) -> None:
    """A view of the output shows each pass, and is what the next one writes to."""
    body = 'layer { name: "p" type: "Softmax" bottom: "x" top: "p" }'
    nets = pair(image(2, 3, 9, 10) + body, caffe.TEST)
    same_passes(nets, backward=False)
    net = nets[1]
    view, before = net.blobs["p"].data, net.blobs["p"].data.copy()
    assert net.blobs["p"].place().data_ptr() == view.ctypes.data
    for other in nets:
        other.blobs["x"].data[...] *= 2
    same_passes(nets, backward=False)
    assert not np.allclose(view, before)
    np.testing.assert_array_equal(view, net.blobs["p"].data)
    for other in nets:  # another shape, and so another place
        other.blobs["x"].reshape(1, 3, 4, 5)
        other.blobs["x"].data[...] = 1
    same_passes(nets, backward=False)
    assert net.blobs["p"].data.shape == (1, 3, 4, 5)


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


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_a_plane_too_small_gets_the_same_line(phase: int, pair) -> None:
    body = """
    layer { name: "p" type: "Pooling" bottom: "x" top: "p" top: "k"
      pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
    layer { name: "u" type: "Unpooling" bottom: "p" bottom: "k" top: "u"
      unpooling_param { output_h: 4 output_w: 4 } }
    """
    lines = []
    for net in pair(image(1, 2, 8, 8) + body, phase):
        with pytest.raises(caffe.CaffeError) as error:
            net.forward()
        lines.append(str(error.value))
    assert lines[0] == lines[1]
    assert "do not fit the pooling layer" in lines[0]
