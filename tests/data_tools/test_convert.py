"""data_tools.convert: what goes in comes out, changed only as asked."""

import json

import cv2
import lmdb
import numpy as np
import pytest

from data_tools import store
from data_tools.record import to_datum
from data_tools.store import Reader


def planes(seed, floats=False, size=(4, 6)):
    found = np.random.default_rng(seed).integers(1, 200, (5, *size), np.uint8)
    found[4] %= 4
    if floats:
        found = found.astype(np.float32)
        found[3] += 0.25
    return found


def write(path, records, names="abcdefghij", **info):
    writer = store.Writer(path, "plan")
    for index, record in enumerate(records):
        key = store.key(index, names[index])
        writer.put(key, to_datum(record, index + 1))
        if index == 0:
            frames = {key.decode(): {"camera": "kv1"}}
    writer.finish({"classes": ["(ignored)", "wall", "floor", "sofa"], "frames": frames, **info})


def raw(path, records):
    """An LMDB as other tools write it, whatever the records are."""
    path.mkdir()
    with lmdb.open(str(path)) as env, env.begin(write=True) as transaction:
        for index, record in enumerate(records):
            transaction.put(store.key(index, "ab"[index]), to_datum(record))


def contents(path):
    return [(key.decode(), value, scene) for key, value, scene in Reader(path).planes()]


