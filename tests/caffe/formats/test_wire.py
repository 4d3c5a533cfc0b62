"""wire: any form in which protobuf may hold a blob's numbers, and damaged files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from caffe.errors import CaffeError
from caffe.formats import wire
from caffe.proto import caffe_pb2 as pb


def read(path: Path, data: bytes, plan: wire.Plan = wire.BLOB, kind: type = pb.BlobProto):
    path.write_bytes(data)
    return wire.read(str(path), kind, plan)


def test_packed_floats_are_what_protobuf_reads(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    blob = pb.BlobProto(data=values, diff=values[::-1], shape=pb.BlobShape(dim=[10, 100]))
    outline, blobs = read(tmp_path / "b", blob.SerializeToString())
    assert wire.shape(outline) == (10, 100)
    assert not outline.data
    np.testing.assert_array_equal(blobs[wire.index(outline)].data, values)
    np.testing.assert_array_equal(blobs[0].diff, values[::-1])


def test_unpacked_and_mixed_floats(tmp_path: Path) -> None:
    """Field 5 as fixed 32-bit values has key 5 << 3 | 5 = 0x2d, packed 5 << 3 | 2 = 0x2a."""
    loose = b"".join(b"\x2d" + struct.pack("<f", v) for v in (1, 2, 3))
    packed = b"\x2a\x08" + struct.pack("<2f", 4, 5)
    diff = b"\x35" + struct.pack("<f", 6)
    _, blobs = read(tmp_path / "b", loose + packed + loose + diff)
    np.testing.assert_array_equal(blobs[0].data, [1, 2, 3, 4, 5, 1, 2, 3])
    np.testing.assert_array_equal(blobs[0].diff, [6])


def test_doubles(tmp_path: Path) -> None:
    blob = pb.BlobProto(double_data=[0.1, 0.2], double_diff=[0.3, 0.4])
    _, blobs = read(tmp_path / "b", blob.SerializeToString())
    assert blobs[0].data.dtype == np.float64
    np.testing.assert_array_equal(blobs[0].data, [0.1, 0.2])
    np.testing.assert_array_equal(blobs[0].diff, [0.3, 0.4])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_written_bytes_are_protobufs(tmp_path: Path, dtype: type) -> None:
    """Old shape, data, diff: in the order of the fields' numbers, as C++ and Python write them."""
    net = pb.NetParameter(name="n", input=["x"])
    layer = net.layers.add(name="v1", type=pb.V1LayerParameter.RELU)
    layer.layer.blobs.add(num=1, channels=2, height=1, width=1)
    layer.blobs.add().shape.dim.extend([3])
    net.layer.add(name="today").blobs.add()
    expected = pb.NetParameter()
    expected.CopyFrom(net)
    kind = "double_data" if dtype is np.float64 else "data"
    arrays = [np.arange(n, dtype=dtype) + 0.5 for n in (2, 3)]
    getattr(expected.layers[0].layer.blobs[0], kind).extend(arrays[0])
    getattr(expected.layers[0].blobs[0], kind).extend(arrays[1])
    wire.set_index(net.layers[0].layer.blobs[0], 0)
    wire.set_index(net.layers[0].blobs[0], 1)
    written = b"".join(wire.chunks(net, wire.NET, [wire.Blob(a) for a in arrays]))
    assert written == expected.SerializeToString()
    outline, blobs = read(tmp_path / "n", written, wire.NET, pb.NetParameter)
    assert wire.index(outline.layers[0].blobs[0]) == 1
    np.testing.assert_array_equal(blobs[1].data, arrays[1])
    again = wire.chunks(outline, wire.NET, blobs)
    assert b"".join(again) == written


