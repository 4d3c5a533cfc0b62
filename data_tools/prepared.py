"""Converts NYUv2 and SUN RGB-D data that others prepared for their FuseNets to LMDBs.

SOURCE is one of: the SUN RGB-D archive of the authors' PyTorch port (a folder with images-224,
depth-inpaint-u8-224, seglabel-224 and splits.pkl); the nyuv2.npy that the port's script writes; or
the HDF5 file of zanilzanzan/FuseNet_PyTorch (rgb_train, depth_train, label_train, class_train and
the same for test). Sizes, and depth, which is already 0..255, are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from boundary.hdf5 import SIGNATURE
from boundary.reading import check_plain, reading
from data_tools import build, classes, cli, framing, images, matfile, nyuv2, unpickle
from data_tools.build import Output
from data_tools.cli import DataError
from data_tools.depth import DepthRange, DepthUnit
from data_tools.record import Frame, RecordFormat, integers, whole

SUN_FOLDERS = {"color": "images-224", "depth": "depth-inpaint-u8-224", "label": "seglabel-224"}


class SunArchive:
    """The port's SUN RGB-D folder: NUMBER.png in each of its folders."""

    block = 1
    dataset = "sunrgbd-37"
    scenes: tuple[str, ...] = ()

    def __init__(self, root: Path):
        self._root = root
        listed = root / "splits.pkl"
        splits = unpickle.load_pickle(listed)
        if not isinstance(splits, dict) or not {"trainval", "test"} <= set(splits):
            raise DataError(f"{root}/splits.pkl: expected the splits trainval and test")
        parts = {"train": splits["trainval"], "test": splits["test"]}
        with reading(listed, "two lists of the pictures' numbers", DataError):
            numbers = {name: [int(i) for i in np.ravel(part)] for name, part in parts.items()}
        self._numbers = [number for part in numbers.values() for number in part]
        self.names = [str(number) for number in self._numbers]
        count = len(numbers["train"])
        self.splits = {"train": range(count), "test": range(count, len(self.names))}

    def load(self, index: int) -> Frame:
        """Frame `index`."""
        files = {
            part: self._root / folder / f"{self._numbers[index]}.png"
            for part, folder in SUN_FOLDERS.items()
        }
        return Frame(
            images.read_color(files["color"]),
            images.read_depth(files["depth"]),
            images.read_label(files["label"]),
            files={part: str(file) for part, file in files.items()},
        )

    def about(self, index: int) -> dict[str, Any]:
        """Nothing."""
        return {}


