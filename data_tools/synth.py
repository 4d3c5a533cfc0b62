"""Renders labelled RGB-D frames of indoor scenes, for which neither colour nor depth is enough.

The rooms have walls, floor and ceiling, doors on walls, rugs on floors, cabinets and fridges
(boxes), columns (cylinders), and murals: pictures of such furniture, painted on the surfaces behind
it in correct perspective. Only depth can tell a mural from the furniture that it shows. Only colour
can tell a door from its wall, a rug from its floor, or a cabinet from a fridge. Small clutter has
label 0. The sensor adds holes, and noise that grows with distance. Frame i depends only on the seed
and on i.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from boundary import writing
from boundary.late import cv2
from data_tools import boxes, build, cli
from data_tools.build import Output
from data_tools.classes import ClassTable
from data_tools.cli import DataError
from data_tools.depth import DepthRange, DepthUnit
from data_tools.record import Frame, RecordFormat
from data_tools.render import Material, Patch, Renderer, Scene, Seen, Solid, noise

CLUTTER, WALL, FLOOR, CEILING, DOOR, RUG, CABINET, FRIDGE, COLUMN, MURAL = range(10)
CLASSES = ClassTable(
    (
        "(ignored)",
        "wall",
        "floor",
        "ceiling",
        "door",
        "rug",
        "cabinet",
        "fridge",
        "column",
        "mural",
    ),
    (
        (0, 0, 0),
        (190, 200, 215),
        (110, 90, 70),
        (240, 240, 225),
        (60, 140, 130),
        (170, 40, 60),
        (225, 140, 50),
        (70, 110, 200),
        (120, 180, 70),
        (180, 80, 190),
    ),
)
# Mean colour (blue, green, red), 0..1, of each kind; colours are drawn around it.
COLORS = {
    WALL: (0.78, 0.8, 0.82),
    FLOOR: (0.42, 0.48, 0.55),
    CEILING: (0.9, 0.92, 0.92),
    DOOR: (0.45, 0.5, 0.25),
    RUG: (0.25, 0.2, 0.6),
    CABINET: (0.2, 0.42, 0.68),
    FRIDGE: (0.75, 0.5, 0.35),
    COLUMN: (0.35, 0.62, 0.5),
    CLUTTER: (0.3, 0.3, 0.3),
}
OBJECTS = (CABINET, FRIDGE, COLUMN)  # what boxes are around: labels 1, 2, 3 there
LEAST_SIDE, LEAST_SHARE = 0.03, 0.3  # of the image's side, of the object: less is difficult
STEPS_PER_METRE = 1000
MAX_METRES = 8.0


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draws a room with real and painted furniture, and a camera at standing height."""
    room = (rng.uniform(4, 6), rng.uniform(2.4, 3), rng.uniform(5, 7.5))
    camera = (rng.uniform(0.3, 0.7) * room[0], rng.uniform(1.2, 1.7), rng.uniform(0.2, 0.8))
    yaw = rng.uniform(-0.45, 0.45)
    # A scene is mostly real or mostly painted. If each piece were drawn independently, one that
    # hides another would be known to be real.
    painted = rng.choice((0.1, 0.9))
    solids = [_furniture(rng, room, camera, yaw, painted) for _ in range(rng.integers(5, 9))]
    solids += [_clutter(rng, room, camera, yaw) for _ in range(rng.integers(0, 3))]
    return Scene(
        room=room,
        camera=camera,
        yaw=yaw,
        pitch=rng.uniform(-0.28, -0.05),
        light=(rng.uniform(0.2, 0.8) * room[0], room[1] - 0.3, rng.uniform(0.1, 0.7) * room[2]),
        surfaces=(_material(rng, WALL), _material(rng, FLOOR), _material(rng, CEILING)),
        labels=(WALL, FLOOR, CEILING),
        patches=(*_doors(rng, room), *_rugs(rng, room)),
        solids=tuple(solids),
    )


def _material(rng: np.random.Generator, kind: int, stripes: float = 0.0) -> Material:
    color = np.clip(np.array(COLORS[kind]) * rng.uniform(0.85, 1.12) + rng.normal(0, 0.03, 3), 0, 1)
    return Material(tuple(color), rng.uniform(0.04, 0.14), stripes)


def _place(
    rng: np.random.Generator, room: tuple[float, ...], camera: tuple[float, ...], yaw: float
) -> tuple[float, float]:
    """Draws a place on the floor that is probably visible."""
    away, side = rng.uniform(2.2, 6.0), rng.uniform(-0.5, 0.5)
    x = camera[0] + away * np.sin(yaw + side)
    z = camera[2] + away * np.cos(yaw + side)
    return float(np.clip(x, 0.5, room[0] - 0.5)), float(np.clip(z, camera[2] + 1.8, room[2] - 0.4))