def test_unknown_fields_pass_through(tmp_path: Path) -> None:
    """Field 5000 in a layer, of a fork of Caffe."""
    extra = wire.varint(5000 << 3 | 2) + b"\x03abc" + wire.varint(5001 << 3) + b"\x96\x01"
    layer = pb.LayerParameter(name="a").SerializeToString() + extra
    data = wire.varint(100 << 3 | 2) + wire.varint(len(layer)) + layer
    outline, blobs = read(tmp_path / "n", data, wire.NET, pb.NetParameter)
    assert outline.layer[0].name == "a"
    assert b"".join(wire.chunks(outline, wire.NET, blobs)) == data


def test_strided_arrays_are_written_in_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    blob = pb.BlobProto()
    wire.set_index(blob, 0)
    data = b"".join(wire.chunks(blob, wire.BLOB, [wire.Blob(array)]))
    assert list(pb.BlobProto.FromString(data).data) == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"<!DOCTYPE html><html>",
        lambda data: b'name: "LeNet"\nlayer { type: "ReLU" }\n',
        lambda data: b"\xff" * 40,
        lambda data: data + b"\x07",
        lambda data: data + b"\x0b",
        lambda data: data + b"\xa2\x06\x7f",
    ],
)
def test_damaged_files(tmp_path: Path, damage) -> None:
    net = pb.NetParameter(name="n")
    net.layer.add(name="a").blobs.add(data=[1, 2, 3], shape=pb.BlobShape(dim=[3]))
    with pytest.raises(CaffeError, match=r"/n: not a binary NetParameter: "):
        read(tmp_path / "n", damage(net.SerializeToString()), wire.NET, pb.NetParameter)


def test_single_values_of_two_fields_in_turns(tmp_path: Path) -> None:
    """Each value has its key; a reader that looks at all that follows each time would not end."""
    one = b"".join(wire.varint(n << 3 | 5) + b"\0\0\x80?" for n in (5, 6))
    _, blobs = read(tmp_path / "b", one * 100_000, wire.BLOB, pb.BlobProto)
    assert blobs[0].data.size == blobs[0].diff.size == blobs[0].data.sum() == 100_000


def test_every_cut_is_noticed_or_ends_between_fields(tmp_path: Path) -> None:
    net = pb.NetParameter(name="net")
    for name in "ab":
        net.layer.add(name=name).blobs.add(data=[1, 2, 3], shape=pb.BlobShape(dim=[3]))
    data = net.SerializeToString()
    whole = [size for size in range(len(data)) if _reads(tmp_path / "n", data[:size])]
    one = pb.NetParameter(name="net")
    one.layer.add().CopyFrom(net.layer[0])
    assert whole == [0, len(b"\x0a\x03net"), len(one.SerializeToString())]


def _reads(path: Path, data: bytes) -> bool:
    try:
        read(path, data, wire.NET, pb.NetParameter)
    except CaffeError:
        return False
    return True


def test_more_than_two_gib_is_refused_before_writing() -> None:
    # 2^29 floats are 2 GiB; np.zeros reserves them without touching memory.
    array = np.zeros(2**29, np.float32)
    blob = pb.BlobProto()
    wire.set_index(blob, 0)
    with pytest.raises(CaffeError, match=r"2\.0 GiB; a binary BlobProto ends at 2 GiB"):
        wire.chunks(blob, wire.BLOB, [wire.Blob(array)])


def test_file_over_two_gib_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.caffemodel"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)  # sparse: no disk is used
    with pytest.raises(CaffeError, match=r"3\.0 GiB; a binary NetParameter ends at 2 GiB"):
        wire.read(str(path), pb.NetParameter, wire.NET)


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    layer = b"\x0a\x03T\xfcr"  # name: "Tür" in Latin-1
    data = wire.varint(100 << 3 | 2) + wire.varint(len(layer)) + layer
    with pytest.raises(
        CaffeError, match=r"/n: not a binary NetParameter: name .*xfcr. is no UTF-8"
    ):
        read(tmp_path / "n", data, wire.NET, pb.NetParameter)


def raw(kind: int, data: np.ndarray) -> pb.BlobProto:
    """A blob as NVCaffe writes it."""
    return pb.BlobProto(
        shape=pb.BlobShape(dim=data.shape), raw_data_type=kind, raw_data=data.tobytes()
    )


