"""Layers that bring data in: Input, DummyData, MemoryData, Data."""

import gc

import numpy as np
import pytest

import caffe
from caffe import db
from caffe.layers.data import PrefetchingLayer
from caffe.proto import caffe_pb2 as pb


def records(path, arrays, backend="lmdb"):
    """A database of these arrays (C, H, W), uint8 or float, labelled by their index."""
    with db.create(path, backend) as put:
        for i, array in enumerate(arrays):
            datum = pb.Datum(label=i)
            datum.channels, datum.height, datum.width = array.shape
            if array.dtype == np.uint8:
                datum.data = array.tobytes()
            else:
                datum.float_data.extend(array.ravel())
            put(f"{i:04}".encode(), datum.SerializeToString())
    return path


def data_net(net_of, path, param="", transform="", phase=caffe.TRAIN, tops='top: "x" top: "y"'):
    return net_of(
        f'layer {{ name: "d" type: "Data" {tops} transform_param {{ {transform} }} '
        f'data_param {{ source: "{path}" {param} }} }}',
        phase,
    )


def batches(net, count):
    """The labels of some batches, in order."""
    labels = []
    for _ in range(count):
        net.forward()
        labels.append(net.blobs["y"].data.astype(int).tolist())
    return labels


FIVE = [np.full((5, 2, 3), i, np.uint8) for i in range(5)]


@pytest.mark.parametrize("backend", db.BACKENDS)
def test_records_come_in_the_order_of_their_keys_and_start_over(net_of, tmp_path, backend):
    if backend == "leveldb":
        pytest.importorskip("plyvel", reason="LevelDB needs the extra package plyvel")
    path = records(tmp_path / "d", FIVE, backend)
    net = data_net(net_of, path, f"batch_size: 3 backend: {backend.upper()}")
    assert batches(net, 4) == [[0, 1, 2], [3, 4, 0], [1, 2, 3], [4, 0, 1]]
    assert net.blobs["x"].data.shape == (3, 5, 2, 3)
    assert set(net.blobs["x"].data[0].ravel()) == {4}


def test_shuffle_shows_every_record_once_an_epoch_in_a_new_order(net_of, tmp_path):
    path = records(tmp_path / "d", FIVE * 4)
    net = data_net(net_of, path, "batch_size: 20 backend: LMDB shuffle: true")
    first, second = batches(net, 2)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second


@pytest.mark.parametrize("crop", ["", "crop_size: 2"])
@pytest.mark.parametrize("means", [[10], [1, 2, 3]])
def test_mean_values_and_scale(net_of, tmp_path, crop, means):
    path = records(tmp_path / "d", [np.arange(27, dtype=np.uint8).reshape(3, 3, 3)])
    transform = f"{crop} scale: 0.5 " + " ".join(f"mean_value: {m}" for m in means)
    net = data_net(net_of, path, "batch_size: 1 backend: LMDB", transform, caffe.TEST)
    net.forward()
    size = 2 if crop else 3  # (3 - 2) // 2 = 0: in TEST the crop starts at the corner here
    image = np.arange(27).reshape(3, 3, 3)[:, :size, :size]
    expected = (image - np.reshape(means, (-1, 1, 1))) * 0.5
    np.testing.assert_array_equal(net.blobs["x"].data[0], expected)


def test_mirror_turns_all_channels_alike_also_in_test(net_of, tmp_path):
    frame = np.tile(np.array([1.5, 2.5], np.float32), (5, 1, 1))
    path = records(tmp_path / "d", [frame])
    net = data_net(net_of, path, "batch_size: 64 backend: LMDB", "mirror: true", caffe.TEST)
    net.forward()
    rows = {tuple(r) for r in net.blobs["x"].data[:, :, 0].reshape(64, -1).tolist()}
    assert rows == {(1.5, 2.5) * 5, (2.5, 1.5) * 5}


def test_a_batch_takes_its_first_records_shape(net_of, tmp_path):
    path = records(tmp_path / "d", [np.ones((1, 2, 2), np.uint8), np.ones((1, 4, 3), np.uint8)])
    net = data_net(net_of, path, "batch_size: 1 backend: LMDB", tops='top: "x"')
    shapes = []
    for _ in range(3):
        net.forward()
        shapes.append(net.blobs["x"].data.shape)
    assert shapes == [(1, 1, 2, 2), (1, 1, 4, 3), (1, 1, 2, 2)]


def test_the_reading_thread_ends_with_the_net(net_of, tmp_path):
    net = data_net(net_of, records(tmp_path / "d", FIVE), "batch_size: 1 backend: LMDB")
    net.forward()
    thread = net.layers[0]._prefetcher._thread
    assert thread.is_alive()
    del net
    gc.collect()
    thread.join(timeout=30)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("param", "transform", "cause"),
    [
        ("backend: LMDB", "", "batch_size must be positive"),
        ("batch_size: 1", "", "say backend: LMDB"),
        ("batch_size: 1 backend: LMDB", "crop_size: 4", "crop_size 4 exceeds"),
        ("batch_size: 1 backend: LMDB", 'mean_file: "m" mean_value: 1', "not both"),
        ("batch_size: 1 backend: LMDB", 'mean_file: "none"', "none"),
    ],
)
def test_what_cannot_be_read_is_refused(net_of, tmp_path, param, transform, cause):
    path = records(tmp_path / "d", FIVE)
    with pytest.raises(caffe.CaffeError, match=f"layer 'd' .*{cause}"):
        data_net(net_of, path, param, transform)


