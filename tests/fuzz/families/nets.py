"""Nets and solvers as text and as messages; what netgen reads."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cases import TABLE, layer_param
from google.protobuf.message import Message

import caffe
import caffe.draw
from caffe.formats import files
from caffe.formats.prototext import parse, text
from caffe.proto import caffe_pb2 as pb
from fuzz import commands, mutate
from fuzz.families import Draw, Target, family

WORDS = ("data", "label", "input", "conv", "score", "loss", "x", "ip", "t", "lmdb", "Data", "ReLU",
         "Convolution", "gaussian", "xavier", "msra", "constant", "step", "fixed", "Adam", "SGD",
         "small.prototxt", "list.txt", "bottom0", "top", "l")  # fmt: skip


def _both(path: str, forward: bool = True) -> Target:
    def run() -> None:
        for phase in (caffe.TEST, caffe.TRAIN):
            net = caffe.Net(path, phase)
            if forward:
                net.forward()
                if phase == caffe.TRAIN:
                    net.backward()
                net.observed = False
                net.forward()

    return run


def _spoiled_message(draw: Draw, pattern: str, kind: type) -> bytes:
    message = parse(draw.sound(pattern), kind, "net")
    mutate.some_message(draw.rng, message, WORDS)
    return text(message).encode()


def _spoiled_net(draw: Draw, pattern: str) -> None:
    """Write net.prototxt: a net that is spoiled as text or in its fields."""
    if draw.chance(0.5):
        draw.text(pattern, "net.prototxt")
    else:
        draw.write("net.prototxt", _spoiled_message(draw, pattern, pb.NetParameter))


@family(asks=True)
def net_text(draw: Draw) -> Target:
    """A net's prototxt, spoiled as text: built and run in both phases."""
    draw.text("nets/*.prototxt", "net.prototxt")
    draw.copy("lmdb")
    return _both("net.prototxt")


@family(asks=True)
def net_message(draw: Draw) -> Target:
    """A net with fields of odd values: built and run in both phases."""
    draw.write("net.prototxt", _spoiled_message(draw, "nets/*.prototxt", pb.NetParameter))
    draw.copy("lmdb")
    return _both("net.prototxt")


@family(3, asks=True)
def layer(draw: Draw) -> Target:
    """One layer of any type with odd parameters or bottoms: built and run in both phases."""
    name = draw.rng.choice(sorted(TABLE))
    case = TABLE[name].draw(draw.rng)
    if case.files is not None:
        case.files()
    message = layer_param(name, case.param, len(case.shapes), case.phase)
    message.ClearField("phase")
    net = pb.NetParameter(name="one")
    for i, shape in enumerate(case.shapes):
        source = net.layer.add(name=f"bottom{i}", type="DummyData", top=[f"bottom{i}"])
        dims = list(shape)
        if draw.chance(0.2) and dims:
            dims[draw.rng.randrange(len(dims))] = draw.pick(0, 1, 2, 5)
        if draw.chance(0.1):
            dims = dims[: draw.rng.randrange(len(dims) + 1)] or [1]
        source.dummy_data_param.shape.add().dim.extend(dims)
        source.dummy_data_param.data_filler.add(type="uniform", min=-1, max=2)
    if draw.chance(0.15) and message.bottom and message.top:
        message.top[0] = message.bottom[0]
    for _ in range(draw.pick(1, 1, 2, 3)):
        own = [
            part
            for field, value in message.ListFields()
            if field.name.endswith("_param")
            for part in (value if field.is_repeated else [value])
        ]
        if own and draw.chance(0.7):
            part = draw.rng.choice(own)
            mutate.some_message(draw.rng, part, WORDS, 1)
        else:
            mutate.some_message(draw.rng, message, WORDS, 1)
    _modest(message)
    net.layer.append(message)
    draw.write("net.prototxt", text(net).encode())
    return _both("net.prototxt")


def _modest(message: Message) -> None:
    """Batches of ten thousands of records are work that takes its time, and no fault."""
    for field, value in message.ListFields():
        if field.name == "batch_size":
            setattr(message, field.name, min(value, 64))
        elif isinstance(value, Message):
            _modest(value)


