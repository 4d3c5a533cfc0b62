"""Packed models: a net, its weights and what is known of them in one file, MODEL.fusenet.

The file is a zip. Its members are stored, not compressed, so that none can grow:

    deploy.prototxt                               the net
    weights.caffemodel or weights.caffemodel.h5   its weights, as Caffe keeps them
    example/color.*, example/depth.*              perhaps one frame, as its files
    model.json                                    all else, and each part's bytes and SHA-256

What model.json says of depth, classes and figures belongs to those who pack and to those who ask;
here only the file's own form is looked at. A member's name never becomes a path.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from boundary.errors import InputError, reason, shown
from boundary.reading import MAX_TABLE, PathLike, check_plain, decode, reading
from boundary.writing import atomic_write

SUFFIX = ".fusenet"
ONNX = ".onnx"  # of another kind of file that has a net with its weights
VERSION = 1
NAME = "fusenet model"  # what model.json calls the format
WHAT = "a packed model (python -m eval_tools.pack writes them)"
MANIFEST = "model.json"
NET = "deploy.prototxt"
WEIGHTS = {".caffemodel": "weights.caffemodel", ".h5": "weights.caffemodel.h5"}
# What a frame's files may end in: those that the readers of pictures know.
COLOR = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".ppm", ".webp")
DEPTH = (".png", ".exr", ".npy", ".tif", ".tiff", ".pgm")

# A part -> what its member may be called. `net` and `weights` must be there.
PARTS: dict[str, tuple[str, ...]] = {
    "net": (NET,),
    "weights": tuple(WEIGHTS.values()),
    "color": tuple(f"example/color{ending}" for ending in COLOR),
    "depth": tuple(f"example/depth{ending}" for ending in DEPTH),
}
_ZIP = b"PK\x03\x04"
_END = struct.Struct("<4s4H2LH")  # the record at the end of a zip
_LARGEST = 2**31 - 2**20  # bytes in all; beyond, zips have another form
_MOST = {"net": MAX_TABLE, "color": 2**30, "depth": 2**30}  # bytes of parts that memory takes
_MEMBERS = 16  # in the table of contents; more than there are parts
_STEP = 2**20


def is_packed(path: PathLike | None) -> bool:
    """Whether a file is a packed model, by its name or its first bytes. Raises nothing."""
    if path is None:
        return False
    if Path(path).suffix.lower() == SUFFIX:
        return True
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe might wait for ever
            return False
        with open(path, "rb") as file:
            return file.read(len(_ZIP)) == _ZIP
    except (OSError, ValueError):
        return False


def misplaced(model: PathLike, weights: PathLike | None) -> str:
    """What is wrong: a prototxt without weights, or another model with some; empty if neither."""
    if kind := whole_model(model):
        if weights is not None:
            return f"{shown(model)}: {kind} has its own weights; {shown(weights)} is too many"
    elif weights is None:
        return (
            f"{shown(model)}: WEIGHTS is missing; only a packed model ({SUFFIX}) and an ONNX file "
            f"({ONNX}) have their own"
        )
    return ""


def whole_model(path: PathLike) -> str:
    """What a file is that has a net with its weights; empty for a prototxt."""
    if is_onnx(path):
        return "an ONNX file"
    return "a packed model" if is_packed(path) else ""


def is_onnx(path: PathLike) -> bool:
    """Whether a file is an ONNX model, by its name."""
    return Path(path).suffix.lower() == ONNX


@dataclass(frozen=True)
class Packed:
    """A packed model whose form is sound; its parts are read, and compared with their SHA-256, when
    they are asked for.

    path: the file. info: the content of model.json. parts: the names of parts and their members.
    error: what is raised for a broken part.
    """

    path: PathLike
    info: dict[str, Any]
    parts: Mapping[str, str]
    error: type[InputError]

    def part(self, name: str) -> bytes:
        """A part's bytes; not for weights, which are large. Raises `error` if it is broken."""
        with self._opened(name) as (file, size):
            if size > _MOST[name]:
                raise self.error(f"{self._where(name)}: {size} bytes; at most {_MOST[name]}")
            data = file.read()
        self._compare(name, hashlib.sha256(data))
        return data

    def copy(self, name: str, path: Path) -> None:
        """Write a part to a file. Raises `error` if it is broken, or the disk is full."""
        digest = hashlib.sha256()
        with (
            self._opened(name) as (file, _),
            _told(path.parent, self.error),
            open(path, "wb") as to,
        ):
            while data := file.read(_STEP):
                digest.update(data)
                to.write(data)
        self._compare(name, digest)

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        with reading(self.path, WHAT, self.error), zipfile.ZipFile(self.path) as archive:
            member = archive.getinfo(self.parts[name])
            if problem := _unsound(member):  # another file than before
                raise self.error(f"{self._where(name)}: {problem}")
            with archive.open(member) as file:
                yield file, member.file_size

    def _compare(self, name: str, digest: Any) -> None:
        if digest.hexdigest() != self.info["parts"][name]["sha256"]:
            raise self.error(
                f"{self._where(name)}: its SHA-256 is not the one in {MANIFEST}; the file was "
                "changed or damaged"
            )

    def _where(self, name: str) -> str:
        return f"{shown(self.path)}: {self.parts[name]}"


