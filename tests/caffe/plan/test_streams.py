"""Two streams of a training step give what one gives, to the bit, and end in every case."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from nets import conv, image, losses, norm

import caffe
from caffe.kernels import later
from caffe.layers.activation import ReLU
from caffe.layers.base import Tensors
from caffe.net import work
from caffe.plan import plan as plans
from caffe.plan.clock import Clock
from caffe.plan.streams import Streams, _is_concurrent
from caffe.process.threads import share_out
from caffe.proto import caffe_pb2 as pb
from netgen import Architecture, Training, train_net

SECOND = "second"
DROPOUT = 'layer {{ name: "{0}_d" type: "Dropout" bottom: "{0}" top: "{0}" }}'
RELU = 'layer {{ name: "{0}_r" type: "ReLU" bottom: "{0}" top: "{0}" }}'
SUM = 'layer {{ name: "{0}" type: "Eltwise" bottom: "{1}" bottom: "{2}" top: "{0}" }}'
LOSS = 'layer { name: "t" type: "Reduction" bottom: "z" top: "t" loss_weight: 0.3 }'
KERNEL = "pad: 1 kernel_size: 3"


def block(name: str, bottom: str, channels: int, more: str = "") -> str:
    """A convolution with BatchNorm and ReLU, whose top has its name."""
    made = conv(f"{name}_c", bottom, f"{name}_c", channels, KERNEL, more=more)
    return made + norm(f"{name}_n", f"{name}_c", name)


# Two branches of two blocks each, with Dropout in both, that meet in a sum.
BRANCHES = (
    image(2, 4, 12, 14)
    + block("a", "x", 8)
    + block("b", "x", 8)
    + DROPOUT.format("a")
    + block("c", "a", 8)
    + DROPOUT.format("b")
    + block("d", "b", 8)
    + SUM.format("s", "c", "d")
    + conv("z", "s", "z", 3, KERNEL)
    + LOSS
)


@pytest.fixture(autouse=True)
def _several_threads(_one_thread: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(work, "LITTLE", -1)  # small nets, too, are for several threads
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def second() -> Iterator[Executor]:
    with ThreadPoolExecutor(1, SECOND, share_out, (2,)) as made:
        yield made


@pytest.fixture
def crowd(second: Executor, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """crowd(yes): whether cores are contended from now on. They are not at first."""
    now: list[Executor | None] = [None]
    monkeypatch.setattr(plans.waiting, "second", lambda: now[0])

    def change(yes: bool) -> None:
        now[0] = second if yes else None

    return change


def fusenet(width: float = 0.1) -> pb.NetParameter:
    """A train net of FuseNet, with Input layers."""
    param = train_net(Architecture("sf5", 5, (64, 48), width_multiplier=width), Training("", ""))
    net = pb.NetParameter(name=param.name)
    for blob, channels in (("rgb", 3), ("depth", 1), ("label", 1)):
        shape = pb.BlobShape(dim=[2, channels, 48, 64])
        net.layer.add(name=blob, type="Input", top=[blob]).input_param.shape.append(shape)
    for layer in param.layer:
        if layer.type not in ("Data", "Slice", "Accuracy"):
            net.layer.add().CopyFrom(layer)
    return net


def trained(param: pb.NetParameter | str, steps: int = 3) -> list[np.ndarray]:
    """All parameters and gradients after some steps, and the losses."""
    if isinstance(param, str):
        param = plain(param)
    caffe.set_random_seed(3)
    solver = caffe.get_solver(
        pb.SolverParameter(
            net_param=param, base_lr=0.05, lr_policy="fixed", momentum=0.9, iter_size=2
        )
    )
    net, rng = solver.net, np.random.default_rng(4)
    net.observed = False
    for name in net.inputs:
        values = rng.normal(size=net.blobs[name].shape)
        net.blobs[name].data[...] = rng.integers(0, 6, values.shape) if name == "label" else values
    found = []
    for _ in range(steps):
        solver.step(1)
        found += [net.blobs[name].data.copy() for name in net.outputs]
    for blobs in net.params.values():
        found += [array for blob in blobs for array in (blob.data.copy(), blob.diff.copy())]
    return found


def plain(text: str) -> pb.NetParameter:
    from google.protobuf import text_format

    return text_format.Parse(text, pb.NetParameter())


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def net_of(text: str) -> caffe.Net:
    caffe.set_random_seed(1)
    net = caffe.Net(plain(text), caffe.TRAIN)
    for name in net.inputs:
        net.blobs[name].data[...] = np.random.default_rng(2).normal(size=net.blobs[name].shape)
    net.observed = False
    return net


SHARED = 'param {{ name: "{0}" }}'
NETS = {
    "fusenet": fusenet(),
    "branches": BRANCHES,
    "a shared weight": image(2, 4, 12, 14)
    + block("a", "x", 4, SHARED.format("w"))
    + block("b", "x", 4, SHARED.format("w"))
    + SUM.format("s", "a", "b")
    + conv("z", "s", "z", 4, KERNEL, more=SHARED.format("w"))
    + LOSS,
    "shared statistics": image(2, 4, 12, 14)
    + "".join(
        conv(f"{name}_c", "x", f"{name}_c", 8, KERNEL)
        + conv(f"{name}_e", f"{name}_c", name, 8, KERNEL)
        + f"""layer {{ name: "{name}_n" type: "BatchNorm" bottom: "{name}" top: "{name}"
          param {{ name: "m" lr_mult: 0 }} param {{ name: "v" lr_mult: 0 }}
          param {{ name: "f" lr_mult: 0 }} }}"""
        + conv(f"{name}_d", name, f"{name}_d", 8, KERNEL)
        for name in "ab"
    )
    + SUM.format("s", "a_d", "b_d")
    + conv("z", "s", "z", 3, KERNEL)
    + LOSS,
    "four branches": image(2, 4, 12, 14)
    + block("r", "x", 8)
    + "".join(block(name, "r", 4) for name in "abcd")
    + SUM.format("e", "a", "b")
    + SUM.format("f", "c", "d")
    + SUM.format("z", "e", "f")
    + LOSS,
    "two layouts": image(2, 4, 12, 14)
    + "".join(
        conv(f"{name}_c", "x", f"{name}_c", 8, KERNEL)
        + conv(f"{name}_d", f"{name}_c", name, 8, KERNEL)
        + norm(f"{name}_n", name, relu=False)
        + conv(f"{name}_e", name, f"{name}_e", 4, KERNEL)
        + losses(name, f"{name}_e")
        for name in "ab"
    ),
    "three bottoms": image(2, 4, 12, 14)
    + "".join(conv(f"{name}_c", "x", name, 4, KERNEL) + RELU.format(name) for name in "abc")
    + """layer { name: "j" type: "Convolution" bottom: "a" bottom: "b" bottom: "c"
      top: "d" top: "e" top: "f" convolution_param { num_output: 4 kernel_size: 3 pad: 1
        weight_filler { type: "msra" } } }"""
    + losses(*"def"),
    "one tensor twice": image(2, 4, 12, 14)
    + conv("a_c", "x", "a", 8, KERNEL)
    + conv("b_c", "x", "b", 8, KERNEL)
    + """layer { name: "same" type: "Eltwise" bottom: "a" top: "same" }
      layer { name: "split" type: "Split" bottom: "b" top: "k" top: "l" }"""
    + conv("c", "a", "c", 4, KERNEL)
    + conv("d", "a", "d", 4, KERNEL)
    + conv("e", "same", "e", 4, KERNEL)
    + conv("f", "same", "f", 4, KERNEL)
    + losses("b", *"cdef"),
    "a chain": image(2, 4, 12, 14) + block("a", "x", 8) + conv("z", "a", "z", 3, KERNEL) + LOSS,
}


@pytest.fixture(params=[False, True], ids=["kept", "recomputed"])
def _recompute(request: pytest.FixtureRequest) -> Iterator[None]:
    caffe.set_recompute(request.param)
    yield
    caffe.set_recompute(False)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.usefixtures("_recompute")
def test_training_is_the_same_to_the_bit(crowd, name: str) -> None:
    expected = trained(NETS[name])
    crowd(True)
    for _ in range(3):
        same(trained(NETS[name]), expected)


@pytest.mark.usefixtures("_recompute")
def test_gradients_that_come_at_the_end(crowd, second, monkeypatch) -> None:
    """The second thread has other work: all that was left to it is done behind the pass."""
    expected = trained(NETS["fusenet"], 2)
    monkeypatch.setattr(later, "MOST", 1000)
    monkeypatch.setattr(Streams, "_company", lambda *_: 0)
    free = threading.Event()
    second.submit(free.wait)
    crowd(True)
    try:
        same(trained(NETS["fusenet"], 2), expected)
    finally:
        free.set()


@pytest.mark.parametrize("name", NETS)
def test_which_nets_are_divided(name: str) -> None:
    param = NETS[name]
    net = caffe.Net(plain(param) if isinstance(param, str) else param, caffe.TRAIN)
    net.observed = False
    assert net.plan._streams.fit == (name != "a chain")


def test_a_value_that_leaves_the_net_may_be_taken_at_once(crowd, monkeypatch) -> None:
    """The other thread has run all takers before the first has filled the output's blob."""
    text = BRANCHES.replace('name: "a_r"', 'name: "a_r" loss_weight: 0.01')
    expected = trained(text)
    given = plans.Plan._give_out

    def give_out(*arguments: object) -> list[torch.Tensor]:
        time.sleep(0.02)
        return given(*arguments)

    monkeypatch.setattr(plans.Plan, "_give_out", give_out)
    crowd(True)
    same(trained(text), expected)