@pytest.mark.parametrize(
    ("kind", "dtype"), [(pb.FLOAT, "<f4"), (pb.FLOAT16, "<f2"), (pb.DOUBLE, "<f8")]
)
def test_raw_data_of_nvcaffe(tmp_path: Path, kind: int, dtype: str) -> None:
    values = np.array([[0.5, -2], [65504, 0]], dtype)
    net = pb.NetParameter()
    net.layer.add(name="a").blobs.append(raw(kind, values))
    net.layer[0].blobs[0].raw_diff_type = pb.FLOAT
    net.layer[0].blobs[0].raw_diff = np.arange(4, dtype="<f4").tobytes()
    outline, blobs = read(tmp_path / "n", net.SerializeToString(), wire.NET, pb.NetParameter)
    assert wire.shape(outline.layer[0].blobs[0]) == (2, 2)
    np.testing.assert_array_equal(blobs[0].data, values.ravel())
    np.testing.assert_array_equal(blobs[0].diff, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("blob", "what"),
    [
        (pb.BlobProto(raw_data=b"12345678"), "raw data has no number type"),
        (pb.BlobProto(raw_data=b"1234", raw_data_type=pb.INT), "raw data has the number type 3"),
        (pb.BlobProto(raw_data=b"123", raw_data_type=pb.FLOAT16), "a blob of 3 bytes"),
    ],
)
def test_raw_data_that_makes_no_sense(tmp_path: Path, blob: pb.BlobProto, what: str) -> None:
    net = pb.NetParameter()
    net.layer.add(name="a").blobs.append(blob)
    with pytest.raises(CaffeError, match=what):
        read(tmp_path / "n", net.SerializeToString(), wire.NET, pb.NetParameter)


def field(number: int, body: bytes) -> bytes:
    """A field of length-delimited bytes."""
    return wire.varint(number << 3 | 2) + wire.varint(len(body)) + body


@pytest.mark.parametrize("settings", [b"\x0a\x02\xff\xfe", b"\xff\xff", b"\x0a\x7f"])
def test_weights_of_a_fork_whose_numbers_mean_something_else(
    tmp_path: Path, settings: bytes
) -> None:
    """150 and 130 are messages here; a fork has something else there. The blobs still load."""
    layer = pb.LayerParameter(name="a", type="ROIPooling")
    layer.blobs.add(data=[1, 2], shape=pb.BlobShape(dim=[2]))
    body = layer.SerializeToString() + field(150, settings) + field(130, settings)
    outline, blobs = read(tmp_path / "n", field(100, body), wire.NET, pb.NetParameter)
    assert (outline.layer[0].name, outline.layer[0].type) == ("a", "ROIPooling")
    np.testing.assert_array_equal(blobs[0].data, [1, 2])


def test_a_pointer_of_git_lfs_is_called_that(tmp_path: Path) -> None:
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n"
    with pytest.raises(CaffeError, match=r"/n: is Git LFS's pointer to the file; fetch"):
        read(tmp_path / "n", text, wire.NET, pb.NetParameter)


def test_blobs_of_c3ds_first_version(tmp_path: Path) -> None:
    """Five sizes under the numbers 1 to 5, then data (6) and diff (7)."""
    values = np.arange(24, dtype="<f4")
    blob = b"".join(
        wire.varint(n << 3) + bytes([size]) for n, size in enumerate((1, 2, 3, 2, 2), 1)
    )
    for number, array in ((6, values), (7, -values)):
        blob += wire.varint(number << 3 | 2) + wire.varint(array.nbytes) + array.tobytes()
    (tmp_path / "mean.binaryproto").write_bytes(blob)
    outline, blobs = wire.read(str(tmp_path / "mean.binaryproto"), pb.BlobProto, wire.BLOB)
    assert wire.shape(outline) == (1, 2, 3, 2, 2)
    np.testing.assert_array_equal(blobs[0].data, values)
    np.testing.assert_array_equal(blobs[0].diff, -values)
