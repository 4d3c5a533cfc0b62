"""Pictures and arrays of every format, by the functions and layers that read them."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import caffe
from caffe import io
from caffe.proto import caffe_pb2 as pb
from data_tools import classes, images, unpickle
from fuzz import commands, mutate
from fuzz.families import Draw, Target, family

SIDES = (0, 1, 7, 255, 4096, 16384, 30000, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)


def png(rng: random.Random, data: bytes) -> bytes:
    """A PNG with odd sizes, depths and types in its header, whose checksum is right."""
    if data[12:16] != b"IHDR":
        return data
    width, height, depth, kind, packing, filters, interlace = struct.unpack(">IIBBBBB", data[16:29])
    for _ in range(rng.choice((1, 1, 2))):
        how = rng.randrange(6)
        if how == 0:
            width = rng.choice(SIDES)
        elif how == 1:
            height = rng.choice(SIDES)
        elif how == 2:
            width = height = rng.choice(SIDES)
        elif how == 3:
            depth = rng.choice((1, 2, 4, 8, 16, 32))
        elif how == 4:
            kind = rng.choice((0, 2, 3, 4, 6, 7))
        else:
            interlace = rng.choice((0, 1, 2))
    head = b"IHDR" + struct.pack(
        ">IIBBBBB", width % 2**32, height % 2**32, depth, kind, packing, filters, interlace
    )
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def header_of(rng: random.Random, name: str, data: bytes) -> bytes:
    """A picture that claims another size in its header, where the format is a simple one."""
    if mutate.idle:
        return data
    side = rng.choice(SIDES) % 2**31
    if name.endswith(".png"):
        return png(rng, data)
    if name.endswith(".bmp"):
        at = rng.choice((18, 22))
        return data[:at] + struct.pack("<I", side) + data[at + 4 :]
    if name.endswith((".pgm", ".ppm")):
        return data.replace(rng.choice((b"8 6", b"255", b"65535")), b"%d %d" % (side, side), 1)
    if name.endswith(".exr"):
        at = data.find(b"dataWindow\0box2i\0") + 21
        at += 4 * rng.randrange(4)
        return data[:at] + struct.pack("<i", rng.choice((-1, side, -side))) + data[at + 4 :]
    if name.endswith(".npy"):
        return npy_header(rng, data)
    if name.endswith((".jpg", ".jpeg")):
        at = data.find(b"\xff\xc0") + 5 + rng.choice((0, 2))
        return data[:at] + struct.pack(">H", side % 2**16) + data[at + 2 :]
    if name.endswith((".tif", ".tiff")):
        return _tiff(rng, data)
    return mutate.some_bytes(rng, data)


def _tiff(rng: random.Random, data: bytes) -> bytes:
    """Another value of one entry in the first directory."""
    at = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[at : at + 2])[0] if at + 2 <= len(data) else 0
    if not count:
        return mutate.some_bytes(rng, data)
    entry = at + 2 + 12 * rng.randrange(count)
    where, form, value = rng.choice(
        ((8, "<I", rng.choice(SIDES)), (4, "<I", rng.choice(SIDES)), (2, "<H", rng.randrange(14)))
    )
    size = struct.calcsize(form)
    value = struct.pack(form, value % 2 ** (8 * size))
    return data[: entry + where] + value + data[entry + where + size :]


def npy_header(rng: random.Random, data: bytes) -> bytes:
    """An .npy whose header tells another type, order or shape."""
    descr = rng.choice(("'<f4'", "'|u1'", "'<f8'", "'|O'", "'<U3'", "'|S4'", "'<M8[s]'", "'>c16'",
                        "[('a', '<f4')]", "'f'", "3", "None", "'|V0'", "'<f2'", "'x'"))  # fmt: skip
    numbers = [
        rng.choice((0, 1, 6, 8, 2**31, 2**40, 2**62, 2**64, -1)) for _ in range(rng.randrange(5))
    ]
    shape = rng.choice((
        "(6, 8)", f"({', '.join(map(str, numbers))}{',' if numbers else ''})", "6", "(6.0, 8)",
        "('a',)", f"({'1, ' * rng.choice((1, 33, 1000))})", "(True, 8)", "[6, 8]",
    ))  # fmt: skip
    order = rng.choice(("False", "True", "0", "None"))
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    if rng.random() < 0.2:
        text = mutate.some_text(rng, text.encode()).decode("latin-1")
    if rng.random() < 0.1:
        text = "(" * rng.choice((100, 5000)) + text
    head = text.encode("latin-1", "replace") + b"\n"
    version = rng.choice(((1, 0), (1, 0), (2, 0), (3, 0), (9, 9)))
    size = struct.pack("<H" if version == (1, 0) else "<I", len(head) % 2**16)
    return b"\x93NUMPY" + bytes(version) + size + head + data[-192:]


def spoiled(draw: Draw, pattern: str, path: str | None = None) -> Path:
    """A picture of the corpus, spoiled by bytes or in its header; `path` without a suffix."""
    source = draw.rng.choice(draw.seeds(pattern))
    content = source.read_bytes()
    if draw.chance(0.45):
        content = header_of(draw.rng, source.name, content)
    else:
        other = draw.rng.choice(draw.seeds(pattern)).read_bytes()
        content = mutate.some_bytes(draw.rng, content, other)
    if path is None:
        name = source.name
        if draw.chance(0.1) and not mutate.idle:
            name = draw.pick("x.png", "x.exr", "x.npy", "x.tif", "x.jpg")
        path = name
    else:
        path += source.suffix
    return draw.write(path, content)


def _name(draw: Draw, path: Path) -> str | bytes:
    """Sometimes the file gets a name that few expect."""
    if draw.chance(0.1) and not mutate.idle:
        odd = draw.pick("b\udce4d.png", "\u00fc.png", "a b.png", "\u65e5.png", "-x.png")
        path.rename(path.with_name(odd))
        return odd
    return str(path)


@family(1.5)
def picture(draw: Draw) -> Target:
    """A spoiled picture, by the function for colour, depth or label, or by pycaffe's."""
    name = _name(draw, spoiled(draw, "pictures/*"))
    table = None
    if draw.chance(0.3):
        table = classes.read_table(draw.copy("tables/classes.csv"))
    return draw.pick(
        lambda: lambda: images.read_color(name),
        lambda: lambda: images.read_depth(name),
        lambda: lambda: images.read_label(name, table),
        lambda: lambda: io.load_image(name, draw.chance(0.5)),
    )()