def read(path: PathLike, error: type[InputError]) -> Packed:
    """A packed model's info and parts. Raises `error` for any other file, for a broken one, and for
    one of another version of the format.
    """
    check_plain(path, error)
    with reading(path, WHAT, error):
        _check_end(path)
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path, error)
            if MANIFEST not in members:
                raise ValueError(f"it has no {MANIFEST}")
            if members[MANIFEST].file_size > MAX_TABLE:
                raise ValueError(f"its {MANIFEST} holds more than {MAX_TABLE} bytes")
            text = decode(archive.read(MANIFEST), f"{shown(path)}: {MANIFEST}", error)
    info = _manifest(text, path, error)
    return Packed(path, info, _parts(info, members, path, error), error)


@dataclass(frozen=True)
class Unpacked:
    """A packed model's net and weights as files, in a private folder that soon goes.

    model: what is known of them.
    """

    net: Path
    weights: Path
    model: Packed

    def named(self, text: str) -> str:
        """A message with the packed model's path in place of the folder's."""
        return text.replace(str(self.net.parent), shown(self.model.path))


@contextmanager
def unpacked(path: PathLike, error: type[InputError]) -> Iterator[Unpacked]:
    """The net and the weights of a packed model as files, within the block.

    Caffe takes weights from files alone. An InputError within the block names the packed model in
    place of the temporary folder. Raises `error` as `read` does, and if the disk is full.
    """
    model = read(path, error)
    with _told(tempfile.gettempdir(), error):
        folder = Path(tempfile.mkdtemp(prefix="fusenet-"))  # nobody else may look into it
    try:
        found = Unpacked(folder / NET, folder / Path(model.parts["weights"]).name, model)
        try:
            found.net.write_bytes(model.part("net"))
            model.copy("weights", found.weights)
            yield found
        except InputError as problem:
            raise type(problem)(found.named(str(problem))) from problem
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(
    path: PathLike,
    info: Mapping[str, Any],
    files: Mapping[str, PathLike],
    error: type[InputError],
) -> None:
    """Write a packed model; the same parts and info give the same bytes.

    info: what model.json is to say besides the format, its version and the parts. files: `net`,
    `weights`, and perhaps `color` and `depth`; the ending of each decides its member's name.

    Raises `error` if a file cannot be read, has an unknown ending, or the whole is too large.
    """
    names = {part: _member_name(part, file, error) for part, file in files.items()}
    sizes = {part: check_plain(file, error).st_size for part, file in files.items()}
    for part, size in sizes.items():
        if size > _MOST.get(part, size):
            raise error(f"{shown(files[part])}: {size} bytes; at most {_MOST[part]} are packed")
    if sum(sizes.values()) > _LARGEST:
        raise error(f"{shown(path)}: {sum(sizes.values())} bytes; at most 2 GiB are packed")
    parts: dict[str, dict[str, Any]] = {}
    with atomic_write(path, error) as beside, zipfile.ZipFile(beside, "w") as archive:
        for part, file in files.items():
            digest, size = _add(archive, names[part], file, sizes[part], error)
            parts[part] = {"file": names[part], "bytes": size, "sha256": digest}
        head = {"format": NAME, "version": VERSION, "parts": parts}
        lines = (f"{json.dumps(key)}: {json.dumps(fact)}" for key, fact in {**head, **info}.items())
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        if len(text) > MAX_TABLE:
            raise error(f"{shown(path)}: {MANIFEST} would take {len(text)} bytes")
        archive.writestr(_entry(MANIFEST, len(text)), text.encode())


# -- writing ---------------------------------------------------------------------------------------


def _member_name(part: str, file: PathLike, error: type[InputError]) -> str:
    ending = Path(file).suffix.lower()
    if part == "net":
        return NET
    if part == "weights":
        with reading(file, "a file of weights", error), open(file, "rb") as opened:
            hdf5 = opened.read(8) == b"\x89HDF\r\n\x1a\n"
        return WEIGHTS[".h5" if hdf5 else ".caffemodel"]
    name = f"example/{part}{ending}"
    if name not in PARTS[part]:
        kinds = ", ".join(Path(member).suffix for member in PARTS[part])
        raise error(f"{shown(file)}: expected a file that ends in one of {kinds}")
    return name


