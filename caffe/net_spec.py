"""pycaffe's net_spec: Python expressions that become a NetParameter.

    from caffe import layers as L, params as P

    n = caffe.NetSpec()
    n.data = L.Input(shape=[dict(dim=[1, 3, 32, 32])])
    n.conv1 = L.Convolution(n.data, num_output=8, kernel_size=3)
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.pool1, n.mask1 = L.Pooling(n.relu1, kernel_size=2, stride=2, pool=P.Pooling.MAX, ntop=2)
    net = n.to_proto()

This module lists no layer types. The schema says which message holds a type's parameters (type X
has XParameter), so every type in caffe.proto works, and any other type without parameters.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from caffe.proto import caffe_pb2

Layer = caffe_pb2.LayerParameter
_NetParameter = caffe_pb2.NetParameter


def param_name_dict() -> dict[str, str]:
    """Layer type -> its parameters' field in LayerParameter without `_param`: Convolution ->
    convolution. Messages shared by several types (loss, transform) are listed under their own
    name. Where several fields hold one message, as ReLU's and ReLU6's, the first one counts."""
    return {
        field.message_type.name.removesuffix("Parameter"): field.name.removesuffix("_param")
        for field in reversed(Layer.DESCRIPTOR.fields)
        if field.name.endswith("_param")
    }


_PARAM_NAMES = param_name_dict()


def assign_proto(proto: Message, name: str, value: Any) -> None:
    """Set field `name` of a message from a Python value: a dict fills a message, a list or tuple a
    repeated field; a single value for a repeated field becomes its only element.

    Raises AttributeError if the message has no such field, TypeError or ValueError if the field
    cannot hold the value; the text names message and field.
    """
    kind = type(proto).__name__
    if name not in proto.DESCRIPTOR.fields_by_name:
        near = difflib.get_close_matches(name, proto.DESCRIPTOR.fields_by_name, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise AttributeError(f"{kind} has no field {name!r}{hint}")
    field = getattr(proto, name)
    repeated = hasattr(field, "extend")
    for item in value if repeated and isinstance(value, (list, tuple)) else [value]:
        is_dict = isinstance(item, Mapping)
        if is_dict != (proto.DESCRIPTOR.fields_by_name[name].message_type is not None):
            wanted = "a plain value" if is_dict else "a dict"
            raise TypeError(f"{kind}.{name} takes {wanted}, not {item!r}")
        if is_dict:
            _fill(field.add() if repeated else field, item)
            continue
        try:
            field.append(item) if repeated else setattr(proto, name, item)
        except (TypeError, ValueError) as error:
            same = TypeError if isinstance(error, TypeError) else ValueError  # of its subclasses
            raise same(f"{kind}.{name} cannot hold {item!r}: {error}") from None


def _fill(message: Message, values: Mapping[str, Any]) -> None:
    # An empty dict still makes the message present.
    message.SetInParent()
    for name, value in values.items():
        assign_proto(message, name, value)


class Top:
    """One output blob of a layer: the n-th top of the Function `fn`."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> _NetParameter:
        """The net of all layers that this blob depends on, with automatic names."""
        return to_proto(self)


