"""to_module: a net's answers and gradients from a plain torch module."""

from __future__ import annotations

import copy
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.proto import caffe_pb2 as pb

RECORDED = Path(__file__).parents[2] / "golden" / "layers"

NET = """
name: "small"
layer { name: "in" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 2 dim: 3 dim: 9 dim: 8 } shape { dim: 2 } } }
layer { name: "conv.1/a" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1
    weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.1 } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" top: "mask"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" }
layer { name: "unpool" type: "Unpooling" bottom: "pool" bottom: "mask" top: "unpool"
  unpooling_param { output_h: 9 output_w: 8 } }
layer { name: "sum" type: "Eltwise" bottom: "unpool" bottom: "data4" top: "sum" }
layer { name: "ip" type: "InnerProduct" bottom: "sum" top: "ip"
  param { lr_mult: 0 } param { lr_mult: 2 }
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" top: "prob"
  loss_weight: 0.5 loss_weight: 0 }
"""
CONV4 = """
layer { name: "conv4" type: "Convolution" bottom: "data" top: "data4" propagate_down: false
  convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "sum"
"""


def message(text=None):
    text = NET.replace('layer { name: "sum"', CONV4.strip()) if text is None else text
    return text_format.Parse(text, pb.NetParameter())


@pytest.fixture
def net():
    caffe.set_random_seed(7)
    net = caffe.Net(message(), caffe.TEST)
    rng = np.random.default_rng(0)
    for blob, values in zip(net.params["bn"], (rng.normal(size=4), [2, 1, 3, 2], [2]), strict=True):
        blob.data[...] = values
    return net


@pytest.fixture
def batch():
    rng = np.random.default_rng(1)
    data = rng.normal(size=(2, 3, 9, 8)).astype(np.float32)
    return {"data": torch.from_numpy(data), "label": torch.tensor([1.0, 4.0])}


def numpy(batch):
    return {name: values.numpy() for name, values in batch.items()}


def test_same_outputs(net, batch):
    module = caffe.to_module(net)
    assert (module.inputs, module.outputs) == (["data", "label"], ["loss", "prob"])
    outputs = module(**batch)
    for name, values in net.forward(**numpy(batch)).items():
        np.testing.assert_array_equal(outputs[name].detach().numpy(), values)
    by_position = module(batch["data"], batch["label"])
    assert torch.equal(by_position["prob"], outputs["prob"])


def test_the_precision_of_nets_is_not_the_modules(net, batch):
    """A module is float32; users convert it to other types by PyTorch's own methods."""
    exact = caffe.to_module(net)(**batch)
    caffe.set_precision("bf16")
    made = caffe.to_module(net)(**batch)
    for name, values in exact.items():
        assert made[name].dtype == torch.float32
        assert torch.equal(made[name], values)


def test_state_dict_by_layer_names(net):
    module = caffe.to_module(net)
    state = module.state_dict()
    expected = {
        f"{name.replace('.', '_')}.{i}": blob.data
        for name, blobs in net.params.items()
        for i, blob in enumerate(blobs)
    }
    assert list(state) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(state[name].numpy(), values)
    names = {name for name, _ in module.named_parameters()}
    assert names == {name for name in expected if not name.startswith("bn.")}
    wants = {name for name, p in module.named_parameters() if not p.requires_grad}
    assert wants == {"ip.0"}  # lr_mult 0
    other = caffe.to_module(message(), phase=caffe.TEST)
    other.load_state_dict(state)
    x = torch.ones(2, 3, 9, 8)
    assert torch.equal(other(x, torch.zeros(2))["prob"], module(x, torch.zeros(2))["prob"])


def test_the_module_keeps_its_own_weights(net, batch):
    module = caffe.to_module(net)
    before = module(**batch)["prob"]
    net.params["ip"][1].data[...] = 100
    assert torch.equal(module(**batch)["prob"], before)


