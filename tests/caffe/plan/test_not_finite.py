"""Plans give NaN and infinity where the layers give them, whatever a rewrite makes of a net."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from google.protobuf import text_format
from nets import GEOMETRIES, acted, conv, geometry, image, ip, losses, norm, set_statistics

import caffe
from caffe.kernels import finite
from caffe.plan.prepared import PreparedConvolution
from caffe.plan.rewrites import ORDER, softmax_in_order
from caffe.process import execution
from caffe.proto import caffe_pb2 as pb

TRAIN, TEST = caffe.TRAIN, caffe.TEST
X = image(2, 3, 9, 10)
RELU = 'layer { name: "r" type: "ReLU" bottom: "y" top: "y" }'
DROPOUT = 'layer { name: "k" type: "Dropout" bottom: "y" top: "z" }'
POOL = """layer {{ name: "p" type: "Pooling" bottom: "y" top: "p" {mask}
  pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}"""
UNPOOL = """layer { name: "u" type: "Unpooling" bottom: "p" bottom: "k" top: "u"
  unpooling_param { output_h: 9 output_w: 10 } }"""
SCALE = """layer {{ name: "{0}" type: "Scale" bottom: "x" top: "{0}"
  scale_param {{ bias_term: true }} }}"""
SUM = 'layer { name: "s" type: "Eltwise" bottom: "y" bottom: "w" top: "z" }'
LARGEST = """layer { name: "p" type: "Pooling" bottom: "y" top: "p"
  pooling_param { kernel_size: 3 stride: 2 pad: 1 } }"""
LRN = 'layer { name: "n" type: "LRN" bottom: "y" top: "n" lrn_param { alpha: 0.1 } }'
SOFTMAX = 'layer { name: "q" type: "Softmax" bottom: "y" top: "q" }'

Nets = dict[str, tuple[str, str]]
# Of each rewrite: nets that it acts on, in TEST phase, or in TRAIN with the top that is learned.
NETS: dict[str, Nets] = {
    "drop_copies": {
        "dropout": (X + conv("c", "x", "y") + DROPOUT + conv("d", "z", "w"), ""),
        "split": (X + conv("c", "x", "y") + conv("d", "y", "z") + losses("y", "z"), "z"),
    },
    "pool_by_indices": {
        f"{name}{', trained' if top else ''}": (X + text, top)
        for name, last, text in (
            ("alone", "p", SCALE.format("y") + POOL.format(mask="")),
            ("between convolutions", "z", conv("c", "x", "y") + POOL.format(mask="")
             + conv("d", "p", "z")),
            ("unpooled", "u", SCALE.format("y") + POOL.format(mask='top: "k"') + UNPOOL),
            ("behind a convolution", "u", conv("c", "x", "y") + RELU + POOL.format(mask='top: "k"')
             + UNPOOL),
        )
        for top in ("", last)
    },
    "fuse_batch_norm": {
        "relu": (X + conv("c", "x", "y") + norm("a", "y"), "y"),
        "no relu": (X + conv("c", "x", "y") + norm("a", "y", relu=False), "y"),
        "no shift": (X + conv("c", "x", "y") + norm("a", "y", bias="false"), "y"),
        "twice": (
            X + conv("c", "x", "y") + norm("a", "y") + conv("d", "y", "z") + norm("b", "z"),
            "z",
        ),
    },
    "convolve_lean": {name: ("".join(geometry(name, bias=True)), "z") for name in GEOMETRIES},
    "prepare_convolutions": {
        **{name: ("".join(geometry(name, bias=True)) + norm("bn", "z"), "")
           for name in GEOMETRIES},
        "relu alone": (X + conv("c", "x", "y") + RELU + conv("d", "y", "z"), ""),
        "sum": (X + conv("c", "x", "y") + conv("d", "x", "w") + SUM, ""),
        "sum, relu": (
            X + conv("c", "x", "y") + norm("bn", "y", relu=False) + conv("d", "x", "w") + SUM
            + RELU.replace('"y"', '"z"'),
            "",
        ),
        "weights larger than the image": (
            image(1, 64, 3, 4) + conv("c", "x", "y", 128) + norm("bn", "y"),
            "",
        ),
    },
    "prepare_products": {
        "relu": (X + SCALE.format("y") + ip("p", "y", "z")
                 + RELU.replace('"y"', '"z"') + ip("q", "z"), ""),
    },
    "fold_batch_norm": {
        "alone": (X + norm("a", "x", "y", relu=False).partition("layer { name: \"a_s")[0], ""),
        "scale, relu": (X + norm("a", "x", "y") + conv("d", "y", "z"), ""),
        "behind a convolution": (
            X + conv("c", "x", "y") + RELU + norm("a", "y", bias="false") + conv("d", "y", "z"),
            "",
        ),
    },
    "grow_concats": {
        "block": (
            X + conv("c", "x", "c0") + "".join(
                norm(f"n{i}", f"c{i}", f"m{i}") + conv(f"d{i}", f"m{i}", f"e{i}")
                + f"""layer {{ name: "j{i}" type: "Concat" bottom: "c{i}" bottom: "e{i}"
                  top: "c{i + 1}" }}"""
                for i in range(3)
            ) + conv("f", "c3", "z"),
            "",
        ),
    },
    "pool_values": {
        "largest": (X + SCALE.format("y") + LARGEST, ""),
        "largest, behind a convolution": (X + conv("c", "x", "y") + LARGEST, ""),
        "mean": (X + SCALE.format("y") + LARGEST.replace("kernel_size: 3 stride: 2 pad: 1",
                                                         "pool: AVE global_pooling: true"), ""),
    },
    "normalize_pixels": {
        "alone": (X + SCALE.format("y") + LRN, ""),
        "between convolutions": (X + conv("c", "x", "y") + LRN + conv("d", "n", "z"), ""),
    },
    "work_in_place": {
        "relu": (X + SCALE.format("y") + RELU + conv("c", "y", "z"), ""),
        "sum": (X + SCALE.format("y") + SCALE.format("w") + SUM + conv("e", "z", "q"), ""),
    },
    "softmax_in_order": {"softmax": (X + conv("c", "x", "y") + SOFTMAX, "")},
}  # fmt: skip
ALL = [(rewrite, net) for rewrite, nets in NETS.items() for net in nets]
VALUES = {"NaN": np.nan, "inf": np.inf, "-inf": -np.inf}


# A loss whose gradient is the input "m", whatever the top holds, and the top as an output.
LEARNED = """
layer {{ name: "product" type: "Eltwise" bottom: "{0}" bottom: "m" top: "product"
  eltwise_param {{ operation: PROD stable_prod_grad: true }} }}
layer {{ name: "loss" type: "Reduction" bottom: "product" top: "loss" loss_weight: 1 }}
layer {{ name: "keep" type: "Power" bottom: "{0}" top: "kept" }}
"""


@pytest.fixture
def made(pair) -> Callable[[str, str], tuple[tuple[caffe.Net, caffe.Net], bool]]:
    """made(rewrite, net): the net twice, the second by its plan; and whether it is in TRAIN."""

    def make(rewrite: str, name: str) -> tuple[tuple[caffe.Net, caffe.Net], bool]:
        text, top = NETS[rewrite][name]
        if top:
            shape = caffe.Net(text_format.Parse(text, pb.NetParameter()), TEST).blobs[top].shape
            text += image(*shape, name="m") + LEARNED.format(top)
        nets = pair(text, TRAIN if top else TEST)
        norms = [key for key, layer in nets[0].layer_dict.items() if layer.type == "BatchNorm"]
        set_statistics(nets, *norms)
        return nets, bool(top)

    return make


def test_every_rewrite_is_tried() -> None:
    assert set(NETS) == {rewrite.name for rewrite in ORDER}


@pytest.mark.parametrize(("rewrite", "net"), ALL, ids=str)
def test_every_net_is_one_that_the_rewrite_acts_on(rewrite: str, net: str, made) -> None:
    nets, _ = made(rewrite, net)
    assert acted(nets[1], rewrite)


def places(net: caffe.Net) -> Iterator[tuple[str, int]]:
    """Where a number may be set: (blob, -1) for an input, (layer, index) for a parameter."""
    yield from ((name, -1) for name in ("x", "m") if name in net.inputs)
    for name, blobs in net.params.items():
        yield from ((name, i) for i in range(len(blobs)))


def blob_at(net: caffe.Net, name: str, index: int) -> caffe.Blob:
    return net.blobs[name] if index < 0 else net.params[name][index]


def outcome(net: caffe.Net, backward: bool) -> dict[str, np.ndarray] | str:
    """All that two passes give, or the line with which the net refuses to go on."""
    try:
        for _ in range(2):
            found = {name: values.copy() for name, values in net.forward().items()}
            if backward:
                net.backward()
    except caffe.CaffeError as error:
        return str(error)
    for name, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            found[f"{name} {i}"] = blob.data.copy()
            if backward:
                found[f"gradient of {name} {i}"] = blob.diff.copy()
    return found


def kinds(values: np.ndarray) -> np.ndarray:
    """0 for finite numbers, 1 for NaN, 2 and 3 for infinities."""
    return np.select([np.isnan(values), values == np.inf, values == -np.inf], [1, 2, 3])


def assert_alike(nets: tuple[caffe.Net, caffe.Net], backward: bool, what: str) -> None:
    layers, plan = (outcome(net, backward) for net in nets)
    if isinstance(layers, str) or isinstance(plan, str):
        assert layers == plan, what
        return
    tolerance = 1e-5 if execution.precision() == "fp32" else 0.1
    for name, values in layers.items():
        where = f"{name}, {what}"
        np.testing.assert_array_equal(kinds(plan[name]), kinds(values), where)
        finite = np.isfinite(values)
        scale = max(1.0, float(np.abs(values[finite]).max(initial=0)))
        np.testing.assert_allclose(
            plan[name][finite], values[finite], rtol=0, atol=tolerance * scale, err_msg=where
        )


@pytest.mark.parametrize(
    ("precision", "value"),
    [*(("fp32", value) for value in VALUES), ("bf16", "NaN")],
)
@pytest.mark.parametrize(("rewrite", "net"), ALL, ids=str)
def test_one_number_that_is_not_finite(
    rewrite: str, net: str, value: str, precision: str, made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each blob of parameters and statistics, and in the input, one after another."""
    monkeypatch.setattr(softmax_in_order, "PIECE", 50)
    caffe.set_precision(precision)
    for name, index in places(made(rewrite, net)[0][0]):
        nets, train = made(rewrite, net)
        for each in nets:
            numbers = blob_at(each, name, index).data.reshape(-1)
            numbers[len(numbers) // 3] = VALUES[value]
        assert_alike(nets, train, f"{value} in {name} {index}")


@pytest.mark.parametrize(("rewrite", "net"), ALL, ids=str)
def test_finite_numbers_that_overflow(rewrite: str, net: str, made) -> None:
    nets, train = made(rewrite, net)
    for each in nets:
        each.blobs["x"].data[...] *= 1e20
        for name, blobs in each.params.items():
            if each.layer_dict[name].type in ("Convolution", "Deconvolution", "Scale"):
                blobs[0].data[...] *= 1e25
    assert_alike(nets, train, "overflow")


@pytest.mark.parametrize("rewrite", ["pool_by_indices", "prepare_convolutions", "work_in_place"])
def test_passes_do_not_remember_each_other(rewrite: str, made) -> None:
    for net in NETS[rewrite]:
        nets, train = made(rewrite, net)
        for value in (0.5, np.nan, 1e35, 0.5, np.inf):
            for each in nets:
                each.clear_param_diffs()
                each.blobs["x"].data[0, 0, 1, 1] = value
            assert_alike(nets, train, f"{net}: {value}")


FUSION = (
    image(1, 3, 16, 16)
    + image(1, 1, 16, 16, name="d")
    + "".join(
        conv(f"{b}{i}", f"{b}{i - 1}" if i > 1 else b, f"{b}{i}", 4) + norm(f"{b}n{i}", f"{b}{i}")
        for b in "xd"
        for i in (1, 2)
    )
    + """
    layer { name: "sum" type: "Eltwise" bottom: "x2" bottom: "d2" top: "s" }
    layer { name: "pool" type: "Pooling" bottom: "s" top: "p" top: "k"
      pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
    layer { name: "drop" type: "Dropout" bottom: "p" top: "p" }
    """
    + conv("m", "p", "m", 4)
    + norm("mn", "m")
    + """
    layer { name: "u" type: "Unpooling" bottom: "m" bottom: "k" top: "u"
      unpooling_param { scale: 2 } }
    layer { name: "both" type: "Concat" bottom: "u" bottom: "s" top: "both" }
    """
    + conv("score", "both", "score", 5)
)  # a small FuseNet with a skip connection


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the values that plans look at, each time."""
    seen: list[tuple[int, ...]] = []
    largest, all_finite = finite.largest, finite.all_finite
    monkeypatch.setattr(finite, "largest", lambda x: seen.append(tuple(x.shape)) or largest(x))
    monkeypatch.setattr(
        finite, "all_finite", lambda *x: seen.extend(tuple(t.shape) for t in x) or all_finite(*x)
    )
    return seen


def test_a_deploy_net_looks_at_its_inputs_alone(pair, looked: list) -> None:
    nets = pair(FUSION, TEST)
    assert_alike(nets, False, "finite")
    assert looked == 2 * [(1, 3, 16, 16), (1, 1, 16, 16)]


def test_a_deep_net_looks_now_and_then(pair, looked: list, monkeypatch) -> None:
    """Bounds grow a hundredfold a layer, and values not at all."""
    depth = 40
    text = image(1, 16, 6, 6) + "".join(
        conv(f"c{i}", f"y{i}" if i else "x", f"y{i + 1}", 16) for i in range(depth)
    )
    one_by_one: list[None] = []
    monkeypatch.setattr(PreparedConvolution, "_layer_by_layer", lambda *_: one_by_one.append(None))
    net = pair(text, TEST)[1]
    for blobs in net.params.values():
        rng = np.random.default_rng(1)
        blobs[0].data[...] = rng.choice([-1, 1], blobs[0].shape) / 12
    net.forward()
    assert np.isfinite(net.blobs[net.outputs[0]].data).all()
    assert not one_by_one
    assert 1 < len(looked) < 5
