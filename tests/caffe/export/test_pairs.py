"""Which weights belong to which net, in folders and lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format

import caffe
from boundary import packed
from caffe.errors import CaffeError
from caffe.export import pairs
from caffe.proto import caffe_pb2 as pb

NET = (
    'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }'
    'layer { name: "%s" type: "InnerProduct" bottom: "data" top: "y" '
    "inner_product_param { num_output: 3 } }"
)


def write(folder: Path, name: str, layer: str) -> None:
    """A net with one layer of this name, and its weights."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.prototxt").write_text(NET % layer)
    net = caffe.Net(text_format.Parse(NET % layer, pb.NetParameter()), caffe.TEST)
    net.save(folder / f"{name}.caffemodel")


def found(place: Path, out: Path | None = None) -> list[tuple[str, str, str]]:
    jobs = pairs.jobs(place, out)
    assert not any(job.problem for job in jobs)
    return [(job.net.name, job.weights.name, str(job.out)) for job in jobs]


def test_a_folders_weights_find_the_net_whose_layers_they_hold(tmp_path):
    write(tmp_path, "one", "fc1")
    write(tmp_path, "two", "fc2")
    (tmp_path / "one.caffemodel").rename(tmp_path / "weights_iter_5.caffemodel")
    (tmp_path / "solver.prototxt").write_text('net: "one.prototxt" base_lr: 0.1')
    (tmp_path / "torn.prototxt").write_text("layer {")
    write(tmp_path / "deeper", "three", "fc1")
    assert found(tmp_path, tmp_path / "out") == [
        ("two.prototxt", "two.caffemodel", str(tmp_path / "out" / "two.onnx")),
        ("one.prototxt", "weights_iter_5.caffemodel", str(tmp_path / "out/weights_iter_5.onnx")),
        ("three.prototxt", "three.caffemodel", str(tmp_path / "out" / "deeper" / "three.onnx")),
    ]


def test_among_equals_the_net_for_deployment_and_then_the_name_decides(tmp_path):
    write(tmp_path, "vgg", "fc")
    train = (
        (NET % "fc").replace('"Input"', '"DummyData"').replace("input_param", "dummy_data_param")
    )
    (tmp_path / "a_train_val.prototxt").write_text(train)
    (tmp_path / "a_deploy.prototxt").write_text(NET % "fc")
    (tmp_path / "vgg.caffemodel").rename(tmp_path / "vgg_iter_7.caffemodel")
    assert found(tmp_path)[0][0] == "vgg.prototxt"
    (tmp_path / "vgg.prototxt").unlink()
    assert found(tmp_path) == [
        ("a_deploy.prototxt", "vgg_iter_7.caffemodel", str(tmp_path / "vgg_iter_7.onnx"))
    ]


def test_what_cannot_be_paired_is_told(tmp_path):
    with pytest.raises(caffe.CaffeError, match="no weights"):
        pairs.jobs(tmp_path, None)
    (tmp_path / "lonely.caffemodel").write_bytes(b"")
    (job,) = pairs.jobs(tmp_path, None)
    assert job.problem == "no net's prototxt beside it"


def test_two_files_are_not_written_to_one(tmp_path):
    write(tmp_path, "net", "fc")
    (tmp_path / "net.caffemodel.h5").write_bytes(b"")
    first, second = pairs.jobs(tmp_path, None)
    assert first.problem == ""
    assert second.problem == f"{tmp_path / 'net.onnx'} would be written twice"


def test_lists(tmp_path, monkeypatch):
    """Paths start from the working directory, or else from the list's folder."""
    write(tmp_path / "nets", "one", "fc")
    (tmp_path / "nets" / "list.txt").write_text(
        "# net weights out\n\none.prototxt one.caffemodel  # beside the list\n"
        "nets/one.prototxt nets/one.caffemodel there.onnx\n"
    )
    monkeypatch.chdir(tmp_path)
    jobs = pairs.jobs(Path("nets/list.txt"), None)
    assert [(str(j.net), str(j.weights), str(j.out)) for j in jobs] == [
        ("nets/one.prototxt", "nets/one.caffemodel", "nets/one.onnx"),
        ("nets/one.prototxt", "nets/one.caffemodel", "there.onnx"),
    ]
    assert pairs.jobs(Path("nets/list.txt"), Path("o"))[0].out == Path("o/one.onnx")
    (tmp_path / "bad.txt").write_text("one.prototxt\n")
    with pytest.raises(caffe.CaffeError, match=r"bad.txt:1: expected a net, its weights"):
        pairs.jobs(Path("bad.txt"), None)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(caffe.CaffeError, match="no lines of nets"):
        pairs.jobs(Path("empty.txt"), None)


def test_packed_models_need_no_other_file(tmp_path):
    write(tmp_path, "one", "fc")
    for name in ("a", "b"):
        parts = {"net": tmp_path / "one.prototxt", "weights": tmp_path / "one.caffemodel"}
        packed.write(tmp_path / f"{name}.fusenet", {}, parts, CaffeError)

    def jobs_of(place):
        return [(job.net.name, job.weights, job.out.name) for job in pairs.jobs(place, None)]

    jobs = jobs_of(tmp_path)
    assert jobs[:2] == [("a.fusenet", None, "a.onnx"), ("b.fusenet", None, "b.onnx")]
    assert [job[0] for job in jobs[2:]] == ["one.prototxt"]
    (tmp_path / "list.txt").write_text("a.fusenet\nb.fusenet c.onnx\n")
    jobs = jobs_of(tmp_path / "list.txt")
    assert jobs == [("a.fusenet", None, "a.onnx"), ("b.fusenet", None, "c.onnx")]
    (tmp_path / "list.txt").write_text("a.fusenet w.caffemodel c.onnx\n")
    with pytest.raises(CaffeError, match="expected a packed model and perhaps the file to write"):
        pairs.jobs(tmp_path / "list.txt", None)
