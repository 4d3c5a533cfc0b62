"""Makes docs/layers.md and docs/images/house.svg: python docs/make.py

The page lists what the layer classes say of themselves, with an example from the table of cases
(tests/cases). The drawing shows the floors of the import contract in pyproject.toml.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cases import TABLE  # noqa: E402

from caffe.formats.forks import has_effect  # noqa: E402
from caffe.layers import FAMILIES  # noqa: E402
from caffe.layers.base import REGISTRY, Layer  # noqa: E402
from caffe.proto import caffe_pb2 as pb  # noqa: E402
from netgen.picture import Picture, Rectangle, Text  # noqa: E402

INTRODUCTION = """\
# Layers

All layer types of BVLC Caffe 1.0 and of its last master, FuseNet's Unpooling, those of Caffe's
forks, and SegmentationAccuracy, which is this engine's own. All fields of their parameters have an
effect, except where the last column says otherwise; a fork's field that has none here is warned of
when a net sets it. Tops, gradients and running statistics are Caffe's, also where Caffe's gradient
is not the derivative of what a layer computes.

All types take `name`, `type`, `bottom`, `top`, `param`, `blobs`, `loss_weight`, `propagate_down`,
`include`, `exclude` and `phase` of `LayerParameter`. A layer that cannot be used raises
`caffe.CaffeError` with one line: the layer's name, the cause, and what was expected.

