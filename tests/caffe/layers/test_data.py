"""Layers that bring data in: Input, DummyData, MemoryData, Data."""

import gc

import numpy as np
import pytest

import caffe
from caffe.data.order import Turns
from caffe.formats import db
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


def test_augmentation_is_for_training_and_makes_one_size_of_all(net_of, tmp_path):
    shapes = [(1, 4, 6), (1, 9, 3)]
    path = records(tmp_path / "d", [np.ones(shape, np.uint8) for shape in shapes])
    transform = "augmentation_param { crop_h: 5 crop_w: 7 min_scale: 0.5 max_scale: 2 }"
    net = data_net(net_of, path, "batch_size: 2 backend: LMDB", transform)
    for _ in range(3):
        net.forward()
        assert net.blobs["x"].data.shape == (2, 1, 5, 7)
    net = data_net(net_of, path, "batch_size: 1 backend: LMDB", transform, caffe.TEST)
    net.forward()
    assert net.blobs["x"].data.shape == (1, 1, 4, 6)


def test_an_augmentation_that_does_not_fit_names_the_record(net_of, tmp_path):
    arrays = [np.ones((channels, 4, 4), np.uint8) for channels in (3, 1)]
    path = records(tmp_path / "d", arrays)
    transform = "augmentation_param { label_channel: 2 max_scale: 2 }"
    net = data_net(net_of, path, "batch_size: 1 backend: LMDB", transform)
    net.forward()
    message = r"record b'0001': augmentation_param: channel 2 is named, the record has 1$"
    with pytest.raises(caffe.CaffeError, match=rf"layer 'd' \(Data\): .*{message}"):
        net.forward()


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
    turns = []
    for rank in range(3):
        monkeypatch.setattr("caffe.process.ranks.solver_rank", lambda rank=rank: rank)
        monkeypatch.setattr("caffe.process.ranks.solver_count", lambda: 3)
        turns += [PrefetchingLayer(pb.LayerParameter(name="d", phase=p)).turns() for p in (0, 1)]
    alone = Turns(0, 1)  # in TEST
    assert turns == [Turns(0, 3), alone, Turns(1, 3), alone, Turns(2, 3), alone]


# -- going on ----------------------------------------------------------------------------------


@pytest.fixture
def seven(tmp_path):
    """Seven records of 5 x 6 random pixels."""
    rng = np.random.default_rng(0)
    return records(tmp_path / "seven", rng.integers(0, 256, (7, 1, 5, 6), np.uint8))


@pytest.mark.parametrize("param", ["", "shuffle: true", "shuffle: true rand_skip: 5"])
def test_data_goes_on_where_it_was(net_of, goes_on, seven, param):
    param, transform = f"backend: LMDB batch_size: 3 {param}", "crop_size: 3 mirror: true"
    goes_on(lambda: data_net(net_of, seven, param, transform))


def test_a_position_counts_what_all_solvers_have_taken(net_of, seven):
    """A run with another number of solvers continues at the record where the last one stopped."""
    caffe.set_random_seed(3)

    def labels(net, passes):
        return np.concatenate([net.forward()["y"].copy() for _ in range(passes)])

    param = "backend: LMDB batch_size: 2 shuffle: true"
    alone = labels(data_net(net_of, seven, param), 12)
    try:
        caffe.set_solver_count(3)
        nets = []
        for rank in range(3):
            caffe.set_solver_rank(rank)
            nets.append(data_net(net_of, seven, param))
            assert np.array_equal(labels(nets[rank], 2), alone[rank:12:3])
        caffe.set_solver_rank(0)
        position = nets[0].wiring.layers[0].position()
        caffe.set_solver_count(2)
        for rank in range(2):
            caffe.set_solver_rank(rank)
            net = data_net(net_of, seven, param)
            net.wiring.layers[0].go_on(position)
            assert np.array_equal(labels(net, 3), alone[12 + rank :: 2])
    finally:
        caffe.set_solver_rank(0)
        caffe.set_solver_count(1)


def test_data_that_was_moved_keeps_its_order(net_of, seven):
    caffe.set_random_seed(3)
    net = data_net(net_of, seven, "backend: LMDB batch_size: 2 shuffle: true")
    net.forward()
    position = net.wiring.layers[0].position()
    moved = data_net(
        net_of, seven.rename(f"{seven}_moved"), "backend: LMDB batch_size: 2 shuffle: true"
    )
    moved.wiring.layers[0].go_on(position)
    for _ in range(5):
        assert np.array_equal(moved.forward()["y"], net.forward()["y"])
    assert moved.wiring.layers[0].position() == net.wiring.layers[0].position()


def test_data_of_another_size_does_not_go_on(net_of, seven):
    net = data_net(net_of, seven, "backend: LMDB batch_size: 2")
    net.forward()
    layer = net.wiring.layers[0]
    position = layer.position() | {"contents": {"records": 8}, "source": "old"}
    with pytest.raises(caffe.CaffeError, match=r"^old held 8 records, .*seven holds 7 records$"):
        layer.go_on(position)
    assert net.forward()["y"].tolist() == [2, 3]  # nothing has changed


def memory_net(net_of):
    return net_of(
        'layer { name: "d" type: "MemoryData" top: "x" top: "y" '
        "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 1 } }"
    )


def test_memory_data_goes_on_before_and_after_it_gets_its_arrays(net_of):
    data, labels = np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1), np.zeros(6, np.float32)
    net = memory_net(net_of)
    assert net.wiring.layers[0].position() is None
    net.set_input_arrays(data, labels)
    net.forward()
    position = net.wiring.layers[0].position()
    before, after = memory_net(net_of), memory_net(net_of)
    before.set_input_arrays(data, labels)
    before.wiring.layers[0].go_on(position)
    after.wiring.layers[0].go_on(position)
    after.set_input_arrays(data, labels)
    for other in (before, after):
        other.forward()
        assert other.blobs["x"].data.ravel().tolist() == [2, 3]
    after.set_input_arrays(data, labels)  # only the first arrays are taken up in their middle
    after.forward()
    assert after.blobs["x"].data.ravel().tolist() == [0, 1]
    before.set_input_arrays(data[:4], labels[:4])
    with pytest.raises(caffe.CaffeError, match="there were 6 samples, there are 4"):
        before.wiring.layers[0].go_on(position)
