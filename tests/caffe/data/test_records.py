"""Records for data layers: whose turn it is, what transformation makes of them, reading ahead."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.data.datum import open_database, parse_datum
from caffe.data.order import RecordRandom, Turns, endless, endless_records, epoch_order
from caffe.data.prefetch import Batch, Prefetcher
from caffe.data.transform import RecordTransformer
from caffe.formats import db, files
from caffe.process import seeds
from caffe.proto import caffe_pb2 as pb

pytestmark = pytest.mark.usefixtures("fresh")

COUNT = 12


@pytest.fixture
def lmdb(tmp_path: Path) -> str:
    """Records 0 to 11, each of one channel, 4 x 5, all values its number, which is its label."""
    return _make(tmp_path / "lmdb", [np.full((1, 4, 5), i, np.uint8) for i in range(COUNT)])


def _make(path: Path, arrays: list[np.ndarray]) -> str:
    with db.create(path) as put:
        for i, array in enumerate(arrays):
            put(b"%04d" % i, _datum(array, i).SerializeToString())
    return str(path)


def _datum(array: np.ndarray, label: int = 0) -> pb.Datum:
    datum = pb.Datum(label=label)
    datum.channels, datum.height, datum.width = array.shape
    if array.dtype == np.uint8:
        datum.data = array.tobytes()
    else:
        datum.float_data.extend(array.ravel().tolist())
    return datum


def _net(source: str, batch: int = 4, phase: int = caffe.TRAIN, more: str = "", name: str = "data"):
    text = f"""layer {{ name: "{name}" type: "Data" top: "x" top: "label"
      data_param {{ source: "{source}" backend: LMDB batch_size: {batch} {more} }} }}"""
    return caffe.Net(text_format.Parse(text, pb.NetParameter()), phase)


def _labels(net: caffe.Net, passes: int) -> list[int]:
    return [int(v) for _ in range(passes) for v in net.forward()["label"]]


# -- order ----------------------------------------------------------------------------------------


def test_an_epoch_is_a_permutation_that_its_three_names_settle() -> None:
    order = epoch_order(100, 1, "a", 0).tolist()
    assert sorted(order) == list(range(100))
    assert epoch_order(100, 1, "a", 0).tolist() == order
    for other in ((2, "a", 0), (1, "b", 0), (1, "a", 1)):
        assert epoch_order(100, *other).tolist() != order


def test_records_in_order_start_over(lmdb: str) -> None:
    restarts: list[None] = []
    records = endless_records(open_database(lmdb, pb.DataParameter.LMDB), Turns(), None, "",
                              lambda: restarts.append(None))  # fmt: skip
    found = list(itertools.islice(records, 2 * COUNT + 1))
    assert [number for number, _, _ in found] == list(range(2 * COUNT + 1))
    assert [key for _, key, _ in found] == [b"%04d" % (i % COUNT) for i in range(2 * COUNT + 1)]
    assert len(restarts) == 2


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("turns", [Turns(), Turns(5, 1), Turns(2, 3), Turns(30, 5), Turns(3, 29)])
def test_a_number_says_which_record_it_is(lmdb: str, seed: int | None, turns: Turns) -> None:
    """However many readers there are, and wherever they begin."""
    database = open_database(lmdb, pb.DataParameter.LMDB)
    whole = endless_records(database, Turns(), seed, "a", lambda: None)
    by_number = {number: (key, value) for number, key, value in itertools.islice(whole, 200)}
    mine = endless_records(database, turns, seed, "a", lambda: None)
    numbers = range(turns.first, 200, turns.step)
    found = list(itertools.islice(mine, len(numbers)))
    assert found == [(number, *by_number[number]) for number in numbers]
    places = endless(COUNT, turns, seed, "a")
    keys = database.keys()
    assert [keys[i] for _, i in itertools.islice(places, len(numbers))] == [f[1] for f in found]


def test_every_record_once_an_epoch_when_shuffled(lmdb: str) -> None:
    net = _net(lmdb, batch=4, more="shuffle: true")
    epochs = [_labels(net, COUNT // 4) for _ in range(4)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_an_epoch_that_ends_within_a_batch(lmdb: str) -> None:
    seen = _labels(_net(lmdb, batch=5, more="shuffle: true"), COUNT)  # 5 epochs of 12
    for k in range(5):
        assert sorted(seen[k * COUNT : (k + 1) * COUNT]) == list(range(COUNT))


def test_the_seed_settles_the_order(lmdb: str) -> None:
    orders = []
    for seed in (1, 1, 2):
        caffe.set_random_seed(seed)
        orders.append(_labels(_net(lmdb, more="shuffle: true"), 6))
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_two_readers_of_one_database_do_not_disturb_each_other(lmdb: str) -> None:
    first, second = _net(lmdb, batch=5), _net(lmdb, batch=3, phase=caffe.TEST)
    assert _labels(first, 1) == [0, 1, 2, 3, 4]
    assert _labels(second, 2) == [0, 1, 2, 3, 4, 5]
    assert _labels(first, 1) == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("shuffle", ["", "shuffle: true"])
@pytest.mark.parametrize("skip", ["", "rand_skip: 7"])
def test_solvers_share_the_records_out(lmdb: str, shuffle: str, skip: str) -> None:
    seeds.set_random_seed(5)
    alone = _labels(_net(lmdb, batch=4, more=shuffle), 8)
    caffe.set_solver_count(3)
    shares = []
    for rank in range(3):
        caffe.set_solver_rank(rank)
        seeds.set_random_seed(5, rank)
        shares.append(_labels(_net(lmdb, batch=4, more=f"{shuffle} {skip}"), 2))
    together = [label for turn in zip(*shares, strict=True) for label in turn]
    starts = [k for k in range(7 if skip else 1) if alone[k : k + 24] == together]
    assert len(starts) == 1


def test_all_solvers_test_on_all_records(lmdb: str) -> None:
    caffe.set_solver_count(3)
    caffe.set_solver_rank(2)
    assert _labels(_net(lmdb, phase=caffe.TEST), 3) == list(range(COUNT))


def test_rand_skip_skips_less_than_it_says(lmdb: str) -> None:
    starts = set()
    for seed in range(40):
        caffe.set_random_seed(seed)
        starts.add(_labels(_net(lmdb, batch=1, more="rand_skip: 3"), 1)[0])
    assert starts == {0, 1, 2}


# -- transformation -------------------------------------------------------------------------------

IMAGE = np.arange(2 * 5 * 6, dtype=np.uint8).reshape(2, 5, 6)


@pytest.fixture
def transformed() -> Callable[..., np.ndarray]:
    """transformed(param, array, phase, seed): what RecordTransformer makes of a record."""

    def transform(text: str, array=IMAGE, phase: int = caffe.TEST, seed: int = 0) -> np.ndarray:
        param = text_format.Parse(text, pb.TransformationParameter())
        transformer = RecordTransformer(param, phase)
        datum = array if isinstance(array, pb.Datum) else _datum(array)
        pixels = transformer.pixels(datum, "record")
        out = torch.empty(transformer.shape(pixels))
        rng = RecordRandom(seed, "data", phase).at(0) if transformer.random else None
        transformer.apply(pixels, out, rng)
        return out.numpy()

    return transform


def test_values_as_they_are(transformed) -> None:
    assert np.array_equal(transformed(""), IMAGE)
    floats = IMAGE.astype(np.float32) / 7 - 3
    assert np.array_equal(transformed("", floats), floats)


def test_the_middle_in_test(transformed) -> None:
    # (5 - 2) // 2 = 1 and (6 - 2) // 2 = 2
    assert np.array_equal(transformed("crop_size: 2"), IMAGE[:, 1:3, 2:4])


def test_all_places_alike_in_train(transformed) -> None:
    places = set()
    for seed in range(150):
        out = transformed("crop_size: 4", phase=caffe.TRAIN, seed=seed)
        top, left = divmod(int(out[0, 0, 0]), 6)
        assert np.array_equal(out, IMAGE[:, top : top + 4, left : left + 4])
        places.add((top, left))
    assert places == {(top, left) for top in range(2) for left in range(3)}


def test_half_are_mirrored(transformed) -> None:
    outs = [transformed("mirror: true", seed=seed) for seed in range(100)]
    mirrored = [np.array_equal(out, IMAGE[:, :, ::-1]) for out in outs]
    straight = [np.array_equal(out, IMAGE) for out in outs]
    assert all(a != b for a, b in zip(mirrored, straight, strict=True))
    assert 30 < sum(mirrored) < 70  # 50 of 100, give or take 4 standard deviations


def test_mean_and_scale(transformed, tmp_path) -> None:
    floats = IMAGE.astype(np.float32)
    assert np.array_equal(transformed("mean_value: 3 scale: 0.5"), (floats - 3) * 0.5)
    per_channel = (floats - np.float32([[[1]], [[2]]])) * 0.25
    assert np.array_equal(transformed("mean_value: 1 mean_value: 2 scale: 0.25"), per_channel)
    mean = np.random.default_rng(0).normal(size=(1, 2, 5, 6)).astype(np.float32)
    files.write_blob(tmp_path / "mean", mean, old_form=True)
    text = f'mean_file: "{tmp_path}/mean" scale: 2 '
    assert np.array_equal(transformed(text), (floats - mean[0]) * 2)
    # the mean is cut at the record's place
    cut = np.s_[:, 1:3, 2:4]
    assert np.array_equal(transformed(text + "crop_size: 2"), (floats[cut] - mean[0][cut]) * 2)


def test_what_is_drawn_for_a_record_depends_on_seed_name_phase_and_number_alone() -> None:
    def draw(number: int, seed: int = 3, name: str = "data", phase: int = caffe.TRAIN) -> int:
        random = RecordRandom(seed, name, phase)
        random.at(5).integers(100, size=7)  # what other records draw does not matter
        return int(random.at(number).integers(2**62))

    assert draw(8) == draw(8)
    others = [draw(9), draw(8, seed=4), draw(8, name="other"), draw(8, phase=caffe.TEST)]
    assert len({draw(8), *others}) == 5


def test_solvers_that_share_records_out_draw_as_one_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = _make(tmp_path / "big", [rng.integers(0, 256, (1, 9, 9), np.uint8) for _ in range(8)])
    text = f"""layer {{ name: "data" type: "Data" top: "x" transform_param {{ crop_size: 4
      mirror: true }} data_param {{ source: "{source}" backend: LMDB batch_size: %d
      shuffle: true }} }}"""

    def batches(size: int, passes: int) -> np.ndarray:
        net = caffe.Net(text_format.Parse(text % size, pb.NetParameter()), caffe.TRAIN)
        return np.concatenate([net.forward()["x"].copy() for _ in range(passes)])

    seeds.set_random_seed(5)
    alone = batches(4, 6)
    caffe.set_solver_count(2)
    for rank in range(2):
        caffe.set_solver_rank(rank)
        seeds.set_random_seed(5, rank)
        assert np.array_equal(batches(2, 6), alone[rank::2])


def _encoded(array: np.ndarray) -> pb.Datum:
    ok, data = cv2.imencode(".png", array)
    assert ok
    return pb.Datum(encoded=True, data=data.tobytes(), label=3)


def test_encoded_pictures(transformed) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (4, 3, 3), np.uint8)
    grey = colour[:, :, 0]
    assert np.array_equal(transformed("", _encoded(colour)), colour.transpose(2, 0, 1))
    assert np.array_equal(transformed("", _encoded(grey)), grey[None])
    assert np.array_equal(transformed("force_color: true", _encoded(grey)), np.stack([grey] * 3))
    assert transformed("force_gray: true", _encoded(colour)).shape == (1, 4, 3)


def test_colour_is_only_forced_on_encoded_pictures(transformed, capsys) -> None:
    assert np.array_equal(transformed("force_color: true"), IMAGE)
    assert "force_color and force_gray only for encoded datum" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "record", "message"),
    [
        ("crop_size: 6", IMAGE, "crop_size 6 exceeds the record's 5 x 6"),
        ("mean_value: 1 mean_value: 2 mean_value: 3", IMAGE,
         r"mean_value is given 3 time\(s\), expected 1 or the record's 2 channels"),
        ("force_color: true force_gray: true", _encoded(IMAGE[0]), "exclude each other"),
        ("", pb.Datum(encoded=True, data=b"\x89PNG no more"), "picture cannot be decoded"),
        ("", pb.Datum(encoded=True), "picture cannot be decoded"),
        ("", pb.Datum(channels=2, height=2, width=2, data=b"1234567"),
         "the record holds 7 values, its shape 2 x 2 x 2 needs 8"),
        ("", pb.Datum(), "the record holds 0 values"),
    ],
)  # fmt: skip
def test_records_that_cannot_be_used(transformed, text, record, message) -> None:
    with pytest.raises(caffe.CaffeError, match=message):
        transformed(text, record)


def test_a_mean_of_another_shape(transformed, tmp_path) -> None:
    files.write_blob(tmp_path / "mean", np.zeros((1, 2, 5, 5), np.float32), old_form=True)
    with pytest.raises(caffe.CaffeError, match=r"has the shape \(2, 5, 5\), the record"):
        transformed(f'mean_file: "{tmp_path}/mean"')


def test_what_is_no_datum() -> None:
    with pytest.raises(caffe.CaffeError, match="here: the record is not a Datum"):
        parse_datum(b"\xff\xff\xff", "here")


# -- errors in a net ------------------------------------------------------------------------------


def test_a_damaged_record_is_named_with_layer_source_and_key(lmdb: str, tmp_path: Path) -> None:
    good = _datum(np.zeros((1, 4, 5), np.uint8)).SerializeToString()
    with db.create(tmp_path / "bad") as put:
        put(b"first", good)
        put(b"second", b"\xff" + good)
    net = _net(str(tmp_path / "bad"), batch=1)
    net.forward()
    message = rf"layer 'data' \(Data\): {tmp_path}/bad: record b'second': the record is not a Datum"
    for _ in range(2):  # it stays broken, and does not hang
        with pytest.raises(caffe.CaffeError, match=message):
            net.forward()


def test_an_lmdb_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "data.mdb").write_bytes(b"not a database" * 1000)
    for name, message in (("nix", "nix: No such file"), ("empty", "no LMDB; expected a folder with "
                          "data.mdb"), ("wrong", "wrong: cannot be opened as LMDB")):  # fmt: skip
        with pytest.raises(caffe.CaffeError, match=rf"layer 'data' \(Data\): .*{message}"):
            _net(str(tmp_path / name))


def test_an_lmdb_that_was_cut_short(tmp_path: Path) -> None:
    source = _make(tmp_path / "whole", [np.zeros((1, 100, 100), np.uint8)] * 30)
    file = Path(source, "data.mdb")
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(caffe.CaffeError, match=r"damaged LMDB: data.mdb has .* bytes, its records"):
        _net(source)


# -- reading ahead --------------------------------------------------------------------------------


def _numbered() -> Callable[[], Batch]:
    counter = itertools.count()
    return lambda: Batch((torch.tensor([float(next(counter))]),))


def _until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_batches_come_in_order_and_are_made_ahead() -> None:
    made = []
    number = _numbered()

    def make() -> Batch:
        made.append(None)
        return number()

    prefetcher = Prefetcher(make, depth=3)
    assert _until(lambda: len(made) == 4)  # three wait, the fourth is in hand
    time.sleep(0.05)
    assert len(made) == 4
    assert [float(prefetcher.get().tops[0]) for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    prefetcher.close()


def test_the_thread_ends_with_its_prefetcher() -> None:
    prefetcher = Prefetcher(_numbered(), depth=1)
    prefetcher.get()
    thread = prefetcher._thread
    assert thread.is_alive()
    del prefetcher
    gc.collect()
    thread.join(timeout=60)
    assert not thread.is_alive()


def test_closing_ends_the_thread() -> None:
    prefetcher = Prefetcher(_numbered(), depth=1)
    prefetcher.close()
    assert not prefetcher._thread.is_alive()


def test_forgotten_prefetchers_do_not_take_the_process_down_at_its_end() -> None:
    code = (
        "import torch; from caffe.data.prefetch import Batch, Prefetcher\n"
        "p = Prefetcher(lambda: Batch([torch.zeros(9)]), depth=1); p.get(); del p"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=600)
    assert (result.returncode, result.stderr) == (0, b"")


def test_what_the_thread_runs_into_comes_out() -> None:
    number = _numbered()

    def make() -> Batch:
        batch = number()
        if batch.tops[0] == 2:
            raise caffe.CaffeError("record 2 is bad")
        return batch

    prefetcher = Prefetcher(make, depth=4)
    assert [float(prefetcher.get().tops[0]) for _ in range(2)] == [0, 1]
    for _ in range(2):
        with pytest.raises(caffe.CaffeError, match="record 2 is bad"):
            prefetcher.get()
