"""What an earlier net says where the options of a NET command say nothing: `--from`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boundary import stated
from caffe import TEST, TRAIN
from caffe.errors import CaffeError
from caffe.formats import files
from caffe.graph.rules import layers_in
from caffe.proto.caffe_pb2 import LayerParameter, NetParameter, PoolingParameter
from netgen import filelist
from netgen.datasets import DATASETS
from netgen.fusenet import BLOCKS
from netgen.sources import depth_range, facts, frame_size, record_shape

Layers = Mapping[str, LayerParameter]

_ENCODER = [
    (f"conv{block}_{index}", outputs)
    for block, counts in enumerate(BLOCKS, 1)
    for index, outputs in enumerate(counts, 1)
]


@dataclass(frozen=True)
class Earlier:
    """What a net of FuseNet's form says, by the names of netgen's options.

    classes: without label 0. names: of the labels, label 0 first; () if they are not known.
    dataset: the benchmark, None for other data. size: width and height of its frames, if it says
    them. options: the net's own, such as dropout. data: the options that name what it reads.
    label_weights: one a label, or None. depth_range: how the depth was scaled that it was trained
    with, as in netgen's comment.
    """

    path: str
    classes: int
    names: tuple[str, ...]
    dataset: str | None
    size: tuple[int, int] | None
    options: Mapping[str, Any]
    data: Mapping[str, Any]
    label_weights: tuple[float, ...] | None
    depth_range: str | None


def read(path: str) -> Earlier:
    """What a prototxt for training or for prediction says.

    Raises CaffeError where it cannot be read or is no net of FuseNet's form.
    """
    net = files.read_net(path)
    layers = {layer.name: layer for layer in net.layer}
    _check_form(layers, path)
    classes = layers["score"].convolution_param.num_output - 1
    phases = {phase: _data_layer(net, phase) for phase in (TRAIN, TEST)}
    data = dict(_data(phases))
    known = facts(data["source"]) if "source" in data else {}
    names = stated.classes(path, CaffeError) or known.get("classes", [])
    return Earlier(
        path=path,
        classes=classes,
        names=tuple(names) if len(names) == classes + 1 else (),
        dataset=_dataset(net.name, classes),
        size=_size(layers, phases[TRAIN], known),
        options=dict(_options(layers)),
        data=data,
        label_weights=_label_weights(layers),
        depth_range=_depth_range(path, data),
    )


def fill(args: argparse.Namespace, old: Earlier) -> list[str]:
    """Set what the options of a NET command leave open; returns what was set, in words.

    What the net reads, and its label weights, are taken if no option names other data and the
    number of classes is the same.
    """
    taken = []
    if not args.told:
        args.told = True
        args.dataset, args.classes = old.dataset or "custom", old.classes
        named = " and their names" if old.names else ""
        taken.append(old.dataset or f"{old.classes} classes{named}")
    if args.size is None and old.size:
        args.size = old.size
        taken.append(f"size {old.size[0]}x{old.size[1]}")
    for name, value in old.options.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
            taken.append(f"{name.replace('_', ' ')} {value:g}" if name != "pooling" else value)
    classes = args.classes or DATASETS[args.dataset].classes
    free = not (args.source or args.test_source or args.data_list)
    if free and old.data and classes == old.classes:
        taken += _fill_data(args, old)
    return taken


def _fill_data(args: argparse.Namespace, old: Earlier) -> Iterator[str]:
    for name, value in old.data.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    yield f"its data ({old.data.get('source', old.data.get('data_list'))})"
    if args.label_weights is None and not args.deploy:
        args.label_weights = old.label_weights or "none"
        if old.label_weights:
            yield "its label weights"


# -------------------------------------------------------------------------------------------------
# What the layers say
# -------------------------------------------------------------------------------------------------


def _first(layers: Layers, name: str) -> LayerParameter | None:
    """A convolution; that of an input of other than three channels has a longer name."""
    return next((layers[n] for n in (name, f"{name}_1ch", f"{name}_4ch") if n in layers), None)


def _check_form(layers: Layers, path: str) -> None:
    wanted = [(name, "Convolution") for name, _ in _ENCODER] + [("score", "Convolution")]
    for block in range(len(BLOCKS), 0, -1):
        wanted += [(f"pool{block}", "Pooling"), (f"unpool{block}", "Unpooling")]
    for name, kind in wanted:
        layer = _first(layers, name)
        if layer is None or layer.type != kind:
            raise CaffeError(f"{path}: no net of FuseNet's form: it has no {kind} called {name}")
    outputs = layers["score"].convolution_param.num_output
    if outputs < 2:
        raise CaffeError(f"{path}: layer score has {outputs} outputs; expected 2 or more")


def _dataset(name: str, classes: int) -> str | None:
    """The benchmark whose name ends the net's, as netgen names nets, if it has as many classes."""
    fitting = (d.name for d in DATASETS.values() if name.endswith(f"-{d.name}"))
    return next((found for found in fitting if DATASETS[found].classes == classes), None)