def test_gradients_are_caffes(batch):
    caffe.set_random_seed(3)
    param = message()
    del param.layer[6]  # dropout
    net = caffe.Net(param, caffe.TRAIN)
    module = caffe.to_module(net)
    assert module.training
    outputs = module(**batch)
    assert module.loss_weights == {"loss": 0.5}
    (0.5 * outputs["loss"]).backward()
    net.forward(**numpy(batch))
    net.backward()
    gradients = {name: p.grad for name, p in module.named_parameters()}
    for name, blobs in net.params.items():
        key = name.replace(".", "_")
        if name == "bn":
            continue
        for i, blob in enumerate(blobs):
            if (name, i) == ("ip", 0):
                assert gradients["ip.0"] is None
                continue
            np.testing.assert_allclose(gradients[f"{key}.{i}"], blob.diff, rtol=1e-5, atol=1e-7)
    # The running statistics moved alike.
    for i, blob in enumerate(net.params["bn"]):
        np.testing.assert_allclose(module.state_dict()[f"bn.{i}"], blob.data, rtol=1e-6)


def test_propagate_down_false_stops_the_gradient(batch):
    text = (
        'layer { name: "in" type: "Input" top: "a" input_param { shape { dim: 3 } } }'
        'layer { name: "x" type: "Power" bottom: "a" top: "b" power_param { scale: 2 } '
        "propagate_down: %s }"
    )
    for down, gradient in (("true", [2, 2, 2]), ("false", None)):
        module = caffe.to_module(message(text % down))
        a = torch.ones(3, requires_grad=True)
        b = module(a)
        assert b.requires_grad == (gradient is not None)
        if gradient:
            b.sum().backward()
            assert a.grad.tolist() == gradient


def test_train_and_eval_switch_the_phase(net, batch):
    module = caffe.to_module(net)
    assert not module.training
    x, label = batch.values()
    still = module(x, label)["prob"]
    module.train()
    torch.manual_seed(0)
    a, b = module(x, label)["prob"], module(x, label)["prob"]
    assert not torch.equal(a, b)  # dropout draws, statistics are the batch's
    assert module.state_dict()["bn.2"].item() == pytest.approx((2 * 0.999 + 1) * 0.999 + 1)
    module = caffe.to_module(net).train().eval()
    assert torch.equal(module(x, label)["prob"], still)


def test_net_of_a_stage():
    text = (
        'layer { name: "i" type: "Input" top: "a" input_param { shape { dim: 2 } } '
        'include { stage: "deploy" } }'
        'layer { name: "p" type: "Power" bottom: "a" top: "b" power_param { scale: 2 } }'
    )
    a = torch.ones(2)
    assert caffe.to_module(message(text), stages=["deploy"])(a).tolist() == [2, 2]
    net = caffe.Net(message(text), caffe.TEST, stages=["deploy"])
    assert caffe.to_module(net)(a).tolist() == [2, 2]


def test_any_batch_size(net, batch):
    module = caffe.to_module(net)
    one = [module(x[None], y[None])["prob"][0] for x, y in zip(*batch.values(), strict=True)]
    torch.testing.assert_close(torch.stack(one), module(**batch)["prob"])


def test_outputs_choose_what_runs(net, batch):
    module = caffe.to_module(net, outputs=["conv"])
    assert module.inputs == ["data"]
    assert [name for name, _ in module.named_children()] == ["conv_1/a", "bn", "scale", "relu"]
    net.forward(**numpy(batch))
    np.testing.assert_array_equal(module(batch["data"]).detach().numpy(), net.blobs["conv"].data)
    with pytest.raises(caffe.CaffeError, match="no blob 'cnv'"):
        caffe.to_module(net, outputs=["cnv"])


def test_inputs_replace_data_layers():
    text = (
        'layer { name: "data" type: "Data" top: "data" top: "label" '
        'data_param { source: "nowhere" batch_size: 4 backend: LMDB } }'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" '
        "inner_product_param { num_output: 5 } }"
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }'
    )
    with pytest.raises(caffe.CaffeError, match="nowhere"):
        caffe.to_module(message(text))
    with pytest.raises(caffe.CaffeError, match="'label', too"):
        caffe.to_module(message(text), inputs={"data": (4, 3)})
    with pytest.raises(caffe.CaffeError, match="no blob 'dat'"):
        caffe.to_module(message(text), inputs={"dat": (4, 3)})
    module = caffe.to_module(message(text), inputs={"data": (4, 3), "label": (4,)})
    assert module(torch.ones(4, 3), torch.zeros(4)).item() == pytest.approx(np.log(5))


