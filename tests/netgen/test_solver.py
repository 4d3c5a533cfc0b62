"""Solvers: the reported scheme, and epochs turned into iterations."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from caffe.errors import CaffeError
from netgen import Architecture, Training, deploy_net, train_net
from netgen.solver import Scheme, make_solver


def net(training: Training):
    return train_net(Architecture("sf5", 40, (320, 240)), training, "fusenet/sf5")


NYUV2 = net(Training("none/trainval", "none/test", batch_size=4, test_batch_size=1))


def test_reported_scheme() -> None:
    solver, notes = make_solver(NYUV2, "train.prototxt", Scheme(), 795, 654)
    assert notes == []
    assert solver.type == "SGD"
    assert (solver.base_lr, solver.momentum) == (pytest.approx(0.001), pytest.approx(0.9))
    assert solver.weight_decay == pytest.approx(0.0005)
    assert (solver.lr_policy, solver.gamma) == ("step", pytest.approx(0.9))
    # 400 epochs of 795 images in batches of 4, and 25 of them a step: 25 * 795 / 4 = 4968.75.
    assert solver.max_iter == 400 * 795 // 4 == 79500
    assert solver.stepsize == solver.snapshot == 4969
    assert (list(solver.test_iter), solver.test_interval) == ([654], 994)
    assert solver.net == "train.prototxt"
    assert solver.snapshot_prefix == "fusenet-sf5"
    assert not solver.HasField("solver_mode")
    assert solver.HasField("test_initialization")
    assert not solver.test_initialization


def test_batches_devices_and_accumulation_shorten_an_epoch() -> None:
    training = net(Training("a", "b", batch_size=5, test_batch_size=4))
    scheme = Scheme(epochs=10, iter_size=2, devices=3)
    solver, _ = make_solver(training, "n", scheme, 600, 10)
    assert solver.max_iter == 10 * 600 // (5 * 2 * 3)
    assert solver.iter_size == 2
    assert list(solver.test_iter) == [3]  # 10 images, 4 a batch


def test_images_are_counted_in_the_lmdbs(make_lmdb: Callable[..., str]) -> None:
    training = net(Training(make_lmdb("train", 12), make_lmdb("test", 5), batch_size=4))
    solver, notes = make_solver(training, "n", Scheme(epochs=10))
    assert notes == []
    assert solver.max_iter == 10 * 12 // 4
    assert list(solver.test_iter) == [5]


def test_missing_lmdbs() -> None:
    message = "LMDB none/trainval does not exist: give the number of images with --train-images N"
    with pytest.raises(CaffeError, match=message):
        make_solver(NYUV2, "n", Scheme())
    solver, notes = make_solver(NYUV2, "n", Scheme(), 795)
    assert not solver.test_iter
    assert not solver.test_interval
    assert len(notes) == 1
    assert "no tests during training: LMDB none/test does not exist" in notes[0]


def test_iterations_given_outright_need_no_images() -> None:
    scheme = Scheme(max_iter=100, stepsize=40, test_epochs=0, snapshot_epochs=0)
    solver, notes = make_solver(NYUV2, "n", scheme)
    assert notes == []
    assert (solver.max_iter, solver.stepsize, solver.snapshot) == (100, 40, 0)
    solver, _ = make_solver(NYUV2, "n", Scheme(max_iter=100, stepsize=40, snapshot=10), None, 0)
    assert (solver.snapshot, len(solver.test_iter)) == (10, 0)


def test_policies_and_types() -> None:
    poly, _ = make_solver(NYUV2, "n", Scheme(lr_policy="poly", power=0.5), 795, 654)
    assert (poly.power, poly.HasField("gamma"), poly.HasField("stepsize")) == (0.5, False, False)
    fixed, _ = make_solver(NYUV2, "n", Scheme(lr_policy="fixed", type="AdaGrad"), 795, 654)
    assert not fixed.HasField("momentum")  # AdaGrad refuses one
    assert not fixed.HasField("gamma")


def test_what_another_policy_would_use_is_told() -> None:
    scheme = Scheme(lr_policy="poly", gamma=0.5, step_epochs=3, power=0.5)
    _, notes = make_solver(NYUV2, "n", scheme, 795, 654)
    assert notes == [
        "--gamma has no effect: it is for --lr-policy step, not poly",
        "--step-epochs has no effect: it is for --lr-policy step, not poly",
    ]
    _, notes = make_solver(NYUV2, "n", Scheme(gamma=0.5, power=2), 795, 654)
    assert notes == ["--power has no effect: it is for --lr-policy poly, not step"]


def test_a_net_without_data_cannot_be_trained() -> None:
    deployed = deploy_net(Architecture("sf5", 40, (320, 240)))
    with pytest.raises(CaffeError, match="net d has no data layer in phase TRAIN"):
        make_solver(deployed, "d", Scheme(), 795)


def test_fractions_of_an_epoch_round_up() -> None:
    training = net(Training("a", "b", batch_size=1))
    solver, _ = make_solver(training, "n", Scheme(epochs=0.1, step_epochs=0.15), 10, 1)
    assert (solver.max_iter, solver.stepsize) == (1, 2)


def test_warm_up_in_epochs_and_in_iterations() -> None:
    scheme = Scheme(warmup_epochs=2, warmup_lr=0.0001, lr_policy="poly", min_lr=0.00001)
    solver, _ = make_solver(NYUV2, "n", scheme, 795)
    assert solver.rampup_interval == 398  # 2 * 795 / 4 = 397.5
    assert solver.rampup_lr == pytest.approx(0.0001)
    assert solver.min_lr == pytest.approx(0.00001)
    solver, _ = make_solver(NYUV2, "n", Scheme(warmup=30, warmup_epochs=2), 795)
    assert (solver.rampup_interval, solver.HasField("rampup_lr")) == (30, False)


def test_other_caffes_get_none_of_nvidias_fields() -> None:
    solver, _ = make_solver(NYUV2, "n", Scheme(), 795)
    for name in ("rampup_interval", "rampup_lr", "min_lr"):
        assert not solver.HasField(name)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (Scheme(warmup=11, max_iter=10), "warm-up takes 11 iterations, the whole training 10"),
        (Scheme(warmup_lr=0.1), "0.1 to warm up from, and no warm-up: give --warmup-epochs"),
        (
            Scheme(warmup=5, warmup_lr=0.1),
            "warm up from, 0.1, is above the rate to warm up to, 0.001",
        ),
        (Scheme(min_lr=0.1), "the least rate, 0.1, is above the rate at the start, 0.001"),
    ],
)
def test_warm_ups_that_cannot_be(scheme: Scheme, message: str) -> None:
    with pytest.raises(CaffeError, match=message):
        make_solver(NYUV2, "n", scheme, 795)