Columns: the number of bottoms and tops (`1+`: one or more; the top of a loss may be left out); the
bottoms that get no gradient; whether `caffe.convert` writes the type as ONNX; the fields of the
parameters with their defaults; an example of them; for a fork's type the fork, and what its values
were compared with (recorded: with what the fork's own code computes). Fields of older formats
(`scale`, `mean_file`, `crop_size`, `mirror` in `data_param`, `image_data_param` and
`window_data_param`) are moved to `transform_param` on reading, as in Caffe.

This page is made by `python docs/make.py` from the layer classes and the table of test cases.
"""

OWN_LAYERS = '''\
## Layers of your own

A layer type is one class with the decorator `caffe.register`. It says how many bottoms and tops it
takes, declares its parameter blobs in `setup`, and computes its tops in `forward` with torch
operations. Autograd gives the gradients, so that the layer runs on the CPU, on a GPU, and in
`caffe.to_module`. `infer_shapes` gives the tops' shapes; without it, `forward` is run on meta
tensors to find them, which takes a second more.

`shift_layer.py`:

```python
import caffe
from caffe.layers.base import Layer
from caffe.proto import caffe_pb2


@caffe.register("Shift", message=caffe_pb2.BiasParameter)
class Shift(Layer):
    """Adds a learned number to each channel."""

    def setup(self, shapes):
        self.check(len(shapes[0]) >= 2, f"bottom has the shape {shapes[0]}, expected 2 axes")
        self.add_blob(shapes[0][1:2], self.param.filler)

    def infer_shapes(self, shapes):
        return [shapes[0]]

    def forward(self, bottom, blobs):
        x, shift = bottom[0], blobs[0]
        return x + shift.view(-1, *[1] * (x.dim() - 2))
```

The parameters are a protobuf message of yours (here one of Caffe's stands in for it).
`python_param.param_str` holds it as text, and `self.param` is the message; an unknown field is an
error with its line and column. Without `message`, read the text from
`self.layer_param.python_param.param_str` as you like. `python_param.module` names the Python module
that registers the type; it is imported, from `PYTHONPATH` or the working directory, where the type
is not known yet. So `caffe train` finds it, too.

```protobuf
layer {
  name: "shift"
  type: "Shift"
  bottom: "data"
  top: "shifted"
  param { lr_mult: 2 }
  python_param { module: "shift_layer" param_str: "filler { value: 0.5 }" }
}
```

`forward` computes in the precision of its bottoms. A type lists the bottoms without a gradient in
`labels`. Where Caffe's gradient is not the derivative, `with_gradient_of` gives a value the
gradient of another. [developing.md](developing.md) says what else a class may define: its ONNX
form, its multiply-adds, its look in drawings. A layer that cannot be written in torch operations,
or that was written for pycaffe, has `type: "Python"`.
'''


def layers_page() -> str:
    """docs/layers.md."""
    parts = [INTRODUCTION]
    columns = "type | computes | bottoms | tops | no gradient for | ONNX | parameters | example"
    head = f"| {columns} | fork | differs from Caffe |"
    rule = "| --- " * (columns.count("|") + 3) + "|"
    for family in FAMILIES:
        module = importlib.import_module(f"caffe.layers.{family}")
        assert module.__doc__
        rows = [_row(c) for c in REGISTRY.values() if c.__module__ == module.__name__]
        title = module.__doc__.split("\n")[0].rstrip(".")
        parts.append("\n".join([f"## {title}", "", head, rule, *rows]) + "\n")
    return "\n".join([*parts, OWN_LAYERS])


def _row(layer: type[Layer]) -> str:
    first = inspect.cleandoc(layer.__doc__ or "").split("\n\n")[0]
    top = "one each" if layer.one_top_each else _count(layer.tops)
    without = ", ".join(map(str, layer.labels))
    if layer.type == "Filter":
        without = "the last"
    form = "yes" if layer.onnx is not Layer.onnx else ""
    parameters = "<br>".join(_fields(name, layer.takes) for name in layer.reads)
    origin = f"{layer.fork} ({layer.judge})" if layer.judge else layer.fork
    example = TABLE[layer.type].example
    cells = [f"`{layer.type}`", first, _count(layer.bottoms), top, without, form, parameters]
    cells += [f"`{example}`" if example else "", origin, layer.differs]
    return "| " + " | ".join(_cell(text) for text in cells) + " |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _count(least_most: tuple[int, int | None]) -> str:
    least, most = least_most
    if most is None:
        return f"{least}+"
    return str(least) if least == most else f"{least} to {most}"


def _fields(name: str, takes: tuple[str, ...]) -> str:
    """A parameter's fields: `relu_param`: negative_slope = 0, engine = DEFAULT."""
    fields = pb.LayerParameter.DESCRIPTOR.fields_by_name[name].message_type.fields
    return f"`{name}`: " + ", ".join(
        _with_default(field) for field in fields if has_effect(name, field, takes)
    )


def _with_default(field: FieldDescriptor) -> str:
    value = field.default_value
    if field.is_repeated:
        return f"{field.name} ..."
    if not field.has_default_value:
        return field.name
    if field.enum_type is not None:
        value = field.enum_type.values_by_number[value].name
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        value = "true" if value else "false"
    elif field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        value = f"{value:g}"
    return f"{field.name} = {value!r}" if value == "" else f"{field.name} = {value}"


# -- the house --------------------------------------------------------------------------------

FLOOR, BOX, GAP, MARGIN = 58, 34, 10, 20
WIDTH = 1000
INK, PALE, FILL, EDGE = "#2b2b33", "#6b6b76", "#dfe8f2", "#7d93ab"


def house() -> str:
    """docs/images/house.svg: the floors of the engine, and the packages above it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages, engine = (_layers(text, name) for name in ("packages", "floors"))
    place = packages.index("caffe")
    floors = [
        *((name, "") for name in packages[:place]),
        *((floor, "caffe.") for floor in engine),
        *((name, "") for name in packages[place + 1 :]),
    ]
    height = 2 * MARGIN + 44 + FLOOR * len(floors)
    picture = Picture(WIDTH, height, "The house: every import goes down")
    picture.add(
        Text(MARGIN, MARGIN + 8, "Every import goes down", size=16, bold=True, fill=INK, start=True)
    )
    for i, (floor, prefix) in enumerate(floors):
        _draw_floor(picture, floor, prefix, MARGIN + 34 + FLOOR * i)
    return picture.svg()


def _layers(text: str, contract: str) -> list[str]:
    """The layers of one contract of import-linter, from the top down."""
    found = re.search(rf'id = "{contract}".*?^layers = (\[.*?\])', text, re.DOTALL | re.MULTILINE)
    assert found, contract
    return ast.literal_eval(found[1])


def _draw_floor(picture: Picture, floor: str, prefix: str, y: float) -> None:
    names = [name.strip() for name in floor.split("|")]
    width = (WIDTH - 2 * MARGIN - GAP * (len(names) - 1)) / len(names)
    for k, name in enumerate(names):
        x = MARGIN + k * (width + GAP)
        picture.add(Rectangle(x, y, width, BOX + 14, FILL, EDGE, 4))
        picture.add(Text(x + 10, y + 16, prefix + name, size=12, bold=True, fill=INK, start=True))
        about = _about(prefix + name)
        room = int((width - 20) / 5.4)
        about = about if len(about) <= room else about[: room - 3].rsplit(" ", 1)[0] + " ..."
        picture.add(Text(x + 10, y + 34, about, size=10, fill=PALE, start=True))


def _about(module: str) -> str:
    """The first sentence of a module's docstring."""
    path = ROOT / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split()).split(". ")[0].rstrip(".")


def pages() -> dict[Path, str]:
    """Every file that is made, and its content."""
    return {
        ROOT / "docs" / "layers.md": layers_page(),
        ROOT / "docs" / "images" / "house.svg": house(),
    }


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content, encoding="utf-8")