def _options(layers: Layers) -> Iterator[tuple[str, Any]]:
    width = _width_multiplier(layers)
    if width is not None:
        yield "width_multiplier", width
    dropouts = [layer for layer in layers.values() if layer.type == "Dropout"]
    if dropouts:  # of a frozen part, it is 0
        yield "dropout", _short(max(d.dropout_param.dropout_ratio for d in dropouts))
    for layer in layers.values():
        if layer.type == "BatchNorm":
            param = layer.batch_norm_param
            if param.HasField("moving_average_fraction"):
                yield "moving_average_fraction", _short(param.moving_average_fraction)
            break
    if layers["pool1"].pooling_param.round_mode == PoolingParameter.FLOOR:
        yield "pooling", "floor"
    if "scene_score" in layers:
        yield "scene_classes", layers["scene_score"].inner_product_param.num_output
    if "scene_loss" in layers and layers["scene_loss"].loss_weight:
        yield "scene_loss_weight", _short(layers["scene_loss"].loss_weight[0])


def _short(value: float) -> float:
    """The shortest number that is this one as a float of 32 bits: 0.4 for 0.4000000059604645."""
    return float(f"{value:.7g}")


def _width_multiplier(layers: Layers) -> float | None:
    """The shortest number that makes VGG-16's channels those of the encoder; None if none does."""
    widths = {name: _first(layers, name).convolution_param.num_output for name, _ in _ENCODER}
    # By rounding, each width tells the multiplier to half a channel.
    low = max((widths[name] - 0.5) / count if widths[name] > 1 else 0 for name, count in _ENCODER)
    high = min((widths[name] + 0.5) / count for name, count in _ENCODER)
    for digits in range(1, 8):
        middle = float(f"{(low + high) / 2:.{digits}g}")
        if all(max(1, round(count * middle)) == widths[name] for name, count in _ENCODER):
            return middle
    return None


def _label_weights(layers: Layers) -> tuple[float, ...] | None:
    param = layers["loss"].loss_param if "loss" in layers else None
    if param is None or not param.use_weights:
        return None
    return tuple(_short(weight) for weight in param.label_weights) or None


# -------------------------------------------------------------------------------------------------
# What it reads
# -------------------------------------------------------------------------------------------------


def _data_layer(net: NetParameter, phase: int) -> LayerParameter | None:
    """The layer that reads an LMDB or a list of files in a phase."""
    for layer in layers_in(net, phase):
        if layer.type == "Data" or filelist.settings(layer) is not None:
            return layer
    return None


def _data(phases: Mapping[int, LayerParameter | None]) -> Iterator[tuple[str, Any]]:
    """The options that name what a net reads."""
    for phase, prefix in ((TRAIN, ""), (TEST, "test_")):
        layer = phases[phase]
        if layer is None:
            continue
        given = filelist.settings(layer)
        if given is None:
            yield f"{prefix}source", layer.data_param.source
            continue
        yield f"{prefix}data_list", given["source"]
        for name, option in filelist.OPTIONS.items():
            # What has another type, the layer refuses; and a range becomes a comment.
            fits = type(given.get(name)) is (int if name == "seed" else str)
            if phase == TRAIN and fits and not re.search(r"[\r\n]", str(given[name])):
                yield option, given[name]


def _size(
    layers: Layers, data: LayerParameter | None, known: Mapping[str, Any]
) -> tuple[int, int] | None:
    """Width and height of the net's frames: of its inputs, of what it reads, or by what it unpools.

    known: the dataset.json beside its LMDB.
    """
    for name in ("rgb", "depth"):
        shapes = layers[name].input_param.shape if name in layers else []
        if shapes and len(shapes[0].dim) == 4:
            return shapes[0].dim[3], shapes[0].dim[2]
    if data is not None and (given := filelist.settings(data)):
        return tuple(given["size"]) if given.get("size") else None
    unpooled = _unpooled([layers[f"unpool{block}"] for block in range(1, len(BLOCKS) + 1)])
    if unpooled:
        return unpooled
    if found := frame_size(known):
        return found
    if data is not None and Path(data.data_param.source).exists():
        _, height, width = record_shape(data.data_param)
        return width, height
    return None


def _unpooled(layers: Sequence[LayerParameter]) -> tuple[int, int] | None:
    """Width and height of what the last of these layers gives, unpool1. Where a size is odd, the
    layer states it; all that follow double it.
    """
    factor = 1
    for layer in layers:
        param = layer.unpooling_param
        if param.output_h and param.output_w:
            return param.output_w * factor, param.output_h * factor
        if param.scale != 2:
            return None
        factor *= 2
    return None


def _depth_range(path: str, data: Mapping[str, Any]) -> str | None:
    comment = stated.depth_range(path, CaffeError)
    if comment is not None:
        return comment[0] + (" float" if comment[1] else "")
    return depth_range(data["source"]) if "source" in data else None
