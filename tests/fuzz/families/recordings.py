"""Recordings, as data_tools.sequence and eval_tools.predict read them."""

from __future__ import annotations

from fuzz import commands, mutate
from fuzz.families import Draw, Target, family
from fuzz.families.pictures import header_of

SHORT = ("--size", "8x6", "--skip-bad")


def _spoil(draw: Draw, pattern: str) -> None:
    """Spoils one file of a copied recording."""
    victim = draw.rng.choice(draw.seeds(pattern))
    content = victim.read_bytes()
    if victim.suffix in (".png", ".exr", ".npy") and draw.chance(0.5):
        content = header_of(draw.rng, victim.name, content)
    else:
        content = mutate.some_bytes(draw.rng, content, content)
    draw.write(victim.relative_to(draw.corpus), content)


@family(0.6)
def recording(draw: Draw) -> Target:
    """data_tools.sequence on folders with spoiled lists, names, tables and pictures."""
    kind = draw.pick("tum", "tum", "7scenes", "scannet", "redwood", "record3d", "folders",
                     "mixed", "polycam", "nyuv2-raw")  # fmt: skip
    folder = f"recordings/{kind}"
    draw.copy(folder)
    more = list(draw.pick([], ["--every", "2"], ["--start", "1"], ["--end", "0.05s"],
                          ["--max-gap", "1ms"], ["--val-fraction", "0.5"]))  # fmt: skip
    if kind == "tum" and draw.chance(0.7):
        name = f"{folder}/{draw.pick('rgb', 'depth')}.txt"
        draw.text(name, name)
    elif kind == "record3d" and draw.chance(0.4):
        draw.json(f"{folder}/EXR_RGBD/metadata.json", f"{folder}/EXR_RGBD/metadata.json")
    elif kind == "mixed" and draw.chance(0.4):
        draw.json(f"{folder}/cam_params.json", f"{folder}/cam_params.json")
    elif kind == "scannet" and draw.chance(0.5):
        draw.text("recordings/labels.tsv", "labels.tsv")
        more += ["--label-map", "labels.tsv"]
    elif draw.chance(0.6):
        _spoil(draw, f"{folder}/**/*")
    if draw.chance(0.2):
        name = draw.pick("b\udce4d", "\u65e5", "9" * 200, "1e9", "\u0663", "a\nb", "1.5", "-1")
        part = {"tum": "rgb", "redwood": "image", "record3d": "EXR_RGBD/rgb", "folders": "images",
                "mixed": ".", "polycam": "keyframes/images"}.get(kind, "color")  # fmt: skip
        draw.copy(f"pictures/{draw.pick('rgb', 'label')}.png", f"{folder}/{part}/{name}.png")
    if draw.chance(0.2) and not {"--val-fraction"} & set(more):
        return commands.data_tool("sequence", folder, "out", *more, "--to", "folder", "--skip-bad")
    return commands.data_tool("sequence", folder, "out", *more, *SHORT, "--kind",
                              "open3d" if kind == "redwood" else kind)  # fmt: skip


@family(0.3)
def video(draw: Draw) -> Target:
    """data_tools.sequence on spoiled videos."""
    name = draw.pick("avi", "mp4", "mkv")
    draw.copy(f"recordings/stray/{name}", "rec")
    if draw.chance(0.9):
        draw.bytes(f"recordings/stray/{name}/c.{name}", f"rec/c.{name}")
    else:
        depth = draw.rng.choice(draw.seeds(f"recordings/stray/{name}/depth/*"))
        draw.write(f"rec/depth/{depth.name}", header_of(draw.rng, depth.name, depth.read_bytes()))
    return commands.data_tool("sequence", "rec", "out", *SHORT)


@family(0.6)
def bag(draw: Draw) -> Target:
    """data_tools.sequence on spoiled bags of ROS 1 and 2."""
    name = draw.pick("ros1.bag", "ros1.bag", "sqlite3", "mcap")
    if name == "ros1.bag":
        draw.bytes("recordings/ros1.bag", "x.bag")
        return commands.data_tool("sequence", "x.bag", "out", *SHORT)
    if draw.chance(0.5):
        (file,) = draw.seeds(f"recordings/{name}/*.{'db3' if name == 'sqlite3' else 'mcap'}")
        pattern = file.relative_to(draw.corpus).as_posix()
        return commands.data_tool("sequence", draw.bytes(pattern, f"x{file.suffix}"), "out", *SHORT)
    draw.copy(f"recordings/{name}")
    victim = draw.rng.choice(draw.seeds(f"recordings/{name}/*"))
    place = victim.relative_to(draw.corpus).as_posix()
    (draw.text if victim.suffix == ".yaml" else draw.bytes)(place, place)
    return commands.data_tool("sequence", f"recordings/{name}", "out", *SHORT)