class Function:
    """One layer: its type, its input Tops and its parameters.

    Besides fields of LayerParameter and of the type's own message, `params` may hold `ntop` (the
    number of tops, default 1) and `in_place` (the tops are the bottoms).
    Raises TypeError if an input is not a Top.
    """

    def __init__(self, type_name: str, inputs: tuple[Top, ...], params: dict[str, Any]) -> None:
        for index, item in enumerate(inputs):
            if not isinstance(item, Top):
                raise TypeError(f"{type_name} input {index} is not a Top (type is {type(item)})")
        self.type_name = type_name
        self.inputs = inputs
        self.params = dict(params)
        self.ntop = self.params.pop("ntop", 1)
        self.in_place = self.params.pop("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def to_layer(
        self, layers: dict[Function, Layer], names: dict[Top | Function, str], autonames: Counter
    ) -> Layer:
        """The LayerParameter; `layers` must hold those of all inputs.

        Tops (or the layer itself, if it has none) that are not in `names` are added to it, named
        by the type and a running number.
        """
        layer = Layer(type=self.type_name)
        layer.bottom.extend(layers[item.fn].top[item.n] for item in self.inputs)
        named = self.tops or (self,)
        for item in named[:1] if self.in_place else named:
            if item not in names:
                autonames[self.type_name] += 1
                names[item] = f"{self.type_name}{autonames[self.type_name]}"
        layer.top.extend(layer.bottom if self.in_place else (names[top] for top in self.tops))
        layer.name = names[named[0]]
        for name, value in self.params.items():
            self._assign(layer, name, value)
        return layer

    def _assign(self, layer: Layer, name: str, value: Any) -> None:
        # `param` and the *_param messages belong to the layer. Any other name is looked up in the
        # type's message first (Convolution: convolution_param), then in the layer.
        own = _PARAM_NAMES.get(self.type_name)
        if own and not name.endswith("param"):
            message = getattr(layer, f"{own}_param")
            if name in message.DESCRIPTOR.fields_by_name:
                return assign_proto(message, name, value)
        if name not in layer.DESCRIPTOR.fields_by_name:
            known = [*layer.DESCRIPTOR.fields_by_name]
            if own:
                known += getattr(layer, f"{own}_param").DESCRIPTOR.fields_by_name
            near = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            where = f"{own}_param or the layer" if own else "the layer, and the type has no message"
            raise AttributeError(
                f"layer {layer.name!r}: {self.type_name} has no parameter {name!r} in {where}{hint}"
            )
        assign_proto(layer, name, value)


def _collect(
    ends: list[Top | Function], names: dict[Top | Function, str] | None = None
) -> _NetParameter:
    """The net of all layers that `ends` depend on, each after its inputs."""
    names = {} if names is None else names
    layers: dict[Function, Layer] = {}
    autonames: Counter = Counter()
    # An explicit stack, because nets can be deeper than Python's recursion limit.
    stack = [end.fn if isinstance(end, Top) else end for end in reversed(ends)]
    while stack:
        function = stack[-1]
        missing = [item.fn for item in reversed(function.inputs) if item.fn not in layers]
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        if function not in layers:
            layers[function] = function.to_layer(layers, names, autonames)
    return _NetParameter(layer=layers.values())


def to_proto(*tops: Top | Function) -> _NetParameter:
    """The net of all layers that the given Tops depend on, with automatic names."""
    return _collect(list(tops))


class NetSpec:
    """A net under construction: assigning a Top to an attribute (or item) names it.

    A layer takes the name of its first top unless `name=...` is given. The attribute of an in-place
    layer names only the layer, because its blob keeps the name of the bottom.
    """

    def __init__(self) -> None:
        super().__setattr__("tops", {})

    def __setattr__(self, name: str, value: Top | Function) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Top | Function:
        try:
            return self.__dict__["tops"][name]
        except KeyError:
            raise AttributeError(f"the net has no blob {name!r} so far") from None

    def __setitem__(self, name: str, value: Top | Function) -> None:
        self.tops[name] = value

    def __getitem__(self, name: str) -> Top | Function:
        return self.tops[name]

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    __delitem__ = __delattr__

    def to_proto(self) -> _NetParameter:
        """The net of all layers that the assigned blobs depend on, in order of assignment.

        Raises AttributeError for a parameter that is not in the schema, TypeError or ValueError for
        a value that it cannot hold.
        """
        return _collect(list(self.tops.values()), {top: name for name, top in self.tops.items()})


class Layers:
    """`layers.X(*bottoms, **params)` makes a layer of type X and returns its Top, a tuple of Tops
    if ntop > 1, or the Function itself if ntop is 0."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def make(*inputs: Top, **params: Any) -> Top | tuple[Top, ...] | Function:
            function = Function(name, inputs, params)
            if function.ntop == 0:
                return function
            return function.tops[0] if function.ntop == 1 else function.tops

        return make


class _Constants:
    """The enum values of one message, as attributes."""

    def __init__(self, name: str) -> None:
        self._message = getattr(caffe_pb2, f"{name}Parameter")

    def __getattr__(self, name: str) -> int:
        return getattr(self._message, name)


class Parameters:
    """`params.X.NAME` is the constant NAME of XParameter: params.Pooling.MAX."""

    def __getattr__(self, name: str) -> _Constants:
        if not hasattr(caffe_pb2, f"{name}Parameter"):
            raise AttributeError(f"caffe.proto has no message {name}Parameter")
        return _Constants(name)


layers = Layers()
params = Parameters()
