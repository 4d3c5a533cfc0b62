"""Weights, solver states, means, side files and PyTorch's state dicts."""

from __future__ import annotations

from pathlib import Path

import caffe
from caffe.export.state_dict import read_names, read_state_dict
from caffe.formats import files
from caffe.proto import caffe_pb2 as pb
from caffe.solver import resume
from fuzz import commands, mutate
from fuzz.families import Draw, Target, family


def _message(draw: Draw, pattern: str, kind: type, path: str) -> Path:
    """A binary protobuf file, spoiled by fields or by bytes."""
    if draw.chance(0.5):
        return draw.bytes(pattern, path)
    message = kind.FromString(draw.sound(pattern))
    mutate.some_message(draw.rng, message)
    content = message.SerializePartialToString()
    if draw.chance(0.2):
        content = mutate.some_bytes(draw.rng, content)
    return draw.write(path, content)


@family()
def caffemodel(draw: Draw) -> Target:
    """A spoiled .caffemodel: read, and copied into its net."""
    path = str(_message(draw, "weights/*.caffemodel", pb.NetParameter, "x.caffemodel"))
    draw.copy("nets/deploy.prototxt", "net.prototxt")

    def run() -> None:
        files.read_weights(path)
        caffe.Net("net.prototxt", caffe.TEST, weights=path)

    return run


@family(0.5)
def caffemodel_upgrade(draw: Draw) -> Target:
    """A spoiled .caffemodel and upgrade_net_proto_binary."""
    _message(draw, "weights/*.caffemodel", pb.NetParameter, "x.caffemodel")
    return commands.caffe_command(
        "tools.upgrade_net_proto_binary", "x.caffemodel", "out.caffemodel"
    )


@family()
def solverstate(draw: Draw) -> Target:
    """A spoiled .solverstate: restored by its solver."""
    name = draw.pick("sgd", "adam", "rmsprop", "nesterov", "adadelta", "adagrad")
    draw.copy("nets/small.prototxt", "small.prototxt")
    draw.copy(f"solvers/{name}.prototxt", "solver.prototxt")
    for ending in ("caffemodel", "resume"):
        draw.copy(f"states/{name}_iter_2.{ending}")
    path = f"states/{name}_iter_2.solverstate"
    _message(draw, path, pb.SolverState, path)

    def run() -> None:
        solver = caffe.get_solver("solver.prototxt")
        solver.restore(path)
        solver.step(1)

    return run


@family()
def side_file(draw: Draw) -> Target:
    """A spoiled .resume beside its solver state; its own checksums are those of the state."""
    name = draw.pick("sgd", "adam")
    draw.copy("nets/small.prototxt", "small.prototxt")
    draw.copy(f"solvers/{name}.prototxt", "solver.prototxt")
    for ending in ("caffemodel", "solverstate"):
        draw.copy(f"states/{name}_iter_2.{ending}")
    path = f"states/{name}_iter_2.resume"
    draw.json(path, path)

    def run() -> None:
        resume.read(path)
        solver = caffe.get_solver("solver.prototxt")
        solver.restore(f"states/{name}_iter_2.solverstate")
        solver.step(1)

    return run


@family(0.5)
def latest(draw: Draw) -> Target:
    """`caffe train -snapshot latest` over spoiled snapshots."""
    draw.copy("nets/small.prototxt", "small.prototxt")
    content = draw.sound("solvers/sgd.prototxt").replace(b'"run"', b'"states/sgd"')
    draw.write("solver.prototxt", content)
    endings = ("caffemodel", "solverstate", "resume")
    spoiled = draw.pick(*endings)
    for ending in endings:
        path = f"states/sgd_iter_2.{ending}"
        if ending != spoiled:
            draw.copy(path)
        elif ending == "resume":
            draw.json(path, path)
        else:
            draw.bytes(path, path)
    return commands.caffe_command("train", "-solver", "solver.prototxt", "-snapshot",
                                  draw.pick("latest", "states/sgd_iter_2.solverstate"))  # fmt: skip


@family()
def binaryproto(draw: Draw) -> Target:
    """A spoiled mean: read, given to a layer, and to classify."""
    path = str(_message(draw, "arrays/mean.binaryproto", pb.BlobProto, "mean.binaryproto"))
    if draw.chance(0.5):
        return lambda: files.read_blob(path)
    draw.copy("encoded")
    transform = pb.TransformationParameter(mean_file=path)
    layer = pb.LayerParameter(name="data", type="Data", top=["x", "y"], transform_param=transform)
    layer.data_param.source, layer.data_param.batch_size = "encoded", 1
    layer.data_param.backend = pb.DataParameter.LMDB
    return lambda: caffe.Net(pb.NetParameter(layer=[layer]), caffe.TRAIN).forward()


