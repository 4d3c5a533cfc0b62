"""LMDBs and LevelDBs: damaged pages, and sound pages with hostile records and keys."""

from __future__ import annotations

from google.protobuf import text_format
from google.protobuf.message import DecodeError

import caffe
from caffe.data.dataset import LMDBDataset
from caffe.formats import db
from caffe.proto import caffe_pb2 as pb
from data_tools.store import Reader
from fuzz import commands, mutate
from fuzz.corpus.sound import write_lmdb
from fuzz.families import Draw, Target, family

PAGE = 4096
KEYS = (
    b"00000000_/absolute/x", b"00000000_../../x", b"a/b/c", b"\0", b"\xff\xfe", b"x" * 511,
    b"00000000_" + b"y" * 300, b"a\nb", b"..", b"00000000_", b"00000000_\xc3\xa4", b"{{data}}",
    b"00000000_ x ", b"00000000_a\0b", b"0", b"../" * 50 + b"x",
)  # fmt: skip


def data_net(source: str, draw: Draw, backend: str = "LMDB") -> Target:
    """A Data layer that reads the source."""
    layer = pb.LayerParameter(name="data", type="Data", top=["data", "label"])
    layer.data_param.source, layer.data_param.batch_size = source, 1
    layer.data_param.backend = pb.DataParameter.DB.Value(backend)
    layer.data_param.shuffle = draw.chance(0.3)
    if draw.chance(0.3):
        layer.transform_param.crop_size = draw.pick(1, 4, 100)
    if draw.chance(0.2):
        layer.transform_param.mirror = True

    def run() -> None:
        net = caffe.Net(pb.NetParameter(layer=[layer]), caffe.TRAIN)
        for _ in range(4):
            net.forward()

    return run


def _scan(source: str, backend: str = "lmdb") -> Target:
    def run() -> None:
        database = db.Database.open(source, backend)
        keys = database.keys()
        for _ in database.items():
            pass
        for key in keys[:3]:
            database.get(key)

    return run


def _dataset(source: str) -> Target:
    def run() -> None:
        dataset = LMDBDataset(source)
        for index in range(min(len(dataset), 3)):
            dataset[index]

    return run


def _read(source: str) -> Target:
    def run() -> None:
        reader = Reader(source)
        reader.keys()
        for _ in reader.planes():
            pass

    return run


def readers(draw: Draw, source: str) -> Target:
    """One of those that read an LMDB of records."""
    return draw.pick(
        lambda: _scan(source),
        lambda: _read(source),
        lambda: _dataset(source),
        lambda: data_net(source, draw),
        lambda: commands.data_tool("inspect", source),
        lambda: commands.data_tool("inspect", source, "--html", "o.html", "--verify"),
        lambda: commands.data_tool("convert", source, "out"),
        lambda: commands.data_tool("convert", source, "out", "--to", "folder"),
        lambda: commands.data_tool("class_weights", source),
        lambda: commands.caffe_command("tools.compute_image_mean", source, "o.binaryproto"),
        lambda: commands.netgen("solver", "--net", _train_net(draw, source)),
    )()


def _train_net(draw: Draw, source: str) -> str:
    content = draw.sound("nets/train.prototxt").replace(b'"lmdb"', f'"{source}"'.encode())
    draw.write("net.prototxt", content)
    return "net.prototxt"


