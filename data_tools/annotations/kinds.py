"""Recognises the form of annotations by their files, and reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boundary.errors import shown
from boundary.reading import read_json
from data_tools.annotations import coco, cvat, label_map, label_studio, labelme
from data_tools.annotations.base import Annotations, json_limit
from data_tools.cli import DataError
from data_tools.images import LABEL

# The forms that --labels-kind names, and what each needs.
NEEDS = {
    "cvat": "annotations.xml ('CVAT for images 1.1')",
    "cvat-masks": "labelmap.txt and SegmentationClass/ ('Segmentation mask 1.1')",
    "labelme": "a folder of LabelMe's JSON files",
    "coco": "a JSON file of instances",
    "coco-panoptic": "a panoptic JSON file and its folder of PNGs",
    "label-studio": "a JSON export",
    "pictures": "a folder of pictures, as --label",
}


def read(path: Path, kind: str | None = None) -> Annotations | None:
    """The annotations at `path`, a file or a folder; None if it holds pictures of labels.

    kind: their form; by default it is recognised. Raises DataError if nothing is recognised, or if
    the files are spoiled.
    """
    if not path.exists():
        raise DataError(f"{shown(path)}: no such folder or file")
    if path.suffix.lower() in (".zip", ".gz", ".tar"):
        raise DataError(f"{shown(path)}: is packed; unpack it, and name what was in it")
    if kind == "pictures":
        return None
    if kind in ("cvat", None) and (file := _file(path, "annotations.xml", ".xml")):
        return cvat.read(file)
    if kind in ("cvat-masks", None) and (file := _file(path, label_map.FILE, label_map.FILE)):
        return label_map.read(file)
    if kind == "labelme":
        return labelme.read(path)
    if kind not in ("cvat", "cvat-masks"):
        found, several = _from_json(path, kind)
        if found is not None:
            return found
        if several:
            raise DataError(f"{shown(path)}: holds {several} JSON files; name one of them")
    if kind is None and path.is_dir() and any(f.suffix.lower() in LABEL for f in path.rglob("*")):
        return None
    expected = {kind: NEEDS[kind]} if kind else NEEDS
    needs = "; ".join(f"{name}: {need}" for name, need in expected.items())
    raise DataError(f"{shown(path)}: holds no annotations that are known here; expected {needs}")


def _file(path: Path, name: str, ending: str) -> Path | None:
    """The file `name` in a folder, or a file itself, if its name ends so."""
    if path.is_dir():
        return path / name if (path / name).is_file() else None
    return path if path.name.lower().endswith(ending) else None


def _from_json(path: Path, kind: str | None) -> tuple[Annotations | None, int]:
    """What the JSON at `path` holds; or None, and how many files there are to choose from."""
    files = [path]
    if path.is_dir():
        patterns = ("*.json", "annotations/*.json", "**/*.json")
        files = next((f for pattern in patterns if (f := sorted(path.glob(pattern)))), [])
    elif path.suffix.lower() != ".json":
        return None, 0
    if not files:
        return None, 0
    told = read_json(files[0], DataError, None, json_limit())
    form = _form(told)
    if form == "labelme" and kind is None:
        return labelme.read(path), 0
    if form is None or kind not in (form, None):
        return None, 0
    if len(files) > 1:
        return None, len(files)
    return {"coco": coco.read, "coco-panoptic": coco.read_panoptic,
            "label-studio": label_studio.read}[form](told, files[0]), 1  # fmt: skip


def _form(told: Any) -> str | None:
    """The form of a JSON file's content."""
    if isinstance(told, list):
        tasks = all(isinstance(task, dict) for task in told)
        return "label-studio" if told and tasks else None
    if not isinstance(told, dict):
        return None
    if isinstance(told.get("shapes"), list):
        return "labelme"
    found = told.get("annotations")
    if not isinstance(found, list) or not isinstance(told.get("images"), list):
        return None
    panoptic = any(isinstance(item, dict) and "segments_info" in item for item in found[:100])
    return "coco-panoptic" if panoptic else "coco"
