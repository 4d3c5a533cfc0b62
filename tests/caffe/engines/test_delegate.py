"""The delegate of a net: when an engine computes, from which weights, and what happens where it
cannot.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from nets import conv, image, ip

import caffe
from caffe.engines import choosing, delegate
from caffe.net import work

PLAIN = "kernel_size: 3 pad: 1"
NET = image(1, 3, 6, 6) + conv("a", "x", "a", 4, PLAIN) + conv("b", "a", "b", 2, PLAIN)
BY_ENGINE = ["x", "onnxruntime"]
BY_PLAN = ["x", "a", "b"]


def names(net: caffe.Net) -> list[str]:
    return [node.name for node in net.plan.nodes]


def observed(net: caffe.Net) -> np.ndarray:
    """What the net's layers give one by one."""
    net.observed = True
    values = net.forward()["b"].copy()
    net.observed = False
    return values


def check(net: caffe.Net) -> None:
    """The next pass gives what the layers give."""
    found = net.forward()["b"].copy()
    np.testing.assert_allclose(found, observed(net), rtol=0, atol=1e-5 * np.abs(found).max())


@pytest.fixture
def net(deploy, fakes):
    found = deploy(NET)
    caffe.set_engine("onnxruntime")
    return found


def test_one_model_serves_all_passes(net, fakes):
    for _ in range(3):
        check(net)
    assert fakes["onnxruntime"].compiled == [[(1, 3, 6, 6)]]
    assert fakes["onnxruntime"].passes == 3
    assert names(net) == BY_ENGINE


def test_the_engine_has_as_many_threads_as_torch(net, fakes, monkeypatch):
    """That is one for a net of little work, however many there are."""
    torch.set_num_threads(2)
    check(net)
    monkeypatch.setattr(work, "LITTLE", 0)
    net.work = work.Work(net.wiring)
    check(net)
    assert fakes["onnxruntime"].threads == [1, 2]


@pytest.mark.parametrize("way", ["view", "file", "share", "tensor"])
def test_new_weights_count(way, net, fakes, deploy, tmp_path):
    weights = net.params["a"][0]
    view = weights.data if way == "view" else None
    check(net)
    before = net.forward()["b"].copy()
    other = deploy(NET)
    with torch.no_grad():
        other.params["a"][0].tensor().fill_(0.5)
    if way == "view":
        view[...] = 0.5
    elif way == "file":
        other.save(tmp_path / "other.caffemodel")
        net.copy_from(tmp_path / "other.caffemodel")
    elif way == "share":
        net.share_with(other)
    else:
        weights.tensor().fill_(0.5)
    check(net)
    assert not np.allclose(net.forward()["b"], before)
    assert len(fakes["onnxruntime"].compiled) == 2


def test_weights_are_not_compared_where_nobody_has_a_view(net):
    """Writing the model hands out no views; with one, each pass would read all weights."""
    net.forward()
    assert not any(blob.viewed for blobs in net.params.values() for blob in blobs)


def test_what_is_asked_of_a_blob_later_is_not_overwritten(net):
    """Where nobody has a view of an output, each pass gives it new memory."""
    last = len(net.layers) - 1
    net.forward_from_to(0, last)
    kept = net.blobs["b"].tensor()
    before = kept.clone()
    net.blobs["x"].data[...] *= 2
    net.forward_from_to(0, last)
    assert torch.equal(kept, before)
    assert not torch.allclose(net.blobs["b"].tensor(), before)


def test_each_shape_has_its_model(net, fakes):
    for size in (6, 8, 6, 8):
        net.blobs["x"].reshape(2, 3, size, 5)
        net.reshape()
        net.blobs["x"].data[...] = size
        check(net)
        assert net.blobs["b"].shape == (2, 2, size, 5)
    assert fakes["onnxruntime"].compiled == [[(2, 3, 6, 5)], [(2, 3, 8, 5)]]


def test_a_shape_counts_also_without_reshape(net, fakes):
    net.forward()
    net.blobs["x"].reshape(1, 3, 4, 9)
    net.blobs["x"].data[...] = 1
    check(net)
    assert fakes["onnxruntime"].compiled[-1] == [(1, 3, 4, 9)]


def test_few_models_are_kept(net, fakes, monkeypatch, told):
    monkeypatch.setattr(delegate, "KEPT_SHAPES", 2)
    monkeypatch.setattr(delegate, "MOST_SHAPES", 5)
    counts = []
    for size in (3, 4, 5, 3, 5, 4, 6, 7):
        net.blobs["x"].reshape(1, 3, size, size)
        check(net)
        counts.append(len(fakes["onnxruntime"].compiled))
    assert counts == [1, 2, 3, 4, 4, 5, 5, 5]  # the third one made the first forgotten
    assert names(net) == BY_PLAN
    assert told[-1] == "Net '' is computed by PyTorch: its inputs have had 5 shapes so far"