@family(0.7)
def npy(draw: Draw) -> Target:
    """Spoiled .npy and .npz files as mean and as pictures of classify."""
    draw.copy("nets/deploy.prototxt", "net.prototxt")
    draw.copy("weights/tiny.caffemodel", "w.caffemodel")
    one_input = draw.sound("nets/deploy.prototxt").replace(b'bottom: "depth"', b'bottom: "rgb"')
    one_input = one_input.replace(b"num_output: 4 kernel_size: 3", b"num_output: 4 kernel_size: 1")
    one_input = one_input.split(b'layer { name: "depth"')
    rest = one_input[1].partition(b"layer {")[2]
    draw.write("net.prototxt", one_input[0] + b"layer {" + rest)
    given = ["--model_def", "net.prototxt", "--pretrained_model", "w.caffemodel"]
    if draw.chance(0.5):
        draw.bytes("arrays/*.np[yz]", "mean.npy")
        draw.copy("arrays/pictures.npy", "in.npy")
        given += ["--mean_file", "mean.npy"]
    else:
        draw.bytes("arrays/*.np[yz]", "in.npy")
    net = "net.prototxt"

    def run() -> None:
        caffe.Net(net, caffe.TEST).save("w.caffemodel")
        commands.script("tools.classify", "in.npy", "out.npy", *given)()

    return run


@family(1.5)
def state_dict(draw: Draw) -> Target:
    """A spoiled .pth of either form: read, and converted."""
    draw.bytes("torch/*.pth", "x.pth")
    draw.copy("nets/deploy.prototxt", "net.prototxt")
    if draw.chance(0.5):
        return lambda: read_state_dict("x.pth")
    return commands.script("convert", "net.prototxt", "x.pth", "out.caffemodel", "--partial")


@family(0.7)
def vgg_surgery(draw: Draw) -> Target:
    """Spoiled weights of a narrow VGG, or a spoiled net, for vgg_surgery."""
    suffix = draw.pick(".pth", ".caffemodel")
    path, net = f"vgg/vgg{suffix}", draw.copy("vgg/net.prototxt")
    draw.copy(path)
    if draw.chance(0.2):
        draw.text("vgg/net.prototxt", net)
    elif suffix == ".pth":
        draw.bytes(path, path)
    else:
        _message(draw, path, pb.NetParameter, path)
    run = commands.data_tool("vgg_surgery", path, net, "out.caffemodel", "--decoder",
                             draw.pick("msra", "mirror"))  # fmt: skip

    def narrow() -> None:
        from data_tools import vgg_surgery as tool

        tool.CONVOLUTIONS, tool.TORCHVISION = {"conv1_1": 2, "conv1_2": 2}, (0, 2)
        run()

    return narrow


@family(0.3)
def port_weights(draw: Draw) -> Target:
    """A spoiled state dict of the PyTorch port, or a spoiled net, for port_weights."""
    draw.copy("port")
    if draw.chance(0.3):
        draw.text("port/sf5.prototxt", "port/sf5.prototxt")
    else:
        draw.bytes("port/port.pth", "port/port.pth")
    return commands.data_tool("port_weights", "port/port.pth", "port/sf5.prototxt",
                              "out.caffemodel")  # fmt: skip


@family(0.5)
def state_dict_content(draw: Draw) -> Target:
    """State dicts of sound form with tensors of odd names, shapes and types."""
    import torch

    def value():
        return draw.pick(
            lambda: torch.ones(draw.pick(0, 1, 4, 5)), lambda: torch.ones(4, 4, 3, 3),
            lambda: torch.tensor(float("nan")), lambda: torch.ones(4, dtype=torch.complex64),
            lambda: torch.ones(4, dtype=torch.bool), lambda: torch.ones(4).to_sparse(),
            lambda: torch.ones(4, dtype=torch.bfloat16), lambda: {"a": torch.ones(1)},
            lambda: torch.ones(1).expand(4, 4, 3, 3), lambda: "text", lambda: None, lambda: 3,
            lambda: torch.empty(10**9, device="meta"),
            lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
        )()  # fmt: skip

    keys = ("conv.weight", "conv.bias", "bn.running_mean", "score.weight", "conv.0", "conv.99",
            "", ".", "conv", "module.conv.weight", "x" * 1000, "conv.weight\n", 3)  # fmt: skip
    state = {draw.rng.choice(keys): value() for _ in range(draw.rng.randrange(1, 5))}
    if mutate.idle:
        state = {"conv.weight": torch.ones(4, 4, 3, 3)}
    torch.save(draw.pick(state, {"state_dict": state}, [state], {"model": 3}), "x.pth")
    draw.copy("nets/deploy.prototxt", "net.prototxt")
    if draw.chance(0.3):
        return commands.data_tool("port_weights", "x.pth", "net.prototxt", "out.caffemodel")
    more = ("--partial",) if draw.chance(0.5) else ()
    return commands.script("convert", "net.prototxt", "x.pth", "out.caffemodel", *more)


@family(0.3)
def names_table(draw: Draw) -> Target:
    """A spoiled table of modules and layers for convert."""
    draw.text("tables/modules.txt", "names.txt")
    return lambda: read_names("names.txt")


@family(0.4)
def convert_weights(draw: Draw) -> Target:
    """Spoiled weights and nets in caffe.convert, to all forms but ONNX, which is only written."""
    if draw.chance(0.5):
        draw.text("nets/deploy.prototxt", "net.prototxt")
        draw.copy("weights/tiny.caffemodel", "w.caffemodel")
    else:
        draw.copy("nets/deploy.prototxt", "net.prototxt")
        _message(draw, "weights/tiny.caffemodel", pb.NetParameter, "w.caffemodel")
    out = draw.pick("out.pth", "out.caffemodel", "out.caffemodel.h5")
    return commands.script("convert", "net.prototxt", "w.caffemodel", out)
