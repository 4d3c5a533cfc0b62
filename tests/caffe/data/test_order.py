"""The order of records, shared out between readers, and the random numbers of each."""

from __future__ import annotations

import itertools
import zlib
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from records import COUNT, data_net, labels, make_lmdb

import caffe
from caffe.data.datum import open_database
from caffe.data.order import RecordRandom, Shuffling, Turns, endless, endless_records
from caffe.process import seeds
from caffe.proto import caffe_pb2 as pb

pytestmark = pytest.mark.usefixtures("fresh")


def test_an_epoch_is_a_permutation_that_seed_and_epoch_settle() -> None:
    order = Shuffling(1).order(100, 0).tolist()
    assert sorted(order) == list(range(100))
    assert Shuffling(1).order(100, 0).tolist() == order
    for seed, epoch in ((2, 0), (1, 1)):
        assert Shuffling(seed).order(100, epoch).tolist() != order


def test_the_files_of_a_source_have_orders_of_their_own() -> None:
    orders = [Shuffling(1).order(100, 0, part).tolist() for part in range(3)]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_runs_that_began_earlier_keep_the_order_of_their_sources_name() -> None:
    """As the formula of that time gives it: seed, CRC-32 of the name, epoch."""
    for name, part in (("lmdb", None), ("lmdb:2", 2)):
        then = np.random.default_rng([5, zlib.crc32(name.encode()), 3]).permutation(20)
        assert np.array_equal(Shuffling(5, "lmdb").order(20, 3, part), then)


