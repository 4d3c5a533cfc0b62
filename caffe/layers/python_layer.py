"""Layers of type Python: the user's class does the work, on numpy views of the blobs."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import torch

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.layers import base
from caffe.layers.look import Look
from caffe.process.permission import refusal
from caffe.proto import caffe_pb2 as pb


class Phase(int):
    """caffe.TRAIN or caffe.TEST, 0 or 1, whose str() is its name.

    Fast R-CNN's fork hands layers an enum, and Faster R-CNN's layers look str(self.phase) up in
    their tables.
    """

    def __str__(self) -> str:
        return pb.Phase.Name(int(self))


class BlobVec(list):
    """A layer's parameter blobs, a list to which new ones can be added."""

    def add_blob(self, *shape: int) -> None:
        """Append a blob of this shape, filled with zeros."""
        self.append(Blob(shape))


class Layer:
    """The base class of layers written in Python (`caffe.Layer`).

    A net makes one for each layer of type Python whose python_param names its module and class.
    `bottom` and `top` are lists of blobs, whose `.data` and `.diff` are float32 numpy views:
    setup(bottom, top) reads `self.param_str` (text; older code calls it `self.param_str_`) and
    `self.phase` (caffe.TRAIN or TEST), and may call self.blobs.add_blob(*shape); reshape(bottom,
    top), called before each forward, gives the tops their shapes; forward(bottom, top) writes
    top[i].data; backward(top, propagate_down, bottom) writes bottom[i].diff where
    propagate_down[i], and adds to self.blobs[i].diff.

    A layer that reads data may define get_state(), which returns something that JSON can hold, and
    set_state(state): snapshots keep the state, and a resumed run hands it back.

    An exception of theirs reaches the caller with the layer's name, as a CaffeError that is of the
    exception's own class, too.
    """

    param_str = param_str_ = ""
    phase: int = Phase(pb.TRAIN)

    def __new__(cls, *args: Any, **kwargs: Any) -> Layer:
        # Not in __init__: classes that forget to call it get their blobs, too.
        self = super().__new__(cls)
        self._blobs = BlobVec()
        return self

    def __init__(self, param: pb.LayerParameter | None = None) -> None:
        """param: the layer's message, which nets hand over."""

    @property
    def blobs(self) -> BlobVec:
        return self._blobs

    @property
    def type(self) -> str:
        return "Python"

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Called once. By default there is nothing to prepare."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._missing("reshape(self, bottom, top)")

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._missing("forward(self, bottom, top)")

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        self._missing("backward(self, top, propagate_down, bottom)")

    def _missing(self, method: str) -> None:
        raise AttributeError(f"class {type(self).__name__} does not define {method}")


