"""Every lr_policy by its formula, and those of forks by what the forks' own code computes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from google.protobuf import text_format

import caffe
from caffe.proto import caffe_pb2 as pb
from caffe.solver.learning_rate import LearningRate

RECORDED = json.loads((Path(__file__).parents[2] / "golden" / "rates.json").read_text())

pytestmark = pytest.mark.usefixtures("fresh")


def _rate(text: str) -> LearningRate:
    return LearningRate(text_format.Parse(text, pb.SolverParameter()))


def _rates(text: str, iterations: int) -> list[float]:
    rate = _rate(text)
    return [rate.at(i) for i in range(iterations)]


def _close(values: list[float]) -> list[object]:
    return [pytest.approx(v, rel=1e-6) for v in values]  # settings are stored as float32


def test_fixed() -> None:
    assert _rates('lr_policy: "fixed" base_lr: 0.1', 3) == _close([0.1, 0.1, 0.1])


def test_step() -> None:
    rates = _rates('lr_policy: "step" base_lr: 0.1 gamma: 0.5 stepsize: 2', 6)
    assert rates == _close([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])


def test_exp() -> None:
    rates = _rates('lr_policy: "exp" base_lr: 0.1 gamma: 0.9', 3)
    assert rates == _close([0.1, 0.09, 0.081])


def test_inv() -> None:
    # 0.1 (1 + 0.5 i)^-2
    rates = _rates('lr_policy: "inv" base_lr: 0.1 gamma: 0.5 power: 2', 3)
    assert rates == _close([0.1, 0.1 / 2.25, 0.025])


def test_multistep() -> None:
    text = 'lr_policy: "multistep" base_lr: 1 gamma: 0.1 stepvalue: 2 stepvalue: 3 stepvalue: 5'
    assert _rates(text, 7) == _close([1, 1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_multistep_counts_its_steps_and_says_so(capsys) -> None:
    rate = _rate('lr_policy: "multistep" base_lr: 1 gamma: 0.1 stepvalue: 2')
    rate.at(1)
    assert rate.current_step == 0
    rate.at(2)
    assert rate.current_step == 1
    assert capsys.readouterr().err.rstrip().endswith("] MultiStep Status: Iteration 2, step = 1")


def test_multistep_goes_on_from_a_restored_step() -> None:
    rate = _rate('lr_policy: "multistep" base_lr: 1 gamma: 0.1 stepvalue: 2 stepvalue: 9')
    rate.current_step = 1
    assert rate.at(5) == pytest.approx(0.1)


def test_poly() -> None:
    rates = _rates('lr_policy: "poly" base_lr: 1 power: 2 max_iter: 4', 5)
    assert rates == _close([1, 0.5625, 0.25, 0.0625, 0])


def test_sigmoid() -> None:
    rates = _rates('lr_policy: "sigmoid" base_lr: 1 gamma: 0.5 stepsize: 2', 3)
    assert rates == _close([1 / (1 + math.exp(1)), 1 / (1 + math.exp(0.5)), 0.5])
    assert _rate('lr_policy: "sigmoid" base_lr: 1 gamma: 1e4 stepsize: 9').at(0) == 0


def test_what_c_would_compute_where_python_fails() -> None:
    assert math.isnan(_rate('lr_policy: "poly" base_lr: 1 power: 0.5 max_iter: 4').at(5))
    assert _rate('lr_policy: "exp" base_lr: 1 gamma: 10').at(400) == math.inf
    assert _rate('lr_policy: "poly" base_lr: 1 power: -1 max_iter: 4').at(4) == math.inf


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('lr_policy: "stp"', "unknown lr_policy 'stp'; expected one of fixed, step, exp, inv, "
         "multistep, poly, sigmoid"),
        ('lr_policy: "step" gamma: 0.1', "lr_policy step needs a positive stepsize, got 0"),
        ('lr_policy: "sigmoid" stepsize: -1', "lr_policy sigmoid needs a positive stepsize"),
        ('lr_policy: "exp" gamma: -1', "gamma is -1, expected at least 0"),
        ('lr_policy: "fixed" rampup_interval: -1', "rampup_interval is -1, expected at least 0"),
        ('lr_policy: "fixed" warmup_iter: -1', "warmup_iter is -1, expected at least 0"),
        ('lr_policy: "fixed" rampup_interval: 2 warmup_iter: 2', "rampup_interval and warmup_iter "
         "are two ways to warm up"),
        ('lr_policy: "fixed" min_lr: -0.1', "min_lr is -0.1, expected at least 0"),
        ('lr_policy: "poly" base_lr: 1 min_lr: 2', "min_lr is 2, expected at most base_lr, 1: "),
        ('lr_policy: "vstep" vstep_lr: 2', "lr_policy vstep has 1 vstep_lr and 0 vstep_size, "),
    ],
)  # fmt: skip
def test_bad_settings(text: str, message: str) -> None:
    with pytest.raises(caffe.CaffeError, match=f"solver: {message}"):
        _rate(text)


def test_no_policy_is_an_error_once_it_is_needed() -> None:
    rate = _rate("base_lr: 1")  # a solver without one may still build its nets
    with pytest.raises(caffe.CaffeError, match="solver: unknown lr_policy ''"):
        rate.at(0)


@pytest.mark.parametrize(
    "case", RECORDED["cases"], ids=lambda case: f"{case['fork']}: {case['solver']}"
)
def test_rates_recorded_from_the_forks(case: dict) -> None:
    """200 iterations, but for one rounding of the largest rate: the forks compute in float32."""
    rate, largest = _rate(case["solver"]), max(case["rates"])
    for i, (loss, theirs) in enumerate(zip(RECORDED["losses"], case["rates"], strict=True)):
        rate.loss = loss
        assert rate.at(i) == pytest.approx(theirs, rel=0, abs=2**-23 * largest), i
    assert i == 199


def test_warm_up() -> None:
    # 0.1 + 0.8 (i/4)^2; the policy counts from iteration 0.
    text = 'lr_policy: "step" base_lr: 0.9 gamma: 0.5 stepsize: 3 rampup_interval: 4 rampup_lr: 0.1'
    assert _rates(text, 7) == _close([0.1, 0.15, 0.3, 0.55, 0.45, 0.45, 0.225])


def test_momentum_in_intels_warm_up(tmp_path) -> None:
    """v = momentum (rate / rate before) v + rate g in the warm-up: the history holds the rate."""
    (tmp_path / "net.prototxt").write_text(NET)
    path = tmp_path / "solver.prototxt"
    path.write_text(
        f'net: "{tmp_path}/net.prototxt" lr_policy: "fixed" base_lr: 0.05 momentum: 0.5 '
        "warmup_iter: 2 warmup_start_lr: 0.01 snapshot_after_train: false"
    )
    solver = caffe.get_solver(str(path))
    w, v, found, expected = 1.0, 0.0, [], []
    # The rates rise by 0.02 to base_lr: 0.01, 0.03, 0.05; the last one is beyond the warm-up.
    for rate, factor in ((0.01, 1), (0.03, 3), (0.05, 1)):
        v = 0.5 * factor * v + rate * 2 * w  # the loss is w^2
        w -= v
        expected.append(w)
        solver.step(1)
        found.append(float(solver.net.params["w"][0].data[0]))
    assert found == [pytest.approx(value, rel=1e-5) for value in expected]


def test_a_warm_up_from_zero_keeps_weights_finite() -> None:
    rate = _rate('lr_policy: "fixed" base_lr: 1 warmup_iter: 4')
    assert [rate.momentum_factor(i) for i in range(6)] == [1, 1, 2, 1.5, 1, 1]


def test_a_least_rate() -> None:
    text = 'lr_policy: "step" base_lr: 1 gamma: 0.5 stepsize: 1 min_lr: 0.2'
    assert _rates(text, 5) == _close([1, 0.5, 0.25, 0.2, 0.2])


def test_poly_falls_to_the_least_rate() -> None:
    # (1 - 0.2) (1 - i/4) + 0.2
    rates = _rates('lr_policy: "poly" base_lr: 1 power: 1 max_iter: 4 min_lr: 0.2', 5)
    assert rates == _close([1, 0.8, 0.6, 0.4, 0.2])


def test_without_a_least_rate_poly_ends_as_caffes_does() -> None:
    rates = _rates('lr_policy: "poly" base_lr: 1 power: 1 max_iter: 2', 4)
    assert rates == _close([1, 0.5, 0, -0.5])


def test_peeking_takes_no_step(capsys) -> None:
    rate = _rate('lr_policy: "multistep" base_lr: 1 gamma: 0.1 stepvalue: 2 stepvalue: 2')
    assert [rate.peek(2), rate.peek(2)] == _close([0.1, 0.1])
    assert (rate.current_step, capsys.readouterr().err) == (0, "")
    assert rate.at(2) == pytest.approx(0.1)


def test_multifixed_needs_a_rate_for_each_stage() -> None:
    with pytest.raises(caffe.CaffeError, match="2 stagelr and 1 stageiter"):
        _rate('lr_policy: "multifixed" stagelr: 0.3 stagelr: 0.2 stageiter: 1')


def test_plateau_steps_down_when_the_loss_stays() -> None:
    text = 'lr_policy: "plateau" base_lr: 1 gamma: 0.1 plateau_winsize: 2 plateau_winsize: 3'
    rate, rates = _rate(text), []
    # New minima at 0 and 2. Two iterations without one: a step at 4; three after that: at 7.
    for i, loss in enumerate([5, 6, 4, 4, 7, 8, 4, 9, 9, 9]):
        rate.loss = loss
        rates.append(rate.at(i))
    assert rates == _close([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])
    assert (rate.minimum_loss, rate.iter_last_event, rate.current_step) == (4, 7, 2)


NET = """
layer { name: "w" type: "Parameter" top: "w"
        parameter_param { shape { dim: 1 } filler { type: "constant" value: 1 } } }
