"""ONNX files in place of a net: evaluate and predict on hostile ones."""

from __future__ import annotations

from collections.abc import Callable

from onnx import ModelProto, TensorProto, TensorShapeProto, helper

from fuzz import commands, mutate
from fuzz.families import Draw, Target, family

SIZES = (0, 1, 3, 5, 6, 8, -1, 100, 30000, 2**20, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)
PLACES = ("", "/etc/passwd", "../x", "weights.bin", "net.onnx", "/dev/zero", "x\0y", "a" * 3000)
NAMES = ("", "rgb", "depth", "label", "score", "a\nb", "x" * 4000, "\u202e")


@family(1.2, asks=True)
def onnx_file(draw: Draw) -> Target:
    """An ONNX file, in float32 or int8, in eval_tools.evaluate and predict: spoiled bytes, spoiled
    fields, or a sound file but for one thing.
    """
    how = draw.rng.randrange(4)
    if how == 0:
        draw.bytes("onnx/*.onnx", "net.onnx")
    else:
        model = ModelProto.FromString(draw.sound("onnx/*.onnx"))
        if how == 1:
            mutate.some_message(draw.rng, model, NAMES)
        elif not mutate.idle:
            draw.rng.choice(CHANGES)(draw, model)
        draw.write("net.onnx", model.SerializePartialToString())
    draw.copy("lmdb", "x")
    if draw.chance(0.5):
        return commands.eval_tool("evaluate", "net.onnx", "x", "--bootstrap", 20)
    return commands.eval_tool("predict", "net.onnx", "--lmdb", "x", "-o", "out")


def _opset(draw: Draw, model: ModelProto) -> None:
    """Another version of the format or its operators, or operators of another origin."""
    number = draw.pick(0, 1, 6, 9, 22, 99, -1, 2**31, 2**62)
    if draw.chance(0.3):
        model.ir_version = number
    elif draw.chance(0.3):
        del model.opset_import[:]
    elif draw.chance(0.3):
        draw.rng.choice(model.graph.node).domain = draw.pick("x", "com.microsoft", "ai.onnx.ml")
    else:
        model.opset_import[0].version = number


def _signature(draw: Draw, model: ModelProto) -> None:
    """An input or output of another name, type or size, too many of them, or none."""
    items = draw.pick(model.graph.input, model.graph.output)
    item = draw.rng.choice(items)
    how = draw.rng.randrange(5)
    if how == 0:
        item.name = draw.pick(*NAMES)
    elif how == 1:
        item.type.tensor_type.elem_type = draw.rng.randrange(30)
    elif how == 2:
        del items[draw.rng.randrange(len(items)) :]
    elif how == 3:
        items.add().CopyFrom(item)
    else:
        _dims(draw, item.type.tensor_type.shape)


def _dims(draw: Draw, shape: TensorShapeProto) -> None:
    how = draw.rng.randrange(4)
    if how == 0:
        del shape.dim[draw.rng.randrange(len(shape.dim)) :]
    elif how == 1:
        shape.dim.add(dim_value=draw.pick(*SIZES))
    elif how == 2:
        draw.rng.choice(shape.dim).dim_param = draw.pick("n", "", "a\nb")
    else:
        draw.rng.choice(shape.dim).dim_value = draw.pick(*SIZES)


def _weight(draw: Draw, model: ModelProto) -> None:
    """A constant that lies in another file, is as large as nothing is, or has other values."""
    tensor = draw.rng.choice(model.graph.initializer)
    how = draw.rng.randrange(3)
    if how == 0:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        facts = {"location": draw.pick(*PLACES)}
        if draw.chance(0.5):
            facts["offset"] = str(draw.pick(*SIZES))
        if draw.chance(0.5):
            facts["length"] = str(draw.pick(*SIZES, "x"))
        for key, value in facts.items():
            tensor.external_data.add(key=key, value=value)
    elif how == 1:
        tensor.dims[:] = [draw.pick(*SIZES) for _ in range(draw.rng.randrange(6))]
    else:
        tensor.raw_data = mutate.some_bytes(draw.rng, tensor.raw_data)


def _large(draw: Draw, model: ModelProto) -> None:
    """A value of gigabytes, which a few bytes ask for."""
    side, name = draw.pick(*SIZES), model.graph.output[0].name
    lengths = [1, draw.pick(1, 5), side, draw.pick(1, 2, side)]
    constant = helper.make_tensor("large", TensorProto.INT64, [4], lengths)
    model.graph.initializer.append(constant)
    kind = draw.pick("ConstantOfShape", "Expand", "Tile", "Resize")
    inputs = {"ConstantOfShape": ["large"], "Resize": [name, "", "", "large"]}
    made = helper.make_node(kind, inputs.get(kind, [name, "large"]), ["enlarged"])
    model.graph.node.append(made)
    least = helper.make_node("ReduceMin", ["enlarged"], ["least"], keepdims=1)
    model.graph.node.append(least)
    model.graph.node.append(helper.make_node("Add", [name, "least"], ["more"]))
    model.graph.output[0].name = "more"


def _wiring(draw: Draw, model: ModelProto) -> None:
    """A node that is missing, takes another value, its own, or none; or unknown operators."""
    nodes = model.graph.node
    node = draw.rng.choice(nodes)
    how = draw.rng.randrange(5)
    if how == 0:
        nodes.remove(node)
    elif how == 1:
        node.op_type = draw.pick("", "Nothing", "Conv", "MatMul", "Softmax", "MaxPool", "Split")
    elif how == 2:
        node.input[draw.rng.randrange(len(node.input))] = draw.pick(*NAMES, *node.output)
    elif how == 3:
        nodes.add().CopyFrom(node)
    else:
        for attribute in node.attribute:
            attribute.ints[:] = [draw.pick(*SIZES) for _ in attribute.ints]


CHANGES: tuple[Callable[[Draw, ModelProto], None], ...] = (
    _opset, _signature, _signature, _weight, _large, _wiring,
)  # fmt: skip