def _furniture(
    rng: np.random.Generator,
    room: tuple[float, ...],
    camera: tuple[float, ...],
    yaw: float,
    painted: float,
) -> Solid:
    label = int(rng.choice((CABINET, FRIDGE, COLUMN)))
    if label == COLUMN:
        width = rng.uniform(0.3, 0.6)
        size = (width, rng.uniform(0.8, 2.0), width)
    else:
        size = (rng.uniform(0.45, 1.0), rng.uniform(0.6, 1.7), rng.uniform(0.4, 0.7))
    return Solid(
        "cylinder" if label == COLUMN else "box",
        _place(rng, room, camera, yaw),
        size,
        rng.uniform(-0.8, 0.8),
        _material(rng, label),
        label,
        painted=bool(rng.random() < painted),
        painted_label=MURAL,
    )


def _clutter(
    rng: np.random.Generator, room: tuple[float, ...], camera: tuple[float, ...], yaw: float
) -> Solid:
    size = tuple(rng.uniform(0.08, 0.25, 3))
    return Solid(
        "box",
        _place(rng, room, camera, yaw),
        size,
        rng.uniform(-0.8, 0.8),
        _material(rng, CLUTTER),
        CLUTTER,
    )


def _doors(rng: np.random.Generator, room: tuple[float, ...]) -> list[Patch]:
    doors = []
    for face, length in ((0, room[2]), (1, room[2]), (5, room[0])):
        if rng.random() < 0.7:
            start = rng.uniform(0.2, 0.75) * length
            width, height = rng.uniform(0.8, 1.2), rng.uniform(1.9, 2.2)
            doors.append(
                Patch(face, (start, 0.0), (start + width, height), _material(rng, DOOR), DOOR)
            )
    return doors


def _rugs(rng: np.random.Generator, room: tuple[float, ...]) -> list[Patch]:
    if rng.random() < 0.2:
        return []
    x, z = rng.uniform(0.1, 0.5) * room[0], rng.uniform(0.25, 0.5) * room[2]
    high = (x + rng.uniform(1.0, 2.2), z + rng.uniform(1.2, 2.4))
    return [Patch(2, (x, z), high, _material(rng, RUG, rng.uniform(2, 5)), RUG)]