@pytest.mark.parametrize("engine", ["onnxruntime", "auto"])
def test_a_source_of_many_sizes_has_few_models(engine, deploy, fakes, cache, tmp_path, monkeypatch):
    """A pass learns the shape from its source, after the net was asked whether the engine acts."""
    monkeypatch.setattr(delegate, "MOST_SHAPES", 3)
    for size in range(4, 10):
        cv2.imwrite(str(tmp_path / f"{size}.png"), np.full((size, size + 1, 3), size, np.uint8))
    lines = "".join(f"{tmp_path / f'{size}.png'} 0\n" for size in range(4, 10))
    (tmp_path / "list.txt").write_text(lines)
    source = f"""layer {{ name: "x" type: "ImageData" top: "x" top: "label"
      image_data_param {{ source: "{tmp_path / "list.txt"}" batch_size: 1 }} }}"""
    found = deploy(source + NET[NET.index("layer", 10) :])
    caffe.set_engine(engine)
    for _ in range(12):
        found.forward()
    assert len(fakes["onnxruntime"].compiled) == 3


@pytest.mark.parametrize("where", ["compile", "run"])
def test_where_an_engine_fails_the_plan_computes(where, net, fakes, told):
    fakes["onnxruntime"].broken[where] = RuntimeError("cannot\nbe done")
    for _ in range(3):
        check(net)
    assert [line for line in told if "cannot" in line] == [
        "Net '', inputs 1x3x6x6, 1 thread: not computed by onnxruntime: cannot be done"
    ]
    assert names(net) == BY_PLAN
    net.blobs["x"].reshape(1, 3, 5, 5)  # these were not tried so far
    fakes["onnxruntime"].broken.clear()
    check(net)
    assert names(net) == BY_ENGINE


def test_a_failure_after_good_passes_loses_none(net, fakes):
    check(net)
    fakes["onnxruntime"].broken["run"] = RuntimeError("no more")
    check(net)
    check(net)


def test_an_error_of_the_input_is_the_plans(net, fakes):
    net.blobs["x"].reshape(1, 2, 6, 6)
    with pytest.raises(caffe.CaffeError, match="layer 'a'"):
        net.forward()
    assert fakes["onnxruntime"].compiled == []


@pytest.mark.parametrize("ask", [{"blobs": ["a"]}, {"end": "a"}, {"start": "b"}])
def test_parts_of_passes_stay_with_torch(ask, net, fakes):
    net.forward(**ask)
    assert fakes["onnxruntime"].passes == 0


def test_watched_passes_stay_with_torch(net, fakes):
    observed(net)
    net.before_forward(lambda layer: None)
    net.forward()
    assert fakes["onnxruntime"].passes == 0


def test_bf16_and_a_gpu_stay_with_torch(deploy, fakes, told, pretend_gpu):
    net = deploy(NET)
    caffe.set_engine("onnxruntime")
    assert names(net) == BY_PLAN
    caffe.set_mode_cpu()
    caffe.set_precision("bf16")
    assert names(net) == BY_PLAN
    assert [line.partition(": ")[2] for line in told] == [
        "engines compute on the CPU",
        "engines compute in float32, not in bf16",
    ]
    caffe.set_precision("fp32")
    assert names(net) == ["x", "onnxruntime"]


def test_a_net_with_nothing_to_take_is_told_once(deploy, fakes, told):
    net = deploy(image(2, 3) + 'layer { name: "n" type: "Silence" bottom: "x" }')
    caffe.set_engine("onnxruntime")
    net.forward()
    net.forward()
    why = "no layer that follows from its inputs alone has an ONNX form"
    assert told == [f"Net '' is computed by PyTorch: {why}"]


def test_the_engine_may_change_between_passes(net, fakes):
    check(net)
    caffe.set_engine("openvino")
    check(net)
    caffe.set_engine("torch")
    check(net)
    assert [fakes[name].passes for name in ("onnxruntime", "openvino")] == [1, 1]
    assert names(net) == BY_PLAN


# -- auto ------------------------------------------------------------------------------------------


@pytest.fixture
def auto(deploy, fakes, monkeypatch):
    """auto(torch, openvino, onnxruntime): a net and `auto`, where a pass takes these seconds."""
    clock = [0.0]
    passes = choosing.time_passes

    def make(torch_seconds: float, *seconds: float) -> caffe.Net:
        for fake, one in zip(fakes.values(), seconds, strict=True):
            fake.clock, fake.seconds = clock, one

        def timed(runs):
            plain = runs["torch"]

            def by_torch() -> None:
                plain()
                clock[0] += torch_seconds

            return passes({**runs, "torch": by_torch}, lambda: clock[0])

        monkeypatch.setattr(choosing, "time_passes", timed)
        net = deploy(NET)
        caffe.set_engine("auto")
        return net

    return make


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ((3.0, 2.0, 1.0), BY_ENGINE),
        ((3.0, 1.0, 2.0), ["x", "openvino"]),
        ((1.0, 2.0, 3.0), BY_PLAN),
        ((1.0, 0.99, 2.0), BY_PLAN),  # gains too little
    ],
)
def test_auto_takes_the_fastest(seconds, best, auto, told, cache):
    net = auto(*seconds)
    for _ in range(2):
        check(net)
    assert names(net) == best
    (line,) = told
    times = "torch {:g} ms, openvino {:g} ms, onnxruntime {:g} ms".format(
        *(1e3 * s for s in seconds)
    )
    assert line == (
        f"Net '', inputs 1x3x6x6, 1 thread: {best[1] if len(best) == 2 else 'torch'} "
        f"computes: {times}"
    )
    assert len(list(cache.glob("*.json"))) == 1


