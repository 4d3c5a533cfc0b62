"""Runs a trained net through pycaffe's public API: frames in, scores out.

It uses only what BVLC's own pycaffe offers, so the tools run on either engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import caffe
from boundary import packed
from boundary.errors import shown
from boundary.reading import check_plain, read_bytes, reading
from caffe.proto import caffe_pb2
from data_tools.blank_net import check_trust
from data_tools.cli import DataError, describe, say
from eval_tools.deploy import at_input_size, has_unpooling, read_deploy, scores_only
from eval_tools.onnx_net import OnnxNet

# The planes of (blue, green, red, depth) for an input, by its number of channels.
_PLANES = {3: slice(0, 3), 1: slice(3, 4), 4: slice(0, 4)}
# The number of nets of different sizes that are kept, for scales and frames of different size.
KEPT_SIZES = 6
_EXPECTED = "colour (3 channels), depth (1) or both stacked (4)"


class Network:
    """A deploy net: `scores` runs a batch of frames of one size through it.

    The net's inputs are identified by their channels: an input of 3 takes blue, green, red, one of
    1 takes depth, and one of 4 takes all, stacked. So netgen's fusion nets and its baselines (rgb,
    depth, rgbd) all run.

    Args:
        net: a pycaffe Net in TEST phase with loaded weights.
        name: its name in messages, such as the path of its prototxt.
        resize: makes a similar net for inputs of (height, width), for nets that cannot simply be
            reshaped.
        score: the blob of class scores, (N, values, H, W); by default `score`, else the only
            output of four axes.
        scene: the blob of scene scores, (N, scenes); by default `scene_score`, if it exists.
    Raises:
        DataError: inputs or score blob are not those of a net that labels pixels.
    """

    def __init__(
        self,
        net: Any,
        name: str,
        score: str | None = None,
        scene: str | None = None,
        resize: Callable[[tuple[int, int]], Any] | None = None,
    ) -> None:
        self.net, self.name = net, name
        self.inputs = _inputs(net, name)
        self.score = _score_blob(net, name, score)
        self.values = net.blobs[self.score].data.shape[1]
        self.scene = _scene_blob(net, name, scene, self.score)
        self.size = tuple(net.blobs[next(iter(self.inputs))].data.shape[2:])
        self._resize = resize
        self._sized: dict[tuple[int, int], Any] = {self.size: net}

    @property
    def takes_depth(self) -> bool:
        """Whether the net has an input for depth."""
        return any(planes.stop == 4 for planes in self.inputs.values())

    @property
    def scenes(self) -> int:
        """The number of scene classes; 0 for a net without a scene branch."""
        return self.net.blobs[self.scene].data.shape[1] if self.scene else 0

    def scores(self, color: Sequence[np.ndarray], depth: Sequence[np.ndarray]) -> np.ndarray:
        """Class scores, float32 (N, values, H, W), of N frames of one size (H, W).

        Args:
            color: N arrays (H, W, 3), BGR, 0..255.
            depth: N arrays (H, W), 0..255.
        Returns:
            The net's own buffer, which the next call overwrites.
        Raises:
            DataError: the net does not accept frames of that size.
        """
        height, width = depth[0].shape
        frames = f"a batch of {len(depth)} frames of {width}x{height}"
        if (height, width) != self.size:
            frames += f" (the net takes {self.size[1]}x{self.size[0]})"
        try:
            self._reshape(len(depth), (height, width))
            for name, planes in self.inputs.items():
                blob = self.net.blobs[name].data
                for n, (bgr, d) in enumerate(zip(color, depth, strict=True)):
                    if planes.start < 3:
                        blob[n, :3] = bgr.transpose(2, 0, 1)
                    if planes.stop == 4:
                        blob[n, -1] = d
            self.net.forward()
        except RuntimeError as error:  # raised by pycaffe if Caffe throws an exception
            raise DataError(f"{self.name} on {frames}: {describe(error)}") from error
        scores = self.net.blobs[self.score].data
        if scores.shape[2:] != (height, width):
            raise DataError(
                f"{self.name} on {frames}: its scores are {scores.shape[3]}x{scores.shape[2]}"
            )
        return scores

    def scene_scores(self) -> np.ndarray:
        """Scene scores (N, scenes) of the batch that `scores` ran last."""
        return self.net.blobs[self.scene].data.reshape(-1, self.scenes)

    def _reshape(self, frames: int, size: tuple[int, int]) -> None:
        if self._resize and size not in self._sized:
            if len(self._sized) == KEPT_SIZES:
                del self._sized[next(s for s in self._sized if s != self.size)]
            self._sized[size] = self._resize(size)
        self.net = self._sized.get(size, self.net)
        blobs = {name: self.net.blobs[name] for name in self.inputs}
        shapes = {name: (frames, p.stop - p.start, *size) for name, p in self.inputs.items()}
        if any(blob.data.shape != shapes[name] for name, blob in blobs.items()):
            for name, blob in blobs.items():
                blob.reshape(*shapes[name])
            self.net.reshape()


def load(
    deploy: str | Path,
    weights: str | Path | None = None,
    gpu: int | None = None,
    score: str | None = None,
    scene: str | None = None,
    trusted: bool = False,
    warn: Callable[[str], object] = say,
) -> Network:
    """The net of a deploy prototxt with the weights of a .caffemodel or .caffemodel.h5; or that of
    a packed model or an ONNX file, which have their own weights.

    Args:
        trusted: whether the net's layers may run Python code and write files.
        warn: is told of weights that are not finite; by default stderr is.
    Raises:
        DataError: the net has such layers and is not trusted; an ONNX file is to run on a GPU; a
            file is missing or unreadable, or the weights do not fit the net: the message names a
            missing layer or a blob of another shape. (Caffe itself silently leaves missing layers
            as they were initialised, and on stock Caffe another shape ends the process.)
    """
    if problem := packed.misplaced(deploy, weights):
        raise DataError(problem)
    if weights is not None:
        return _load(deploy, weights, gpu, score, scene, trusted, warn)
    if packed.is_onnx(deploy):
        if gpu is not None:
            raise DataError(f"{shown(deploy)}: ONNX files run on the CPU, without --gpu")
        return Network(OnnxNet(deploy), str(deploy), score, scene)
    with packed.unpacked(deploy, DataError) as found:
        told = lambda text: warn(found.named(text))  # noqa: E731
        network = _load(found.net, found.weights, gpu, score, scene, trusted, told)
    network.name = str(deploy)
    return network


def _load(
    deploy: str | Path,
    weights: str | Path,
    gpu: int | None,
    score: str | None,
    scene: str | None,
    trusted: bool,
    warn: Callable[[str], object],
) -> Network:
    for path in (deploy, weights):
        if not Path(path).exists():
            raise DataError(f"{path}: no such file")
        check_plain(path, DataError)
    if not trusted:
        check_trust(deploy)
    stored = stored_shapes(weights)
    try:
        caffe.set_mode_cpu()
        if gpu is not None:
            caffe.set_device(gpu)
            caffe.set_mode_gpu()
    except RuntimeError as error:
        raise DataError(describe(error)) from error
    try:
        net = caffe.Net(str(deploy), caffe.TEST)
        _check_fit(net, stored, deploy, weights)
        net.copy_from(str(weights))
        if warning := not_finite(net, weights):
            warn(warning)
    except RuntimeError as error:
        raise DataError(_with_file(describe(error), deploy)) from error
    network = Network(net, str(deploy), score, scene)
    param = read_deploy(deploy)
    if param is None:
        return network
    param, net = scores_only(param, net, {network.score, network.scene} - {None})
    resize = (lambda size: at_input_size(param, size, net)) if has_unpooling(param) else None
    return Network(net, str(deploy), network.score, network.scene, resize)


def stored_shapes(path: str | Path) -> dict[str, dict[int, tuple[int, ...]]]:
    """Layer -> index -> shape of the blobs in a .caffemodel (V1 or newer) or .caffemodel.h5.

    HDF5 files do not contain blobs that a layer shares with an earlier one.

    Raises:
        DataError: it is neither.
    """
    check_plain(path, DataError)
    with reading(path, "a file of weights", DataError), open(path, "rb") as file:
        head = file.read(8)
    if head == b"\x89HDF\r\n\x1a\n":
        found = _stored_hdf5(path)
    else:
        found = _stored_binary(read_bytes(path, DataError), path)
    if not found:
        raise DataError(f"{path}: holds no weights")
    return found


def _stored_binary(data: bytes, path: str | Path) -> dict[str, dict[int, tuple[int, ...]]]:
    model = caffe_pb2.NetParameter()
    with reading(path, "a caffemodel", DataError):
        model.ParseFromString(data)
    layers = [layer for layer in (*model.layer, *model.layers) if layer.blobs]
    return {layer.name: dict(enumerate(map(_shape, layer.blobs))) for layer in layers}


def _stored_hdf5(path: str | Path) -> dict[str, dict[int, tuple[int, ...]]]:
    from boundary.hdf5 import Hdf5

    found: dict[str, dict[int, tuple[int, ...]]] = {}

    def note(file: Hdf5, members: dict[str, Any], layer: str) -> None:
        for name, item in members.items():
            if hasattr(item, "shape"):
                if name.isdecimal():
                    found.setdefault(layer, {})[int(name)] = item.shape
            else:
                note(file, file.members(item), f"{layer}/{name}" if layer else name)

    with Hdf5(path, "weights in HDF5", DataError) as file:
        if file.get("data") is not None:
            note(file, file.members(file.group("data")), "")
    return found


def _shape(blob: caffe_pb2.BlobProto) -> tuple[int, ...]:
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    return (blob.num, blob.channels, blob.height, blob.width)


def _check_fit(net: Any, stored: dict, deploy: str | Path, weights: str | Path) -> None:
    fit = f"{weights} does not fit {deploy}"
    wanted: dict[str, dict[int, tuple[int, ...]]] = {}
    seen: dict[int, np.ndarray] = {}  # by address; keeping the arrays keeps addresses unique
    for name, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            values = blob.data
            place = values.__array_interface__["data"][0]
            if place not in seen:  # otherwise an earlier layer shares it
                wanted.setdefault(name, {})[i] = values.shape
            seen[place] = values
    missing = [name for name in wanted if name not in stored]
    if missing:
        count = f"{len(missing)} of {len(wanted)} layers"
        raise DataError(f"{fit}: it lacks {count} with weights, first {missing[0]!r}")
    for name, shapes in wanted.items():
        found = stored[name]
        if not set(shapes) <= set(found) or max(found) >= len(net.params[name]):
            raise DataError(
                f"{fit}: layer {name!r} has {len(found)} blobs there, expected {len(shapes)}"
            )
        for i, shape in shapes.items():
            if _bare(shape) != _bare(found[i]):
                raise DataError(
                    f"{fit}: blob {i} of layer {name!r} has shape {_times(found[i])} there, "
                    f"expected {_times(shape)}"
                )


def not_finite(net: Any, weights: str | Path) -> str:
    """A warning if parameters of the net hold NaN or infinity; empty if none does."""
    found = [
        f"layer {name!r}, blob {i}"
        for name, blobs in net.params.items()
        for i, blob in enumerate(blobs)
        if not np.isfinite(blob.data).all()
    ]
    if not found:
        return ""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return (
        f"warning: {weights}: {found[0]}{more} holds NaN or infinity, as after a training that "
        "diverged; do not trust what the net says"
    )


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without leading ones, because old models store four axes for every blob."""
    first = next((i for i, side in enumerate(shape) if side != 1), len(shape))
    return shape[first:]


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "1"