def test_records_in_order_start_over(lmdb: str) -> None:
    restarts: list[None] = []
    records = endless_records(open_database(lmdb, pb.DataParameter.LMDB), Turns(), None,
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
    shuffling = None if seed is None else Shuffling(seed)
    whole = endless_records(database, Turns(), shuffling, lambda: None)
    by_number = {number: (key, value) for number, key, value in itertools.islice(whole, 200)}
    mine = endless_records(database, turns, shuffling, lambda: None)
    numbers = range(turns.first, 200, turns.step)
    found = list(itertools.islice(mine, len(numbers)))
    assert found == [(number, *by_number[number]) for number in numbers]
    places = endless(COUNT, turns, shuffling)
    keys = database.keys()
    assert [keys[i] for _, i in itertools.islice(places, len(numbers))] == [f[1] for f in found]


def test_every_record_once_an_epoch_when_shuffled(lmdb: str) -> None:
    net = data_net(lmdb, batch=4, more="shuffle: true")
    epochs = [labels(net, COUNT // 4) for _ in range(4)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_an_epoch_that_ends_within_a_batch(lmdb: str) -> None:
    seen = labels(data_net(lmdb, batch=5, more="shuffle: true"), COUNT)  # 5 epochs of 12
    for k in range(5):
        assert sorted(seen[k * COUNT : (k + 1) * COUNT]) == list(range(COUNT))


def test_the_seed_settles_the_order(lmdb: str) -> None:
    orders = []
    for seed in (1, 1, 2):
        caffe.set_random_seed(seed)
        orders.append(labels(data_net(lmdb, more="shuffle: true"), 6))
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


TWO = """layer {{ name: "{0}" type: "Data" top: "{0}" top: "{0}_number"
  data_param {{ source: "{1}" backend: LMDB batch_size: {2} shuffle: true {3} }} }}"""


def paired(pictures: str, maps: str, more: str = "", batch: int = 5) -> caffe.Net:
    """A net with two Data layers that shuffle."""
    text = TWO.format("picture", pictures, batch, more) + TWO.format("map", maps, batch, more)
    return caffe.Net(text_format.Parse(text, pb.NetParameter()), caffe.TRAIN)


def pairs(net: caffe.Net, passes: int) -> list[tuple[int, int]]:
    """The numbers of the records that came together."""
    found = []
    for _ in range(passes):
        tops = net.forward()
        numbers = (tops[f"{name}_number"].astype(int).tolist() for name in ("picture", "map"))
        found += zip(*numbers, strict=True)
    return found


@pytest.mark.parametrize("more", ["", "rand_skip: 9"])
@pytest.mark.parametrize("seed", [None, 3])
def test_sources_of_one_length_pair(lmdb: str, tmp_path: Path, seed: int | None, more: str) -> None:
    """Pictures in one LMDB, and their label maps in another."""
    maps = make_lmdb(tmp_path / "maps", [np.zeros((1, 2, 2), np.uint8)] * COUNT)
    if seed is not None:
        caffe.set_random_seed(seed)
    found = pairs(paired(lmdb, maps, more), 2 * COUNT)  # ten epochs
    assert all(picture == label for picture, label in found)
    assert len({tuple(found[i : i + COUNT]) for i in range(0, 10 * COUNT, COUNT)}) == 10


def test_each_rank_gets_pairs_also_after_it_goes_on(lmdb: str, tmp_path: Path) -> None:
    maps = make_lmdb(tmp_path / "maps", [np.zeros((1, 2, 2), np.uint8)] * COUNT)
    caffe.set_random_seed(3)
    caffe.set_solver_count(2)
    try:
        for rank in range(2):
            caffe.set_solver_rank(rank)
            net = paired(lmdb, maps)
            found = pairs(net, 5)
            again = paired(lmdb, maps)
            for layer, other in zip(net.wiring.layers, again.wiring.layers, strict=True):
                other.go_on(layer.position())
            found += pairs(again, 5)
            assert all(picture == label for picture, label in found)
    finally:
        caffe.set_solver_rank(0)
        caffe.set_solver_count(1)


def test_a_position_of_an_earlier_version_keeps_its_order(lmdb: str) -> None:
    net = data_net(lmdb, batch=COUNT, more="shuffle: true")
    (layer,) = net.wiring.layers
    then = {"next": COUNT, "seed": 5, "source": "old", "contents": {"records": COUNT}}
    layer.go_on(then)
    assert layer.position() == then
    assert labels(net, 1) == Shuffling(5, "old").order(COUNT, 1).tolist()


@pytest.mark.parametrize("more", [0, 1])
def test_sources_of_different_lengths_are_said(
    lmdb: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], more: int
) -> None:
    maps = make_lmdb(tmp_path / "maps", [np.zeros((1, 2, 2), np.uint8)] * (COUNT + more))
    paired(lmdb, maps)
    said = "different lengths ('picture' 12, 'map' 13 records): their records do not pair"
    assert (said in capfd.readouterr().err) == bool(more)


def test_two_readers_of_one_database_do_not_disturb_each_other(lmdb: str) -> None:
    first, second = data_net(lmdb, batch=5), data_net(lmdb, batch=3, phase=caffe.TEST)
    assert labels(first, 1) == [0, 1, 2, 3, 4]
    assert labels(second, 2) == [0, 1, 2, 3, 4, 5]
    assert labels(first, 1) == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("shuffle", ["", "shuffle: true"])
@pytest.mark.parametrize("skip", ["", "rand_skip: 7"])
def test_solvers_share_the_records_out(lmdb: str, shuffle: str, skip: str) -> None:
    seeds.set_random_seed(5)
    alone = labels(data_net(lmdb, batch=4, more=shuffle), 8)
    caffe.set_solver_count(3)
    shares = []
    for rank in range(3):
        caffe.set_solver_rank(rank)
        seeds.set_random_seed(5, rank)
        shares.append(labels(data_net(lmdb, batch=4, more=f"{shuffle} {skip}"), 2))
    together = [label for turn in zip(*shares, strict=True) for label in turn]
    starts = [k for k in range(7 if skip else 1) if alone[k : k + 24] == together]
    assert len(starts) == 1


def test_all_solvers_test_on_all_records(lmdb: str) -> None:
    caffe.set_solver_count(3)
    caffe.set_solver_rank(2)
    assert labels(data_net(lmdb, phase=caffe.TEST), 3) == list(range(COUNT))


def test_rand_skip_skips_less_than_it_says(lmdb: str) -> None:
    starts = set()
    for seed in range(40):
        caffe.set_random_seed(seed)
        starts.add(labels(data_net(lmdb, batch=1, more="rand_skip: 3"), 1)[0])
    assert starts == {0, 1, 2}


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
    source = make_lmdb(
        tmp_path / "big", [rng.integers(0, 256, (1, 9, 9), np.uint8) for _ in range(8)]
    )
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
