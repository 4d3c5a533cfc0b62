"""Packed models: the same bytes for the same parts; spoiled and oversized ones in one line."""

import hashlib
import json
import struct
import zipfile

import pytest

from boundary import packed
from boundary.errors import InputError

NET, WEIGHTS = b'name: "net"', b"\x0a\x03net" + bytes(1000)


class Bad(InputError, ValueError):
    pass


@pytest.fixture
def files(tmp_path):
    """The files of a model with an example."""
    found = {}
    for part, name, data in (
        ("net", "any.prototxt", NET),
        ("weights", "any.caffemodel", WEIGHTS),
        ("color", "frame.JPG", b"colour"),
        ("depth", "frame.png", b"depth"),
    ):
        found[part] = tmp_path / name
        found[part].write_bytes(data)
    return found


@pytest.fixture
def model(tmp_path, files):
    path = tmp_path / "m.fusenet"
    packed.write(path, {"classes": ["a", "b"]}, files, Bad)
    return path


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, found, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in found.items():
            archive.writestr(name, data)


def with_manifest(path, change):
    """Change model.json as a stranger would."""
    found = members(path)
    info = json.loads(found["model.json"])
    found["model.json"] = json.dumps(change(info) or info)
    rewrite(path, found)


def problem(path):
    with pytest.raises(Bad) as caught, packed.unpacked(path, Bad):
        pass
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


def test_parts_come_back(model, tmp_path):
    found = packed.read(model, Bad)
    assert found.info["classes"] == ["a", "b"]
    assert found.info["version"] == packed.VERSION
    assert found.parts["color"] == "example/color.jpg"
    assert (found.part("net"), found.part("depth")) == (NET, b"depth")
    with packed.unpacked(model, Bad) as files:
        assert files.net.read_bytes() == NET
        assert files.weights.read_bytes() == WEIGHTS
        assert files.net.parent.stat().st_mode & 0o077 == 0
    assert not files.net.parent.exists()


def test_the_same_parts_give_the_same_bytes(model, files, tmp_path):
    again = tmp_path / "again.fusenet"
    for file in files.values():
        file.touch()  # another time
    packed.write(again, {"classes": ["a", "b"]}, files, Bad)
    assert again.read_bytes() == model.read_bytes()


def test_hdf5_keeps_its_ending(files, tmp_path):
    files["weights"].write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(8))
    packed.write(tmp_path / "m.fusenet", {}, files, Bad)
    assert packed.read(tmp_path / "m.fusenet", Bad).parts["weights"] == "weights.caffemodel.h5"


def test_what_is_one_is_told_by_name_or_content(model, tmp_path):
    other = model.rename(tmp_path / "model.zip")
    assert packed.is_packed(other)
    assert packed.is_packed("missing.fusenet")
    (tmp_path / "net.prototxt").write_bytes(NET)
    assert not packed.is_packed(tmp_path / "net.prototxt")
    assert not packed.is_packed(tmp_path)
    assert not packed.is_packed(tmp_path / "missing")


def test_errors_within_name_the_packed_model(model):
    with pytest.raises(Bad) as caught, packed.unpacked(model, Bad) as files:
        raise Bad(f"{files.net}: no layer")
    assert str(caught.value) == f"{model}/deploy.prototxt: no layer"


def test_a_missing_file_leaves_nothing(files, tmp_path):
    files["depth"].unlink()
    with pytest.raises(Bad, match=r"frame\.png: No such file"):
        packed.write(tmp_path / "m.fusenet", {}, files, Bad)
    assert not list(tmp_path.glob("*fusenet*"))