def test_a_class_with_a_forward_of_its_own_runs_in_order(crowd) -> None:
    class Noisy(ReLU):
        def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
            return super().forward([bottom[0] + torch.rand_like(bottom[0])], blobs)

    class Alike(ReLU):
        pass

    for kind, apart in ((ReLU, True), (Alike, True), (Noisy, False)):
        layer = kind.__new__(kind)
        assert _is_concurrent(layer) == apart


def test_both_threads_run_nodes_at_once(crowd) -> None:
    net = net_of(BRANCHES)
    meeting = threading.Barrier(2, timeout=60)
    firsts = [node for node in net.plan.nodes if node.name in ("a_c", "b_c")]
    assert len(firsts) == 2
    for node in firsts:
        node.run = _behind(meeting.wait, node.run)
    crowd(True)
    net.forward()
    assert not meeting.broken


def _behind(first: Callable[[], object], run: Callable) -> Callable:
    def both(bottom, blobs):
        first()
        return run(bottom, blobs)

    return both


def test_others_run_in_their_order_on_the_first_thread(crowd) -> None:
    net, order = net_of(BRANCHES), []
    for node in net.plan.nodes:
        if not all(layer.concurrent for layer in node.layers):
            here = node.name
            note = lambda here=here: order.append((here, threading.current_thread()))  # noqa: E731
            node.run = _behind(note, node.run)
    crowd(True)
    net.forward()
    assert [name for name, _ in order] == ["x", "a_d", "b_d", "t"]
    assert {thread for _, thread in order} == {threading.current_thread()}