@family(1.5)
def lmdb_pages(draw: Draw) -> Target:
    """An LMDB with flipped bits, numbers changed in its meta pages, or pages cut off."""
    name = draw.pick("lmdb", "many")
    content = draw.sound(f"{name}/data.mdb")
    how = draw.rng.randrange(6)
    if mutate.idle:
        pass
    elif how == 0:
        content = content[: -PAGE * draw.rng.randrange(1, len(content) // PAGE)]
    elif how == 1:
        content = content[: draw.rng.randrange(len(content))]
    elif how in (2, 3):
        for _ in range(draw.pick(1, 1, 2, 4)):  # both meta pages lie in the first 8 KiB
            at = draw.rng.randrange(0, 160, 2) + draw.pick(0, PAGE)
            size = draw.pick(1, 2, 4, 8)
            value = draw.pick(*mutate.INTEGERS) % 2 ** (8 * size)
            content = content[:at] + value.to_bytes(size, "little") + content[at + size :]
    elif how == 4:
        at = draw.rng.randrange(2, len(content) // PAGE) * PAGE + draw.rng.randrange(0, 48, 2)
        value = draw.pick(*mutate.INTEGERS) % 2**16
        content = content[:at] + value.to_bytes(2, "little") + content[at + 2 :]
    else:
        content = mutate.some_bytes(draw.rng, content)
    draw.write("x/data.mdb", content)
    return readers(draw, "x")


def odd_datum(draw: Draw) -> bytes:
    """A record that is no sound Datum."""
    content = draw.sound("datums/raw" if mutate.idle else "datums/*")
    if mutate.idle:
        return content
    how = draw.rng.randrange(4)
    if how == 0:
        return mutate.some_bytes(draw.rng, content)
    datum = pb.Datum.FromString(content)
    if how == 1:
        datum.encoded = True
        datum.data = mutate.some_bytes(draw.rng, draw.sound("pictures/*.[pjbw]*"))
        return datum.SerializeToString()
    mutate.some_message(draw.rng, datum)
    return datum.SerializeToString()


@family(1.5)
def lmdb_records(draw: Draw) -> Target:
    """A sound LMDB of hostile Datums and keys, with the dataset.json of another."""
    sound = draw.sound("datums/raw")
    keys = {draw.pick(*KEYS) if draw.chance(0.4) else b"%08d_f%d" % (i, i) for i in range(3)}
    records = [(key, odd_datum(draw) if draw.chance(0.5) else sound) for key in sorted(keys)]
    write_lmdb("x", records)
    if draw.chance(0.3):
        draw.json("lmdb/dataset.json", "x/dataset.json")
    return readers(draw, "x")


def odd_annotated(draw: Draw) -> bytes:
    """An AnnotatedDatum of a sound or odd Datum, with boxes of any numbers."""
    record = pb.AnnotatedDatum(type=pb.AnnotatedDatum.BBOX)
    content = odd_datum(draw) if draw.chance(0.2) else draw.sound("datums/*")
    try:
        record.datum.ParseFromString(content)
    except DecodeError:
        return b"\xff"
    for label in range(draw.pick(0, 1, 3)):
        box = record.annotation_group.add(group_label=label).annotation.add().bbox
        box.xmax, box.ymax = 0.5, 0.7
    if not mutate.idle and draw.chance(0.4):
        mutate.some_message(draw.rng, record)
    return record.SerializeToString()


STEPS = (
    "resize_param { height: 8 width: 8 }",
    "resize_param { height: 8 width: 8 resize_mode: FIT_LARGE_SIZE_AND_PAD }",
    "expand_param { max_expand_ratio: 4 }",
    "distort_param { hue_prob: 1 hue_delta: 9 contrast_prob: 1 contrast_upper: 2 }",
    "emit_constraint { emit_type: MIN_OVERLAP emit_overlap: 0.3 }",
    "noise_param { clahe: true jpeg: 30 erode: true }",
    "mirror: true",
)


@family(1)
def annotated_records(draw: Draw) -> Target:
    """A sound LMDB of hostile AnnotatedDatums, read by AnnotatedData."""
    write_lmdb("x", [(b"%d" % i, odd_annotated(draw)) for i in range(3)])
    steps = " ".join(step for step in STEPS if draw.chance(0.4))
    text = (
        'name: "data" type: "AnnotatedData" top: "x" top: "boxes" '
        f"transform_param {{ {steps} }} annotated_data_param {{ batch_sampler {{ "
        "sampler { min_scale: 0.3 } sample_constraint { min_jaccard_overlap: 0.1 } } } "
        'data_param { source: "x" backend: LMDB batch_size: 1 }'
    )
    layer = text_format.Parse(text, pb.LayerParameter())

    def run() -> None:
        net = caffe.Net(pb.NetParameter(layer=[layer]), caffe.TRAIN)
        for _ in range(4):
            net.forward()

    return run


@family(0.7)
def dataset_json(draw: Draw) -> Target:
    """A sound LMDB with a dataset.json of wrong types."""
    draw.copy("lmdb", "x")
    draw.json("lmdb/dataset.json", "x/dataset.json")
    return draw.pick(
        lambda: commands.data_tool("inspect", "x", "--verify"),
        lambda: commands.data_tool("inspect", "x", "--sheet", "o.png"),
        lambda: commands.data_tool("inspect", "x", "--html", "o.html"),
        lambda: commands.data_tool("convert", "x", "out"),
        lambda: commands.data_tool("convert", "x", "x", "out"),
        lambda: commands.data_tool("convert", "x", "out", "--to", "folder"),
        lambda: commands.data_tool("class_weights", "x"),
        lambda: commands.netgen("solver", "--net", _train_net(draw, "x")),
        lambda: commands.netgen("sf1", "--source", "x"),
        lambda: commands.netgen("sf1", "--source", "x", "--deploy"),
    )()


@family(0.5)
def leveldb(draw: Draw) -> Target:
    """A LevelDB with a spoiled log, manifest or CURRENT."""
    draw.copy("leveldb", "x")
    victim = draw.pick("000003.log", "CURRENT", "MANIFEST-000002")
    draw.bytes(f"leveldb/{victim}", f"x/{victim}")
    mean = ("tools.compute_image_mean", "x", "o.binaryproto", "-backend", "leveldb")
    return draw.pick(
        lambda: _scan("x", "leveldb"),
        lambda: data_net("x", draw, "LEVELDB"),
        lambda: commands.caffe_command(*mean),
    )()


@family(0.5)
def folder_again(draw: Draw) -> Target:
    """The folder that convert wrote, spoiled, and read by it again."""
    names = ("00000000_a", "00000001_b")
    for name in names:
        for part in ("rgb", "depth", "label"):
            picture = {"rgb": "rgb.png", "depth": "label.png", "label": "label.png"}[part]
            draw.copy(f"pictures/{picture}", f"x/{part}/{name}.png")
    draw.json("lmdb/dataset.json", "x/dataset.json")
    if draw.chance(0.5):
        victim = draw.pick("rgb", "depth", "label")
        draw.bytes(
            f"pictures/{draw.pick('rgb', 'label', 'palette')}.png", f"x/{victim}/{names[0]}.png"
        )
    more = ("--map", "map.csv") if draw.chance(0.3) else ()
    draw.text("tables/map.csv", "map.csv")
    return commands.data_tool("convert", "x", "out", *more)
