"""Folders of frames, as data_tools.folder, .prepared and .scannet read them."""

from __future__ import annotations

from fuzz import commands, mutate
from fuzz.families import Draw, Target, family
from fuzz.families.pictures import header_of


def _spoil(draw: Draw, pattern: str) -> None:
    """Spoils one file of a copied folder."""
    victim = draw.rng.choice(draw.seeds(pattern))
    content = victim.read_bytes()
    if draw.chance(0.5):
        content = header_of(draw.rng, victim.name, content)
    else:
        content = mutate.some_bytes(draw.rng, content, draw.sound("pictures/*.png"))
    draw.write(victim.relative_to(draw.corpus), content)


@family()
def folder(draw: Draw) -> Target:
    """data_tools.folder on spoiled pictures, odd names and spoiled tables of classes."""
    draw.copy("folder")
    if draw.chance(0.5):
        _spoil(draw, "folder/*/*")
    if draw.chance(0.3):
        part, suffix = draw.pick(
            ("rgb", ".png"), ("depth", ".npy"), ("depth", ".exr"), ("label", ".npy"),
            ("depth", ".tiff"), ("label", ".png"),
        )  # fmt: skip
        source = draw.rng.choice(draw.seeds(f"pictures/*{suffix}"))
        draw.write(f"folder/{part}/0000_{part}{suffix}", source.read_bytes())
    if draw.chance(0.3):
        for part in ("rgb", "depth", "label"):
            name = draw.pick("b\udce4d", "\u65e5", "a b", "x" * 200, "1e9", "\u0663", "a\nb")
            draw.copy(f"folder/{part}/0000_{part}.png", f"folder/{part}/{name}_{part}.png")
            if draw.chance(0.3):
                break
    more: list[str] = []
    if draw.chance(0.5):
        draw.text("tables/[cp]*.csv", "t.csv")
        more = ["--classes", "t.csv"]
    more += draw.pick([], ["--skip-bad"], ["--size", "8x6"], ["--float-depth"],
                      ["--val-fraction", "0.5"], ["--depth-unit", "sunrgbd"])  # fmt: skip
    places = ("--rgb", "folder/rgb", "--depth", "folder/depth", "--label", "folder/label")
    return commands.data_tool("folder", "out", *places, *more)


@family(0.4)
def prepared_folder(draw: Draw) -> Target:
    """data_tools.prepared on a spoiled SUN archive or nyuv2.npy."""
    if draw.chance(0.5):
        draw.copy("prepared/sun")
        if draw.chance(0.5):
            _spoil(draw, "prepared/sun/*/*")
        else:
            draw.bytes("prepared/sun/splits.pkl", "prepared/sun/splits.pkl")
        return commands.data_tool("prepared", "prepared/sun", "out")
    draw.bytes("prepared/nyuv2.npy", "x.npy")
    return commands.data_tool("prepared", "x.npy", "out")


@family(0.4)
def scannet(draw: Draw) -> Target:
    """data_tools.scannet on spoiled lists and pictures."""
    draw.copy("scannet")
    if draw.chance(0.5):
        name = f"scannet/scannetv2_{draw.pick('train', 'val')}.txt"
        draw.text(name, name)
    else:
        _spoil(draw, "scannet/*/*/*/*")
    return commands.data_tool("scannet", "scannet", "out", "--size", "8x6")


@family()
def annotations(draw: Draw) -> Target:
    """data_tools.annoset on spoiled XML, lists, label maps and pictures."""
    draw.copy("voc")
    draw.copy("pictures/rgb.png", "voc/rgb.png")
    kind = draw.pick("xml", "xml", "xml", "list.txt", "labels.prototxt", "picture")
    if kind == "xml":
        spoil = draw.pick(draw.text, draw.bytes)
        spoil("voc/rgb.xml", "voc/rgb.xml")
    elif kind == "picture":
        draw.bytes("pictures/*.*", "voc/rgb.png")
    else:
        draw.text(f"voc/{kind}", f"voc/{kind}")
    more = draw.pick([], [], ["--skip-bad"], ["--unknown", "ignore"], ["--any-size"])
    places = ("voc/list.txt", "voc", "voc/labels.prototxt", "out")
    return commands.data_tool("annoset", *places, *more)


@family(1.5)
def labels_from(draw: Draw) -> Target:
    """data_tools.folder on spoiled files of labelling tools."""
    kind = draw.pick("cvat", "cvat", "masks", "labelme", "coco", "coco", "panoptic", "studio")
    draw.copy(f"annotations/{kind}", "from")
    draw.copy("pictures/rgb.png", "rgb.png")
    draw.copy("pictures/depth.png", "depth.png")
    (name,) = (path.name for path in draw.seeds(f"annotations/{kind}/*.*"))
    spoil = draw.json if name.endswith(".json") else draw.text
    if kind in ("masks", "panoptic") and draw.chance(0.5):
        folder = "SegmentationClass" if kind == "masks" else "panoptic"
        draw.bytes("pictures/*.png", f"from/{folder}/rgb.png")
    elif draw.chance(0.2):
        draw.bytes(f"annotations/{kind}/{name}", f"from/{name}")
    else:
        spoil(f"annotations/{kind}/{name}", f"from/{name}")
    more = draw.pick([], [], ["--skip-bad"], ["--unknown", "ignore"], ["--classes", "nyuv2-40"])
    where = ["--rgb", "rgb.png", "--depth", "depth.png", "--labels-from", "from"]
    return commands.data_tool("folder", *where, "out", *more)