# Pooled twice from 8 x 12: 4 x 6, then 2 x 3; netgen writes the sizes of odd images, as 3, out.
UNPOOLED = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 6 dim: 12 } } }
layer { name: "p1" type: "Pooling" bottom: "x" top: "p1" top: "m1"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "p2" type: "Pooling" bottom: "p1" top: "p2" top: "m2"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "u2" type: "Unpooling" bottom: "p2" bottom: "m2" top: "u2"
  unpooling_param { output_h: 3 output_w: 6 } }
layer { name: "u1" type: "Unpooling" bottom: "u2" bottom: "m1" top: "u1"
  unpooling_param { scale: 2 } }
layer { name: "other" type: "Power" bottom: "m1" top: "other" }
"""


def _unpooled(x):
    """What UNPOOLED gives: the pixels that are the largest of 4 x 4, where they are."""
    planes = x.reshape(-1, *x.shape[2:])
    found = torch.zeros_like(planes)
    for plane, into in zip(planes, found, strict=True):
        for i in range(0, x.shape[2], 4):
            for j in range(0, x.shape[3], 4):
                part = plane[i : i + 4, j : j + 4]
                into[i : i + 4, j : j + 4] = torch.where(part == part.max(), part, 0)
    return found.reshape(x.shape)


@pytest.mark.parametrize("size", [(6, 12), (9, 11), (16, 24), (13, 7)])
def test_unpooling_at_any_image_size(size):
    x = torch.randperm(2 * size[0] * size[1]).reshape(1, 2, *size) + 1.0
    module = caffe.to_module(message(UNPOOLED), outputs=["u1"])
    assert torch.equal(module(x), _unpooled(x))
    net = caffe.Net(message(UNPOOLED), caffe.TEST)
    for source in (message(UNPOOLED), net):
        given = caffe.to_module(source, inputs={"x": x.shape}, outputs=["u1"])
        assert torch.equal(given(x), _unpooled(x))
    net.blobs["x"].reshape(*x.shape)
    net.reshape()
    assert net.blobs["u1"].shape == x.shape
    for net.observed in (True, False):
        assert torch.equal(torch.from_numpy(net.forward(x=x.numpy())["u1"]), _unpooled(x))


def test_unpooling_of_another_size_than_the_pooled_image_keeps_it():
    text = UNPOOLED.split('layer { name: "u1"')[0].replace("output_h: 3", "output_h: 4")
    module = caffe.to_module(message(text), outputs=["u2"])
    assert module(torch.rand(1, 2, 6, 12)).shape == (1, 2, 4, 6)
    assert module(torch.rand(1, 2, 5, 12)).shape == (1, 2, 4, 6)


def test_unpooling_without_a_size_needs_the_pooled_image():
    text = UNPOOLED.replace("unpooling_param { scale: 2 }", "")
    assert caffe.to_module(message(text), outputs=["u1"])(torch.rand(1, 2, 5, 9)).shape[2:] == (
        5,
        9,
    )
    with pytest.raises(caffe.CaffeError, match=r"'u1'.*needs output_h and output_w, or scale: no"):
        caffe.to_module(message(text.replace('bottom: "m1"', 'bottom: "u2"', 1)))


def test_compiled_at_several_sizes():
    module = caffe.to_module(message(UNPOOLED), outputs=["u1"])
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    for size in ((6, 12), (9, 11), (7, 16)):
        x = torch.randperm(2 * size[0] * size[1]).reshape(1, 2, *size) + 1.0
        assert torch.equal(compiled(x), _unpooled(x))


def test_dummy_data_is_an_input_that_need_not_be_given():
    text = (
        'layer { name: "d" type: "DummyData" top: "a" dummy_data_param { shape { dim: 3 } '
        'data_filler { type: "constant" value: 4 } } }'
        'layer { name: "p" type: "Power" bottom: "a" top: "b" power_param { scale: 2 } }'
    )
    module = caffe.to_module(message(text))
    assert module.inputs == []
    assert module().tolist() == [8, 8, 8]
    assert module(a=torch.ones(3)).tolist() == [2, 2, 2]


def test_wrong_inputs_are_named(net, batch):
    module = caffe.to_module(net)
    with pytest.raises(TypeError, match="'label' is missing"):
        module(batch["data"])
    with pytest.raises(TypeError, match="no input 'date'"):
        module(**batch, date=batch["data"])
    with pytest.raises(TypeError, match="3 inputs are given"):
        module(*batch.values(), batch["data"])


def test_shared_parameters_are_one():
    ip = (
        'layer { name: "%s" type: "InnerProduct" bottom: "%s" top: "%s" param { name: "w" %s } '
        'inner_product_param { num_output: %d bias_term: false weight_filler { type: "xavier" } } }'
    )
    head = 'layer { name: "i" type: "Input" top: "a" input_param { shape { dim: 1 dim: %d } } }'
    text = head % 3 + ip % ("x", "a", "b", "", 3) + ip % ("y", "b", "c", "", 3)
    module = caffe.to_module(message(text))
    assert module.x.get_parameter("0") is module.y.get_parameter("0")
    assert len(list(module.parameters())) == 1
    w = module.state_dict()["y.0"]
    a = torch.tensor([[1.0, 2, 3]])
    torch.testing.assert_close(module(a), a @ w.T @ w.T)
    # Of another shape, under share_mode PERMISSIVE: 2x3 and 3x2.
    loose = "share_mode: PERMISSIVE"
    text = head % 3 + ip % ("x", "a", "b", loose, 2) + ip % ("y", "b", "c", loose, 3)
    module = caffe.to_module(message(text))
    w = module.state_dict()["x.0"]
    torch.testing.assert_close(module(a), a @ w.T @ w.view(3, 2).T)


def test_two_layers_of_one_name():
    scale = (
        'layer { name: "s" type: "Scale" bottom: "%s" top: "%s" '
        "scale_param { filler { value: %d } } }"
    )
    head = 'layer { name: "i" type: "Input" top: "a" input_param { shape { dim: 1 dim: 2 } } }'
    net = caffe.Net(message(head + scale % ("a", "b", 2) + scale % ("b", "c", 5)), caffe.TEST)
    module = caffe.to_module(net)
    assert module(torch.ones(1, 2)).tolist() == [[10, 10]]
    assert list(module.state_dict()) == ["s.0", "s_.0"]


def test_inputs_of_a_net(net, batch):
    """A blob in the middle becomes an input; the weights behind it stay."""
    module = caffe.to_module(net, inputs={"sum": (2, 4, 9, 8)}, outputs=["ip"])
    assert (module.inputs, list(module.state_dict())) == (["sum"], ["ip.0", "ip.1"])
    net.forward(**numpy(batch))
    answer = module(torch.from_numpy(net.blobs["sum"].data))
    torch.testing.assert_close(answer, torch.from_numpy(net.blobs["ip"].data))


def test_copies_are_apart(net, batch):
    module = caffe.to_module(net)
    other = copy.deepcopy(module)
    before = module(**batch)["prob"]
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.train()
    assert torch.equal(module(**batch)["prob"], before)


def test_saved_whole(net, batch, tmp_path):
    module = caffe.to_module(net)
    torch.save(module, tmp_path / "module.pt")
    loaded = torch.load(tmp_path / "module.pt", weights_only=False)
    assert torch.equal(loaded(**batch)["prob"], module(**batch)["prob"])


def test_compiles_to_one_graph(net, batch):
    module = caffe.to_module(net)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**batch)["prob"], module(**batch)["prob"])
    compiled(**batch)["loss"].backward()
    gradient = module.get_parameter("conv_1/a.0").grad.clone()
    module.zero_grad()
    module(**batch)["loss"].backward()
    torch.testing.assert_close(gradient, module.get_parameter("conv_1/a.0").grad)


def test_exports(net, batch):
    module = caffe.to_module(net)
    program = torch.export.export(module, (), batch)
    assert {spec.target for spec in program.graph_signature.input_specs if spec.target} == set(
        module.state_dict()
    )
    torch.testing.assert_close(program.module()(**batch)["prob"], module(**batch)["prob"])


def test_exports_in_training_mode(net, batch):
    module = caffe.to_module(net, outputs=["prob"]).train()
    program = torch.export.export(module, (), batch).module()
    torch.manual_seed(0)
    first = program(**batch)
    assert not torch.equal(first, program(**batch))  # Dropout draws


class Square(caffe.Layer):
    """x^2 w, with w a parameter."""

    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 3

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data ** 2 * self.blobs[0].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data ** 2).sum()
        bottom[0].diff[...] = 2 * top[0].diff * bottom[0].data * self.blobs[0].data


def test_python_layers_take_part(monkeypatch):
    module = types.ModuleType("squares")
    module.Square = Square
    monkeypatch.setitem(sys.modules, "squares", module)
    text = (
        'layer { name: "i" type: "Input" top: "a" input_param { shape { dim: 2 } } }'
        'layer { name: "sq" type: "Python" bottom: "a" top: "b" '
        'python_param { module: "squares" layer: "Square" } }'
    )
    m = caffe.to_module(message(text))
    a = torch.tensor([2.0, -1], requires_grad=True)
    b = m(a)
    assert b.tolist() == [12, 3]
    b.sum().backward()
    assert a.grad.tolist() == [12, -6]
    assert m.sq.get_parameter("0").grad.tolist() == [5]


def test_printed(net):
    text = str(caffe.to_module(net))
    assert "(conv_1/a): Convolution(4x3x3x3, 4)" in text
    assert "inputs=['data', 'label'], outputs=['loss', 'prob']" in text


# -- every layer type, as recorded ------------------------------------------------------------


def recorded(name):
    """A recorded layer as a module with its weights, its inputs, and the recording."""
    case = dict(np.load(RECORDED / f"{name}.npz"))
    phase = pb.Phase.Value(str(case["phase"]))
    net = caffe.Net(message(str(case["prototxt"])), phase)
    for key, values in case.items():
        kind, _, rest = key.partition("/")
        if kind == "param":
            layer, _, index = rest.rpartition("/")
            net.params[layer][int(index)].data[...] = values
    module = caffe.to_module(net)
    inputs = {name: torch.tensor(case[f"in/{name}"]).float() for name in module.inputs}
    return module, inputs, case


def named(module, answer):
    return {module.outputs[0]: answer} if torch.is_tensor(answer) else answer


def check_outputs(answers, case):
    for name, values in answers.items():
        expected = case[f"out/{name}"]
        np.testing.assert_allclose(values.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def seeds(module, answers, case):
    """The gradients to start from: those recorded, or the loss weights."""
    for name, values in answers.items():
        if not values.requires_grad:
            continue
        if f"dtop/{name}" in case:
            yield values, torch.tensor(case[f"dtop/{name}"])
        elif name in module.loss_weights:
            yield values, torch.full_like(values, module.loss_weights[name])


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.npz")))
def test_recorded_layer(name):
    module, inputs, case = recorded(name)
    for values in inputs.values():
        values.requires_grad_()
    answers = named(module, module(**inputs))
    check_outputs(answers, case)
    wanted = {f"din/{name}": values for name, values in inputs.items()}
    for key, values in module.named_parameters():
        wanted["dparam/" + "/".join(key.rsplit(".", 1))] = values
    # Where nothing asked for it, the recording has no gradient, or zeros.
    wanted = {key: v for key, v in wanted.items() if key in case and case[key].any()}
    pairs = list(seeds(module, answers, case))
    if not pairs or not wanted:
        return
    tops, gradients = zip(*pairs, strict=True)
    found = torch.autograd.grad(tops, list(wanted.values()), gradients, allow_unused=True)
    for (key, values), gradient in zip(wanted.items(), found, strict=True):
        gradient = torch.zeros_like(values) if gradient is None else gradient
        np.testing.assert_allclose(gradient.numpy(), case[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        *("accuracy_spatial_ignore", "bn_train", "crop", "eltwise_max", "filter", "lrn_within"),
        *("lstm", "mvn", "pool_ave_pad", "pool_max_mask", "reshape_axis", "unpool_size"),
        *("softmax_loss_ignore_valid", "spp", "weighted_loss_valid"),
    ],
)
def test_recorded_layer_compiled_and_exported(name):
    module, inputs, case = recorded(name)
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend="eager")
    check_outputs(named(module, compiled(**inputs)), case)
    program = torch.export.export(module, (), inputs).module()
    check_outputs(named(module, program(**inputs)), case)


def test_recurrent_layers_begin_each_call_anew():
    module, inputs, _ = recorded("lstm")
    inputs["cont"][:] = 1  # no sequence begins: a net would go on where it stopped
    assert torch.equal(module(**inputs), module(**inputs))
