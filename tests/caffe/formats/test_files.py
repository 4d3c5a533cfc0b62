"""files: what the reference wrote is read, what is written is the reference's, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffe.errors import CaffeError
from caffe.formats import files
from caffe.proto import caffe_pb2 as pb

GOLDEN = Path(__file__).parents[2] / "golden"
INTEROP = GOLDEN / "interop"
MODELS = sorted(GOLDEN.glob("*/*.caffemodel"))
STATES = sorted(GOLDEN.glob("*/*.solverstate"))


# --- text ---


def test_read_text_names_the_place(tmp_path: Path) -> None:
    path = tmp_path / "conv.prototxt"
    path.write_text('layer {\n    bottm: "x"\n}\n')
    with pytest.raises(CaffeError) as error:
        files.read_net(path)
    assert str(error.value) == (
        f'{path}:2:5: LayerParameter has no field "bottm" (did you mean "bottom"?)'
    )


@pytest.mark.parametrize(
    "read", [files.read_net, files.read_solver, files.read_weights, files.read_solver_state]
)
def test_missing_file_and_directory(tmp_path: Path, read) -> None:
    with pytest.raises(CaffeError, match="nowhere: No such file or directory"):
        read(tmp_path / "nowhere")
    with pytest.raises(CaffeError, match="is a folder; expected a file"):
        read(tmp_path)


def test_write_text_then_read(tmp_path: Path) -> None:
    net = files.read_net(INTEROP / "train.prototxt")
    files.write_text(tmp_path / "n", net)
    assert files.read_net(tmp_path / "n") == net
    assert files.text(net) == (tmp_path / "n").read_text()


def test_weights_given_as_net_are_recognised() -> None:
    with pytest.raises(CaffeError, match="binary data; expected a NetParameter as text"):
        files.read_net(MODELS[0])


# --- solver ---


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", "dir/my.solver"),
        ('snapshot_prefix: "x/y"', "x/y"),
        ('snapshot_prefix: "snaps"', "snaps/my.solver"),
        ('snapshot_prefix: "snaps/"', "snaps/my.solver"),
    ],
)
def test_snapshot_prefix(tmp_path: Path, monkeypatch, prefix: str, expected: str) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("dir", "snaps"):
        Path(folder).mkdir()
    Path("dir/my.solver.prototxt").write_text(f'net: "n" solver_type: ADAM {prefix}')
    solver = files.read_solver("dir/my.solver.prototxt")
    assert solver.snapshot_prefix == expected
    assert solver.type == "Adam"


# --- weights ---


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_model_is_read_as_protobuf_reads_it_and_written_back(path: Path, tmp_path: Path) -> None:
    net = pb.NetParameter.FromString(path.read_bytes())
    weights = files.read_weights(path)
    assert list(weights) == [layer.name for layer in net.layer]
    for layer in net.layer:
        assert len(layer.blobs) == len(weights[layer.name])
        for blob, array in zip(layer.blobs, weights[layer.name], strict=True):
            assert array.dtype == np.float32
            assert array.shape == tuple(blob.shape.dim)
            assert array.ravel().tolist() == list(blob.data)
    files.write_weights(tmp_path / "m", weights.net, weights)
    assert (tmp_path / "m").read_bytes() == path.read_bytes()


def test_solver_model_equals_the_recorded_parameters() -> None:
    recorded = np.load(GOLDEN / "solvers" / "adam.npz")
    weights = files.read_weights(GOLDEN / "solvers" / "adam_iter_6.caffemodel")
    names = [name for name in recorded.files if name.startswith("param/6/")]
    assert len(names) == 9
    for name in names:
        _, _, layer, number = name.split("/")
        np.testing.assert_array_equal(weights[layer][int(number)], recorded[name])


def test_model_of_2014_keeps_four_axes(tmp_path: Path) -> None:
    net = pb.NetParameter(name="old", input=["data"])
    layer = net.layers.add(name="fc", type=pb.V1LayerParameter.INNER_PRODUCT)
    layer.blobs.add(num=1, channels=1, height=2, width=3, data=range(6))
    layer.blobs.add(num=1, channels=1, height=1, width=2, data=[7, 8], diff=[9, 10])
    (tmp_path / "m").write_bytes(net.SerializeToString())
    notes: list[str] = []
    weights = files.read_weights(tmp_path / "m", log=lambda place, text, level: notes.append(place))
    np.testing.assert_array_equal(weights["fc"][0], [[[[0, 1, 2], [3, 4, 5]]]])
    np.testing.assert_array_equal(weights["fc"][1], [[[[7, 8]]]])
    assert weights.diffs["fc"][0] is None
    np.testing.assert_array_equal(weights.diffs["fc"][1], [[[[9, 10]]]])
    assert weights.net.layer[0].type == "InnerProduct"
    assert not weights.net.layer[0].blobs
    assert notes[0] == "upgrade_proto.cpp:55"


def test_model_of_2013(tmp_path: Path) -> None:
    net = pb.NetParameter(name="older")
    layer = net.layers.add(bottom=["data"], top=["c"])
    layer.layer.name, layer.layer.type = "c", "conv"
    layer.layer.blobs.add(num=1, channels=1, height=1, width=1, data=[5])
    net.input.append("data")
    (tmp_path / "m").write_bytes(net.SerializeToString())
    weights = files.read_weights(tmp_path / "m")
    assert {name: [a.tolist() for a in blobs] for name, blobs in weights.items()} == {
        "c": [[[[[5]]]]]
    }


@pytest.mark.parametrize(
    ("shape", "words"),
    [((2, 2), "2x2 asks for 4"), ((), "(scalar) asks for 1"), ((-3, -1), "-3x-1 asks for 3")],
)
def test_wrong_count_names_layer_and_blob(tmp_path: Path, shape: tuple, words: str) -> None:
    net = pb.NetParameter()
    net.layer.add(name="conv").blobs.add(data=[1, 2, 3], shape=pb.BlobShape(dim=shape))
    (tmp_path / "m").write_bytes(net.SerializeToString())
    with pytest.raises(CaffeError) as error:
        files.read_weights(tmp_path / "m")
    assert str(error.value) == (
        f"{tmp_path}/m: layer 'conv', blob 0: shape {words} values, the file has 3"
    )


def test_gradients_are_written_beside_the_weights(tmp_path: Path) -> None:
    net = pb.NetParameter()
    net.layer.add(name="a")
    data, diff = np.float32([[1, 2]]), np.float32([[3, 4]])
    for path, write in (
        (tmp_path / "m", lambda p: files.write_weights(p, net, {"a": [data]}, {"a": [diff]})),
        (tmp_path / "h", lambda p: files.write_weights_hdf5(p, {"a": [data]}, {"a": [diff]})),
    ):
        write(path)
        weights = files.read_weights(path)
        np.testing.assert_array_equal(weights["a"][0], data)
        np.testing.assert_array_equal(weights.diffs["a"][0], diff)


def test_weights_of_an_unknown_layer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CaffeError, match="layer 'x', which the net does not have"):
        files.write_weights(tmp_path / "m", pb.NetParameter(), {"x": [np.zeros(1)]})
    assert not list(tmp_path.iterdir())


def test_scalar_and_empty_blobs(tmp_path: Path) -> None:
    net = pb.NetParameter()
    net.layer.add(name="a")
    arrays = [np.float32(3).reshape(()), np.zeros((0, 4), np.float32)]
    files.write_weights(tmp_path / "m", net, {"a": arrays})
    files.write_weights_hdf5(tmp_path / "h", {"a": arrays})
    for name in "mh":
        scalar, empty = files.read_weights(tmp_path / name)["a"]
        assert scalar.shape == ()
        assert scalar == 3
        assert empty.shape == (0, 4)


def test_a_large_model_takes_no_more_memory_than_its_arrays(tmp_path: Path) -> None:
    """100 MB in five blobs: reading may not need twice that."""
    net = pb.NetParameter()
    blobs = {f"fc{i}": [np.zeros((5000, 1000), np.float32)] for i in range(5)}
    for name in blobs:
        net.layer.add(name=name)
    files.write_weights(tmp_path / "m", net, blobs)
    code = (
        "import resource, sys; from caffe import files\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); weights = files.read_weights(sys.argv[1]); print(peak() - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m")]
    used = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert used * 1024 < 1.5 * 100e6


# --- HDF5 ---


def test_hdf5_weights_of_the_reference_are_read() -> None:
    path = INTEROP / "tiny_iter_6.caffemodel.h5"
    weights = files.read_weights(path)
    with h5py.File(path) as file:
        assert list(weights) == list(file["data"])
        np.testing.assert_array_equal(weights["ip"][0], file["data/ip/0"])
        np.testing.assert_array_equal(weights["ip"][1], file["data/ip/1"])
    assert weights.net is None
    assert weights["ip"][0].shape == (3, 192)


def _layout(path: Path) -> dict[str, tuple]:
    """Name -> type, shape, content of everything in an HDF5 file, types as HDF5 has them."""
    found = {}

    def visit(name: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset):
            kind = item.id.get_type()
            extra = (kind.get_strpad(),) if isinstance(kind, h5py.h5t.TypeStringID) else ()
            found[name] = (kind.get_class(), kind.get_size(), *extra, item.shape, item[()].tolist())
        else:
            found[name] = ()

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def test_hdf5_files_are_laid_out_as_the_references(tmp_path: Path) -> None:
    model, state = INTEROP / "tiny_iter_6.caffemodel.h5", INTEROP / "tiny_iter_6.solverstate.h5"
    files.write_weights_hdf5(tmp_path / "m", files.read_weights(model))
    assert _layout(tmp_path / "m") == _layout(model)
    files.write_solver_state_hdf5(tmp_path / "s", files.read_solver_state(state))
    assert _layout(tmp_path / "s") == _layout(state)


def test_hdf5_shared_blob_stays_with_its_owner(tmp_path: Path) -> None:
    a = np.float32([1, 2])
    files.write_weights_hdf5(tmp_path / "h", {"a": [a, a], "b": [None, a], "c": [a, None]})
    weights = files.read_weights(tmp_path / "h")
    shown = {k: [None if x is None else x.tolist() for x in v] for k, v in weights.items()}
    assert shown == {"a": [[1, 2], [1, 2]], "b": [None, [1, 2]], "c": [[1, 2]]}


def test_hdf5_slash_in_a_name(tmp_path: Path) -> None:
    """Nested groups are one layer each; writing such names is refused, for Caffe dies on them."""
    with h5py.File(tmp_path / "h", "w") as file:
        file["data/inception_3a/1x1/0"] = np.float32([1])
        file["data/inception_3a/3x3/0"] = np.float32([2])
        file["data/inception_3a/0"] = np.float32([3])
        file.create_group("data/relu/x")
    weights = files.read_weights(tmp_path / "h")
    assert {k: [a.item() for a in v] for k, v in weights.items()} == {
        "inception_3a": [3],
        "inception_3a/1x1": [1],
        "inception_3a/3x3": [2],
        "relu/x": [],
    }
    with pytest.raises(CaffeError, match="layer 'a/b' cannot be saved as HDF5"):
        files.write_weights_hdf5(tmp_path / "w", {"a/b": []})
    assert not (tmp_path / "w").exists()


def test_hdf5_of_something_else(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "h", "w") as file:
        file["x"] = 1
    with pytest.raises(CaffeError, match="no group 'data'"):
        files.read_weights(tmp_path / "h")
    with pytest.raises(CaffeError, match="no group 'history'; expected a solver state in HDF5"):
        files.read_solver_state(tmp_path / "h")
    (tmp_path / "cut").write_bytes((tmp_path / "h").read_bytes()[:600])
    with pytest.raises(CaffeError, match=r"cut: .*truncated"):
        files.read_weights(tmp_path / "cut")


def test_hdf5_weights_lie_in_the_file_itself(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.float32([1])
    with h5py.File(tmp_path / "h", "w") as file:
        file["data/a/0"] = h5py.ExternalLink("other.h5", "secret")
    with pytest.raises(CaffeError, match=r"/h: '0' is a link to another place"):
        files.read_weights(tmp_path / "h")


@pytest.mark.parametrize("name", ["-1", "01", "x", "1" * 30])
def test_hdf5_blobs_have_numbers(tmp_path: Path, name: str) -> None:
    with h5py.File(tmp_path / "h", "w") as file:
        file[f"data/a/{name}"] = np.float32([1])
    with pytest.raises(CaffeError, match=r"/h: layer 'a': dataset '"):
        files.read_weights(tmp_path / "h")


# --- solver states ---


@pytest.mark.parametrize("path", STATES, ids=lambda path: path.stem)
def test_solver_state_is_read_and_written_back(path: Path, tmp_path: Path) -> None:
    state = files.read_solver_state(path)
    assert (state.iter, state.current_step) == (6, 0)
    assert state.learned_net == path.name.replace("solverstate", "caffemodel")
    twice = path.name.startswith(("adam", "adadelta"))  # first moments, then second
    shapes = [(4, 2, 3, 3), (4,), (4,), (4,), (1,), (4,), (4,), (3, 168), (3,)]
    assert [array.shape for array in state.history] == shapes * (2 if twice else 1)
    files.write_solver_state(tmp_path / "s", state)
    assert (tmp_path / "s").read_bytes() == path.read_bytes()


def test_hdf5_solver_state_of_the_reference() -> None:
    state = files.read_solver_state(INTEROP / "tiny_iter_6.solverstate.h5")
    assert (state.iter, state.current_step) == (6, 0)
    assert state.learned_net == "snap/tiny_iter_6.caffemodel.h5"
    assert [array.shape for array in state.history] == [(3, 192), (3,)]


def test_more_than_ten_histories_stay_in_order(tmp_path: Path) -> None:
    """HDF5 lists names as text, 10 before 2."""
    history = [np.full(i + 1, i, np.float32) for i in range(12)]
    state = files.SolverStateData(3, None, 2, history)
    files.write_solver_state_hdf5(tmp_path / "s", state)
    again = files.read_solver_state(tmp_path / "s")
    assert (again.iter, again.learned_net, again.current_step) == (3, None, 2)
    assert [a.tolist() for a in again.history] == [a.tolist() for a in history]


@pytest.mark.parametrize("write", [files.write_solver_state, files.write_solver_state_hdf5])
@pytest.mark.parametrize(("iter_", "step"), [(-1, 0), (3, -2)])
def test_negative_counts(tmp_path: Path, write, iter_: int, step: int) -> None:
    write(tmp_path / "s", files.SolverStateData(iter_, None, step, []))
    with pytest.raises(CaffeError, match=r"/s: (iter|current_step) is -"):
        files.read_solver_state(tmp_path / "s")


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"iter": [1.5]}, r"iter is float64 of shape \(1,\)"),
        ({"iter": [1, 2]}, r"iter is int64 of shape \(2,\)"),
        ({"iter": []}, "iter is"),
        ({"iter": [2**40]}, "iter is 1099511627776"),
        ({"current_step": "x"}, "current_step is"),
        ({"learned_net": [1, 2]}, "learned_net is int64"),
        ({"history/0": "text"}, "history: dataset '0' does not hold numbers"),
        ({"history/1": [1.0]}, "history has gaps"),
    ],
)
def test_hdf5_states_of_wrong_types(tmp_path: Path, datasets, message: str) -> None:
    with h5py.File(tmp_path / "s", "w") as file:
        file.create_group("history")
        for name, value in {"iter": [1], "current_step": [0], **datasets}.items():
            file[name] = value
    with pytest.raises(CaffeError, match=f"/s: {message}"):
        files.read_solver_state(tmp_path / "s")


# --- mean blobs ---


@pytest.mark.parametrize("shape", [(), (3,), (4, 5), (2, 3, 4, 5), (0, 4, 5), (7, 3, 4, 5, 6)])
def test_means_have_three_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    files.write_blob(tmp_path / "m", np.zeros(shape, np.float32))
    with pytest.raises(CaffeError, match=r"/m: a mean of .*; expected channels x height x width"):
        files.read_mean(tmp_path / "m")


def test_mean_file(tmp_path: Path) -> None:
    path = INTEROP / "mean.binaryproto"
    mean = files.read_blob(path)
    blob = pb.BlobProto.FromString(path.read_bytes())
    assert mean.shape == (1, 3, 12, 16)
    assert mean.ravel().tolist() == list(blob.data)
    files.write_blob(tmp_path / "old", mean, old_form=True)
    assert (tmp_path / "old").read_bytes() == path.read_bytes()
    files.write_blob(tmp_path / "new", mean[0])
    np.testing.assert_array_equal(files.read_blob(tmp_path / "new"), mean[0])


# --- atomic_write ---


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_text("before")

    def write_and_fail() -> None:
        with files.atomic_write(target) as beside:
            beside.write_text("half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_and_fail()
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert target.read_text() == "before"


def test_a_complete_file_takes_the_name(tmp_path: Path) -> None:
    target = tmp_path / "f"
    with files.atomic_write(target) as beside:
        beside.write_text("all")
        assert not target.exists()
    assert target.read_text() == "all"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with (
        pytest.raises(CaffeError, match="no/f: cannot be written: No such file or directory"),
        files.atomic_write(tmp_path / "no" / "f"),
    ):
        pass
    with pytest.raises(CaffeError, match="is a directory"), files.atomic_write(tmp_path):
        pass


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with files.atomic_write(tmp_path / "link") as beside:
        beside.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_file_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with files.atomic_write(tmp_path / "f") as beside:
            beside.write_text("x")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("write", [files.write_solver_state, files.write_solver_state_hdf5])
def test_the_state_of_plateau_comes_back(tmp_path: Path, write) -> None:
    write(tmp_path / "s", files.SolverStateData(9, None, 1, [], 0.25, 7))
    again = files.read_solver_state(tmp_path / "s")
    assert (again.minimum_loss, again.iter_last_event) == (0.25, 7)
    write(tmp_path / "t", files.SolverStateData(9, None, 1, []))
    assert files.read_solver_state(tmp_path / "t").minimum_loss is None
