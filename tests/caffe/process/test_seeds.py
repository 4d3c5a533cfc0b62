"""Seeds: what they repeat, and what the processes of one run share."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import caffe
from caffe.process import seeds

pytestmark = pytest.mark.usefixtures("fresh")


FILLED = """layer { name: "ip" type: "DummyData" top: "x"
  dummy_data_param { shape { dim: 8 } data_filler { type: "gaussian" } } }"""


def test_seeds_repeat_what_is_drawn(make_net) -> None:
    drawn = []
    for seed in (1, 1, 2):
        caffe.set_random_seed(seed)
        drawn.append(make_net(FILLED).forward()["x"].copy())
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_without_a_seed_each_process_draws_anew() -> None:
    code = (
        "import caffe; from google.protobuf import text_format as t;"
        "from caffe.proto import caffe_pb2 as pb;"
        f"print(caffe.Net(t.Parse('''{FILLED}''', pb.NetParameter()), 0).forward()['x'])"
    )
    env = {**os.environ, "GLOG_minloglevel": "2"}
    both = [subprocess.check_output([sys.executable, "-c", code], env=env) for _ in range(2)]
    assert both[0] != both[1]


def test_a_seed_that_pytorch_was_given_stays() -> None:
    code = (
        "import torch; torch.manual_seed(5)\n"
        "from caffe.process import seeds; print(seeds.process_seed())"
    )
    assert subprocess.check_output([sys.executable, "-c", code]).strip() == b"5"


def test_ranks_share_one_seed_and_draw_apart() -> None:
    seeds.set_random_seed(7, rank=0)
    first = seeds.common_seed(), seeds.process_seed()
    seeds.set_random_seed(7, rank=2)
    second = seeds.common_seed(), seeds.process_seed()
    assert first == (7, 7)
    assert second == (7, 9)


def test_unseeded_ranks_still_agree(monkeypatch) -> None:
    caffe.set_solver_count(2)
    found = set()
    for seed in (11, 12):  # each process has drawn a seed of its own
        monkeypatch.setattr(torch, "initial_seed", lambda seed=seed: seed)
        found.add(seeds.common_seed())
    assert len(found) == 1