class Sensor:
    """Simulates the camera: turns rendered colour and depth into what a sensor reports."""

    def __init__(self) -> None:
        self._normal = np.random.default_rng(1).standard_normal(1 << 20, dtype=np.float32)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Normal noise: a random section of a long table, which is faster than drawing it."""
        count = int(np.prod(shape))
        if count > self._normal.size // 2:
            return rng.standard_normal(shape, dtype=np.float32)
        start = int(rng.integers(0, self._normal.size - count))
        return self._normal[start : start + count].reshape(shape)

    def color(self, rng: np.random.Generator, color: np.ndarray) -> np.ndarray:
        """float 0..1 (H x W x 3) -> uint8, with random exposure and white balance."""
        gain = (rng.uniform(0.8, 1.05) * rng.uniform(0.96, 1.04, 3) * 255).astype(np.float32)
        noisy = color * gain
        noisy += np.float32(rng.uniform(1, 5)) * self.noise(rng, color.shape)
        return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)

    def depth(self, rng: np.random.Generator, depth: np.ndarray) -> np.ndarray:
        """metres -> uint16 millimetres, 0 = no reading.

        The noise is that of structured light: sigma = 1.425 mm * z^2 (Khoshelham and Elberink,
        Sensors 2012). Holes occur at depth edges (the emitter's shadow), in blotches, and beyond
        MAX_METRES.
        """
        noisy = depth + np.float32(1.425e-3) * depth * depth * self.noise(rng, depth.shape)
        step = max(1, depth.shape[1] // 160)
        holes = noisy > MAX_METRES
        holes[:, step:] |= depth[:, step:] > depth[:, :-step] * np.float32(1.08)
        holes |= self._blotches(rng, depth.shape)
        return np.where(holes, 0, noisy * STEPS_PER_METRE).astype(np.uint16)

    def _blotches(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        texture = noise(3.0)
        zoom = 200.0 / shape[1]
        rows = (np.arange(shape[0]) * zoom + rng.integers(256)).astype(np.int32) & 255
        columns = (np.arange(shape[1]) * zoom + rng.integers(256)).astype(np.int32) & 255
        return texture[rows[:, None], columns] > np.float32(rng.uniform(0.7, 1.1))


class Synth:
    """The source: `count` frames of `size` (width, height) pixels."""

    block = 1

    def __init__(self, count: int, size: tuple[int, int], seed: int):
        self.names = [f"synth{index}" for index in range(count)]
        self._seed, self._size = seed, size
        self._tools: tuple[Renderer, Sensor] | None = None

    def load(self, index: int) -> Frame:
        """Renders frame `index`: colour uint8, depth uint16 millimetres, label uint8."""
        if self._tools is None:
            self._tools = Renderer(*self._size), Sensor()
        renderer, sensor = self._tools
        rng = np.random.default_rng((self._seed, index))
        color, depth, label = renderer.render(draw_scene(rng))
        return Frame(sensor.color(rng, color), sensor.depth(rng, depth), label)

    def picture(self, index: int) -> boxes.Picture:
        """The colour of frame `index` as PNG, with boxes around its furniture. Painted pieces are
        difficult: colour alone cannot tell them from real ones.
        """
        frame = self.load(index)
        assert self._tools is not None
        found = []
        for seen in self._tools[0].seen():
            if seen.solid.label in OBJECTS:
                found.append(_box(seen, self._size, len(found)))
        data = cv2.imencode(".png", frame.color)[1].tobytes()
        return boxes.Picture(self.names[index], data, self._size, found)

    def about(self, index: int) -> dict[str, Any]:
        """Nothing: a frame is defined by seed and number."""
        return {}


def _box(seen: Seen, size: tuple[int, int], instance: int) -> boxes.Box:
    """The box of an object; it is difficult if it is small, mostly hidden, or painted."""
    left, top, right, bottom = (
        side / size[axis] for side, axis in zip(seen.box, (0, 1, 0, 1), strict=True)
    )
    small = min(right - left, bottom - top) < LEAST_SIDE
    difficult = small or seen.share < LEAST_SHARE or seen.solid.painted
    label = OBJECTS.index(seen.solid.label) + 1
    return boxes.Box(label, left, top, right, bottom, instance, difficult)


def write_boxes(source: Synth, path: Path, seed: int, force: bool) -> None:
    """Writes an LMDB of the colour pictures with boxes around cabinets, fridges and columns."""
    labels = boxes.numbered([CLASSES.names[label] for label in OBJECTS])
    about = {"tool": "data_tools.synth", "source": {"seed": seed}}
    boxes.write(path, source, labels, about, force)


def write_folder(source: Synth, folder: Path) -> None:
    """Writes PNGs to rgb/, depth/ (uint16 millimetres) and label/, and classes.csv."""
    for name in ("rgb", "depth", "label"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = [
        f"{i},{name},{r},{g},{b}\n"
        for i, (name, (r, g, b)) in enumerate(zip(CLASSES.names, CLASSES.colors, strict=True))
    ]
    text = "label,name,r,g,b\n" + "".join(rows)
    writing.write_text(folder / "classes.csv", text, DataError)
    for index in cli.progress(range(len(source.names)), None, "pictures"):
        frame = source.load(index)
        for name, image in (("rgb", frame.color), ("depth", frame.depth), ("label", frame.label)):
            data = cv2.imencode(".png", image)[1].tobytes()
            writing.write_bytes(folder / name / f"{index:08d}.png", data, DataError)


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "synth")
    parser.add_argument("out", metavar="OUT_LMDB", type=Path)
    parser.add_argument(
        "--count",
        type=cli.whole(1),
        default=100,
        metavar="N",
        help="number of frames (default: 100)",
    )
    parser.add_argument(
        "--seed", type=cli.whole(0), default=0, metavar="S", help="seed of the scenes (default: 0)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="also write PNGs and classes.csv, which data_tools.folder reads",
    )
    parser.add_argument(
        "--boxes",
        type=Path,
        metavar="LMDB",
        help="also write an LMDB of the colour pictures with boxes around cabinets, fridges and "
        "columns, which SSD's AnnotatedData layer reads, with labelmap.prototxt",
    )
    build.add_arguments(parser, "160x120", depth_range=False, fit=None)
    return parser


def main() -> None:
    """`python -m data_tools.synth`."""
    args = cli.parse(arguments())
    outputs = [("OUT_LMDB", args.out), *([("--boxes", args.boxes)] if args.boxes else [])]
    cli.check_distinct(outputs, [])
    source = Synth(args.count, args.size, args.seed)
    # One range for all frames, so that equal values mean equal depth.
    format = RecordFormat(
        args.size,
        DepthUnit("steps", STEPS_PER_METRE),
        DepthRange("fixed", 0.0, MAX_METRES),
        args.float_depth,
        CLASSES.highest,
    )
    info = {
        "tool": "data_tools.synth",
        "source": {"seed": args.seed},
        "labeled": True,
        **CLASSES.describe(),
    }
    build.build(source, [Output(args.out, range(args.count))], format, info, build.options(args))
    if args.boxes:
        write_boxes(source, args.boxes, args.seed, args.force)
    if args.folder:
        write_folder(source, args.folder)


if __name__ == "__main__":
    cli.run(main)
