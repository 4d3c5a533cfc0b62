"""DetectionOutput beyond its recordings: files, boxes in pixels, what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.layers.detection_files import in_pixels
from caffe.proto import caffe_pb2 as pb

pytestmark = pytest.mark.usefixtures("fresh")

# Two priors; codes of zero leave them as they are.
PRIORS = [0.1, 0.2, 0.5, 0.6, 0.4, 0.4, 1.2, 0.9, *[0.1, 0.1, 0.2, 0.2] * 2]


def net(more: str = "", classes: int = 3, images: int = 2, codes: int = 8) -> caffe.Net:
    inputs = {"loc": (images, codes), "conf": (images, 2 * classes), "prior": (1, 2, 8)}
    text = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {n}" for n in shape)
        + " } } }\n"
        for name, shape in inputs.items()
    )
    text += f"""layer {{ name: "found" type: "DetectionOutput" bottom: "loc" bottom: "conf"
      bottom: "prior" top: "found" detection_output_param {{ num_classes: {classes}
      code_type: CENTER_SIZE nms_param {{ nms_threshold: 0.5 }} confidence_threshold: 0.3 {more}
      }} }}"""
    made = caffe.Net(text_format.Parse(text, pb.NetParameter()), caffe.TEST)
    made.blobs["prior"].data[...] = np.reshape(PRIORS, (1, 2, 8))
    return made


def run(made: caffe.Net, confidences: list[list[float]]) -> dict[str, np.ndarray]:
    made.blobs["conf"].data[...] = confidences
    return made.forward()


CONFIDENCES = [[0.1, 0.9, 0.0, 0.2, 0.4, 0.4], [0.3, 0.2, 0.5, 1, 0, 0]]


def save(tmp_path: Path, form: str, more: str = "") -> str:
    (tmp_path / "labels.prototxt").write_text(
        "".join(f'item {{ name: "{n}" label: {i} }}' for i, n in enumerate(("none", "cat", "17")))
    )
    (tmp_path / "sizes.txt").write_text("one 100 200\n2 50 50\n")
    return f"""save_output_param {{ output_directory: "{tmp_path}/out" output_name_prefix: "p_"
      output_format: "{form}" label_map_file: "{tmp_path}/labels.prototxt"
      name_size_file: "{tmp_path}/sizes.txt" {more} }}"""


def written(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_voc_files_by_label(tmp_path):
    run(net(save(tmp_path, "VOC")), CONFIDENCES)
    # Boxes are cut to the picture; corners are whole numbers.
    assert written(tmp_path / "out") == {
        "p_cat.txt": "one 0.9 20 20 100 60\none 0.4 80 40 200 90\n",
        "p_17.txt": "one 0.4 80 40 200 90\n2 0.5 5 10 25 30\n",
    }


def test_ilsvrc_file(tmp_path):
    run(net(save(tmp_path, "ILSVRC")), CONFIDENCES)
    assert written(tmp_path / "out")["p_.txt"].splitlines() == [
        "one 1 0.9 20 20 100 60", "one 1 0.4 80 40 200 90", "one 2 0.4 80 40 200 90",
        "2 2 0.5 5 10 25 30",
    ]  # fmt: skip


def test_coco_file(tmp_path):
    run(net(save(tmp_path, "COCO")), CONFIDENCES)
    rows = json.loads(written(tmp_path / "out")["p_.json"])
    assert rows[-1] == {
        "image_id": 2, "category_id": 17, "bbox": [5, 10, 20, 20], "score": 0.5,
    }  # fmt: skip
    assert rows[0]["category_id"] == "cat"


def test_files_are_written_when_all_images_are_there(tmp_path):
    made = net(save(tmp_path, "ILSVRC"), images=1)
    run(made, CONFIDENCES[:1])
    assert not (tmp_path / "out").exists()
    run(made, CONFIDENCES[1:])
    assert len(written(tmp_path / "out")["p_.txt"].splitlines()) == 4


def test_without_the_label_map_nothing_is_saved_and_a_line_says_so(tmp_path, capfd):
    text = save(tmp_path, "VOC")
    (tmp_path / "labels.prototxt").unlink()
    run(net(text), CONFIDENCES)
    assert "saves nothing: there is no file" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sizes.txt", "a 3\n", r"sizes.txt:1: expected name, height and width"),
        ("sizes.txt", "", "lists no pictures"),
        ("labels.prototxt", "item { label: 1 } item { label: 1 }", "label 1 stands there twice"),
        ("labels.prototxt", 'item { name: "a/b" label: 1 }', "no name of a file"),
        ("labels.prototxt", 'item { name: "a" label: 7 }', "has no label 1"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, message):
    text = save(tmp_path, "VOC")
    (tmp_path / name).write_text(content)
    only = [[0, 0.9, 0, 0, 0, 0], [0] * 6]
    with pytest.raises(caffe.CaffeError, match=f"layer 'found'.*{message}"):
        run(net(text), only)


def test_rows_stand_by_class_and_the_best_are_kept():
    found = run(net("keep_top_k: 2"), CONFIDENCES)["found"][0, 0]
    expected = [[0, 1, 0.9], [0, 1, 0.4], [1, 2, 0.5]]
    np.testing.assert_allclose(found[:, :3], expected)
    np.testing.assert_allclose(found[0, 3:], PRIORS[:4], rtol=1e-6)


def test_the_number_of_codes_tells_the_form():
    assert run(net(codes=24), CONFIDENCES)["found"].shape == (1, 1, 4, 15)
    assert run(net(codes=18), CONFIDENCES)["found"].shape == (1, 1, 4, 12)
    with pytest.raises(caffe.CaffeError, match=r"16 location predictions.*denser_prior_boxes"):
        net(codes=16)


def resize(text: str) -> pb.ResizeParameter:
    return text_format.Parse(text, pb.ResizeParameter())


def test_boxes_in_pixels():
    whole = np.array([[0, 0.25, 1, 0.75]], np.float32)
    assert in_pixels(whole, 50, 100).tolist() == [[0, 12.5, 100, 37.5]]
    # A picture twice as wide as high lies in the rows 0.25 to 0.75 of a padded square.
    padded = resize("height: 300 width: 300 resize_mode: FIT_LARGE_SIZE_AND_PAD")
    assert in_pixels(whole, 50, 100, padded).tolist() == [[0, 0, 100, 50]]
    scaled = "height: 9 width: 9 resize_mode: FIT_SMALL_SIZE height_scale: 40 width_scale: 80"
    assert in_pixels(whole, 50, 100, resize(scaled)).tolist() == [[0, 10, 80, 30]]
