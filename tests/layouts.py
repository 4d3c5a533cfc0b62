"""Writes frames in the layouts of cameras' programs and data sets, for tests of recordings.

A frame is (colour H x W x 3 uint8 BGR or the bytes of its file, depth H x W as stored).
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np


def put(path: Path, image) -> Path:
    """Writes a picture or, for .npy and .exr, an array; bytes as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    elif path.suffix == ".npy":
        np.save(path, image)
    elif path.suffix == ".exr":
        path.write_bytes(exr(image))
    else:
        assert cv2.imwrite(str(path), image)
    return path


def exr(depth: np.ndarray) -> bytes:
    """An uncompressed OpenEXR file of one channel Z of floats."""
    height, width = depth.shape
    channel = b"Z\0" + struct.pack("<iIii", 2, 0, 1, 1) + b"\0"
    box = struct.pack("<4i", 0, 0, width - 1, height - 1)
    attributes = (
        ("channels", "chlist", channel),
        ("compression", "compression", b"\0"),
        ("dataWindow", "box2i", box),
        ("displayWindow", "box2i", box),
        ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1)),
        ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
        ("screenWindowWidth", "float", struct.pack("<f", 1)),
    )
    head = struct.pack("<II", 20000630, 2)
    for name, kind, value in attributes:
        head += name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value))
        head += value
    head += b"\0"
    line = 8 + 4 * width
    start = len(head) + 8 * height
    table = b"".join(struct.pack("<Q", start + y * line) for y in range(height))
    rows = (struct.pack("<ii", y, 4 * width) + depth[y].astype("<f4").tobytes()
            for y in range(height))  # fmt: skip
    return head + table + b"".join(rows)


def folder(root: Path, frames, suffix: str = ".png", depth_suffix: str = ".png") -> list[str]:
    """rgb/ and depth/ with names in order, as data_tools.folder takes them; its options."""
    for number, (color, depth) in enumerate(frames):
        put(root / "rgb" / f"f{number}{suffix}", color)
        put(root / "depth" / f"f{number}{depth_suffix}", depth)
    return ["--rgb", str(root / "rgb"), "--depth", str(root / "depth")]


def tum(root: Path, frames, times=None, suffix: str = ".png", lists: bool = True) -> Path:
    """rgb.txt and depth.txt, and the files they name. times: of colour and depth, as texts."""
    times = times or [(f"{100 + i / 30:.6f}", f"{100.004 + i / 30:.6f}")
                      for i in range(len(frames))]  # fmt: skip
    texts = {part: f"# {part} images\n# file: 'x.bag'\n# timestamp filename\n"
             for part in ("rgb", "depth")}  # fmt: skip
    for (color, depth), stamps in zip(frames, times, strict=True):
        for part, image, stamp in zip(("rgb", "depth"), (color, depth), stamps, strict=True):
            name = f"{part}/{stamp}{suffix if part == 'rgb' else '.png'}"
            put(root / name, image)
            texts[part] += f"{stamp} {name}\n"
    if lists:
        for part, text in texts.items():
            (root / f"{part}.txt").write_text(text)
    return root


def seven_scenes(root: Path, frames, suffix: str = ".png") -> Path:
    """frame-N.color.png and frame-N.depth.png, with poses."""
    for number, (color, depth) in enumerate(frames):
        put(root / f"frame-{number:06d}.color{suffix}", color)
        put(root / f"frame-{number:06d}.depth.png", depth)
        (root / f"frame-{number:06d}.pose.txt").write_text("1 0 0 0\n")
    return root


def scannet(root: Path, frames, labels=None, name: str = "label-filt", suffix=".jpg") -> Path:
    """color/, depth/, pose/ and label-filt/ with numbers."""
    for number, (color, depth) in enumerate(frames):
        put(root / "color" / f"{number}{suffix}", color)
        put(root / "depth" / f"{number}.png", depth)
        put(root / "pose" / f"{number}.txt", b"1 0 0 0\n")
        if labels is not None:
            put(root / name / f"{number}.png", labels[number])
    return root


def open3d(root: Path, frames, suffix: str = ".jpg") -> Path:
    """color/ and depth/ with numbers, and the recorder's intrinsics."""
    for number, (color, depth) in enumerate(frames):
        put(root / "color" / f"{number:06d}{suffix}", color)
        put(root / "depth" / f"{number:06d}.png", depth)
    (root / "camera_intrinsic.json").write_text("{}")
    return root


def redwood(root: Path, frames, stamps, suffix: str = ".png") -> Path:
    """image/ and depth/ with a number and microseconds. stamps: of colour and depth."""
    for number, ((color, depth), (one, other)) in enumerate(zip(frames, stamps, strict=True), 1):
        put(root / "image" / f"{number:07d}-{one:012d}{suffix}", color)
        put(root / "depth" / f"{number:07d}-{other:012d}.png", depth)
    return root


def record3d(root: Path, frames, suffix: str = ".jpg") -> Path:
    """EXR_RGBD with rgb/, depth/ as EXR and metadata.json. Depth is float32 metres."""
    for number, (color, depth) in enumerate(frames):
        put(root / "EXR_RGBD" / "rgb" / f"{number}{suffix}", color)
        put(root / "EXR_RGBD" / "depth" / f"{number}.exr", depth)
    (root / "EXR_RGBD" / "metadata.json").write_text('{"fps": 30, "w": 40, "h": 30}')
    return root


def stray(root: Path, frames, first: int = 0, codec: str = "MJPG", name="rgb.avi") -> Path:
    """A video and depth/ with its frames' numbers."""
    root.mkdir(parents=True, exist_ok=True)
    height, width = frames[0][0].shape[:2]
    code = cv2.VideoWriter_fourcc(*codec)
    writer = cv2.VideoWriter(str(root / name), code, 10, (width, height))
    assert writer.isOpened()
    for number, (color, depth) in enumerate(frames):
        writer.write(color)
        put(root / "depth" / f"{number + first:06d}.png", depth)
    writer.release()
    return root


def named(root: Path, frames, color, depth, other=None) -> Path:
    """Files of any names: color, depth and other give those of a frame's number."""
    for number, (picture, plane) in enumerate(frames):
        put(root / color(number), picture)
        put(root / depth(number), plane)
        if other:
            put(root / other(number), np.full(plane.shape, 2, np.uint8))
    return root


def nyuv2_raw(root: Path, frames) -> Path:
    """r-TIME-TICKS.ppm and d-TIME-TICKS.pgm. Depth is the Kinect's numbers."""
    for number, (color, depth) in enumerate(frames):
        time = 1294886360.208451 + number / 30
        put(root / f"r-{time:.6f}-{2996770081 + number}.ppm", color)
        # OpenCV writes the high byte first, as PGM has it; the data set's files have it last.
        put(root / f"d-{time + 0.012:.6f}-31{number}.pgm", depth.byteswap())
        put(root / f"a-{time:.6f}-{number}.dump", b"\0" * 8)
    return root