def test_a_kept_choice_is_not_timed_again(auto, fakes, monkeypatch, told):
    auto(3.0, 2.0, 1.0).forward()
    passes = fakes["openvino"].passes
    again = auto_again(auto, monkeypatch)
    check(again)
    assert names(again) == BY_ENGINE
    assert fakes["openvino"].passes == passes
    assert "(known from before)" in told[-1]


def auto_again(auto, monkeypatch):
    """Another net of the same text, which must not be timed."""
    net = auto(3.0, 2.0, 1.0)
    monkeypatch.setattr(choosing, "time_passes", lambda runs: pytest.fail("timed"))
    return net


def test_a_kept_torch_compiles_nothing(auto, fakes, monkeypatch):
    auto(1.0, 2.0, 3.0).forward()
    count = len(fakes["openvino"].compiled)
    net = auto_again(auto, monkeypatch)
    check(net)
    assert names(net) == BY_PLAN
    assert len(fakes["openvino"].compiled) == count


@pytest.mark.parametrize("change", ["shape", "net", "threads"])
def test_another_net_shape_or_number_of_threads_is_timed(change, auto, deploy, cache, monkeypatch):
    monkeypatch.setattr(work, "LITTLE", 0)
    net = auto(3.0, 2.0, 1.0)
    net.forward()
    if change == "shape":
        net.blobs["x"].reshape(1, 3, 5, 5)
    elif change == "net":
        net = deploy(NET.replace("num_output: 2", "num_output: 3"))
    else:
        torch.set_num_threads(2)
    net.forward()
    assert len(list(cache.glob("*.json"))) == 2


def test_an_engine_whose_answers_differ_is_not_taken(auto, fakes, told, cache):
    fakes["onnxruntime"].off = 0.01
    net = auto(3.0, 2.0, 1.0)
    check(net)
    check(net)
    assert names(net) == ["x", "openvino"]
    assert "not computed by onnxruntime: 72 of 72 values differ from the plan's" in told[0]
    assert not cache.exists()  # with other weights the answers may agree


def test_a_kept_choice_whose_answers_differ_is_not_taken(auto, fakes, monkeypatch):
    auto(3.0, 2.0, 1.0).forward()
    fakes["onnxruntime"].off = 0.01
    net = auto_again(auto, monkeypatch)
    check(net)
    assert names(net) == BY_PLAN


def test_new_weights_are_checked(auto, fakes):
    net = auto(3.0, 2.0, 1.0)
    check(net)
    fakes["onnxruntime"].off = 0.01
    net.params["a"][0].tensor().mul_(2)
    check(net)
    assert names(net) == BY_PLAN


@pytest.mark.parametrize("known", [False, True])
def test_new_weights_give_a_refused_engine_another_chance(known, auto, fakes, monkeypatch):
    if known:  # then it is not timed again
        auto(3.0, 2.0, 1.0).forward()
    fakes["onnxruntime"].off = 0.01
    net = auto_again(auto, monkeypatch) if known else auto(3.0, 2.0, 1.0)
    net.forward()
    first = names(net)
    assert first == (BY_PLAN if known else ["x", "openvino"])
    fakes["onnxruntime"].off = 0.0
    for _ in range(2):
        check(net)
        assert names(net) == first
    net.params["a"][0].tensor().mul_(2)
    check(net)
    assert names(net) == BY_ENGINE


def test_an_engine_that_is_always_refused_is_left_alone(net, fakes, told):
    fakes["onnxruntime"].broken["run"] = RuntimeError("cannot")
    for k in range(9):
        net.params["a"][0].tensor().fill_(k)
        net.forward()
    assert len(fakes["onnxruntime"].compiled) == 1 + delegate.MOST_RETRIES
    assert len([line for line in told if "cannot" in line]) == 1


def test_auto_without_any_engine_is_torch(deploy, fakes, monkeypatch, told):
    from caffe.engines.programs import Engine

    monkeypatch.setattr(Engine, "is_installed", lambda self: False)
    caffe.set_engine("auto")
    net = deploy(NET)
    check(net)
    assert names(net) == BY_PLAN
    assert "pip install 'fusenet[cpu]'" in told[0]


def test_all_engines_failing_is_torch(auto, fakes, cache):
    for fake in fakes.values():
        fake.broken["compile"] = ValueError("no")
    net = auto(3.0, 2.0, 1.0)
    check(net)
    check(net)
    assert names(net) == BY_PLAN
    assert not cache.exists()


def test_an_inner_product_may_be_all(deploy, fakes):
    net = deploy(image(2, 3) + ip("b", "x", outputs=4))
    caffe.set_engine("openvino")
    check(net)
    assert names(net) == ["x", "openvino"]
