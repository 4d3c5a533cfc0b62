"""Generated MATLAB files in the true layouts: every pixel follows from a formula."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import h5py
import numpy as np

NYU_SIZE = (640, 480)
SCENE_TYPES = ("bedroom", "home_office", "basement", "living_room", "kitchen")


def nyu_color(index: int, size=NYU_SIZE) -> np.ndarray:
    """H x W x 3, RGB: equal in blocks of 2 x 2, so that halving is exact."""
    y, x = np.mgrid[: size[1], : size[0]] // 2
    return np.stack([x + index, y + 2 * index, x + y + 3 * index], 2).astype(np.uint8)


def nyu_depth(index: int, raw: bool, size=NYU_SIZE) -> np.ndarray:
    """H x W metres, float32; the raw ones have holes."""
    y, x = np.mgrid[: size[1], : size[0]]
    depth = (1 + index / 100 + x / 640 + y / 100).astype(np.float32)
    return np.where(raw & ((x + y + index) % 7 == 0), np.float32(0), depth)


def nyu_label(index: int, size=NYU_SIZE) -> np.ndarray:
    """H x W raw labels 0..894, all of them in each frame."""
    y, x = np.mgrid[: size[1], : size[0]] // 2
    return ((x + 320 * y + index) % 895).astype(np.uint16)


def write_nyu(path: Path, count: int, size=NYU_SIZE, chunk=None, leave_out=(), **compression):
    """nyu_depth_v2_labeled.mat with `count` frames, in MATLAB's reversed order of axes."""
    width, height = size
    shapes = {
        "images": ((count, 3, width, height), np.uint8),
        "depths": ((count, width, height), np.float32),
        "rawDepths": ((count, width, height), np.float32),
        "labels": ((count, width, height), np.uint16),
    }
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, (shape, dtype) in shapes.items():
            if name in leave_out:
                continue
            chunks = (min(chunk, count), *shape[1:]) if chunk else None
            part = file.create_dataset(name, shape, dtype, chunks=chunks, **compression)
            for i in range(count):
                part[i] = {
                    "images": lambda i: nyu_color(i, size).transpose(2, 1, 0),
                    "depths": lambda i: nyu_depth(i, False, size).T,
                    "rawDepths": lambda i: nyu_depth(i, True, size).T,
                    "labels": lambda i: nyu_label(i, size).T,
                }[name](i)
        references = file.create_group("#refs#")
        kinds = {
            "names": [f"thing {i}" for i in range(1, 895)],
            "scenes": [f"scene_{i:04d}" for i in range(count)],
            "sceneTypes": [SCENE_TYPES[i % len(SCENE_TYPES)] for i in range(count)],
        }
        for name, texts in kinds.items():
            if name in leave_out:
                continue
            refs = file.create_dataset(name, (1, len(texts)), h5py.ref_dtype)
            refs.attrs["MATLAB_class"] = np.bytes_("cell")
            for i, text in enumerate(texts):
                item = references.create_dataset(
                    f"{name}{i}", data=np.array([[ord(c)] for c in text], np.uint16)
                )
                item.attrs["MATLAB_class"] = np.bytes_("char")
                refs[0, i] = item.ref
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


# -- level 5 -------------------------------------------------------------------------------------


def _element(kind: int, payload: bytes) -> bytes:
    if 0 < len(payload) <= 4:  # the small format
        return struct.pack("<HH", kind, len(payload)) + payload.ljust(4, b"\0")
    return struct.pack("<II", kind, len(payload)) + payload + b"\0" * (-len(payload) % 8)


def _matrix(value, name: str = "") -> bytes:
    if isinstance(value, str):
        kind, shape = 4, (1, len(value))
        content = _element(4, np.array([ord(c) for c in value], "<u2").tobytes())
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        kind, shape, names = 2, (1, len(value)), list(value[0])
        content = _element(5, struct.pack("<i", 32))
        content += _element(1, b"".join(n.encode().ljust(32, b"\0") for n in names))
        content += b"".join(_matrix(row[n]) for row in value for n in names)
    elif isinstance(value, list):
        kind, shape = 1, (1, len(value))
        content = b"".join(map(_matrix, value))
    else:
        value = np.asarray(value)
        kind, shape = {"float64": (6, 9), "uint8": (9, 2), "int32": (12, 5)}[str(value.dtype)]
        content = _element(shape, value.astype(value.dtype.newbyteorder("<")).tobytes(order="F"))
        shape = value.shape
    head = _element(6, struct.pack("<II", kind, 0))
    head += _element(5, struct.pack(f"<{len(shape)}i", *shape)) + _element(1, name.encode())
    body = head + content
    return struct.pack("<II", 14, len(body)) + body


def write_level5(path: Path, compress: bool = True, **variables) -> None:
    """A level-5 file: strings, arrays, lists (cells) and lists of dictionaries (structs)."""
    data = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    for name, value in variables.items():
        item = _matrix(value, name)
        if compress:
            item = zlib.compress(item)
            item = struct.pack("<II", 15, len(item)) + item
        data += item
    path.write_bytes(data)
