"""Converts ScanNet's 25k frames (Dai et al., CVPR 2017), as downloaded, to one LMDB per split.

Reads scannet_frames_25k (and scannet_frames_test for the test split): colour and labels at
1296x968, registered depth at 640x480 in millimetres. Labels are NYUv2's 40 classes. The benchmark's
lists, scannetv2_train.txt and so on, give the scenes of each split. Test frames have no labels:
their labels are 0, and dataset.json says so.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from boundary import reading
from boundary.errors import shown
from boundary.names import component
from data_tools import build, classes, cli, images
from data_tools.build import Output
from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.record import Frame

SPLITS = ("train", "val", "trainval", "test")
FOLDERS = {"train": "scannet_frames_25k", "val": "scannet_frames_25k",
           "test": "scannet_frames_test"}  # fmt: skip


class ScanNet:
    """The source: all frames of some scenes, in the order of the list and then of the numbers."""

    block = 1

    def __init__(self, scenes: list[tuple[Path, bool]]):
        """scenes: (folder, whether it has labels) of each scene."""
        self.names: list[str] = []
        self._frames: list[tuple[Path, str, bool]] = []
        for folder, labeled in scenes:
            numbers = sorted(file.stem for file in (folder / "color").glob("*.jpg"))
            if not numbers:
                raise DataError(f"{folder}/color: holds no .jpg")
            self.names += [f"{folder.name}/{number}" for number in numbers]
            self._frames += [(folder, number, labeled) for number in numbers]

    def load(self, index: int) -> Frame:
        """Frame `index` (from 0)."""
        folder, number, labeled = self._frames[index]
        files = {
            "color": folder / "color" / f"{number}.jpg",
            "depth": folder / "depth" / f"{number}.png",
            "label": folder / "label" / f"{number}.png",
        }
        return Frame(
            images.read_color(files["color"]),
            images.read_depth(files["depth"]),
            images.read_label(files["label"]) if labeled else None,
            files={part: str(file) for part, file in files.items()},
        )

    def about(self, index: int) -> dict[str, Any]:
        """Nothing: scene and number are in the key."""
        return {}


def scenes_of(split: str, root: Path, lists: Path) -> list[Path]:
    """The folders of the scenes of a split ('train', 'val' or 'test').

    Without a list, test is all scenes of its folder. Raises DataError for a missing list or scene.
    """
    folder = root / FOLDERS[split] if (root / FOLDERS[split]).is_dir() else root
    listed = lists / f"scannetv2_{split}.txt"
    if listed.is_file():
        names = reading.read_text(listed, DataError).split()
    elif split == "test" and folder != root:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    else:
        raise DataError(
            f"{listed}: no such file; the benchmark's lists are part of ScanNet's "
            "repository (Tasks/Benchmark), and --lists says where they are"
        )
    if not names:
        raise DataError(f"{listed if listed.is_file() else folder}: names no scene")
    for name in names:
        if component(name) != name:
            raise DataError(f"{listed}: {shown(name)} is not the name of a scene")
        if not (folder / name / "color").is_dir():
            raise DataError(f"{folder / name}: no such scene, or no color/ in it")
    return [folder / name for name in names]


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "scannet")
    parser.add_argument(
        "root",
        metavar="SCANNET_DIR",
        type=Path,
        help="folder with scannet_frames_25k/ (and scannet_frames_test/)",
    )
    parser.add_argument(
        "out", metavar="OUT_DIR", type=Path, help="folder that gets one LMDB per split"
    )
    parser.add_argument(
        "--lists",
        type=Path,
        metavar="DIR",
        help="folder with scannetv2_train.txt and the other lists (default: SCANNET_DIR)",
    )
    parser.add_argument(
        "--splits",
        type=cli.some_of(SPLITS),
        default=["train", "val"],
        metavar="S,S,...",
        help=f"splits to write, of {', '.join(SPLITS)} (default: train,val)",
    )
    build.add_arguments(parser, "320x240")
    return parser


def collect(args: argparse.Namespace) -> tuple[ScanNet, list[Output]]:
    """The source and the LMDBs to write."""
    if not args.root.is_dir():
        raise DataError(f"{args.root}: no such folder")
    parts = {split: ("train", "val") if split == "trainval" else (split,) for split in args.splits}
    folders = {
        part: scenes_of(part, args.root, args.lists or args.root)
        for part in dict.fromkeys(part for needed in parts.values() for part in needed)
    }
    source = ScanNet([(folder, part != "test") for part in folders for folder in folders[part]])
    by_scene: dict[str, list[int]] = {}
    for index, name in enumerate(source.names):
        by_scene.setdefault(name.partition("/")[0], []).append(index)
    outputs = []
    for split, needed in parts.items():
        indices = [
            index for part in needed for folder in folders[part] for index in by_scene[folder.name]
        ]
        info = {"split": split, "labeled": split != "test"}
        outputs.append(Output(args.out / split, indices, info))
    return source, outputs


def main() -> None:
    """`python -m data_tools.scannet`."""
    args = cli.parse(arguments())
    source, outputs = collect(args)
    table = classes.benchmark("nyuv2-40")
    format = build.record_format(args, DepthUnit("steps", 1000.0), table.highest)
    info = {
        "tool": "data_tools.scannet",
        "dataset": "scannet-40",
        "source": {"frames": len(source.names)},
        **table.describe(),
    }
    build.build(source, outputs, format, info, build.options(args))


if __name__ == "__main__":
    cli.run(main)
