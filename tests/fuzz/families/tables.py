"""Tables, lists, logs and pickles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffe.engines import kept
from caffe.errors import CaffeError
from data_tools import calibration, classes, convert, layers, unpickle
from data_tools.align import align
from eval_tools import caffe_log, labels
from fuzz import commands, mutate
from fuzz.families import Draw, Target, family
from netgen import label_weights


@family(0.7)
def class_table(draw: Draw) -> Target:
    """A spoiled table of classes, or list of names, or label map."""
    if draw.chance(0.3):
        draw.text(draw.pick("tables/names.txt", "annotations/masks/labelmap.txt"), "t.txt")
        return lambda: classes.parse("t.txt")
    draw.text("tables/[cp]*.csv", "t.csv")
    return lambda: classes.read_table("t.csv")


@family(0.7)
def calibrations(draw: Draw) -> Target:
    """Spoiled calibrations of cameras, alone and in a projection."""
    if draw.chance(0.5):
        draw.json("cameras/*.json", "c.txt")
    else:
        draw.text("cameras/*.txt", "c.txt")
    if draw.chance(0.5):
        return lambda: calibration.read("c.txt")
    more = draw.pick((), ("c.txt",), ("c.txt", "identity"), ("c.txt", "c.txt", "color-to-depth"))

    def project() -> None:
        rig = calibration.rig("c.txt", *more)
        sides = [camera.modes[0].size or (8, 6) for camera in (rig.depth, rig.color)]
        (wide, high), size = (tuple(min(side, 640) for side in one) for one in sides)
        align(np.full((high, wide), 2.0), rig, size)

    return project


@family(0.3)
def engine_choice(draw: Draw) -> Target:
    """A spoiled choice of an engine."""
    draw.json("engines/choice.json", "c.json")
    return lambda: kept.read_file("c.json", {"torch", "openvino"})


@family(0.5)
def class_map(draw: Draw) -> Target:
    """A spoiled map of classes, alone and in convert."""
    draw.text("tables/map.csv", "t.csv")
    if draw.chance(0.6):
        return lambda: convert.read_map(Path("t.csv"))
    draw.copy("lmdb")
    return commands.data_tool("convert", "lmdb", "out", "--map", "t.csv")


@family(0.5)
def names(draw: Draw) -> Target:
    """Spoiled lists of class names and of frames."""
    draw.text("tables/*[se]*.[tc][xs][tv]", "t.txt")
    if draw.chance(0.6):
        return lambda: labels.label_set(5, {}, "t.txt")
    draw.text("tables/keys.txt", "t.txt")
    draw.copy("lmdb")
    return commands.data_tool("convert", "lmdb", "out", "--names", "t.txt")


@family(0.3)
def weights_table(draw: Draw) -> Target:
    """Spoiled label weights."""
    draw.text("tables/weights.txt", "t.txt")
    return lambda: label_weights.read("t.txt", 4)


@family(0.3)
def frame_list(draw: Draw) -> Target:
    """A spoiled list of RGBDImages."""
    draw.text("lists/frames.txt", "t.txt")
    return lambda: layers.read_list(Path("t.txt"), "")


@family(0.3)
def images_list(draw: Draw) -> Target:
    """Spoiled lists of convert_imageset, by its reader alone."""
    from caffe.formats.lists import read_labelled

    draw.text("lists/[il]*.txt", "t.txt")
    return lambda: read_labelled("t.txt")


@family()
def log(draw: Draw) -> Target:
    """A spoiled training log."""
    draw.text("logs/*.log", "x.log")
    return lambda: caffe_log.read_log("x.log")


@family(0.15)
def curves(draw: Draw) -> Target:
    """The curves of spoiled logs, as figures and as event files."""
    name = draw.pick("x.log", "{{data}}.log", "a b.log")
    draw.text("logs/*.log", name)
    more = draw.pick((), ("--x", "time"), ("--smooth", "3"), ("--tensorboard", "tb"))
    return commands.eval_tool("curves", name, "-o", draw.pick("o.png", "o.svg"), *more)


@family(0.7)
def pickles(draw: Draw) -> Target:
    """A spoiled pickle of arrays."""
    draw.bytes("pickles/*.pkl", "x.pkl")
    return lambda: unpickle.load_pickle("x.pkl")


@family(0.5)
def pickle_content(draw: Draw) -> Target:
    """Sound pickles that hold other things than were expected, in data_tools.prepared."""
    import pickle

    import numpy as np

    def value():
        if mutate.idle:
            return [1]
        return draw.pick(
            lambda: None, lambda: 1, lambda: "x", lambda: [], lambda: [1, 2], lambda: [10**12],
            lambda: np.array([1, 2]), lambda: np.array(["a"]), lambda: np.array([None]),
            lambda: np.array([1.5, float("nan")]), lambda: {}, lambda: [[1], 2], lambda: -1,
            lambda: np.zeros((0, 3)), lambda: [np.zeros((6, 8, 3), np.uint8)] * 2,
            lambda: [np.ones((6, 8), np.uint8)] * 2, lambda: [np.ones((3, 3))], lambda: ("a", "b"),
        )()  # fmt: skip

    if draw.chance(0.5):
        draw.copy("prepared/sun")
        held = {key: value() for key in ("trainval", "test", "x") if draw.chance(0.8)}
        draw.write(
            "prepared/sun/splits.pkl",
            pickle.dumps(draw.pick(held, held, held if mutate.idle else value()), 2),
        )
        return commands.data_tool("prepared", "prepared/sun", "out")
    keys = ("rgb_images", "depth_images", "masks")
    sound = np.load(draw.corpus / "prepared/nyuv2.npy", allow_pickle=True).item()
    parts = {key: sound[key] if draw.chance(0.5) or mutate.idle else value() for key in keys}
    np.save(
        "x.npy",
        np.array(draw.pick(parts, parts, parts if mutate.idle else [parts]), dtype=object),
        allow_pickle=True,
    )
    return commands.data_tool("prepared", "x.npy", "out")


@family(0.3)
def protobuf_strings(draw: Draw) -> Target:
    """Datums and blobs that pycaffe's functions take as bytes."""
    from caffe import io
    from caffe.proto import caffe_pb2 as pb

    if draw.chance(0.5):
        datum = pb.Datum.FromString(draw.sound("datums/*"))
        mutate.some_message(draw.rng, datum)
        return lambda: _documented(io.datum_to_array, datum)
    blob = pb.BlobProto.FromString(draw.sound("arrays/mean.binaryproto"))
    mutate.some_message(draw.rng, blob)
    if draw.chance(0.5):
        return lambda: io.blobproto_to_array(blob)
    vector = pb.BlobProtoVector(blobs=[blob]).SerializeToString()
    return lambda: io.blobprotovector_str_to_arraylist(mutate.some_bytes(draw.rng, vector))


def _documented(function, argument) -> None:
    """Calls a function of pycaffe's whose docstring promises a ValueError."""
    try:
        function(argument)
    except ValueError as error:
        raise CaffeError(str(error)) from error