@base.register("Python")
class PythonLayer(base.Layer):
    """The engine's side of a layer written in Python.

    Autograd takes no part: the net calls the user's forward and backward with its own blobs, and
    the user's object may keep values from one call to the next (python_layer.hpp).
    """

    bottoms = (0, None)
    tops = (0, None)
    reads = ("python_param",)
    source = True  # a second call in one pass may show: the user's code may count or draw numbers
    look = Look(open=True)

    def __init__(self, param: pb.LayerParameter) -> None:
        super().__init__(param)
        self.user: Layer = self._attempt("__init__", self._find_class(), param)
        self.user.param_str = self.user.param_str_ = param.python_param.param_str
        self.user.phase = Phase(param.phase)
        self.blobs = self.user.blobs

    @property
    def origin(self) -> str:
        return type(self.user).__name__

    def contents(self) -> dict[str, int]:
        """As many records as len() of the user's layer, if it has one."""
        return {"records": len(self.user)} if hasattr(self.user, "__len__") else {}

    @property
    def shown(self) -> Layer:
        return self.user

    def position(self) -> dict[str, Any] | None:
        """The user's get_state(), for a snapshot; None where the class does not define both."""
        if not (hasattr(self.user, "get_state") and hasattr(self.user, "set_state")):
            return None
        return {"state": self._attempt("get_state", self.user.get_state)}

    def go_on(self, position: dict[str, Any]) -> None:
        """Hand the state that a snapshot kept to the user's set_state()."""
        self._attempt("set_state", self.user.set_state, position["state"])

    def attach(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._ends = list(bottom), list(top)
        super().attach(bottom, top)
        del self._ends

    def setup(self, shapes: Sequence[base.Shape]) -> None:
        self._call("setup", *self._ends)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._call("reshape", list(bottom), list(top))
        self._shapes = [blob.shape for blob in top]

    def infer_shapes(self, shapes: Sequence[base.Shape]) -> list[base.Shape]:
        """The tops' shapes, by the user's reshape() on blobs beside the net's."""
        # The tops start from their shapes in the net: setup() may have given them once for all.
        bottom, top = [Blob(shape) for shape in shapes], [Blob(shape) for shape in self._shapes]
        self._call("reshape", bottom, top)
        return [blob.shape for blob in top]

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob], record: bool) -> None:
        for blob in bottom:
            if blob in top and not blob.viewed:  # the layer before may keep this memory
                blob.assign(blob.tensor().clone())
        self.reshape(bottom, top)
        self._call("forward", list(bottom), list(top))

    def backward_blobs(
        self,
        top: Sequence[Blob],
        propagate_down: Sequence[bool],
        bottom: Sequence[Blob],
        keep_graph: bool = True,
    ) -> None:
        self._call("backward", list(top), list(propagate_down), list(bottom))

    def forward(self, bottom: base.Tensors, blobs: base.Tensors) -> base.Tensors:
        """The same as a function of tensors, for use outside nets."""
        return _AsFunction.apply(self, len(bottom), *bottom, *blobs)

    # -- inside ---------------------------------------------------------------------------------

    def _find_class(self) -> type[Layer]:
        p = self.layer_param.python_param
        refused = refusal(p.module)
        self.check(not refused, refused)
        self.check(bool(p.module and p.layer), "python_param must give module and layer")
        try:
            module = import_user_module(p.module)
        except Exception as error:
            self.check(not _is_missing(error, p.module), str(error))
            raise self._named(error, f"importing module {p.module}") from error
        found = getattr(module, p.layer, None)
        self.check(found is not None, f"module {p.module!r} has no class {p.layer!r}")
        good = isinstance(found, type) and issubclass(found, Layer)
        self.check(good, f"{p.module}.{p.layer} is no class derived from caffe.Layer")
        return found

    def _call(self, method: str, *arguments: Any) -> None:
        self._attempt(method, getattr(self.user, method), *arguments)

    def _attempt(self, what: str, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            raise self._named(error, what) from error

    def _named(self, error: Exception, what: str) -> CaffeError:
        """The exception with the layer's name and place, still of its own kind, too."""
        p = self.layer_param.python_param
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind = type(error).__name__
        text = f"{kind}: {error}" if str(error) else kind
        return _both_kinds(type(error))(
            f"{self.where} (Python, {p.module}.{p.layer}): {what}: {text} "
            f"({os.path.basename(place.filename)}:{place.lineno})"
        )


def import_user_module(name: str) -> Any:
    """The module. The working directory is searched, too, where sys.path lacks it, as it does in
    console scripts. Whether it may be imported, the caller asks permission.refusal.

    Raises ModuleNotFoundError with `name` if the module, or a package that its name goes through,
    does not exist; and whatever the module's own code raises.
    """
    try:
        return _import(name)
    except ModuleNotFoundError as error:
        here = os.getcwd()
        if not _is_missing(error, name) or here in sys.path or "" in sys.path:
            raise
        sys.path.append(here)
        importlib.invalidate_caches()
        return _import(name)


def _import(name: str) -> Any:
    hint = " (a relative name leads nowhere here)" if name.startswith(".") else ""
    lacking = f"no module {name!r} on sys.path or in the working directory{hint}"
    if hint:
        raise ModuleNotFoundError(lacking, name=name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # one that the module itself imports
        raise ModuleNotFoundError(lacking, name=name) from error


def _is_missing(error: Exception, name: str) -> bool:
    """Whether import_user_module says that the module `name` itself does not exist."""
    return isinstance(error, ModuleNotFoundError) and error.name == name


@functools.cache
def _both_kinds(kind: type[Exception]) -> type[CaffeError]:
    """CaffeError and `kind` in one, so that scripts written for pycaffe catch what they expect."""
    try:
        return type(kind.__name__, (CaffeError, kind), {"__str__": lambda self: self.args[0]})
    except TypeError:  # the two do not mix, or it is a CaffeError already
        return CaffeError


class _AsFunction(torch.autograd.Function):
    """A Python layer's forward and backward on blobs of its own, for autograd."""

    @staticmethod
    def forward(ctx: Any, layer: PythonLayer, bottoms: int, *tensors: torch.Tensor) -> Any:
        device = tensors[0].device if tensors else None
        ctx.layer, ctx.bottom = layer, [Blob(t.shape) for t in tensors[:bottoms]]
        ctx.top = [Blob() for _ in range(layer.num_tops)]
        for blob, values in zip([*ctx.bottom, *layer.blobs], tensors, strict=True):
            blob.assign(values.detach().clone())
        layer.forward_blobs(ctx.bottom, ctx.top, record=False)
        return tuple(blob.tensor(device).clone() for blob in ctx.top)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        layer, device = ctx.layer, gradients[0].device
        for blob, gradient in zip(ctx.top, gradients, strict=True):
            blob.assign_diff(gradient.clone())
        for blob in (*ctx.bottom, *layer.blobs):
            blob.zero_diff()
        wanted = ctx.needs_input_grad[2:]
        layer.backward_blobs(ctx.top, wanted[: len(ctx.bottom)], ctx.bottom)
        pairs = zip([*ctx.bottom, *layer.blobs], wanted, strict=True)
        found = [blob.diff_tensor(device).clone() if want else None for blob, want in pairs]
        return None, None, *found