class NyuNpy:
    """The port's nyuv2.npy: a dictionary of lists, in the data set's order, RGB."""

    block = 1
    dataset = "nyuv2-40"
    scenes: tuple[str, ...] = ()

    def __init__(self, path: Path):
        self._path = path
        self._parts: dict[str, Any] | None = None
        count = len(self._load()["rgb_images"])
        self.names = [f"nyu{index + 1:04d}" for index in range(count)]
        indices = {split: nyuv2.split_indices(split) for split in ("trainval", "test")}
        self.splits = {split: [i for i in part if i < count] for split, part in indices.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parts": None}  # each worker loads the file for itself

    def _load(self) -> dict[str, Any]:
        if self._parts is None:
            parts = unpickle.load_npy(self._path)
            names = ("rgb_images", "depth_images", "masks")
            if not isinstance(parts, dict) or not set(names) <= set(parts):
                raise DataError(f"{self._path}: expected a dictionary with {', '.join(names)}")
            with reading(self._path, "a dictionary of lists", DataError):
                if len({len(parts[name]) for name in names}) > 1:
                    raise DataError(f"{self._path}: its lists differ in length")
            self._parts = parts
        return self._parts

    def load(self, index: int) -> Frame:
        """Frame `index`."""
        parts = self._load()
        with reading(f"{self._path}: frame {index}", "arrays", DataError):
            color, depth, label = (
                np.asarray(parts[name][index]) for name in ("rgb_images", "depth_images", "masks")
            )
            return Frame(np.ascontiguousarray(whole(color, "rgb_images")[..., ::-1]), depth, label)

    def about(self, index: int) -> dict[str, Any]:
        """Nothing."""
        return {}


class ZanilHdf5:
    """zanilzanzan's file: rgb_*, depth_*, label_* and class_* for train and test; RGB, N x 3 x H
    x W; scenes 1..10 in the order of nyuv2.SCENES."""

    block = 8
    dataset = "nyuv2-40"
    scenes = nyuv2.SCENES

    def __init__(self, path: Path):
        self._path, self._parts = path, None
        with matfile.open_hdf5(path) as file, file.guard():
            counts = {
                part: len(matfile.variable(file, f"rgb_{part}")) for part in ("train", "test")
            }
            for part in counts:
                for kind in ("depth", "label"):
                    if len(matfile.variable(file, f"{kind}_{part}")) != counts[part]:
                        raise DataError(f"{path}: {kind}_{part} and rgb_{part} differ in length")
            self._classes = {
                part: file.read(file.dataset(f"class_{part}")).ravel().astype(int)
                for part in counts
                if file.get(f"class_{part}") is not None
            }
        self._where = [(part, index) for part, count in counts.items() for index in range(count)]
        self.names = [f"{part}{index}" for part, index in self._where]
        train = counts["train"]
        self.splits = {"trainval": range(train), "test": range(train, len(self.names))}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parts": None}  # each worker opens the file for itself

    def load(self, index: int) -> Frame:
        """Frame `index`."""
        part, place = self._where[index]
        if self._parts is None:
            file = matfile.open_hdf5(self._path)
            self._parts = {
                f"{kind}_{split}": matfile.Slices(file, f"{kind}_{split}")
                for kind in ("rgb", "depth", "label")
                for split in ("train", "test")
            }
        with reading(self._path, "an HDF5 file that can be read", DataError):
            color, depth, label = (
                self._parts[f"{kind}_{part}"][place] for kind in ("rgb", "depth", "label")
            )
            scene = int(self._classes[part][place]) - 1 if part in self._classes else 0
            bgr = np.ascontiguousarray(whole(color, f"rgb_{part}").transpose(1, 2, 0)[..., ::-1])
            label = integers(label, f"label_{part}")
            return Frame(bgr, depth.reshape(depth.shape[-2:]), label, scene)

    def about(self, index: int) -> dict[str, Any]:
        """Nothing."""
        return {}


def open_source(path: Path) -> SunArchive | NyuNpy | ZanilHdf5:
    """Opens the source at the path. Raises DataError if it is none of the three."""
    if path.is_dir():
        missing = [
            name for name in (*SUN_FOLDERS.values(), "splits.pkl") if not (path / name).exists()
        ]
        if missing:
            raise DataError(f"{path}: has no {missing[0]}, so it is not the port's SUN archive")
        return SunArchive(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    check_plain(path, DataError)
    with reading(path, "a file that can be read", DataError), open(path, "rb") as file:
        head = file.read(8)
    if head == SIGNATURE:
        return ZanilHdf5(path)
    if head[:6] == b"\x93NUMPY":
        return NyuNpy(path)
    raise DataError(f"{path}: neither a folder nor an .npy nor an HDF5 file")


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "prepared")
    parser.add_argument("source", metavar="SOURCE", type=Path)
    parser.add_argument(
        "out", metavar="OUT_DIR", type=Path, help="folder that gets one LMDB per split"
    )
    build.add_arguments(parser, None, depth_range=False)
    return parser


def main() -> None:
    """`python -m data_tools.prepared`."""
    args = cli.parse(arguments())
    source = open_source(args.source)
    table = classes.benchmark(source.dataset)
    format = RecordFormat(
        args.size,
        DepthUnit("scaled"),
        DepthRange("none"),
        args.float_depth,
        table.highest,
        **framing.fields(args),
    )
    info = {
        "tool": "data_tools.prepared",
        "dataset": source.dataset,
        "source": {"file": args.source.name, "kind": type(source).__name__},
        "labeled": True,
        **({"scenes": list(source.scenes)} if source.scenes else {}),
        **table.describe(),
    }
    outputs = [
        Output(args.out / split, indices, {"split": split})
        for split, indices in source.splits.items()
        if len(indices)
    ]
    build.build(source, outputs, format, info, build.options(args))


if __name__ == "__main__":
    cli.run(main)
