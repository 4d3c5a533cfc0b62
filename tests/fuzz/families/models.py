"""evaluate, predict, report and convert on hostile nets, weights, records and labels."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from boundary import packed
from caffe.formats.prototext import parse, text
from caffe.proto import caffe_pb2 as pb
from data_tools.cli import DataError
from fusenet import Predictor
from fuzz import commands, mutate
from fuzz.corpus.sound import PACKED, write_lmdb
from fuzz.families import Draw, Target, family
from fuzz.families.hdf5 import hostile
from fuzz.families.nets import WORDS
from fuzz.families.pictures import header_of
from fuzz.families.records import KEYS, odd_datum


def _model(draw: Draw) -> list[str]:
    """A deploy net and its weights, one of them spoiled now and then."""
    how = draw.rng.randrange(6)
    draw.copy("nets/deploy.prototxt", "net.prototxt")
    draw.copy("weights/tiny.caffemodel", "w.caffemodel")
    if how == 0:
        draw.text("nets/deploy.prototxt", "net.prototxt")
    elif how == 1:
        net = parse(draw.sound("nets/deploy.prototxt"), pb.NetParameter, "net")
        mutate.some_message(draw.rng, net, WORDS)
        draw.write("net.prototxt", text(net).encode())
    elif how == 2:
        draw.bytes("weights/*.caffemodel", "w.caffemodel")
    elif how == 3:
        hostile(draw, "weights/tiny.caffemodel.h5", "w.caffemodel.h5")
        return ["net.prototxt", "w.caffemodel.h5"]
    return ["net.prototxt", "w.caffemodel"]


def _records(draw: Draw) -> str:
    """An LMDB of five channels, spoiled in records, keys, pages or dataset.json now and then."""
    how = draw.rng.randrange(6)
    if how == 0:
        draw.bytes("lmdb/data.mdb", "x/data.mdb")
        return "x"
    if how in (1, 2):
        sound = draw.sound("datums/raw")
        keys = sorted({draw.pick(*KEYS), b"00000001_b"})
        write_lmdb("x", [(k, odd_datum(draw) if draw.chance(0.3) else sound) for k in keys])
        if draw.chance(0.4):
            draw.json("lmdb/dataset.json", "x/dataset.json")
        return "x"
    draw.copy("lmdb", "x")
    if how in (3, 4):
        draw.json("lmdb/dataset.json", "x/dataset.json")
    return "x"


@family(0.6, asks=True)
def evaluate(draw: Draw) -> Target:
    """eval_tools.evaluate."""
    model, source = _model(draw), _records(draw)
    more: list[str] = []
    if draw.chance(0.2):
        draw.text("tables/[cpn]*", "names.csv")
        more += ["--names", "names.csv"]
    if draw.chance(0.2):
        more += ["--group", draw.pick("camera", "files", "nothing")]
    if draw.chance(0.2):
        for i in range(3):
            draw.copy("pictures/label.png", f"labels/frame{i}.png")
        draw.bytes("pictures/*.png", "labels/frame0.png")
        more += ["--labels", "labels", "--size", "8x6"]
    if draw.chance(0.2):
        more += ["--json", "o.json", "--markdown", "o.md", "--confusion", "o.csv"]
    return commands.eval_tool("evaluate", *model, source, "--bootstrap", 20, *more)


@family(0.2, asks=True)
def report(draw: Draw) -> Target:
    """eval_tools.report, with logs."""
    model, source = _model(draw), _records(draw)
    draw.text("logs/*.log", "{{data}}.log")
    more = ("--log", "{{data}}.log") if draw.chance(0.6) else ()
    return commands.eval_tool("report", *model, source, "--bootstrap", 20, "-o", "o.html", *more)


@family(0.6, asks=True)
def predict(draw: Draw) -> Target:
    """eval_tools.predict on records and on files."""
    model = _model(draw)
    more = draw.pick([], ["--overlay"], ["--probabilities"], ["--size", "8x6"], ["--crf"],
                     ["--size", "original"], ["--flip"], ["--scales", "0.5,1"])  # fmt: skip
    if draw.chance(0.5):
        return commands.eval_tool("predict", *model, "--lmdb", _records(draw), "-o", "out", *more)
    for part in ("rgb", "depth"):
        draw.copy(f"folder/{part}/0000_{part}.png", f"{part}/0_{part}.png")
    victim = draw.pick("rgb", "depth")
    content = draw.sound(f"folder/{victim}/*.png")
    if draw.chance(0.5):
        content = header_of(draw.rng, "x.png", content)
    else:
        content = mutate.some_bytes(draw.rng, content)
    draw.write(f"{victim}/0_{victim}.png", content)
    if draw.chance(0.3):
        draw.json("lmdb/dataset.json", "d.json")
        more = [*more, "--dataset", "d.json"]
    return commands.eval_tool("predict", *model, "--rgb", "rgb", "--depth", "depth", "-o", "out",
                              *more)  # fmt: skip


@family(0.1, asks=True)
def onnx(draw: Draw) -> Target:
    """caffe.convert of spoiled nets and weights to ONNX; for whole frames, with spoiled facts."""
    model, more = _model(draw), []
    if draw.chance(0.4):
        draw.json("lmdb/dataset.json", "d.json")
        more = ["--with-preprocessing", "--no-check", "--dataset", "d.json"]
    return commands.script("convert", *more, *model, "o.onnx")


@family(0.6, asks=True)
def packed_model(draw: Draw) -> Target:
    """A packed model and fusenet.Predictor: spoiled bytes, facts, or parts with their true hash."""
    how = draw.rng.randrange(3)
    path = draw.copy("packed/tiny.fusenet", "m.fusenet")
    if how == 0:
        draw.bytes("packed/tiny.fusenet", path)
    elif how == 1:
        _with_facts(path, lambda facts: mutate.some_json(draw.rng, facts))
    else:
        victim = draw.pick(*PACKED)
        files = {part: draw.copy(name, f"parts/{Path(name).name}") for part, name in PACKED.items()}
        draw.bytes(PACKED[victim], files[victim])
        packed.write(path, json.loads(draw.sound("lmdb/dataset.json")), files, DataError)

    def run() -> None:
        predictor = Predictor(path)
        example = predictor.example()
        if example:
            predictor(*example)

    return run


def _with_facts(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Changes model.json."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[packed.MANIFEST] = change(members[packed.MANIFEST])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