@family(0.6)
def exr(draw: Draw) -> Target:
    """A spoiled EXR."""
    name = str(spoiled(draw, "pictures/*.exr"))
    return lambda: images.read_depth(name)


@family(0.6)
def npy_depth(draw: Draw) -> Target:
    """A spoiled .npy as depth, label, or as a pickled object."""
    how = draw.rng.randrange(3)
    if how == 2:
        draw.bytes(draw.pick("prepared/nyuv2.npy", "arrays/objects.npy"), "x.npy")
        return lambda: unpickle.load_npy("x.npy")
    name = str(spoiled(draw, "pictures/*.npy"))
    read = (images.read_depth, images.read_label)[how]
    return lambda: read(name)


@family(0.5)
def datum_picture(draw: Draw) -> Target:
    """A Datum whose picture is spoiled, decoded as pycaffe does."""
    datum = pb.Datum(encoded=True, data=spoiled(draw, "pictures/*.[pjbtw]*").read_bytes())
    return lambda: io.decode_datum(datum, draw.pick(True, False))


def _pictures(draw: Draw) -> None:
    for name in ("rgb.png", "bmp.bmp", "jpeg.jpg", "label.png"):
        draw.copy(f"pictures/{name}", name)
    if draw.chance(0.6):
        victim = draw.pick("rgb.png", "bmp.bmp", "jpeg.jpg", "label.png")
        content = draw.sound(f"pictures/{victim}")
        if draw.chance(0.5):
            content = header_of(draw.rng, victim, content)
        else:
            content = mutate.some_bytes(draw.rng, content)
        draw.write(victim, content)


