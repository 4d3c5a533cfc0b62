"""GradientScaler: its factor by iterations."""

import math

import pytest
import torch
from nets import IP, LOSS

import caffe

TEXT = 'type: "GradientScaler" gradient_scaler_param { upper_bound: 2 alpha: 3 max_iter: 10 }'


def test_the_factor_grows_with_the_solvers_iteration(layer_of):
    """2 h / (1 + exp(-alpha progress)) - h, with h = 2."""
    layer = layer_of(TEXT, (1,))
    x, found = torch.ones(1, requires_grad=True), []
    for iteration in (None, 0, 5, 10, 99):
        if iteration is not None:
            layer.at_iteration(iteration)
        (grad,) = torch.autograd.grad(layer.forward([x], []), x)
        found.append(-float(grad))
    last = 4 / (1 + math.exp(-3)) - 2
    assert found == pytest.approx([1, 0, 4 / (1 + math.exp(-1.5)) - 2, last, last])


def test_a_solver_tells_its_iteration(tmp_path):
    net = tmp_path / "net.prototxt"
    net.write_text(
        'layer { name: "in" type: "DummyData" top: "x" '
        "dummy_data_param { shape { dim: 2 dim: 3 } } }"
        f'layer {{ name: "g" bottom: "x" top: "g" {TEXT} }}'
        + IP.replace('bottom: "x"', 'bottom: "g"')
        + LOSS
    )
    solver = tmp_path / "solver.prototxt"
    solver.write_text(f'net: "{net}" base_lr: 0.1 lr_policy: "fixed" snapshot_after_train: false')
    solver = caffe.SGDSolver(str(solver))
    solver.step(6)
    layer = solver.net.wiring.by_name["g"]
    assert layer.factor == pytest.approx(4 / (1 + math.exp(-1.5)) - 2)
