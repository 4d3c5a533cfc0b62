"""HDF5Data and HDF5Output."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

import caffe


def hdf5_net(net_of, folder, files, param="batch_size: 3", tops=("x", "y")):
    """files: for each, the datasets by name; a net that reads them in this order."""
    for i, datasets in enumerate(files):
        if (folder / f"{i}.h5").exists():  # another net may be reading it
            continue
        with h5py.File(folder / f"{i}.h5", "w") as file:
            for name, values in datasets.items():
                file[name] = values
    (folder / "list.txt").write_text("".join(f"{folder}/{i}.h5\n" for i in range(len(files))))
    names = " ".join(f'top: "{name}"' for name in tops)
    return net_of(
        f'layer {{ name: "d" type: "HDF5Data" {names} '
        f'hdf5_data_param {{ source: "{folder}/list.txt" {param} }} }}'
    )


def rows(first, count):
    index = np.arange(first, first + count)
    return {"x": np.stack([index, index * 0.5], 1)[:, None], "y": index.astype(np.int64)}


def test_rows_go_on_from_file_to_file_and_start_over(net_of, tmp_path):
    net = hdf5_net(net_of, tmp_path, [rows(0, 4), rows(4, 1)])
    assert net.blobs["x"].data.shape == (3, 1, 2)
    seen = []
    for _ in range(3):
        net.forward()
        seen += net.blobs["y"].data.tolist()
        np.testing.assert_array_equal(net.blobs["x"].data[:, 0, 1], net.blobs["y"].data / 2)
    assert seen == [0, 1, 2, 3, 4, 0, 1, 2, 3]


def test_shuffle_permutes_files_and_rows(net_of, tmp_path):
    files = [rows(10 * i, 10) for i in range(3)]
    net = hdf5_net(net_of, tmp_path, files, "batch_size: 30 shuffle: true")
    epochs = []
    for _ in range(2):
        net.forward()
        epochs.append(net.blobs["y"].data.tolist())
    for epoch in epochs:
        assert sorted(epoch) == list(range(30))
        assert all(len({int(y // 10) for y in epoch[i : i + 10]}) == 1 for i in (0, 10, 20))
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("shuffle", ["", "shuffle: true"])
@pytest.mark.parametrize("passes", [0, 1, 7])
def test_rows_go_on_where_they_were(net_of, goes_on, tmp_path, shuffle, passes):
    """Also after whole epochs (of 12 rows), and from the middle of a file."""
    files = [rows(0, 5), rows(5, 1), rows(6, 6)]
    goes_on(lambda: hdf5_net(net_of, tmp_path, files, f"batch_size: 5 {shuffle}"), passes)


@pytest.mark.parametrize("shuffle", ["", "shuffle: true"])
def test_solvers_share_the_rows_out(net_of, tmp_path, monkeypatch, shuffle):
    files = [rows(0, 5), rows(5, 1), rows(6, 6)]
    caffe.set_random_seed(5)

    def labels(param, passes):
        net = hdf5_net(net_of, tmp_path, files, f"{param} {shuffle}")
        return np.concatenate([net.forward()["y"].copy() for _ in range(passes)])

    alone = labels("batch_size: 6", 6)
    monkeypatch.setattr("caffe.process.ranks.solver_count", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr("caffe.process.ranks.solver_rank", lambda rank=rank: rank)
        assert np.array_equal(labels("batch_size: 2", 6), alone[rank::3])


@pytest.mark.parametrize(
    ("files", "param", "cause"),
    [
        ([], "batch_size: 3", "lists no files"),
        ([{"x": np.zeros((2, 3))}], "batch_size: 3", "no dataset 'y'; it has .'x'."),
        ([{"x": np.zeros((2, 3)), "y": np.zeros(3)}], "batch_size: 3", "2, 3. rows"),
        ([{"x": np.zeros((0, 3)), "y": np.zeros(0)}], "batch_size: 3", "0. rows"),
        ([{"x": np.zeros((2, 3)), "y": 3.0}], "batch_size: 3", "dataset 'y' has the shape ..,? "),
        ([{"x": np.zeros(1), "y": np.array([b"a"])}], "batch_size: 3", "expected numbers"),
        ([rows(0, 2)], "", "batch_size must be positive"),
    ],
)
def test_what_cannot_be_read_is_refused(net_of, tmp_path, files, param, cause):
    with pytest.raises(caffe.CaffeError, match=f"layer 'd' .HDF5Data.: .*{cause}"):
        hdf5_net(net_of, tmp_path, files, param)


def test_files_that_are_missing_or_differ_are_named(net_of, tmp_path):
    (tmp_path / "list.txt").write_text("none.h5")
    text = f'hdf5_data_param {{ source: "{tmp_path}/list.txt" batch_size: 1 }}'
    with pytest.raises(caffe.CaffeError, match=r"layer 'd' .*none\.h5: No such file"):
        net_of(f'layer {{ name: "d" type: "HDF5Data" top: "x" {text} }}')
    other = {"x": np.zeros((2, 5)), "y": np.zeros(2)}
    net = hdf5_net(net_of, tmp_path, [rows(0, 1), other])
    with pytest.raises(caffe.CaffeError, match=r"layer 'd' .*1.h5: rows of shapes"):
        net.forward()


def output_net(net_of, path):
    return net_of(
        'layer { name: "o" type: "HDF5Output" bottom: "x" bottom: "y" '
        f'hdf5_output_param {{ file_name: "{path}" }} }}',
        x=(2, 3),
        y=(2,),
    )


def test_output_is_there_after_each_pass_with_all_rows(net_of, tmp_path):
    path = tmp_path / "out.h5"
    path.write_bytes(b"of an earlier run")
    net = output_net(net_of, path)
    for k in (1, 2):
        net.blobs["x"].data[...] = k
        net.blobs["y"].data[...] = [10 * k, 10 * k + 1]
        net.forward()
        with h5py.File(path) as file:
            assert file["data"].shape == (2 * k, 3, 1, 1)
            assert file["data"][:, 0, 0, 0].tolist() == [1, 1, 2, 2][: 2 * k]
            assert file["label"][:, 0, 0, 0].tolist() == [10, 11, 20, 21][: 2 * k]
    net.backward()  # nothing comes back
    assert [p.name for p in tmp_path.iterdir()] == ["out.h5"]


def test_output_that_cannot_be_written_is_refused(net_of, tmp_path):
    with pytest.raises(caffe.CaffeError, match=r"layer 'o' .*existing folder"):
        output_net(net_of, tmp_path / "none" / "out.h5")
    with pytest.raises(caffe.CaffeError, match=r"layer 'o' .*as many samples"):
        net_of(
            'layer { name: "o" type: "HDF5Output" bottom: "x" bottom: "y" '
            f'hdf5_output_param {{ file_name: "{tmp_path}/out.h5" }} }}',
            x=(2, 3),
            y=(3,),
        )


FULL = """
import resource, sys
import caffe
net = caffe.Net(sys.argv[1], caffe.TRAIN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
for _ in range(2):
    try:
        net.forward()
    except caffe.CaffeError as error:
        print(error)
"""


@pytest.mark.parametrize("limit", [1000, 500_000])
def test_output_on_a_full_disk_is_an_error_and_no_crash(tmp_path, limit):
    """The limit of a file's size stands for the disk's end, in the first pass or the second."""
    bottom = 'bottom: "x" bottom: "x"'
    (tmp_path / "n.prototxt").write_text(
        'layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 40 '
        f'dim: 1000 }} }} }} layer {{ name: "o" type: "HDF5Output" {bottom} '
        f'hdf5_output_param {{ file_name: "{tmp_path}/out.h5" }} }}'
    )
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "n.prototxt"), str(limit)],
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, 1 if limit > 400_000 else 2)
    assert all("out.h5: cannot be written: File too large" in line for line in lines)
    if limit > 400_000:
        with h5py.File(tmp_path / "out.h5") as file:
            assert file["data"].shape == (40, 1000, 1, 1)


def test_an_hdf5_file_as_source(net_of, tmp_path):
    """The source is a list of files; a common slip is to name the file itself."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.zeros((2, 1))
    text = f'hdf5_data_param {{ source: "{tmp_path}/a.h5" batch_size: 1 }}'
    message = r"a\.h5: is an HDF5 file itself; expected a text file that lists the paths of HDF5"
    with pytest.raises(caffe.CaffeError, match=message):
        net_of(f'layer {{ name: "d" type: "HDF5Data" top: "x" {text} }}')
