"""Every recorded case of the reference: tops, statistics, gradients (tests/golden/README.md)."""

import csv
from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe.formats.prototext import parse
from caffe.proto import caffe_pb2 as pb

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = sorted((GOLDEN / "layers").glob("*.npz"))
FORKS = sorted((GOLDEN / "forks").glob("*.npz"))


def parts(record: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """The arrays of one kind ("in", "dparam", ...) by the rest of their names."""
    return {k.split("/", 1)[1]: v for k, v in record.items() if k.startswith(f"{kind}/")}


def blob_of(net: caffe.Net, place: str) -> caffe.blob.Blob:
    """The parameter blob of "layer/index"."""
    layer, _, index = place.rpartition("/")
    return net.params[layer][int(index)]


def assert_close(what: str, ours: np.ndarray, reference: np.ndarray) -> None:
    assert ours.shape == reference.shape, what
    np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-5, err_msg=what)


def test_all_cases_are_here():
    assert len(CASES) == 103


def test_every_recording_of_a_fork_has_its_source():
    with (GOLDEN / "forks" / "SOURCES.csv").open(encoding="utf-8", newline="") as file:
        assert sorted(row["case"] for row in csv.DictReader(file)) == [p.stem for p in FORKS]


@pytest.mark.parametrize("path", CASES + FORKS, ids=lambda path: path.stem)
def test_layer_computes_what_the_reference_recorded(path):
    with np.load(path) as file:
        record = dict(file)
    param = parse(str(record["prototxt"]).encode(), pb.NetParameter, path.name)
    net = caffe.Net(param, phase=caffe.TRAIN if str(record["phase"]) == "TRAIN" else caffe.TEST)
    for name, values in parts(record, "in").items():
        net.blobs[name].data[...] = values
    for place, values in parts(record, "param").items():
        blob_of(net, place).data[...] = values

    net.forward()
    for name, values in parts(record, "out").items():
        assert_close(name, net.blobs[name].data, values)
    for place, values in parts(record, "param_after").items():
        assert_close(place, blob_of(net, place).data, values)

    for name, values in parts(record, "dtop").items():
        net.blobs[name].diff[...] = values
    gradients, learned = parts(record, "din"), parts(record, "dparam")
    if gradients or learned:
        net.backward()
    for name, values in gradients.items():
        assert_close(f"gradient of {name}", net.blobs[name].diff, values)
    for place, values in learned.items():
        assert_close(f"gradient of {place}", blob_of(net, place).diff, values)