def _with_file(text: str, path: str | Path) -> str:
    return text if str(path) in text else f"{path}: {text}"


def _inputs(net: Any, name: str) -> dict[str, slice]:
    """Input blob -> its planes. Raises DataError if two inputs take the same plane."""
    if not net.inputs:
        raise DataError(f"{name}: the net has no inputs; expected a deploy net with {_EXPECTED}")
    found: dict[str, slice] = {}
    for blob in net.inputs:
        shape = net.blobs[blob].data.shape
        if len(shape) != 4 or shape[1] not in _PLANES:
            raise DataError(
                f"{name}: input {blob!r} has shape {_times(shape)}, expected {_EXPECTED}"
            )
        planes = _PLANES[shape[1]]
        for other, taken in found.items():
            if planes.start < taken.stop and taken.start < planes.stop:
                raise DataError(f"{name}: inputs {other!r} and {blob!r} would take the same image")
        found[blob] = planes
    return found


def _score_blob(net: Any, name: str, wanted: str | None) -> str:
    if wanted is not None and wanted not in net.blobs:
        raise DataError(f"{name}: the net has no blob {wanted!r}; outputs: {_names(net.outputs)}")
    if wanted is None and "score" in net.blobs:
        wanted = "score"
    if wanted is None:
        maps = [blob for blob in net.outputs if net.blobs[blob].data.ndim == 4]
        if len(maps) != 1:
            raise DataError(
                f"{name}: which blob holds the class scores? There is no 'score', and the outputs "
                f"are {_names(net.outputs)}; name it with --score"
            )
        wanted = maps[0]
    shape = net.blobs[wanted].data.shape
    if len(shape) != 4 or shape[1] < 2:
        raise DataError(
            f"{name}: blob {wanted!r} has shape {_times(shape)}, expected class scores, N x values "
            "x height x width"
        )
    return wanted


def _scene_blob(net: Any, name: str, wanted: str | None, score: str) -> str | None:
    if wanted is not None and wanted not in net.blobs:
        raise DataError(f"{name}: the net has no blob {wanted!r}; outputs: {_names(net.outputs)}")
    if wanted is None and "scene_score" in net.blobs and score != "scene_score":
        wanted = "scene_score"
    return wanted


def _names(blobs: Sequence[str]) -> str:
    return ", ".join(map(repr, blobs)) or "none"
