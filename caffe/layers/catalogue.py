"""docs/layers.md, made from the layer classes: python -m caffe.layers.catalogue > docs/layers.md"""

from __future__ import annotations

import importlib
import inspect
import sys

from google.protobuf.descriptor import FieldDescriptor

from caffe.layers import FAMILIES
from caffe.layers.base import REGISTRY, Layer
from caffe.proto import caffe_pb2 as pb

INTRODUCTION = """\
# Layers

Every layer type of BVLC Caffe 1.0 and its last master, and FuseNet's Unpooling: all fields of
their parameters count, except for what the last column says. Tops, gradients and running statistics
are Caffe's, also where its gradient is not the derivative of what a layer computes.

For all types: `name`, `type`, `bottom`, `top`, `param`, `blobs`, `loss_weight`, `propagate_down`,
`include`, `exclude` and `phase` of `LayerParameter`. What cannot be used is met with a
`caffe.CaffeError`: one line that names the layer, the cause and what was expected.

Columns: how many bottoms and tops a type takes (`1+`: one or more; a loss may leave its top out);
the bottoms that get no gradient; the fields of its parameters, with their defaults. Fields of older
formats (`scale`, `mean_file`, `crop_size`, `mirror` in `data_param`, `image_data_param` and
`window_data_param`) are moved to `transform_param` on reading, as in Caffe.

This page is made by `python -m caffe.layers.catalogue`.
"""

OWN_LAYERS = '''\
## Layers of your own

A layer type is one class with the decorator `caffe.register`. It says how many bottoms and tops it
takes, makes its parameter blobs in `setup`, and computes its tops in `forward` with torch
operations. Shapes follow by running `forward` on meta tensors, gradients by autograd; so it runs
on the CPU and on a GPU, and in `caffe.to_module`.

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

    def forward(self, bottom, blobs):
        x, shift = bottom[0], blobs[0]
        return x + shift.view(-1, *[1] * (x.dim() - 2))
```

Its parameters are a protobuf message of yours (here one of Caffe's stands in for it), which
`python_param.param_str` holds as text and `self.param` as a message; an unknown field is met with
its line and column. Without `message`, read the text as you like from
`self.layer_param.python_param.param_str`. `python_param.module` names the Python module, on
`PYTHONPATH` or in the working directory, which is imported where the type is not known yet; so
`caffe train` finds it, too.

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

`forward` must not look at values while shapes are inferred (`can_look` in `caffe.layers.base`
tells), and computes in whatever precision it is given. Bottoms without a gradient are listed in
`labels`; where Caffe's gradient is not the derivative, `with_gradient_of` gives a value another's
gradient. For a layer that cannot be written in torch operations, or is already written for pycaffe,
there is `type: "Python"`.
'''


def catalogue() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for family in FAMILIES:
        module = importlib.import_module(f"caffe.layers.{family}")
        assert module.__doc__
        rows = [_row(c) for c in REGISTRY.values() if c.__module__ == module.__name__]
        head = "| type | computes | bottoms | tops | no gradient for | parameters | differs |"
        rule = "| --- | --- | --- | --- | --- | --- | --- |"
        parts.append("\n".join([f"## {module.__doc__.rstrip('.')}", "", head, rule, *rows]) + "\n")
    return "\n".join([*parts, OWN_LAYERS])


def _row(layer: type[Layer]) -> str:
    first = inspect.cleandoc(layer.__doc__ or "").split("\n\n")[0]
    top = "one each" if layer.one_top_each else _count(layer.tops)
    without = ", ".join(map(str, layer.labels))
    if layer.type == "Filter":
        without = "the last"
    parameters = "<br>".join(_fields(name) for name in layer.reads)
    cells = [f"`{layer.type}`", first, _count(layer.bottoms), top, without, parameters]
    return "| " + " | ".join(_cell(text) for text in [*cells, layer.differs]) + " |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _count(least_most: tuple[int, int | None]) -> str:
    least, most = least_most
    if most is None:
        return f"{least}+"
    return str(least) if least == most else f"{least} to {most}"


def _fields(name: str) -> str:
    """A parameter's fields: `relu_param`: negative_slope = 0, engine = DEFAULT."""
    message = pb.LayerParameter.DESCRIPTOR.fields_by_name[name].message_type
    return f"`{name}`: " + ", ".join(_with_default(field) for field in message.fields)


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


if __name__ == "__main__":
    sys.stdout.write(catalogue())