def same(one, two):
    return [c[0] for c in one] == [c[0] for c in two] and all(
        (a[1] == b[1]).all() and a[1].dtype == b[1].dtype and a[2] == b[2]
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("floats", [False, True])
def test_to_a_folder_and_back(tmp_path, command, floats):
    write(tmp_path / "db", [planes(i, floats) for i in range(3)], names=["a", "b/c", "b/d"])
    command("convert", "db", "pictures", "--to", "folder")
    depth = "npy" if floats else "png"
    assert (tmp_path / "pictures" / "depth" / f"00000001_b%2Fc.{depth}").is_file()
    command("convert", "pictures", "again")
    assert same(contents(tmp_path / "db"), contents(tmp_path / "again"))
    info = Reader(tmp_path / "again").info
    assert info["classes"] == ["(ignored)", "wall", "floor", "sofa"]
    assert info["frames"] == {"00000000_a": {"camera": "kv1"}}


def test_hostile_names_stay_inside_the_folder_and_come_back(tmp_path, command):
    hostile = ["../../x", "/any/where", "x_depth", "%2F", "\\x", "y" * 400, "a\nb", ".", "\udcff"]
    write(tmp_path / "in" / "db", [planes(i) for i in range(len(hostile))], names=hostile)
    command("convert", "in/db", "in/pictures", "--to", "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert len(list((tmp_path / "in/pictures/label").iterdir())) == len(hostile)
    command("convert", "in/pictures", "again")
    assert [key for key, _ in Reader(tmp_path / "again")] == [
        store.key(i, name) for i, name in enumerate(hostile)
    ]
    assert Reader(tmp_path / "again").info["frames"] == {"00000000_../../x": {"camera": "kv1"}}


def test_folders_of_older_versions_and_of_others_are_read(tmp_path, command):
    for part, ending in (("rgb", "_rgb"), ("depth", "_depth"), ("label", "")):
        for name in ("00000000_b/c", f"00000001_d{ending}"):
            file = tmp_path / "old" / part / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            shape = (4, 6, 3) if part == "rgb" else (4, 6)
            cv2.imwrite(str(file), np.full(shape, 7, np.uint8))
    command("convert", "old", "db")
    assert [key for key, _ in Reader(tmp_path / "db")] == [b"00000000_b/c", b"00000001_d"]


def test_a_folder_that_another_process_writes_stays(tmp_path, command):
    write(tmp_path / "db", [planes(0)])
    (tmp_path / "pictures.partial").mkdir()
    (tmp_path / "pictures.partial" / "thesis.tex").write_text("x")
    command("convert", "db", "pictures", "--to", "folder")
    assert (tmp_path / "pictures.partial" / "thesis.tex").read_text() == "x"


def test_types(tmp_path, command):
    write(tmp_path / "db", [planes(0, floats=True)])
    command("convert", "db", "bytes", "--type", "uint8")
    ((_, small, _),) = contents(tmp_path / "bytes")
    assert (small == planes(0)).all()  # 0.25 is rounded away
    assert small.dtype == np.uint8
    command("convert", "bytes", "floats", "--type", "float")
    ((_, large, scene),) = contents(tmp_path / "floats")
    assert (large == small).all()
    assert (large.dtype, scene) == (np.float32, 1)


def test_resize_mixes_colours_only(tmp_path, command):
    whole = planes(0, size=(8, 12))
    write(tmp_path / "db", [whole])
    command("convert", "db", "small", "--size", "6x4")
    ((_, small, _),) = contents(tmp_path / "small")
    assert small.shape == (5, 4, 6)
    assert (small[3:] == whole[3:, ::2, ::2]).all()
    mean = whole[:3].reshape(3, 4, 2, 6, 2).mean((2, 4))
    assert (np.abs(small[:3] - mean) <= 0.5).all()


def test_merge(tmp_path, command):
    write(tmp_path / "one", [planes(0), planes(1)], dataset="nyuv2-40")
    write(tmp_path / "two", [planes(2)], names="z", dataset="other")
    write(tmp_path / "three", [planes(3)])
    command("convert", "one", "two", "both")
    found = contents(tmp_path / "both")
    assert [key for key, _, _ in found] == ["00000000_a", "00000001_b", "00000002_z"]
    assert (found[2][1] == planes(2)).all()
    info = Reader(tmp_path / "both").info
    assert "dataset" not in info  # they disagree
    assert len(info["classes"]) == 4
    command("convert", "one", "three", "clash")
    assert [key for key, _, _ in contents(tmp_path / "clash")] == [
        "00000000_0/a",
        "00000001_0/b",
        "00000002_1/a",
    ]


def test_split_uses_every_frame_once(tmp_path, command):
    write(tmp_path / "db", [planes(i) for i in range(10)])
    command("convert", "db", "out", "--split", "train=0.7,val=0.3", "--seed", 4)
    parts = {name: [key[9:] for key, _, _ in contents(tmp_path / "out" / name)]
             for name in ("train", "val")}  # fmt: skip
    assert (len(parts["train"]), len(parts["val"])) == (7, 3)
    assert sorted(parts["train"] + parts["val"]) == list("abcdefghij")
    assert parts["train"] == sorted(parts["train"])
    assert Reader(tmp_path / "out" / "val").info["split"] == "val"


def test_subsets(tmp_path, command):
    names = ["kv1/a", "kv2/b", "kv1/c", "kv1/d", "kv1/e"]
    write(tmp_path / "db", [planes(i) for i in range(5)], names=names)
    command("convert", "db", "kv1", "--match", "kv1/*", "--every", 2, "--first", 1)
    assert [key[9:] for key, _, _ in contents(tmp_path / "kv1")] == ["kv1/a"]
    (tmp_path / "names.txt").write_text("kv1/d\nkv2/b\n")
    command("convert", "db", "named", "--names", "names.txt")
    assert [key for key, _, _ in contents(tmp_path / "named")] == [
        "00000000_kv1/d",
        "00000001_kv2/b",
    ]
    assert "no frame is left" in command("convert", "db", "x", "--match", "q*", code=1).stderr
    (tmp_path / "names.txt").write_text("kv9/z")
    assert (
        "no frame is named 'kv9/z'"
        in command("convert", "db", "x", "--names", "names.txt", code=1).stderr
    )


def test_labels_are_mapped_by_a_table(tmp_path, command):
    write(tmp_path / "db", [planes(0)])
    table = tmp_path / "map.csv"
    table.write_text("from,to,name\n1,2,building\n2,1,ground\n3,0,\n")
    command("convert", "db", "mapped", "--map", "map.csv")
    ((_, found, _),) = contents(tmp_path / "mapped")
    assert (found[4] == np.array([0, 2, 1, 0])[planes(0)[4]]).all()
    assert (found[:4] == planes(0)[:4]).all()
    assert Reader(tmp_path / "mapped").info["classes"] == ["(ignored)", "ground", "building"]
    table.write_text("from,to\n1,2\n")
    result = command("convert", "db", "x", "--map", "map.csv", code=1)
    assert "label 2 is not in the table" in result.stderr
    table.write_text("from,to\n1,2\nsofa,3\n")
    assert "map.csv: line 3" in command("convert", "db", "x", "--map", "map.csv", code=1).stderr


def test_labels_that_no_class_has_may_count_as_0(tmp_path, command):
    write(tmp_path / "db", [planes(0), planes(1)], classes=["-", "a", "b", "c"])
    (tmp_path / "map.csv").write_text("from;to\n1;2\n2;1\n")
    line = command("convert", "db", "x", "--map", "map.csv", code=1).stderr
    assert "label 3 is not in the table of --map" in line
    assert "--unknown ignore counts such pixels as 0" in line
    line = command("convert", "db", "x", "--map", "map.csv", "--to", "folder", code=1).stderr
    assert "--unknown ignore counts such pixels as 0" in line
    lost = [int((planes(i)[4] == 3).sum()) for i in range(2)]
    for out in (["mapped"], ["pictures", "--to", "folder"]):
        result = command("convert", "db", *out, "--map", "map.csv", "--unknown", "ignore")
        assert f"{sum(lost)} pixels of 2 frames had labels of no class" in result.stderr
        info = json.loads((tmp_path / out[0] / "dataset.json").read_text())
        assert info["unknown_labels"] == {"pixels": sum(lost), "frames": 2}
    command("convert", "pictures", "again")
    for (_, found, _), i in zip(contents(tmp_path / "mapped"), range(2), strict=True):
        assert (found[4] == np.array([0, 2, 1, 0])[planes(i)[4]]).all()
    assert same(contents(tmp_path / "mapped"), contents(tmp_path / "again"))
    # Float records hold labels that no byte can.
    odd = planes(0, floats=True)
    odd[4, 0, :2] = 300, -1
    write(tmp_path / "floats", [odd])
    assert (
        "label -1 is out of range"
        in command("convert", "floats", "y", "--unknown", "error", code=1).stderr
    )
    command("convert", "floats", "y", "--unknown", "ignore")
    assert Reader(tmp_path / "y").info["unknown_labels"] == {"pixels": 2, "frames": 1}


def test_bad_usage_and_bad_input(tmp_path, command):
    write(tmp_path / "db", [planes(0)])
    for wrong in ("train", "train=2", "a=0.6,b=0.6", "a/b=0.5", "..=0.5"):
        command("convert", "db", "x", "--split", wrong, code=2)
    command("convert", "db", "x", "--split", "a=0.5", "--to", "folder", code=2)
    assert "nothing: does not exist" in command("convert", "nothing", "x", code=1).stderr
    (tmp_path / "taken").mkdir()
    assert (
        "taken: exists already"
        in command("convert", "db", "taken", "--to", "folder", code=1).stderr
    )
    writer = store.Writer(tmp_path / "rgb", "plan")
    writer.put(b"k", to_datum(np.zeros((3, 2, 2), np.uint8)))
    writer.finish({})
    assert "has 3 channels, expected 5" in command("convert", "rgb", "x", code=1).stderr


def test_a_dataset_json_that_is_json(tmp_path, command):
    write(tmp_path / "db", [planes(0)])
    command("convert", "db", "out")
    info = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert info["source"] == ["db"]


def test_messages_about_records_name_lmdb_and_key(tmp_path, command):
    half, high, empty = planes(0, True), planes(1), np.zeros((5, 0, 0), np.uint8)
    half[0, 0, 0] = 0.5
    high[4] = 77
    for name, record, told in (
        ("half", half, "colour has values that are not whole numbers"),
        ("high", high, "label 77 is out of range"),
    ):
        write(tmp_path / name, [planes(2), record])
        line = command("convert", name, "out", code=1).stderr
        assert f"{name}: record 00000001_b: {told}" in line
    raw(tmp_path / "empty", [empty, planes(2)])
    line = command("convert", "empty", "out", code=1).stderr
    assert "empty: record 00000000_a: 5 channels of 0x0 pixels hold no values" in line
    command("convert", "empty", "out", "--skip-bad")
    assert [key for key, _, _ in contents(tmp_path / "out")] == ["00000001_b"]


def test_a_label_that_a_map_lists_twice_is_refused(tmp_path, command):
    write(tmp_path / "db", [planes(0)])
    (tmp_path / "map.csv").write_text("from,to\n0,0\n1,2\n2,2\n1,3\n")
    line = command("convert", "db", "out", "--map", "map.csv", code=1).stderr
    assert "map.csv: line 5: label 1 is in line 3 already" in line


def test_the_rule_of_depth_and_the_fit_stay_known(tmp_path, command):
    """A net that learns from a part of the frames is used as one that learned from all."""
    options = {"depth_range": "0:8 m", "fit": "crop"}
    write(tmp_path / "db", [planes(i) for i in range(4)], options=options)
    command("convert", "db", "parts", "--split", "train=0.5,val=0.5")
    for name in ("train", "val"):
        assert Reader(tmp_path / "parts" / name).info["options"].items() >= options.items()
    command("convert", "db", "pictures", "--to", "folder")
    command("convert", "pictures", "again")
    assert Reader(tmp_path / "again").info["options"].items() >= options.items()
    command("convert", "db", "small", "--size", "3x2")
    assert Reader(tmp_path / "small").info["options"]["depth_range"] == "0:8 m"


def test_inputs_of_different_depth_are_told(tmp_path, command):
    for name in ("0:8 m", "authors"):
        info = {"depth_range": name}
        write(tmp_path / name[0], [planes(1)], names=name[0], options=info)
    result = command("convert", "0", "a", "both")
    assert "the inputs have different depth ranges: 0:8 m, authors" in result.stderr
    assert Reader(tmp_path / "both").info["options"]["depth_range"] is None