def test_a_missing_database_is_named(net_of, tmp_path):
    with pytest.raises(caffe.CaffeError, match=r"layer 'd' .*nowhere: No such file"):
        data_net(net_of, tmp_path / "nowhere", "batch_size: 1 backend: LMDB")


@pytest.mark.parametrize("batch", [1, 2])
def test_a_record_that_does_not_fit_is_named(net_of, tmp_path, batch):
    path = tmp_path / "d"
    records(path, [np.ones((1, 2, 2), np.uint8)] * 2 + [np.ones((3, 2, 2), np.uint8)])
    transform = "mean_value: 1 mean_value: 2" if batch == 1 else ""
    if batch == 1:
        net = data_net(net_of, path, "batch_size: 1 backend: LMDB", transform)
        cause = "mean_value is given 2"
    else:
        net = data_net(net_of, path, "batch_size: 4 backend: LMDB")
        cause = "record b'0002': it is 3 x 2 x 2, others in its batch are 1 x 2 x 2"
    with pytest.raises(caffe.CaffeError, match=f"layer 'd' .*{cause}"):
        net.forward()


def test_dummy_data_fills_constants_once_and_the_rest_anew(net_of):
    net = net_of(
        'layer { name: "d" type: "DummyData" top: "a" top: "b" dummy_data_param { '
        "shape { dim: 2 } shape { dim: 3 dim: 4 } "
        'data_filler { value: 7 } data_filler { type: "uniform" } } }'
    )
    net.forward()
    a, b = net.blobs["a"].data, net.blobs["b"].data
    assert a.tolist() == [7, 7]
    a[...], before = 1, b.copy()
    net.forward()
    assert net.blobs["a"].data.tolist() == [1, 1]
    assert not np.array_equal(net.blobs["b"].data, before)


def test_dummy_data_takes_the_older_shape(layer_of):
    legacy = "num: 2 channels: 3 height: 4 width: 5"
    layer = layer_of(f'type: "DummyData" dummy_data_param {{ {legacy} }} top: "a" top: "b"')
    assert layer.infer_shapes([]) == [(2, 3, 4, 5)] * 2


def test_memory_data_goes_round(net_of):
    net = net_of(
        'layer { name: "m" type: "MemoryData" top: "x" top: "y" '
        "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 2 } }"
    )
    with pytest.raises(caffe.CaffeError, match=r"layer 'm' .*has no data so far"):
        net.forward()
    data = np.arange(8, dtype=np.float32).reshape(4, 1, 1, 2)
    net.layers[0].set_arrays(data, np.arange(4, dtype=np.float32))
    seen = []
    for _ in range(3):
        net.forward()
        seen.append(net.blobs["y"].data.ravel().tolist())
    assert seen == [[0, 1], [2, 3], [0, 1]]
    assert net.blobs["y"].data.shape == (2, 1, 1, 1)
    assert net.blobs["x"].data.ravel().tolist() == [0, 1, 2, 3]
    data += 100  # not copied
    net.forward()
    assert net.blobs["x"].data.ravel().tolist() == [104, 105, 106, 107]


@pytest.mark.parametrize(
    ("data", "labels", "cause"),
    [
        (np.zeros((2, 1, 1, 2)), np.zeros(2, np.float32), "float32"),
        (np.zeros((2, 1, 2, 2), np.float32), np.zeros(2, np.float32), "data has the shape"),
        (np.zeros((3, 1, 1, 2), np.float32), np.zeros(3, np.float32), "no multiple of batch_size"),
        (np.zeros((2, 1, 1, 2), np.float32), np.zeros(4, np.float32), "each of 2 samples"),
        (np.zeros((2, 1, 1, 4), np.float32)[..., ::2], np.zeros(2, np.float32), "contiguous"),
    ],
)
def test_memory_data_refuses_what_does_not_fit(layer_of, data, labels, cause):
    param = "batch_size: 2 channels: 1 height: 1 width: 2"
    layer = layer_of(f'type: "MemoryData" top: ["x", "y"] memory_data_param {{ {param} }}')
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{cause}"):
        layer.set_arrays(data, labels)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('type: "Input" top: "a" input_param { shape { dim: 1 } shape { dim: 1 } }', "2 times"),
        ('type: "DummyData" top: "a"', "shape must be given once"),
        ('type: "DummyData" dummy_data_param { num: 1 shape { dim: 1 } }', "give either shape"),
        ('type: "MemoryData" top: ["a", "b"]', "must be positive"),
    ],
)
def test_what_is_missing_is_named(layer_of, text, cause):
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{cause}"):
        layer_of(text)


def test_sharing_out_by_turns(monkeypatch):
    layer = PrefetchingLayer(pb.LayerParameter(name="d"))
    shares = []
    for rank in range(3):
        monkeypatch.setattr("caffe.device.solver_rank", lambda rank=rank: rank)
        monkeypatch.setattr("caffe.device.solver_count", lambda: 3)
        shares.append(list(layer.share(iter(range(7)))))
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]
