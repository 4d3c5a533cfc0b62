"""How the form of annotations is recognised."""

import json

import cv2
import numpy as np
import pytest

from data_tools.annotations import kinds
from data_tools.cli import DataError

XML = "<annotations><image name='a.png' width='4' height='3'/></annotations>"
LABELME = {"shapes": [{"label": "x", "points": [[0, 0], [1, 1]], "shape_type": "rectangle"}]}
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 3}],
    "annotations": [],
    "categories": [{"id": 1, "name": "x"}],
}
STUDIO = [{"data": {"image": "a.png"}, "annotations": [{"result": []}]}]


@pytest.fixture
def put(tmp_path):
    def write(name, content=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("annotations.xml", XML, "CVAT for images"),
        ("a.json", LABELME, "LabelMe"),
        ("instances.json", COCO, "COCO instances"),
        ("annotations/instances_default.json", COCO, "COCO instances"),
        ("export.json", STUDIO, "Label Studio"),
    ],
)
def test_files_and_their_folders(put, tmp_path, name, content, kind):
    path = put(name, content)
    assert kinds.read(path).kind == kind
    assert kinds.read(tmp_path).kind == kind


def test_an_xml_file_of_any_name(put):
    assert kinds.read(put("kitchen.xml", XML)).kind == "CVAT for images"


def test_a_folder_of_pictures_is_left_to_others(put, tmp_path):
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((3, 4), np.uint8))
    put("dataset.json", {"tool": "x"})
    assert kinds.read(tmp_path) is None
    assert kinds.read(tmp_path, "pictures") is None


def test_one_of_several_must_be_named(put, tmp_path):
    put("annotations/instances_val.json", COCO)
    put("annotations/instances_train.json", COCO)
    with pytest.raises(DataError, match="holds 2 JSON files; name one of them"):
        kinds.read(tmp_path)


def test_the_kind_that_is_told_holds(put, tmp_path):
    put("annotations.xml", XML)
    put("instances.json", COCO)
    assert kinds.read(tmp_path).kind == "CVAT for images"
    assert kinds.read(tmp_path, "coco").kind == "COCO instances"
    for kind, needs in (("cvat-masks", "labelmap.txt and"), ("label-studio", "a JSON export")):
        with pytest.raises(DataError, match=f"expected {kind}: {needs}"):
            kinds.read(tmp_path, kind)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("export.zip", "PK", "is packed; unpack it"),
        ("a.json", {"shape": []}, "holds no annotations that are known here; expected cvat: ann"),
        ("a.json", [], "holds no annotations that are known here"),
        ("a.json", "[" * 10**5, "not JSON: it is nested too deep"),
        ("a.txt", "x", "holds no annotations that are known here"),
    ],
)
def test_what_is_not_known(put, name, content, message):
    with pytest.raises(DataError, match=message):
        kinds.read(put(name, content))


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder or file"):
        kinds.read(tmp_path / "nowhere")
