"""Hdf5: reads only what the file itself stores, and no more than it can hold; full disks."""

import subprocess
import sys
import zlib

import h5py
import numpy as np
import pytest

from boundary.errors import InputError
from boundary.hdf5 import Hdf5, appending_hdf5, writing_hdf5


class Bad(InputError, ValueError):
    pass


def open_(path):
    return Hdf5(path, "a test in HDF5", Bad)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "f.h5"


def test_what_it_holds(path):
    with h5py.File(path, "w") as file:
        file["a/b/0"] = np.arange(6).reshape(2, 3)
        file["a/c"] = b"text"
    with open_(path) as file:
        group = file.group("a")
        assert file.names(group) == ["b", "c"]
        assert file.read(file.dataset("a/b/0"), np.float32).dtype == np.float32
        inner = file.dataset("0", file.group("b", group))
        assert file.read(inner).tolist() == [[0, 1, 2], [3, 4, 5]]
        assert file.read(file.dataset("c", group)).reshape(-1)[0] == b"text"
        assert set(file.members(group)) == {"b", "c"}
        for name in ("no", "a/no", "a/c/x", "", "/a", "..", "a\0b"):
            assert file.get(name) is None
        with pytest.raises(Bad, match=r"f\.h5: no group 'a/c'; expected a test in HDF5"):
            file.group("a/c")
        with pytest.raises(Bad, match=r"f\.h5: no dataset 'a'; expected"):
            file.dataset("a")


def soft(file, other):
    file["x"] = h5py.SoftLink("/inside")


def external(file, other):
    file["x"] = h5py.ExternalLink(str(other), "secret")


def outside(file, other):
    file.create_dataset("x", (4,), "u1", external=[(str(other), 0, 4)])


def virtual(file, other):
    layout = h5py.VirtualLayout(shape=(3,), dtype="i8")
    layout[:] = h5py.VirtualSource(str(other), "secret", shape=(3,))
    file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize("place", [soft, external, outside, virtual])
def test_what_lies_elsewhere_is_refused(path, tmp_path, place):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.arange(3)
    with h5py.File(path, "w") as file:
        file["inside"] = np.arange(3)
        place(file, tmp_path / "other.h5")
    with open_(path) as file, pytest.raises(Bad, match=r"f\.h5: .*only what the file itself holds"):
        file.get("x")


def test_references_are_followed_with_the_same_care(path, tmp_path):
    with h5py.File(path, "w") as file:
        outside(file, tmp_path / "other")
        file.create_dataset("r", data=[file["x"].ref], dtype=h5py.ref_dtype)
    with open_(path) as file, pytest.raises(Bad, match="only what the file itself holds"):
        file.follow(file.read(file.dataset("r"))[0])


def test_references_in_circles(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("r", (1,), dtype=h5py.ref_dtype)
        file["r"][0] = file["r"].ref
    with open_(path) as file:
        reference = file.read(file.dataset("r"))[0]
        with pytest.raises(Bad, match="its references lead in circles"):
            [file.follow(reference) for _ in range(10_000)]


def test_groups_in_circles(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        group["self"] = group
    with open_(path) as file:
        group = file.group("a")
        inner = file.members(group)["self"]
        with pytest.raises(Bad, match="linked twice"):
            file.members(inner)


def test_a_shape_without_values(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (2**20, 2**10), "f4")
    with open_(path) as file, pytest.raises(Bad, match=r"asks for 4\.0 GiB of memory but stores"):
        file.read(file.dataset("x"))


def test_many_shapes_without_values(path):
    with h5py.File(path, "w") as file:
        for name in "abcdef":
            file.create_dataset(name, (100 * 2**20,), "u1")
    with open_(path) as file, pytest.raises(Bad, match=r"asks for 600\.0 MiB of memory"):
        [file.read(file.dataset(name)).size for name in "abcdef"]


def test_a_chunk_that_claims_to_be_small(path):
    bomb = zlib.compress(bytes(2**29))
    with h5py.File(path, "w") as file:
        made = file.create_dataset("x", (10,), "u1", chunks=(10,), compression="gzip")
        made.id.write_direct_chunk((0,), bomb)
    with open_(path) as file, pytest.raises(Bad, match="takes more than the 10 bytes"):
        file.read(file.dataset("x"))


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"shuffle": True}])
def test_a_chunk_that_claims_to_be_stored_in_gigabytes(path, options):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("x", (3,), "u1", chunks=(3,), **options)
        made.id.write_direct_chunk((0,), b"1" * 12345)
    data = path.read_bytes()
    assert data.count((12345).to_bytes(4, "little")) == 1
    big = (2**32 - 5).to_bytes(4, "little")
    path.write_bytes(data.replace((12345).to_bytes(4, "little"), big))
    with open_(path) as file, pytest.raises(Bad, match="a chunk of 4294967291 bytes"):
        file.read(file.dataset("x"))