class Stop(Exception):
    """What a node raises in a test."""


def _stop() -> None:
    raise Stop


@pytest.mark.parametrize("by_second", [False, True])
def test_an_error_ends_both(crowd, by_second: bool) -> None:
    net, rest = net_of(BRANCHES), {}
    expected = net.forward()["t"].copy()
    meeting, done = threading.Barrier(2, timeout=60), threading.Event()

    def run() -> None:
        meeting.wait()
        if (threading.current_thread().name.startswith(SECOND)) == by_second:
            raise Stop
        done.wait(0.2)  # the other one still runs its node

    for node in net.plan.nodes:
        if node.name in ("a_c", "b_c"):
            rest[node] = node.run
            node.run = _behind(run, node.run)
    crowd(True)
    with pytest.raises(Stop):
        net.forward()
    for node, usual in rest.items():
        node.run = usual
    caffe.set_random_seed(1)
    assert net.forward()["t"].shape == expected.shape
    net.backward()


def test_an_error_in_a_gradient_is_raised(crowd, monkeypatch) -> None:
    net = net_of(BRANCHES)
    crowd(True)
    net.forward()
    monkeypatch.setattr(later.Target, "add", lambda *_: _stop())
    with pytest.raises(Stop):
        net.backward()
    monkeypatch.undo()
    net.forward()
    net.backward()


def test_a_net_that_is_watched_has_one_stream(crowd, monkeypatch) -> None:
    net, hooked = net_of(BRANCHES), []
    crowd(True)
    monkeypatch.setattr(later.Later, "add", lambda *_: pytest.fail("left to a second thread"))
    monkeypatch.setattr(Streams, "run", lambda *_: pytest.fail("two streams"))
    Clock(net.plan, time.perf_counter).run()
    net.gradient_hook = hooked.append
    net.forward()
    net.backward()
    assert hooked


def test_gradients_that_are_not_finite(crowd) -> None:
    text = BRANCHES.replace(LOSS, LOSS.replace("0.3", "inf"))
    expected = trained(text, 1)
    assert not all(np.isfinite(array).all() for array in expected)
    crowd(True)
    same(trained(text, 1), expected)


# -- later ---------------------------------------------------------------------------------------