@family()
def image_data(draw: Draw) -> Target:
    """ImageData, ImageLabelData's kin and WindowData on spoiled lists and pictures."""
    _pictures(draw)
    layer = pb.LayerParameter(name="data", top=["data", "label"])
    if draw.chance(0.6):
        (draw.text if draw.chance(0.6) else draw.copy)("lists/images.txt", "list.txt")
        layer.type, p = "ImageData", layer.image_data_param
        p.new_height, p.new_width = draw.pick((0, 0), (4, 5))
        p.shuffle, p.is_color = draw.chance(0.3), draw.chance(0.7)
        p.batch_size = 1
    else:
        (draw.text if draw.chance(0.7) else draw.copy)("lists/windows.txt", "list.txt")
        layer.type, p = "WindowData", layer.window_data_param
        layer.transform_param.crop_size = 3
        p.batch_size, p.fg_fraction = 2, 0.5
        p.cache_images = draw.chance(0.3)
    p.source = "list.txt"

    def run() -> None:
        net = caffe.Net(pb.NetParameter(layer=[layer]), caffe.TRAIN)
        for _ in range(3):
            net.forward()

    return run


@family(0.4)
def detector_data(draw: Draw) -> Target:
    """EvalData and ImageGtData on spoiled window files and pictures."""
    _pictures(draw)
    (draw.text if draw.chance(0.7) else draw.copy)("lists/scenes.txt", "list.txt")
    layer = pb.LayerParameter(name="data", type="ImageGtData", top=["data", "truth"])
    p = layer.image_gt_data_param
    if draw.chance(0.5):
        layer.type, p = "EvalData", layer.eval_data_param
    else:
        p.field_w[:], p.field_h[:], p.downsample_rate[:] = [4], [4], [2]
        p.do_multiple_scale, p.min_scale, p.max_scale = draw.chance(0.5), 2, 9
    p.source, p.batch_size = "list.txt", 1

    def run() -> None:
        net = caffe.Net(pb.NetParameter(layer=[layer]), caffe.TRAIN)
        for _ in range(3):
            net.forward()

    return run


@family(0.7)
def convert_imageset(draw: Draw) -> Target:
    """convert_imageset on spoiled lists and pictures."""
    _pictures(draw)
    (draw.text if draw.chance(0.6) else draw.copy)("lists/images.txt", "list.txt")
    more = draw.pick((), ("-encoded",), ("-gray",), ("-resize_height", "4", "-resize_width", "4"),
                     ("-encode_type", "jpg"), ("-shuffle",), ("-check_size",))  # fmt: skip
    return commands.caffe_command("tools.convert_imageset", *more, "./", "list.txt", "out")


@family(0.4)
def detect(draw: Draw) -> Target:
    """detect on spoiled lists of windows and spoiled pictures."""
    _pictures(draw)
    rgb = b"""layer { name: "d" type: "Input" top: "d"
      input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
    layer { name: "p" type: "Pooling" bottom: "d" top: "p" pooling_param { global_pooling: true } }
    """
    draw.write("net.prototxt", rgb)
    draw.write("w.caffemodel", pb.NetParameter(name="none").SerializeToString())
    draw.text("tables/windows.csv", "in.csv")
    given = ("--model_def", "net.prototxt", "--pretrained_model", "w.caffemodel")
    return commands.script("tools.detect", "in.csv", draw.pick("o.csv", "o.h5"), "--crop_mode",
                           "list", "--context_pad", draw.pick(0, 1), *given)  # fmt: skip
