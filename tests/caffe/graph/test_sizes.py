"""Records of another size than the net's: one line tells both sizes, wherever a net reads them."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest

import caffe
from caffe.errors import CaffeError
from caffe.graph.sketch import sketch
from caffe.proto.caffe_pb2 import NetParameter, SolverParameter
from data_tools.record import to_datum
from netgen import Architecture, Training, train_net


def records(path: Path, *sizes: tuple[int, int]) -> str:
    """An LMDB of five-channel records of these (width, height)."""
    path.mkdir()
    with lmdb.open(str(path), map_size=2**26) as env, env.begin(write=True) as transaction:
        for i, (width, height) in enumerate(sizes):
            planes = np.ones((5, height, width), np.uint8)
            transaction.put(b"%08d" % i, to_datum(planes))
    return str(path)


def fusenet(source: str, size: tuple[int, int], net: str = "rgb") -> NetParameter:
    """A slim net for records of that (width, height)."""
    return train_net(
        Architecture(net, 3, size, width_multiplier=0.02),
        Training(source, source, batch_size=1, shuffle=False),
    )


@pytest.mark.parametrize(
    ("net", "size", "takes"),
    [
        ((160, 120), (96, 72), "160x120"),
        ((160, 120), (320, 224), "160x120"),
        ((160, 120), (159, 119), "160x120"),  # up to the loss, nothing tells them apart
        ((99, 67), (160, 120), "99x67"),
        ((99, 67), (98, 67), "99x67"),
        ((50, 96), (96, 50), "50x96"),
        ((64, 96), (96, 72), "multiples of 32"),
        ((64, 96), (40, 33), "multiples of 32"),
    ],
)
def test_both_sizes_are_told(tmp_path, net, size, takes) -> None:
    source = records(tmp_path / "db", size)
    param = fusenet(source, net)
    wanted = rf"^{source}: records are {size[0]}x{size[1]}, the net takes {takes} \(layer "
    for phase in (caffe.TRAIN, caffe.TEST):
        with pytest.raises(CaffeError, match=wanted):
            sketch(param, phase)
        with pytest.raises(CaffeError, match=wanted):
            caffe.Net(param, phase)
    solver = SolverParameter(net_param=param, test_iter=[1], test_interval=1)
    with pytest.raises(CaffeError, match=wanted):
        caffe.get_solver(solver)


@pytest.mark.parametrize("observed", [True, False])
@pytest.mark.parametrize("net", ["sf2", "df1"])
def test_a_later_record_of_another_size_is_computed_at_its_own(tmp_path, net, observed) -> None:
    source = records(tmp_path / "db", (100, 64), (96, 72))
    built = caffe.Net(fusenet(source, (100, 64), net), caffe.TEST)
    built.observed = observed
    for size in ((100, 64), (96, 72)):
        assert built.forward(["score"])["score"].shape == (1, 4, *size[::-1])


def test_records_that_fit_are_read(tmp_path) -> None:
    for name, net, size in (("a", (99, 67), (99, 67)), ("b", (64, 96), (128, 32))):
        param = fusenet(records(tmp_path / name, size), net)
        built = caffe.Net(param, caffe.TEST)
        assert built.blobs["score"].data.shape == (1, 4, *size[::-1])


def test_other_errors_stay_as_they_are(tmp_path) -> None:
    """No size mends a net that is wrong in itself, nor one whose size was told."""
    source = records(tmp_path / "db", (160, 120))
    param = fusenet(source, (160, 120))
    score = next(layer for layer in param.layer if layer.name == "score")
    score.convolution_param.pad[:] = [0]
    with pytest.raises(CaffeError) as error:
        caffe.Net(param, caffe.TRAIN)
    assert "the net takes" not in str(error.value)
    assert str(error.value).startswith("layer 'loss'")
    param = fusenet(source, (99, 67))
    with pytest.raises(CaffeError, match=r"^layer 'unpool\d'"):
        sketch(param, caffe.TRAIN, {"data": (1, 5, 120, 160)})