@family(0.5, asks=True)
def net_binary(draw: Draw) -> Target:
    """A net given as a NetParameter from Python, and upgraded from old formats."""
    net = parse(draw.sound("nets/*.prototxt"), pb.NetParameter, "net")
    mutate.some_message(draw.rng, net, WORDS)
    draw.copy("lmdb")
    draw.write("net.binary", net.SerializePartialToString())
    return lambda: caffe.Net(net, caffe.TRAIN).forward()


def _brief(path: str) -> pb.SolverParameter:
    """The solver in a file, without orders for long work, which are no faults."""
    param = files.read_solver(path)
    param.max_iter, param.iter_size = min(param.max_iter, 5), min(param.iter_size, 5)
    if param.test_iter and max(param.test_iter) > 5:
        param.test_iter[:] = [min(count, 5) for count in param.test_iter]
    return param


@family(asks=True)
def solver(draw: Draw) -> Target:
    """A solver, spoiled as text or by fields: three iterations and a snapshot."""
    draw.copy("nets/small.prototxt", "small.prototxt")
    if draw.chance(0.5):
        draw.text("solvers/*.prototxt", "solver.prototxt")
    else:
        content = _spoiled_message(draw, "solvers/*.prototxt", pb.SolverParameter)
        draw.write("solver.prototxt", content)

    def run() -> None:
        trained = caffe.get_solver(_brief("solver.prototxt"))
        trained.step(3)
        trained.snapshot()

    return run


@family(0.5, asks=True)
def solver_command(draw: Draw) -> Target:
    """`caffe train` with a spoiled solver or net."""
    if draw.chance(0.5):
        draw.copy("nets/small.prototxt", "small.prototxt")
        draw.write("solver.prototxt",
                   _spoiled_message(draw, "solvers/*.prototxt", pb.SolverParameter))  # fmt: skip
        with contextlib.suppress(caffe.CaffeError):
            draw.write("solver.prototxt", text(_brief("solver.prototxt")).encode())
    else:
        draw.copy("solvers/sgd.prototxt", "solver.prototxt")
        draw.write("small.prototxt", _spoiled_message(draw, "nets/small*", pb.NetParameter))
    return commands.caffe_command("train", "-solver", "solver.prototxt")


@family(0.5, asks=True)
def caffe_commands(draw: Draw) -> Target:
    """`caffe test`, `caffe time` and the upgrading tools on a spoiled net; draw_net."""
    draw.copy("lmdb")
    draw.text("nets/*.prototxt", "net.prototxt")
    draw.copy("weights/tiny.caffemodel")
    how = draw.rng.randrange(5)
    if how == 4:
        return lambda: caffe.draw.get_pydot_graph(files.read_net("net.prototxt"), "LR")
    if how == 0:
        return commands.caffe_command("test", "-model", "net.prototxt", "-iterations", 1,
                                      "-weights", "weights/tiny.caffemodel")  # fmt: skip
    if how == 1:
        return commands.caffe_command("time", "-model", "net.prototxt", "-iterations", 1)
    if how == 2:
        return commands.caffe_command("tools.upgrade_net_proto_text", "net.prototxt", "out")
    draw.text("solvers/*.prototxt", "solver.prototxt")
    return commands.caffe_command("tools.upgrade_solver_proto_text", "solver.prototxt", "out")


@family(0.5)
def earlier_nets(draw: Draw) -> Target:
    """A spoiled net of FuseNet's form, from which netgen takes what options leave open."""
    draw.copy("lmdb")
    _spoiled_net(draw, "earlier/*.prototxt")
    if draw.chance(0.3):
        draw.json("lmdb/dataset.json", "lmdb/dataset.json")
    more = draw.pick((), ("--deploy",), ("--freeze", "encoder"))
    return commands.netgen("sf1", "--from", "net.prototxt", *more)