def test_large_compressed_chunks_are_read(path):
    values = np.random.default_rng(0).integers(0, 50, 2**21).astype(np.uint8)
    with h5py.File(path, "w") as file:
        for name, options in (("x", {}), ("y", {"shuffle": True, "fletcher32": True})):
            file.create_dataset(name, data=values, chunks=(2**21,), compression="gzip", **options)
    with open_(path) as file:
        for name in "xy":
            np.testing.assert_array_equal(file.read(file.dataset(name)), values)


@pytest.mark.parametrize("data", [b"", b"\x89HDF\r\n\x1a\n", b"x" * 3000])
def test_what_is_no_hdf5(path, data):
    path.write_bytes(data)
    with pytest.raises(Bad, match=r"f\.h5: ") as caught:
        open_(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 600


def test_what_is_no_file(tmp_path):
    for name, message in ((".", "is a folder"), ("no", "No such file"), ("a\0", "zero")):
        with pytest.raises(Bad, match=message):
            open_(f"{tmp_path}/{name}")


@pytest.mark.parametrize("kind", [h5py.string_dtype(), h5py.vlen_dtype(np.int32)])
def test_values_of_any_length(path, kind):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1000,), kind)
    with open_(path) as file, pytest.raises(Bad, match="any length; expected numbers"):
        file.read(file.dataset("x"))


# -- writing ----------------------------------------------------------------------------------


def test_what_is_written_is_read(path):
    with writing_hdf5(path, Bad) as file:
        file.create_dataset("x", data=np.arange(10), maxshape=(None,))
        assert not path.exists()
    with appending_hdf5(path, 100, Bad) as file:
        file["x"].resize((20,))
        file["x"][10:] = 7
    with h5py.File(path) as file:
        assert file["x"][:].tolist() == [*range(10), *[7] * 10]


FULL = """
import resource, sys
import numpy as np
from boundary.errors import InputError
from boundary.hdf5 import appending_hdf5, writing_hdf5
path, limit, append = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "append"
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    if append:
        with appending_hdf5(path, 400_000, InputError) as file:
            file["x"].resize((100_000,))
            file["x"][10:] = 1
    else:
        with writing_hdf5(path, InputError) as file:
            for i in range(100):
                file.create_dataset(f"a{i}", data=np.ones(1000, "f4"))
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 1000, 50_000, 390_000])
@pytest.mark.parametrize("how", ["new", "append"])
def test_a_full_disk_is_an_error_and_no_crash(path, limit, how):
    """The limit of a file's size stands for the disk's end."""
    if how == "append":
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=np.arange(10.0, dtype="f4"), maxshape=(None,))
    before = path.read_bytes() if how == "append" else None
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(limit), how], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}: cannot be written: File too large")
    assert (path.read_bytes() if path.exists() else None) == before


def test_devices_are_written_through():
    with pytest.raises(Bad, match="/dev/full: cannot be written: No space"), \
            writing_hdf5("/dev/full", Bad) as file:  # fmt: skip
        file["x"] = 1