def test_tasks_are_done_at_the_end_of_the_block(second: Executor) -> None:
    tasks, done = later.Later(), []
    assert not tasks.is_open
    with tasks.by(second):
        assert tasks.is_open
        for i in range(20):
            tasks.add(lambda i=i: done.append(i))
    assert sorted(done) == [*range(20)]
    assert not tasks.is_open
    with tasks.by(None):
        assert not tasks.is_open


def test_few_tasks_wait(second: Executor) -> None:
    tasks, done, free = later.Later(), [], threading.Event()
    second.submit(free.wait)
    with tasks.by(second):
        for i in range(later.MOST + 3):
            tasks.add(lambda i=i: done.append(i))
        assert done == [later.MOST + i for i in range(3)]
        free.set()
    assert sorted(done) == [*range(later.MOST + 3)]


def test_a_thread_that_has_ended_leaves_tasks_to_the_first(second: Executor) -> None:
    tasks, done = later.Later(), []
    with tasks.by(second):
        second.shutdown()
        tasks.add(lambda: done.append(threading.current_thread()))
        assert done == [threading.current_thread()]


def test_nothing_is_kept_of_a_task_that_is_done(second: Executor) -> None:
    class Big:
        pass

    tasks = later.Later()
    with tasks.by(second):
        big = Big()
        gone = weakref.ref(big)
        tasks.add(partial(id, big))
        del big
        second.submit(int).result()
        assert gone() is None


def test_a_task_is_done_once_if_a_thread_cannot_start(monkeypatch) -> None:
    """The executor keeps what it has taken, and does it when it can start its thread."""
    tasks, done, start = later.Later(), [], threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with ThreadPoolExecutor(1) as executor, tasks.by(executor):
        monkeypatch.setattr(threading.Thread, "start", fail)
        tasks.add(lambda: done.append(1))
        monkeypatch.setattr(threading.Thread, "start", start)
        tasks.add(lambda: done.append(2))
    assert done == [1, 2]


def test_an_interrupt_waits_for_the_task_that_runs(second: Executor, monkeypatch) -> None:
    tasks, done, begun = later.Later(), [], threading.Event()

    def long() -> None:
        begun.set()
        time.sleep(0.2)
        done.append("long")

    def interrupted() -> None:
        with tasks.by(second):
            tasks.add(long)
            begun.wait(60)
            monkeypatch.setattr(Future, "result", lambda *_: (_ for _ in ()).throw(Stop))

    with pytest.raises(Stop):
        interrupted()
    assert done == ["long"]


def test_an_interrupt_before_the_first_node_leaves_no_thread_waiting(crowd, second) -> None:
    """It comes when the second thread has its work and the first one has not begun."""
    net = net_of(BRANCHES)
    net.forward()
    submit = second.submit

    def interrupted(*arguments: object) -> None:
        submit(*arguments)
        raise Stop

    second.submit = interrupted
    crowd(True)
    with pytest.raises(Stop):
        net.forward()
    assert submit(int).result(60) == 0


def test_an_error_on_the_second_thread_keeps_no_values(crowd) -> None:
    net, seen = net_of(BRANCHES), []
    net.forward()
    meeting = threading.Barrier(2, timeout=60)
    for node in net.plan.nodes:
        if node.name in ("a_c", "b_c"):
            node.run = _failing(node.run, meeting, seen)
    crowd(True)
    gc.disable()
    try:
        with pytest.raises(Stop):
            net.forward()
        assert seen
        assert all(value() is None for value in seen)
    finally:
        gc.enable()


def _failing(run: Callable, meeting: threading.Barrier, seen: list) -> Callable:
    def both(bottom, blobs):
        meeting.wait()
        if threading.current_thread().name.startswith(SECOND):
            raise Stop
        tops = run(bottom, blobs)
        seen.extend(map(weakref.ref, tops))
        return tops

    return both


def test_a_block_that_fails_drops_tasks(second: Executor) -> None:
    tasks, done, begun, free = later.Later(), [], threading.Event(), threading.Event()

    def long() -> None:
        begun.set()
        free.wait(60)
        done.append("long")

    def fail() -> None:
        with tasks.by(second):
            tasks.add(long)
            tasks.add(lambda: done.append("dropped"))
            begun.wait(60)
            threading.Timer(0.1, free.set).start()
            raise Stop

    with pytest.raises(Stop):
        fail()
    assert done == ["long"]


def test_a_forward_pass_does_without_a_thread_that_has_ended(crowd, second: Executor) -> None:
    expected = trained(BRANCHES)
    crowd(True)
    second.shutdown()
    same(trained(BRANCHES), expected)
