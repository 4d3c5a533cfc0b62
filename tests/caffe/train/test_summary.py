"""summary: what a run is about to do, in ten lines at most."""

from __future__ import annotations

from pathlib import Path

import pytest

import caffe
from caffe.formats import db
from caffe.process import execution
from caffe.proto import caffe_pb2 as pb
from caffe.solver import get_solver
from caffe.train.summary import batch_of, summary

DATA = """layer {{ name: "{name}" type: "Data" top: "{top}"
  data_param {{ source: "{name}" backend: LMDB batch_size: {batch} }} }}
"""
NET = """name: "net" {data}
layer {{ name: "bn" type: "BatchNorm" bottom: "x" top: "bn" }}
layer {{ name: "conv" type: "Convolution" bottom: "bn" top: "conv" param {{ lr_mult: 0 }}
  convolution_param {{ num_output: 2 kernel_size: 1 }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param {{ num_output: 1 }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "ip" top: "loss" }}
"""


@pytest.fixture
def told(tmp_path, monkeypatch):
    """told(solver's settings, data layers, ...): the lines of a summary by their heads."""
    monkeypatch.chdir(tmp_path)
    for name, count in (("a", 10), ("b", 2000)):
        with db.create(name) as put:
            for i in range(count):
                datum = pb.Datum(channels=3, height=2, width=4, data=bytes(24))
                put(b"%04d" % i, datum.SerializeToString())

    def tell(
        settings: str,
        data: str = DATA.format(name="a", top="x", batch=4),
        processes: int = 1,
        **more,
    ) -> dict[str, str]:
        (tmp_path / "net.prototxt").write_text(NET.format(data=data))
        text = 'net: "net.prototxt" snapshot_prefix: "out" base_lr: 0.01 '
        if "lr_policy" not in settings:
            text += 'lr_policy: "fixed" '
        (tmp_path / "solver.prototxt").write_text(text + settings)
        solver = get_solver("solver.prototxt", fresh=more.get("fresh", ()))
        devices = [None] * processes
        lines = summary(solver, devices, processes, execution.Settings(), **more)
        assert len(lines) <= 10
        return {line[:12].rstrip(): line[12:] for line in lines}

    return tell


def test_frozen_parameters_and_statistics(told) -> None:
    # Convolution: 2x3 frozen weights, 2 biases; InnerProduct: 2*2*4 weights, 1 bias. BatchNorm's
    # 3 + 3 + 1 are statistics.
    assert told("max_iter: 1")["parameters"] == "19 learned, 6 frozen (lr_mult 0)"


def test_epochs_count_all_processes_and_passes(told) -> None:
    lines = told("max_iter: 30 iter_size: 2", processes=3)
    assert lines["data"] == "a (10 records, batch 4x3x2x4), 72 epochs"  # 30 * 2 * 3 * 4 / 10
    assert lines["device"] == "CPU, 3 processes, fp32"
    assert lines["solver"] == "SGD, rate 0.01 fixed, iter_size 2, 30 iterations"


def test_sources_beyond_two_are_counted(told) -> None:
    names = [("a", "x", 4), ("b", "y", 1), ("a", "z", 1)]
    data = "".join(
        DATA.format(name=name, top=top, batch=n).replace(f'name: "{name}"', f'name: "{top}"')
        for name, top, n in names
    )
    both = "a (10 records, batch 4x3x2x4), b (2,000 records, batch 1x3x2x4)"
    assert told("max_iter: 500", data)["data"] == f"{both}, 1 more, 200 epochs"


def test_data_that_fills_itself(told) -> None:
    data = """layer { name: "d" type: "DummyData" top: "x"
      dummy_data_param { shape { dim: 5 dim: 3 dim: 2 dim: 4 } } }"""
    assert told("max_iter: 500", data)["data"] == "DummyData (batch 5x3x2x4)"


def test_schedule_tests_and_snapshots(told) -> None:
    schedule = 'type: "Adam" lr_policy: "multistep" gamma: 0.1 stepvalue: 300 stepvalue: 1200 '
    lines = told(
        schedule
        + "max_iter: 1500 rampup_interval: 50 test_iter: 7 test_interval: 300 snapshot: 1000"
    )
    rate = "rate 0.01 multistep (gamma 0.1, stepvalue 300 1200, rampup_interval 50)"
    assert lines["solver"] == f"Adam, {rate}, 1,500 iterations"
    tests = "every 300 iterations, 7 batches, a (10 records, batch 4x3x2x4)"
    assert lines["tests"] == tests
    assert lines["snapshots"] == "out_iter_N, every 1,000 iterations"
    assert lines["start"] == "from scratch, by fillers"
    assert "snapshots" not in told("snapshot_after_train: false")
    often = told("test_iter: 1 test_interval: 1 snapshot: 1")
    assert often["tests"].startswith("every iteration, 1 batch, a (")
    assert often["snapshots"] == "out_iter_N, every iteration"
    assert told("")["snapshots"] == "out_iter_N, at the end"
    kept = told("snapshot_after_train: false", best="loss:min", patience=3)["snapshots"]
    assert kept == "out_iter_N, the best by loss:min kept, patience 3"


def test_where_the_weights_come_from(told) -> None:
    told("")
    caffe.Net("net.prototxt", caffe.TRAIN).save("old")
    lines = told('weights: "old"', fresh=["ip"])
    assert lines["start"] == "weights of old (for 2 of 3 layers), ip fresh"
    text = Path("net.prototxt").read_text().replace('name: "conv"', 'name: "other"')
    Path("other.prototxt").write_text(text)
    caffe.Net("other.prototxt", caffe.TRAIN).save("other")
    assert told('weights: "other"')["start"] == "weights of other (for 2 of 3 layers)"


def test_only_lines_that_apply(told) -> None:
    assert {*told("max_iter: 1")} == {
        *("net", "parameters", "data", "device", "solver", "snapshots", "start")
    }


def test_the_batch_is_the_first_sources(told) -> None:
    told("max_iter: 1")
    assert batch_of(caffe.Net("net.prototxt", caffe.TRAIN)) == 4