def test_an_example_has_an_ending_that_readers_know(files, tmp_path):
    files["color"] = files["color"].rename(tmp_path / "frame.gif")
    with pytest.raises(Bad, match=r"frame\.gif: expected a file that ends in one of \.jpg, "):
        packed.write(tmp_path / "m.fusenet", {}, files, Bad)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("deploy.prototxt", b'name: "nat"', "deploy.prototxt: its SHA-256 is not the one"),
        ("weights.caffemodel", WEIGHTS[:-1], "weights.caffemodel: has 1004 bytes; model.json says"),
        ("weights.caffemodel", WEIGHTS[:-1] + b"x", "weights.caffemodel: its SHA-256 is not"),
        ("../../evil", b"", "../../evil: model.json does not list it"),
        ("model.json", b"[1]", 'model.json: expected an object with "format"'),
        ("model.json", b"{", "model.json: not JSON"),
        ("model.json", b"[" * 100000, "model.json: not JSON"),
        ("model.json", b"\xff\xff", "model.json:1: not UTF-8"),
    ],
)  # fmt: skip
def test_spoiled_members(model, name, data, message):
    rewrite(model, {**members(model), name: data})
    assert message in problem(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda info: info.update(version=2),
            "version 2 of the format; this program reads up",
        ),
        (lambda info: info.update(version=True), "version: expected a whole number"),
        (lambda info: info.pop("version"), "version: expected a whole number"),
        (lambda info: info.update(format="x"), 'expected an object with "format"'),
        (lambda info: info.update(parts=[]), "parts: expected an object"),
        (lambda info: info["parts"].pop("weights"), "parts: expected an object with net, weights"),
        (lambda info: info["parts"].update(more={}), "no unknown part"),
        (lambda info: info["parts"].update(net="deploy.prototxt"), "parts.net: expected its file"),
        (lambda info: info["parts"]["net"].update(file="/etc/passwd"), "parts.net: expected its"),
        (lambda info: info["parts"]["net"].update(file="model.json"), "parts.net: expected its"),
        (lambda info: info["parts"]["net"].update(file=["deploy.prototxt"]), "parts.net: expected"),
        (lambda info: info["parts"]["net"].update(sha256="0"), "parts.net: expected its file"),
        (lambda info: info["parts"]["net"].update(bytes=2**40), "has 11 bytes; model.json says"),
        (lambda info: info["parts"].pop("depth"), "example/depth.png: model.json does not list it"),
    ],
)
def test_spoiled_facts(model, change, message):
    with_manifest(model, lambda info: change(info) and None)
    assert message in problem(model)


def test_compressed_members_are_refused(model):
    """They could grow to any size."""
    rewrite(model, members(model), zipfile.ZIP_DEFLATED)
    assert "is compressed; expected members that are stored" in problem(model)


def test_a_member_twice(model):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(model, "a") as archive:
        archive.writestr("deploy.prototxt", NET)
    assert "deploy.prototxt: is there twice" in problem(model)


def test_many_members_and_comments_are_refused_before_they_are_read(model):
    with zipfile.ZipFile(model, "a") as archive:
        for i in range(100):
            archive.writestr(f"{i}", b"")
    assert "its table of contents is not one" in problem(model)
    with zipfile.ZipFile(model, "w") as archive:
        archive.comment = b"x" * 30
    assert "a packed model" in problem(model)


def test_cut_off_and_no_zip(model):
    data = model.read_bytes()
    for cut in (0, 3, 4, 25, len(data) // 2, len(data) - 1):
        model.write_bytes(data[:cut])
        assert "not a packed model" in problem(model), cut
    model.write_bytes(b"layer {}")
    assert "it is no zip" in problem(model)
    model.unlink()
    assert problem(model).endswith("No such file or directory")
    model.mkdir()
    assert "is a folder" in problem(model)


def test_a_claimed_size_takes_no_memory(model):
    """The zip says that a member holds 2 GiB, and model.json agrees."""
    with_manifest(model, lambda info: info["parts"]["net"].update(bytes=2**31 - 1))
    data = bytearray(model.read_bytes())
    at = data.index(b"PK\x01\x02")  # deploy.prototxt comes first
    struct.pack_into("<2L", data, at + 20, 2**31 - 1, 2**31 - 1)
    model.write_bytes(data)
    assert "deploy.prototxt: 2147483647 bytes; at most" in problem(model)


def test_every_single_byte_that_flips(model):
    """Whatever the byte: either one line, or the very same parts."""
    sound = model.read_bytes()
    digest = {"net": hashlib.sha256(NET).digest(), "weights": hashlib.sha256(WEIGHTS).digest()}
    for place in [*range(40), *range(len(sound) - 900, len(sound), 5)]:
        data = bytearray(sound)
        data[place] ^= 1 << place % 8
        model.write_bytes(data)
        try:
            with packed.unpacked(model, Bad) as files:
                found = {"net": files.net.read_bytes(), "weights": files.weights.read_bytes()}
        except Bad:
            continue
        assert {part: hashlib.sha256(data).digest() for part, data in found.items()} == digest