def _entry(name: str, size: int) -> zipfile.ZipInfo:
    """A member without its own time, owner and system, which would change the bytes."""
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_STORED
    entry.create_system, entry.external_attr = 3, 0o644 << 16
    entry.file_size = size
    return entry


def _add(
    archive: zipfile.ZipFile, name: str, file: PathLike, size: int, error: type[InputError]
) -> tuple[str, int]:
    """Store a file; returns its SHA-256 and how many bytes it had."""
    digest, count = hashlib.sha256(), 0
    with archive.open(_entry(name, size), "w") as to:
        for data in _chunks(file, error):
            digest.update(data)
            count += len(data)
            to.write(data)
    return digest.hexdigest(), count


def _chunks(file: PathLike, error: type[InputError]) -> Iterator[bytes]:
    with reading(file, "a file that can be read", error), open(file, "rb") as source:
        while data := source.read(_STEP):
            yield data


# -- reading ---------------------------------------------------------------------------------------


def _check_end(path: PathLike) -> None:
    """Look at the zip's last record before its table of contents takes memory. Raises ValueError
    for what no packed model has: a comment, many members, or the form beyond 2 GiB.
    """
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - 20 - _END.size))  # also where a large zip says that it is one
        tail = file.read()
        file.seek(0)
        head = file.read(len(_ZIP))
    end = tail[-_END.size :]
    if head != _ZIP or len(end) < _END.size or not end.startswith(b"PK\x05\x06"):
        raise ValueError("it is no zip, or was cut off" if head == _ZIP else "it is no zip")
    _, _, _, _, count, size, place, comment = _END.unpack(end)
    large = tail.startswith(b"PK\x06\x07")
    whole = place + size + _END.size == length
    if count > _MEMBERS or size > 2**16 or comment or large or not whole:
        raise ValueError("its table of contents is not one")


def _members(
    archive: zipfile.ZipFile, path: PathLike, error: type[InputError]
) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        where = f"{shown(path)}: {shown(member.filename[:80])}"
        if member.filename in found:
            raise error(f"{where}: is there twice")
        if problem := _unsound(member):
            raise error(f"{where}: {problem}")
        found[member.filename] = member
    return found


def _unsound(member: zipfile.ZipInfo) -> str:
    """What is wrong with a member's form; empty if nothing is."""
    if member.flag_bits & 1:
        return "is encrypted"
    stored = member.compress_type == zipfile.ZIP_STORED
    if not stored or member.file_size != member.compress_size:
        return "is compressed; expected members that are stored (zip -0)"
    return ""


def _manifest(text: str, path: PathLike, error: type[InputError]) -> dict[str, Any]:
    where = f"{shown(path)}: {MANIFEST}"
    with reading(where, "JSON", error):
        info = json.loads(text)
    if not isinstance(info, dict) or info.get("format") != NAME:
        raise error(f'{where}: expected an object with "format": "{NAME}"')
    version = info.get("version")
    if type(version) is not int or version < 1:
        raise error(f"{where}: version: expected a whole number from 1 up")
    if version > VERSION:
        raise error(
            f"{where}: version {version} of the format; this program reads up to {VERSION}, a "
            "newer one wrote the file"
        )
    return info


def _parts(
    info: dict[str, Any],
    members: dict[str, zipfile.ZipInfo],
    path: PathLike,
    error: type[InputError],
) -> dict[str, str]:
    """The members of the parts that model.json lists; these, and no others, must be there."""
    where = f"{shown(path)}: {MANIFEST}"
    listed = info.get("parts")
    if not isinstance(listed, dict) or not {"net", "weights"} <= set(listed) <= set(PARTS):
        raise error(f"{where}: parts: expected an object with net, weights, and no unknown part")
    found: dict[str, str] = {}
    for part, fact in listed.items():
        name = fact.get("file") if isinstance(fact, dict) else None
        if not isinstance(name, str) or name not in PARTS[part] or not _is_hash(fact.get("sha256")):
            raise error(f"{where}: parts.{part}: expected its file, bytes and sha256")
        size = members[name].file_size if name in members else None
        if size is None or type(fact.get("bytes")) is not int or fact["bytes"] != size:
            has = "is not there" if size is None else f"has {size} bytes"
            raise error(f"{shown(path)}: {name}: {has}; {MANIFEST} says {fact.get('bytes')}")
        found[part] = name
    strange = sorted(set(members) - set(found.values()) - {MANIFEST})
    if strange:
        raise error(f"{shown(path)}: {shown(strange[0][:80])}: {MANIFEST} does not list it")
    return found


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


@contextmanager
def _told(folder: PathLike, error: type[InputError]) -> Iterator[None]:
    """Turns the system's errors in writing to a temporary folder into `error`."""
    try:
        yield
    except OSError as problem:
        raise error(f"{shown(folder)}: cannot be written: {reason(problem)}") from problem
