"""FuseNet's networks and their baselines, built with NetSpec.

The architecture is that of "FuseNet: Incorporating Depth into Semantic Segmentation via
Fusion-based CNN Architecture" (Hazirbas, Ma, Domokos, Cremers; ACCV 2016): a VGG-16 encoder for
colour, a second one for depth whose features are added into the first, and a decoder that mirrors
the encoder and unpools on its pooling masks. Layer and blob names are those of the networks that
the authors released, irregularities included, because weights are matched by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from caffe import TEST, TRAIN, net_spec
from caffe import layers as L
from caffe import params as P
from caffe.errors import CaffeError
from caffe.proto.caffe_pb2 import NetParameter
from netgen import augment, filelist
from netgen.filelist import Files
from netgen.freeze import freeze

# VGG-16: the outputs of each block's convolutions.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Blocks whose pooling is followed by dropout in the encoder, and whose decoder ends with it.
DROPOUT_BLOCKS = (3, 4, 5)
MIN_SIZE = 2 ** len(BLOCKS)

FUSIONS = (*(f"{kind}{k}" for kind in ("sf", "df") for k in range(1, 6)),)
BASELINES = ("rgb", "depth", "rgbd")
NETS = FUSIONS + BASELINES

_CONV_PARAM = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}]
_FROZEN_PARAM = [{"lr_mult": 0, "decay_mult": 0}] * 3
_FILLERS = {"weight_filler": {"type": "msra"}, "bias_filler": {"type": "constant"}}


@dataclass(frozen=True)
class Architecture:
    """What a network computes, without its data.

    net: one of NETS. classes: number of classes; the scores have one more channel, for the ignored
    label 0. size: width and height in pixels. width_multiplier scales the channels of every
    (de)convolution but `score`. moving_average_fraction: BatchNorm's, None for Caffe's default.
    dropout: share of the values that training drops.
    scene_classes: classes of the scene branch on pool5, 0 for none. floor_pooling: drop the last
    odd row or column, as PyTorch does, instead of rounding up.

    Raises CaffeError for values of which no net can be made.
    """

    net: str
    classes: int
    size: tuple[int, int]
    width_multiplier: float = 1.0
    moving_average_fraction: float | None = None
    dropout: float = 0.5
    scene_classes: int = 0
    floor_pooling: bool = False

    def __post_init__(self) -> None:
        if self.net not in NETS:
            raise CaffeError(f"no net is called {self.net!r}; there are {', '.join(NETS)}")
        width, height = self.size
        if min(width, height) < MIN_SIZE:
            raise CaffeError(
                f"size {width}x{height} is too small: five 2x2 poolings need at least "
                f"{MIN_SIZE}x{MIN_SIZE} pixels to leave one"
            )
        if self.classes < 1:
            raise CaffeError(f"{self.classes} classes: at least 1 is needed beside label 0")
        if not (math.isfinite(self.width_multiplier) and self.width_multiplier > 0):
            raise CaffeError(f"width multiplier {self.width_multiplier:g} is not above 0")
        fraction = self.moving_average_fraction
        if fraction is not None and not 0 <= fraction <= 1:
            raise CaffeError(f"moving average fraction {fraction:g} is not within 0 and 1")
        if not 0 <= self.dropout < 1:
            raise CaffeError(f"dropout {self.dropout:g} is not within 0 and 1, 1 excluded")
        if self.scene_classes < 0 or self.scene_classes == 1:
            raise CaffeError(f"{self.scene_classes} scene classes: at least 2 are needed")

    @property
    def fusions(self) -> int:
        """Number of blocks after which (sf) or within which (df) depth is added."""
        return int(self.net[2:]) if self.net in FUSIONS else 0

    @property
    def dense(self) -> bool:
        """Whether depth is added after every convolution of the fused blocks."""
        return self.net.startswith("df")

    def channels(self, block: int, index: int) -> int:
        """Outputs of encoder convolution conv<block>_<index>, both from 1."""
        return max(1, round(BLOCKS[block - 1][index - 1] * self.width_multiplier))

    def level_size(self, block: int) -> tuple[int, int]:
        """Width and height in pixels of encoder block `block`, from 1, before its pooling."""
        width, height = self.size
        for _ in range(block - 1):
            up = 0 if self.floor_pooling else 1
            width, height = (width + up) // 2, (height + up) // 2
        return width, height


@dataclass(frozen=True)
class Training:
    """A net's data: two LMDBs of five-channel records, and how to read them.

    files: set if the sources are lists of picture files instead of LMDBs. test_source: None for a
    net without a test phase.
    transform: the transform_param of the training data, as a dict; None leaves records unchanged.
    label_weights: loss weight of each label, label 0 first, or None for equal weights.
    scene_loss_weight: weight of the scene branch's loss; the segmentation's is 1.
    freeze: branches ("encoder", "rgb", "depth") and patterns of layers' names that do not learn, as
    netgen.freeze.freeze.
    iou: whether tests tell `global_accuracy`, `mean_accuracy` and `mean_iou` of all test records.
    """

    source: str
    test_source: str | None
    batch_size: int = 4
    test_batch_size: int = 1
    shuffle: bool = True
    label_weights: tuple[float, ...] | None = None
    scene_loss_weight: float = 0.1
    files: Files | None = None
    transform: dict[str, Any] | None = None
    freeze: tuple[str, ...] = ()
    iou: bool = False


def deploy_net(arch: Architecture, name: str = "", batch_size: int = 1) -> NetParameter:
    """The net for prediction: Input layers `rgb` (N x 3 x H x W, OpenCV's BGR order, 0..255) and
    `depth` (N x 1 x H x W, 0..255), whichever the net takes; outputs `score` and `prob`
    (N x classes + 1 x H x W), and `scene_prob` (N x scene classes) with a scene branch."""
    builder = _Builder(arch, use_global_stats=True)
    n, (width, height) = builder.n, arch.size
    for blob, channels in (("rgb", 3), ("depth", 1)):
        if blob in builder.inputs:
            n[blob] = L.Input(shape={"dim": [batch_size, channels, height, width]})
    builder.body()
    n.prob = L.Softmax(n.score)
    if arch.scene_classes:
        n.scene_prob = L.Softmax(n.scene_score)
    return _named(name, n.to_proto().layer)


def train_net(arch: Architecture, training: Training, name: str = "") -> NetParameter:
    """The net for training and testing. Each phase has a data layer: an LMDB gives N x 5 x H x W,
    which a Slice layer cuts into colour, depth and label; a list of files gives these three.
    `loss` and `accuracy` are over the labelled pixels; a scene branch adds its own two.

    Raises CaffeError unless there is one label weight for each label, where `freeze` names what the
    net does not have, and for `iou` without tests.
    """
    weights = training.label_weights
    if weights is not None and len(weights) != arch.classes + 1:
        raise CaffeError(
            f"{len(weights)} label weights for {arch.classes} classes: expected "
            f"{arch.classes + 1}, one a label with the ignored label 0 first"
        )
    if training.iou and training.test_source is None:
        raise CaffeError("the figures of --iou are those of tests, and the net has no test data")
    builder = _Builder(arch, crop=augment.crop_of(training.transform, arch.size))
    n = builder.n
    phases = [TRAIN] if training.test_source is None else [TRAIN, TEST]
    # NetSpec holds one layer for each name, but the data layers differ only in their phase.
    *others, last = phases
    data = [_data(net_spec.NetSpec(), arch, training, phase).to_proto() for phase in others]
    _data(n, arch, training, last)
    if training.files is None:
        cut = {"slice_point": [3, 4], "axis": 1}
        n.rgb, n.depth, n.label = L.Slice(n.data, ntop=3, name="slice_data", **cut)
    for blob in ("rgb", "depth"):
        if blob not in builder.inputs:
            n[f"silence_{blob}"] = L.Silence(n[blob], ntop=0)
    builder.body()
    loss_param: dict[str, Any] = {"ignore_label": 0}
    if weights is not None:
        loss_param |= {"use_weights": True, "label_weights": list(weights)}
    n.loss = L.SoftmaxWithLoss(n.score, n.label, loss_param=loss_param)
    n.accuracy = L.Accuracy(n.score, n.label, ignore_label=0)
    if training.iou:
        _add_figures(n)
    if arch.scene_classes:
        n.scene_loss = L.SoftmaxWithLoss(
            n.scene_score, n.scene, loss_weight=training.scene_loss_weight
        )
        n.scene_accuracy = L.Accuracy(n.scene_score, n.scene)
    layers = [layer for proto in (*data, n.to_proto()) for layer in proto.layer]
    net = _named(name, layers)
    if training.freeze:
        freeze(net, training.freeze, _branches(arch))
    return net


def _add_figures(n: net_spec.NetSpec) -> None:
    """Add the layer that tests a net as a whole; its tops have evaluate's names (--json)."""
    n.global_accuracy, n.mean_accuracy, n.mean_iou = L.SegmentationAccuracy(
        n.score,
        n.label,
        name="segmentation_accuracy",
        ntop=3,
        include={"phase": TEST},
        ignore_label=0,
    )


def _named(name: str, layers: Iterable[Any]) -> NetParameter:
    return NetParameter(name=name or None, layer=layers)


def _data(
    n: net_spec.NetSpec, arch: Architecture, training: Training, phase: int
) -> net_spec.NetSpec:
    """Add the data layer of one phase to a spec."""
    train = phase == TRAIN
    source = training.source if train else training.test_source
    batch_size = training.batch_size if train else training.test_batch_size
    shuffle = train and training.shuffle
    # The record's own label is the scene; the labels of the pixels are its fifth channel.
    scene = ("scene",) if arch.scene_classes else ()
    if training.files is None:
        blobs = ("data", *scene)
        params: dict[str, Any] = {"source": source, "batch_size": batch_size}
        params |= {"backend": P.Data.LMDB} | ({"shuffle": True} if shuffle else {})
        if train and training.transform:
            params["transform_param"] = training.transform
        tops = L.Data(ntop=len(blobs), include={"phase": phase}, **params)
    else:
        blobs = ("rgb", "depth", "label", *scene)
        param = filelist.python_param(
            training.files, source, batch_size, arch.size, arch.classes, shuffle
        )
        # Without this name, which it has in nets that read LMDBs, it would be called rgb.
        tops = L.Python(name="data", ntop=len(blobs), include={"phase": phase}, python_param=param)
    for blob, top in zip(blobs, tops if len(blobs) > 1 else [tops], strict=True):
        n[blob] = top
    return n


@dataclass(frozen=True)
class _Unit:
    """The layer names of a convolution, BatchNorm, Scale and ReLU, the name of the convolution's
    blob, and whether BatchNorm and Scale work in place or have blobs of their own names.
    """

    conv: str
    bn: str
    scale: str
    relu: str
    blob: str
    in_place: bool


def _encoder_unit(arch: Architecture, block: int, index: int, pair: bool) -> _Unit:
    """The released nets' names. Fused blocks (both branches) work in place, plain ones do not, and
    the ReLU that ends a fused block breaks the pattern of the others."""
    stem = f"conv{block}_{index}"
    suffix = "_pair" if pair else ""
    relu = f"relu{block}_{index}{suffix}"
    fused = block <= arch.fusions
    if fused and index == len(BLOCKS[block - 1]) and block < 5:
        if not pair:
            relu = f"{stem}_relu"
        else:
            relu = f"{stem}_pair_relu" if block <= 2 else f"{stem}_relu_pair"
    # A convolution of other than three channels is named so that VGG-16's conv1_1 is not copied in.
    first = {"depth": "_1ch", "rgbd": "_4ch"}.get(arch.net, "1ch" if pair else "")
    blob = f"{stem}{suffix}"
    return _Unit(
        conv=f"{blob}{first}" if stem == "conv1_1" else blob,
        bn=f"{stem}_bn{suffix}",
        scale=f"{stem}_scale{suffix}",
        relu=relu,
        blob=blob,
        in_place=fused,
    )


def _branches(arch: Architecture) -> dict[str, list[str]]:
    """The names of the encoders' layers: of all, of that for colour, of that for depth."""
    main = _encoder_layers(arch, range(1, len(BLOCKS) + 1), pair=False)
    pair = _encoder_layers(arch, range(1, arch.fusions + 1), pair=True)
    rgb = main if arch.fusions or arch.net == "rgb" else []
    return {"encoder": main + pair, "rgb": rgb, "depth": main if arch.net == "depth" else pair}


def _encoder_layers(arch: Architecture, blocks: range, pair: bool) -> list[str]:
    """The names of one encoder's layers that learn, gather or drop."""
    units = (
        _encoder_unit(arch, block, index, pair)
        for block in blocks
        for index in range(1, len(BLOCKS[block - 1]) + 1)
    )
    names = [name for unit in units for name in (unit.conv, unit.bn, unit.scale)]
    suffix = "_pair" if pair else ""
    return names + [f"encdrop{block}{suffix}" for block in blocks if block in DROPOUT_BLOCKS]


def _decoder_unit(block: int, index: int) -> _Unit:
    stem = f"conv{block}_{index}_D"
    relu = f"relu{block}_{index}_D"
    return _Unit(stem, f"{stem}_bn", f"{stem}_scale", relu, blob=stem, in_place=False)


class _Builder:
    """Adds encoder, fusion, decoder and scores to a NetSpec that has the inputs."""

    def __init__(
        self,
        arch: Architecture,
        use_global_stats: bool | None = None,
        crop: tuple[int, int] | None = None,
    ) -> None:
        self.arch = arch
        # What the net takes in its phases: frames, and in training perhaps crops of another size.
        self.archs = [arch, replace(arch, size=crop)] if crop else [arch]
        self.n = net_spec.NetSpec()
        self.inputs = {"rgb": ("rgb",), "depth": ("depth",)}.get(arch.net, ("rgb", "depth"))
        self.batch_norm: dict[str, Any] = {}
        # If it is not set, the phase decides which statistics are used.
        if use_global_stats is not None:
            self.batch_norm["use_global_stats"] = use_global_stats
        if arch.moving_average_fraction is not None:
            self.batch_norm["moving_average_fraction"] = arch.moving_average_fraction

    def body(self) -> None:
        """Everything from the inputs to `score` (and `scene_score`)."""
        bottom = self._encoder()
        if self.arch.scene_classes:
            self._scene(bottom)
        for block in range(5, 0, -1):
            bottom = self._decoder_block(block, bottom)
        self.n.score = self._convolve(L.Convolution, bottom, self.arch.classes + 1)

    def _encoder(self) -> net_spec.Top:
        n = self.n
        if self.arch.net == "rgbd":
            n.rgbd = L.Concat(n.rgb, n.depth)
        main = n.rgbd if self.arch.net == "rgbd" else n[self.inputs[0]]
        pair = n.depth if self.arch.fusions else None
        for block in range(1, 6):
            main, pair = self._encoder_block(block, main, pair)
            n[f"pool{block}"], n[f"pool{block}_mask"] = self._pool(main, ntop=2)
            main = self._dropout(f"encdrop{block}", block, n[f"pool{block}"])
        return main

    def _encoder_block(
        self, block: int, main: net_spec.Top, pair: net_spec.Top | None
    ) -> tuple[net_spec.Top, net_spec.Top | None]:
        """One block of both branches up to, not including, the main branch's pooling. The depth
        branch is pooled on entry, so that it ends with its last fusion."""
        n, arch = self.n, self.arch
        fused = block <= arch.fusions
        count = len(BLOCKS[block - 1])
        if not fused:
            for index in range(1, count + 1):
                main = self._encode(block, index, False, main)
            return main, None
        # sf builds one branch after the other; df builds them in step, as each sum feeds the next.
        steps = [(i,) for i in range(1, count + 1)] if arch.dense else [range(1, count + 1)]
        for step in steps:
            for index in step:
                main = self._encode(block, index, False, main)
            if block > 1 and step[0] == 1:
                name = f"pool{block - 1}_pair"
                n[name] = self._pool(pair)
                pair = self._dropout(f"encdrop{block - 1}_pair", block - 1, n[name])
            for index in step:
                pair = self._encode(block, index, True, pair)
            last = step[-1] == count
            name = f"conv{block}_fuse" if last else f"conv{block}_{step[-1]}_fuse"
            main = n[name] = L.Eltwise(main, pair, operation=P.Eltwise.SUM)
        return main, pair

    def _encode(self, block: int, index: int, pair: bool, bottom: net_spec.Top) -> net_spec.Top:
        unit = _encoder_unit(self.arch, block, index, pair)
        return self._unit(L.Convolution, unit, bottom, self.arch.channels(block, index))

    def _decoder_block(self, block: int, bottom: net_spec.Top) -> net_spec.Top:
        """Unpooling, then the encoder block in reverse; block 1's last convolution is `score`."""
        n, arch = self.n, self.arch
        sizes = [a.level_size(block) for a in self.archs]
        width, height = sizes[0]
        # With an odd size, a scale of 2 would give one pixel too many.
        odd = any(side % 2 for size in sizes for side in size)
        size = {"output_h": height, "output_w": width} if odd else {"scale": 2}
        if odd and len(set(sizes)) > 1:
            size = {}  # that of the image that was pooled
        n[f"pool{block}_D"] = L.Unpooling(
            bottom, n[f"pool{block}_mask"], name=f"unpool{block}", **size
        )
        top = n[f"pool{block}_D"]
        for index in range(len(BLOCKS[block - 1]), 1 if block == 1 else 0, -1):
            # Each deconvolution has as many outputs as its mirror image in the encoder has inputs.
            outputs = (
                arch.channels(block, index - 1)
                if index > 1
                else arch.channels(block - 1, len(BLOCKS[block - 2]))
            )
            top = self._unit(L.Deconvolution, _decoder_unit(block, index), top, outputs)
        return self._dropout(f"decdrop{block}", block, top)

    def _scene(self, bottom: net_spec.Top) -> None:
        n = self.n
        n.scene_pool = L.Pooling(bottom, pool=P.Pooling.AVE, global_pooling=True)
        n.scene_drop = L.Dropout(n.scene_pool, in_place=True, dropout_ratio=self.arch.dropout)
        n.scene_score = L.InnerProduct(
            n.scene_drop, num_output=self.arch.scene_classes, param=_CONV_PARAM, **_FILLERS
        )

    def _unit(self, layer: Any, unit: _Unit, bottom: net_spec.Top, outputs: int) -> net_spec.Top:
        """(De)Convolution, BatchNorm, Scale, ReLU."""
        n = self.n
        n[unit.blob] = self._convolve(layer, bottom, outputs, name=unit.conv)
        # BatchNorm's blobs are running statistics, which are neither learned nor decayed.
        params = {"param": _FROZEN_PARAM, "in_place": unit.in_place}
        if self.batch_norm:
            params["batch_norm_param"] = self.batch_norm
        n[unit.bn] = L.BatchNorm(n[unit.blob], **params)
        n[unit.scale] = L.Scale(n[unit.bn], in_place=unit.in_place, bias_term=True)
        n[unit.relu] = L.ReLU(n[unit.scale], in_place=True)
        return n[unit.relu]

    def _convolve(
        self, layer: Any, bottom: net_spec.Top, outputs: int, **params: Any
    ) -> net_spec.Top:
        kernel = {"num_output": outputs, "pad": 1, "kernel_size": 3, **_FILLERS}
        return layer(bottom, param=_CONV_PARAM, convolution_param=kernel, **params)

    def _pool(self, bottom: net_spec.Top, ntop: int = 1) -> Any:
        rounding = {"round_mode": P.Pooling.FLOOR} if self.arch.floor_pooling else {}
        return L.Pooling(bottom, ntop=ntop, pool=P.Pooling.MAX, kernel_size=2, stride=2, **rounding)

    def _dropout(self, name: str, block: int, bottom: net_spec.Top) -> net_spec.Top:
        if block not in DROPOUT_BLOCKS:
            return bottom
        self.n[name] = L.Dropout(bottom, in_place=True, dropout_ratio=self.arch.dropout)
        return self.n[name]
