"""FlowNet2's files: how records become tops, and flows files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases.flow_data import encoded

import caffe
from caffe.formats.db import create
from caffe.proto import caffe_pb2 as pb

SLICES = "slice_point: 1 slice_point: 3 encoding: UINT8 encoding: UINT16FLOW encoding: BOOL1"
FLOW = np.array([[[1.5, -0.25, np.nan]], [[0, 1000, -1000]]], np.float32)
MASK = np.array([[1, 0, 1]])


def layer(param: str, tops: int) -> str:
    names = " ".join(f'top: "t{i}"' for i in range(tops))
    return f"""layer {{ name: "d" type: "CustomData" {names}
      data_param {{ source: "db" backend: LMDB {param} }} }}"""


@pytest.fixture(autouse=True)
def database(tmp_path, monkeypatch) -> None:
    """Three records of 4 x 1 x 3: an image of the record's number, a flow, a mask."""
    monkeypatch.chdir(tmp_path)
    with create("db") as put:
        for i in range(3):
            datum = pb.Datum(channels=4, height=1, width=3, label=10 + i)
            datum.data = bytes([i] * 3) + encoded(FLOW, MASK)
            put(b"%08d" % i, datum.SerializeToString())


def test_slices_are_decoded(net_of):
    net = net_of(layer(f"batch_size: 2 {SLICES}", 3))
    net.forward()
    image, flow, mask = (net.blobs[f"t{i}"].data for i in range(3))
    assert image[:, 0, 0, 0].tolist() == [0, 1]
    np.testing.assert_array_equal(flow[1], FLOW)
    np.testing.assert_array_equal(mask[0, 0], MASK)


def test_records_are_chosen(net_of):
    Path("split.txt").write_text("2\n1\n2\n")
    chosen = 'preselection_file: "split.txt" preselection_label: 2'
    for param, expected in ((chosen, [0, 2, 0]), ("range_start: 1", [1, 2, 1])):
        net = net_of(layer(f"batch_size: 3 {param} {SLICES}", 3))
        net.forward()
        assert net.blobs["t0"].data[:, 0, 0, 0].tolist() == expected


def test_a_run_in_random_order_goes_on(net_of, goes_on):
    goes_on(lambda: net_of(layer(f"batch_size: 1 rand_permute: true {SLICES}", 3)))


@pytest.mark.parametrize(
    ("param", "tops", "message"),
    [
        ("batch_size: 1", 1, "its 16 bytes do not fit 4 x 1 x 3"),
        (f"batch_size: 1 {SLICES}", 2, "has 2 tops, expected 3"),
        ("batch_size: 1 slice_point: 5", 2, r"channels behind the slice points \[5\]"),
        ("batch_size: 1 slice_point: 2 encoding: BOOL1", 2, "slice 0 is BOOL1, expected one"),
        ("batch_size: 1 range_start: 7", 1, "no records are left"),
    ],
)
def test_what_does_not_fit(net_of, param, tops, message):
    with pytest.raises(caffe.CaffeError, match=message):
        net_of(layer(param, tops))


def test_each_flow_becomes_a_file(net_of, tmp_path):
    param = f'folder: "{tmp_path}" prefix: "f-" suffix: "-x"'
    text = f'layer {{ name: "w" type: "FLOWriter" bottom: "flow" writer_param {{ {param} }} }}'
    net = net_of(text, flow=(2, 2, 1, 3))
    flow = np.arange(12, dtype=np.float32).reshape(2, 2, 1, 3)
    net.blobs["flow"].data[...] = flow
    net.forward()
    net.layers[-1].at_iteration(12)
    net.forward()
    names = sorted(path.name for path in tmp_path.glob("*.flo"))
    assert names == [f"f-{i:07d}({n:03d})-x.flo" for i in (0, 12) for n in (0, 1)]
    data = (tmp_path / names[1]).read_bytes()
    assert np.frombuffer(data[:4], "<f4")[0] == np.float32(202021.25)
    assert np.frombuffer(data[4:12], "<i4").tolist() == [3, 1]
    assert np.frombuffer(data[12:], "<f4").tolist() == [6, 9, 7, 10, 8, 11]


def test_without_its_folder_it_says_so_and_writes_nothing(net_of, tmp_path, capfd):
    text = 'layer { name: "w" type: "FLOWriter" bottom: "flow" writer_param { folder: "no" } }'
    net = net_of(text, flow=(1, 2, 1, 3))
    assert "writes nothing: there is no folder 'no'" in capfd.readouterr().err
    net.forward()
    assert [path.name for path in tmp_path.iterdir()] == ["db"]
