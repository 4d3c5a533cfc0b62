"""A folder of small files with the names that README and docs use, in which their commands run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import printed
import torch

import caffe
from data_tools.classes import benchmark
from data_tools.record import to_datum
from data_tools.store import Writer, key

GOLDEN = printed.ROOT / "tests" / "golden"
SIZE = (64, 48)
FRAMES = ("kv2/a", "kv2/b", "xtion/c", "xtion/d", "e")


def planes(seed: int) -> np.ndarray:
    """A record of five channels, uint8 (5, 48, 64), with labels 1 to 4."""
    random = np.random.default_rng(seed)
    found = random.integers(40, 200, (5, SIZE[1], SIZE[0]), np.uint8)
    found[4] = np.arange(1, 5).repeat(SIZE[0] // 4)
    return found


def write_lmdbs() -> None:
    """LMDBs of the names that the pages use, all alike."""
    writer = Writer(Path("lmdb/trainval"), "plan")
    for i, name in enumerate(FRAMES):
        writer.put(key(i, name), to_datum(planes(i)))
    table = benchmark("nyuv2-40")
    options = {"depth_range": "0:8 m", "float_depth": False}
    writer.finish({"dataset": "nyuv2-40", "options": options, **table.describe()})
    for name in ("test", "train", "a", "b", "sun", "nyuv2-40_trainval", "nyuv2-40_test"):
        shutil.copytree("lmdb/trainval", f"lmdb/{name}")


def write_frames() -> None:
    """Folders of frames, single ones, lists and tables."""
    parts = [f"{folder}/{part}" for folder in RECORDINGS for part in ("rgb", "depth")]
    for name in ("rgb", "depth", "label", "frames", "photos", *parts):
        Path(name).mkdir(parents=True)
    lines = []
    for i in range(6):
        frame = planes(i)
        color = frame[:3].transpose(1, 2, 0)
        depth, label = frame[3].astype(np.uint16) * 25, frame[4]
        times = f"{1305031102 + i / 10:.6f}"
        for path, picture in (
            (f"rgb/{i}.png", color), (f"depth/{i}.png", depth), (f"label/{i}.png", label),
            (f"frames/{i}_rgb.png", color), (f"frames/{i}_depth.png", depth),
            (f"frames/{i}_label.png", label), (f"photos/{i}.png", color),
            *((f"{folder}/rgb/{times}.png", color) for folder in RECORDINGS),
            *((f"{folder}/depth/{times}.png", depth) for folder in RECORDINGS),
        ):  # fmt: skip
            assert cv2.imwrite(path, picture)
        lines.append(f"{i}_rgb.png {i}_depth.png {i}_label.png")
    for name in ("train.txt", "test.txt"):
        Path(name).write_text("\n".join(lines) + "\n")
    for name in ("frame.png", "color.png", "picture.jpg"):
        assert cv2.imwrite(name, color)
    assert cv2.imwrite("depth.png", depth)
    write_annotations()
    write_calibrations()
    names = [f"{i},class {i}" for i in range(5)]
    Path("classes.csv").write_text("\n".join(["label,name", *names]) + "\n")
    Path("table.csv").write_text("from,to,name\n1,1,wall\n2,2,floor\n3,0,\n4,2,floor\n")


def write_calibrations() -> None:
    """Two cameras five centimetres apart, in several forms, and a scene of ScanNet."""
    camera = {"width": 64, "height": 48, "fx": 60.0, "fy": 60.0, "cx": 31.5, "cy": 23.5}
    motion = {"rotation": np.eye(3).tolist(), "translation": [0.05, 0, 0]}
    both = {"color": camera, "depth": camera, "extrinsics": motion}
    for name, facts in (("realsense.txt", both), ("color.json", camera), ("depth.json", camera)):
        Path(name).write_text(json.dumps(facts))
    Path("motion.txt").write_text("1 0 0 0.05\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    lines = ["colorToDepthExtrinsics = 1 0 0 -0.05 0 1 0 0 0 0 1 0 0 0 0 1"]
    for kind in ("color", "depth"):
        lines += [f"{kind}Width = 64", f"{kind}Height = 48", f"fx_{kind} = 60", f"fy_{kind} = 60",
                  f"mx_{kind} = 31.5", f"my_{kind} = 23.5"]  # fmt: skip
    Path("scene0000_00.txt").write_text("\n".join(lines) + "\n")
    for part in ("color", "depth"):
        shutil.copytree({"color": "rgb"}.get(part, part), f"scene0000_00/{part}")


def write_annotations() -> None:
    """The same rectangle in each picture of rgb/, as CVAT and COCO have it."""
    size = 'width="64" height="48"'
    shape = '<polygon label="wall" points="4,4;40,4;40,30;4,30" z_order="0"/>'
    images = "".join(f'<image id="{i}" name="{i}.png" {size}>{shape}</image>' for i in range(6))
    labels = "<labels><label><name>wall</name><color>#ff0000</color></label></labels>"
    meta = f"<version>1.1</version><meta><task>{labels}</task></meta>"
    Path("annotations.xml").write_text(f"<annotations>{meta}{images}</annotations>")
    outline = [4, 4, 40, 4, 40, 30, 4, 30]
    shapes = [
        {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "segmentation": [outline],
         "bbox": [4, 4, 36, 26], "area": 936}
        for i in range(6)
    ]  # fmt: skip
    pictures = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(6)]
    found = {"images": pictures, "annotations": shapes, "categories": [{"id": 1, "name": "wall"}]}
    Path("instances.json").write_text(json.dumps(found))


RECORDINGS = ("recording", "rgbd_dataset_freiburg1_desk")


def write_nets() -> None:
    """Small nets, their weights in several forms, a run that can be resumed, and logs."""
    net = "sf5 --dataset nyuv2-40 --size 64x48 --width-multiplier 0.02"
    lmdbs = "--source lmdb/trainval --test-source lmdb/test --batch-size 2"
    printed.run(f"python -m netgen {net} --deploy > deploy.prototxt")
    printed.run(f"python -m netgen {net} {lmdbs} > train.prototxt")
    solver = "--max-iter 2 --snapshot 1 --test-epochs 1 --snapshot-prefix run"
    printed.run(f"python -m netgen solver --net train.prototxt {solver} > solver.prototxt")
    printed.run("caffe train -solver solver.prototxt")
    Path("run_iter_1.solverstate").rename("run_iter_5000.solverstate")
    resume = Path("run_iter_1.solverstate.resume")
    if resume.exists():
        resume.rename("run_iter_5000.solverstate.resume")
    names = ("run_iter_5000", "snapshot", "net", "init", "a", "b", "weights")
    for name in names:
        shutil.copy("run_iter_2.caffemodel", f"{name}.caffemodel")
    state = caffe.to_module("deploy.prototxt", "net.caffemodel").state_dict()
    torch.save(state, "model.pth")
    Path("models").mkdir()
    for name in ("deploy.prototxt", "net.caffemodel"):
        shutil.copy(name, "models")
    Path("models/net.caffemodel").rename("models/deploy.caffemodel")
    for name in ("train", "sf5", "rgb"):
        shutil.copy(GOLDEN / "interop" / "reference_train.log", f"{name}.log")


def write_classifier() -> None:
    """A net that classifies pictures, and a mean, for the tools of BVLC's examples."""
    Path("deploy.prototxt").write_text(
        'layer { name: "data" type: "Input" top: "data" '
        "input_param { shape { dim: 1 dim: 3 dim: 32 dim: 32 } } }\n"
        'layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" '
        "inner_product_param { num_output: 4 } }\n"
        'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }\n'
    )
    caffe.Net("deploy.prototxt", caffe.TEST).save("net.caffemodel")
    mean = caffe.io.array_to_blobproto(np.full((1, 3, 256, 256), 100.0))
    Path("mean.binaryproto").write_bytes(mean.SerializeToString())


def write_all() -> None:
    """Write all of it to the working directory, but for the classifier."""
    write_lmdbs()
    write_frames()
    write_nets()
    pack = "deploy.prototxt snapshot.caffemodel model.fusenet --dataset lmdb/trainval"
    printed.run(f"python -m eval_tools.pack {pack}")
    shutil.copy("model.fusenet", "m.fusenet")