layer { name: "loss" type: "Power" bottom: "w" top: "loss" power_param { power: 2 } loss_weight: 1 }
"""


def test_plateau_goes_on_from_a_snapshot(tmp_path) -> None:
    """The rates of a run that is interrupted are those of one that is not."""
    (tmp_path / "net.prototxt").write_text(NET)
    path = tmp_path / "solver.prototxt"
    path.write_text(
        f'net: "{tmp_path}/net.prototxt" lr_policy: "plateau" base_lr: 1.5 gamma: 0.5 '
        f'plateau_winsize: 2 plateau_winsize: 2 snapshot_prefix: "{tmp_path}/s"'
    )
    whole, rates = caffe.get_solver(str(path)), []
    for i in range(9):
        rates.append(whole.lr)
        whole.step(1)
        if i == 3:
            whole.snapshot()
    again = caffe.get_solver(str(path))
    again.restore(f"{tmp_path}/s_iter_4.solverstate")
    found = []
    for _ in range(5):
        found.append(again.lr)
        again.step(1)
    assert found == rates[4:]
    assert len(set(rates)) == 3


def test_plateau_of_several_processes_follows_the_loss_of_the_first(tmp_path) -> None:
    """This process's own loss falls; the first one's, which the link gives, does not."""
    (tmp_path / "net.prototxt").write_text(NET)
    path = tmp_path / "solver.prototxt"
    path.write_text(
        f'net: "{tmp_path}/net.prototxt" lr_policy: "plateau" base_lr: 0.1 gamma: 0.5 '
        f"plateau_winsize: 2 plateau_winsize: 2 snapshot_after_train: false"
    )
    solver = caffe.get_solver(str(path))
    solver.add_callback(_Link())
    rates = []
    for _ in range(6):
        solver.step(1)
        rates.append(solver.lr)
    # The minimum is new at 0, no more then: steps at 2 and 4. These are the rates of 1 to 6.
    assert rates == _close([0.1, 0.05, 0.05, 0.025, 0.025, 0.025])


class _Link:
    """To a first process whose displayed loss is always 7."""

    def on_start(self) -> None: ...

    def on_gradients_ready(self) -> None: ...

    def agree(self, request: str) -> str:
        return request

    def from_first(self, value: float) -> float:
        return 7.0


def test_reading_the_rate_changes_nothing(tmp_path) -> None:
    """plateau would step on the loss of the iteration before; multistep once for each reading."""
    (tmp_path / "net.prototxt").write_text(NET)
    path, rates = tmp_path / "solver.prototxt", []
    path.write_text(
        f'net: "{tmp_path}/net.prototxt" lr_policy: "multistep" base_lr: 0.1 gamma: 0.5 '
        f"stepvalue: 2 stepvalue: 2 stepvalue: 2 snapshot_after_train: false"
    )
    solver = caffe.get_solver(str(path))
    for _ in range(5):
        rates.append([solver.lr for _ in range(3)])
        solver.step(1)
    assert rates == [[pytest.approx(r)] * 3 for r in (0.1, 0.1, 0.05, 0.025, 0.0125)]