@family(0.5)
def augmentation(draw: Draw) -> Target:
    """A spoiled net whose augmentation data_tools.inspect draws."""
    draw.copy("lmdb")
    _spoiled_net(draw, "augment.prototxt")
    return commands.data_tool("inspect", "lmdb", "--augment", "net.prototxt", "out.png")


@family(asks=True)
def netgen_files(draw: Draw) -> Target:
    """netgen's summary and drawing of a spoiled net, and its solver for one."""
    draw.copy("lmdb")
    _spoiled_net(draw, "nets/*.prototxt")
    if draw.chance(0.3):
        draw.json("lmdb/dataset.json", "lmdb/dataset.json")
    phase = ("--phase", draw.pick("train", "test")) if draw.chance(0.5) else ()
    how = draw.rng.randrange(4)
    if how == 0:
        return commands.netgen("solver", "--net", "net.prototxt")
    if how == 1:
        more = ("--expand",) if draw.chance(0.3) else ()
        return commands.netgen("draw", "net.prototxt", draw.pick("o.svg", "o.png"), *phase, *more)
    return commands.netgen("summary", "net.prototxt", *phase)


@family(0.5, asks=True)
def netgen_layer(draw: Draw) -> Target:
    """netgen's summary and drawing of one odd layer."""
    layer(draw)
    return commands.netgen(
        *draw.pick(("summary", "net.prototxt"), ("draw", "net.prototxt", "o.svg"))
    )


@family(0.5, asks=True)
def netgen_sources(draw: Draw) -> Target:
    """netgen's nets of spoiled LMDBs, dataset.json, lists and label weights."""
    draw.copy("lmdb")
    how = draw.rng.randrange(4)
    if how == 0:
        draw.text("tables/weights.txt", "weights.txt")
        return commands.netgen("sf1", "--classes", 4, "--label-weights", "weights.txt")
    if how == 1:
        draw.json("lmdb/dataset.json", "lmdb/dataset.json")
        return commands.netgen("sf1", "--classes", 4, "--source", "lmdb", "--test-source", "lmdb")
    if how == 2:
        draw.text("lists/frames.txt", "list.txt")
        return commands.netgen("rgbd", "--classes", 4, "--data-list", "list.txt", "--size",
                               draw.pick("8x6", "16x16", "0x0", "99999999x9"))  # fmt: skip
    draw.bytes("lmdb/data.mdb", "lmdb/data.mdb")
    return commands.netgen("sf1", "--classes", 4, "--source", "lmdb")


@family(0.5, asks=True)
def rgbd_images(draw: Draw) -> Target:
    """The Python layer RGBDImages: odd param_str, a spoiled list, spoiled pictures."""
    import json

    for name in ("rgb.png", "depth.png", "label.png"):
        draw.copy(f"pictures/{name}", name)
    if draw.chance(0.4):
        draw.text("lists/frames.txt", "list.txt")
    else:
        draw.copy("lists/frames.txt", "list.txt")
    if draw.chance(0.3):
        victim = draw.pick("rgb.png", "depth.png", "label.png")
        draw.bytes(f"pictures/{victim}", victim)
    values = {
        "source": "list.txt", "batch_size": 2, "size": [8, 6], "shuffle": True, "seed": 1,
        "root": "", "depth_unit": "mm", "depth_range": "authors", "float_depth": False,
    }  # fmt: skip
    words = json.dumps(values).encode()
    if draw.chance(0.6):
        words = mutate.some_json(draw.rng, words)
    net = pb.NetParameter(name="pictures")
    data = net.layer.add(name="data", type="Python", top=["rgb", "depth", "label"])
    data.python_param.module, data.python_param.layer = "data_tools.layers", "RGBDImages"
    data.python_param.param_str = words.decode()
    draw.write("net.prototxt", text(net).encode())
    how = draw.rng.randrange(4)
    if how == 0:
        return commands.netgen("summary", "net.prototxt")
    if how == 1:
        return commands.netgen("solver", "--net", "net.prototxt")
    return lambda: caffe.Net(str(Path("net.prototxt")), caffe.TRAIN).forward()
