"""A dozen public architectures as deploy nets, with He's random weights: what bench.zoo measures.

The shapes are those of the published Caffe models or papers. NETS has them by name, with the
numbers of parameters and multiply-adds by which the tests know that these are those nets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import caffe
from caffe import layers as L
from caffe import params as P
from caffe.proto import caffe_pb2 as pb

HE = {"weight_filler": {"type": "msra"}}


@dataclass(frozen=True)
class Published:
    """A net as its authors give it.

    build: writes the layers behind `data` into a NetSpec. batch, size: of the input, as the model's
    own prototxt has them (height and width are the same). parameters: without running statistics.
    macs: multiply-adds for one image, as published, or by the published shapes at this size.
    source: where the architecture is described.
    """

    build: Callable[[caffe.NetSpec], None]
    batch: int
    size: int
    parameters: int
    macs: int
    source: str


def deploy_param(name: str, batch: int | None = None) -> pb.NetParameter:
    """The deploy net of that name in NETS; batch: of the input, by default the model's own.

    Its input is `data`, batch x 3 x size x size.
    """
    net, spec = NETS[name], caffe.NetSpec()
    spec.data = L.Input(shape={"dim": [batch or net.batch, 3, net.size, net.size]})
    net.build(spec)
    param = spec.to_proto()
    param.name = name
    return param


# -- pieces ------------------------------------------------------------------------------------


def _conv(n, name: str, x, channels: int, kernel: int, relu: bool = True, **more):
    """A convolution with bias, and its ReLU in place; it keeps the size if kernel is odd."""
    more = {"pad": kernel // 2, **HE, **more}
    n[name] = L.Convolution(x, num_output=channels, kernel_size=kernel, **more)
    if relu:
        n[f"{name}_relu"] = L.ReLU(n[name], in_place=True)
    return n[name]


def _norm(n, name: str, x, in_place: bool, relu: bool):
    """BatchNorm, Scale and perhaps ReLU, all in place but for the first."""
    n[f"{name}_bn"] = L.BatchNorm(x, in_place=in_place)
    n[f"{name}_scale"] = L.Scale(n[f"{name}_bn"], bias_term=True, in_place=True)
    if relu:
        n[f"{name}_relu"] = L.ReLU(n[f"{name}_scale"], in_place=True)
        return n[f"{name}_relu"]
    return n[f"{name}_scale"]


def _conv_bn(n, name: str, x, channels: int, kernel: int, relu: bool = True, **more):
    """A convolution without bias, then BatchNorm, Scale and perhaps ReLU."""
    x = _conv(n, name, x, channels, kernel, relu=False, bias_term=False, **more)
    return _norm(n, name, x, in_place=True, relu=relu)


def _pool(n, name: str, x, kernel: int = 3, stride: int = 2, **more):
    n[name] = L.Pooling(x, kernel_size=kernel, stride=stride, **{"pool": P.Pooling.MAX, **more})
    return n[name]


def _mean(n, name: str, x):
    """The mean over all places."""
    n[name] = L.Pooling(x, global_pooling=True, pool=P.Pooling.AVE)
    return n[name]


def _norm_across(n, name: str, x):
    n[name] = L.LRN(x, local_size=5, alpha=1e-4, beta=0.75)
    return n[name]


def _dense(n, name: str, x, outputs: int, relu: bool = False):
    n[name] = L.InnerProduct(x, num_output=outputs, **HE)
    if relu:
        n[f"{name}_relu"] = L.ReLU(n[name], in_place=True)
        n[f"{name}_drop"] = L.Dropout(n[name], in_place=True)
    return n[name]


def _classes(n, x) -> None:
    n.prob = L.Softmax(x)


# -- classifiers -------------------------------------------------------------------------------


def pnet(n) -> None:
    x = n.data
    for i, channels in enumerate((10, 16, 32), 1):
        n[f"conv{i}"] = L.Convolution(x, num_output=channels, kernel_size=3, **HE)
        n[f"prelu{i}"] = L.PReLU(n[f"conv{i}"], in_place=True)
        x = n[f"conv{i}"]
        if i == 1:
            x = _pool(n, "pool1", x, 2)
    _conv(n, "conv4_2", x, 4, 1, relu=False)
    n.prob1 = L.Softmax(_conv(n, "conv4_1", x, 2, 1, relu=False))


def alexnet(n) -> None:
    x = _conv(n, "conv1", n.data, 96, 11, stride=4, pad=0)
    x = _pool(n, "pool1", _norm_across(n, "norm1", x))
    x = _conv(n, "conv2", x, 256, 5, group=2)
    x = _pool(n, "pool2", _norm_across(n, "norm2", x))
    x = _conv(n, "conv3", x, 384, 3)
    x = _conv(n, "conv4", x, 384, 3, group=2)
    x = _pool(n, "pool5", _conv(n, "conv5", x, 256, 3, group=2))
    x = _dense(n, "fc7", _dense(n, "fc6", x, 4096, relu=True), 4096, relu=True)
    _classes(n, _dense(n, "fc8", x, 1000))


def squeezenet(n) -> None:
    x = _pool(n, "pool1", _conv(n, "conv1", n.data, 64, 3, stride=2, pad=0))
    for i, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64), 2):
        name = f"fire{i}"
        x = _conv(n, f"{name}/squeeze1x1", x, squeezed, 1)
        sides = [_conv(n, f"{name}/expand{k}x{k}", x, 4 * squeezed, k) for k in (1, 3)]
        x = n[f"{name}/concat"] = L.Concat(*sides)
        if i in (3, 5):
            x = _pool(n, f"pool{i}", x)
    n.drop9 = L.Dropout(x, in_place=True)
    _classes(n, _mean(n, "pool10", _conv(n, "conv10", n.drop9, 1000, 1)))


# Channels behind each pair of a depthwise and a 1x1 convolution, and the former's stride.
MOBILENET_V1 = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2),
    (1024, 1),
)  # fmt: skip


def mobilenet_v1(n) -> None:
    x, before = _conv_bn(n, "conv1", n.data, 32, 3, stride=2), 32
    for i, (channels, stride) in enumerate(MOBILENET_V1, 2):
        x = _conv_bn(n, f"conv{i}/dw", x, before, 3, group=before, stride=stride)
        x, before = _conv_bn(n, f"conv{i}/sep", x, channels, 1), channels
    _classes(n, _conv(n, "fc7", _mean(n, "pool6", x), 1000, 1, relu=False))


# Factor by which a block widens, channels behind it, how many, the first one's stride.
MOBILENET_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip


def mobilenet_v2(n) -> None:
    x, before = _conv_bn(n, "conv1", n.data, 32, 3, stride=2), 32
    for i, (factor, channels, count, first) in enumerate(MOBILENET_V2, 2):
        for k in range(1, count + 1):
            name, wide, start = f"conv{i}_{k}", before * factor, x
            if factor > 1:
                x = _conv_bn(n, f"{name}/expand", x, wide, 1)
            stride = first if k == 1 else 1
            x = _conv_bn(n, f"{name}/dwise", x, wide, 3, group=wide, stride=stride)
            x = _conv_bn(n, f"{name}/linear", x, channels, 1, relu=False)
            if k > 1:
                x = n[f"{name}/sum"] = L.Eltwise(start, x)
            before = channels
    x = _mean(n, "pool6", _conv_bn(n, "conv9", x, 1280, 1))
    _classes(n, _dense(n, "fc7", x, 1000))


# Channels of an inception's 1x1, 3x3 (reduced, and then), 5x5 and the convolution behind pooling.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128), "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip


def googlenet(n) -> None:
    x = _pool(n, "pool1/3x3_s2", _conv(n, "conv1/7x7_s2", n.data, 64, 7, stride=2))
    x = _conv(n, "conv2/3x3_reduce", _norm_across(n, "pool1/norm1", x), 64, 1)
    x = _norm_across(n, "conv2/norm2", _conv(n, "conv2/3x3", x, 192, 3))
    x = _pool(n, "pool2/3x3_s2", x)
    for which, (one, less3, three, less5, five, behind) in INCEPTIONS.items():
        name = f"inception_{which}"
        ways = [_conv(n, f"{name}/1x1", x, one, 1)]
        less = _conv(n, f"{name}/3x3_reduce", x, less3, 1)
        ways.append(_conv(n, f"{name}/3x3", less, three, 3))
        less = _conv(n, f"{name}/5x5_reduce", x, less5, 1)
        ways.append(_conv(n, f"{name}/5x5", less, five, 5))
        pooled = _pool(n, f"{name}/pool", x, 3, 1, pad=1)
        ways.append(_conv(n, f"{name}/pool_proj", pooled, behind, 1))
        x = n[f"{name}/output"] = L.Concat(*ways)
        if which in ("3b", "4e"):
            x = _pool(n, f"pool{int(which[0])}/3x3_s2", x)
    n["pool5/drop"] = L.Dropout(_mean(n, "pool5", x), in_place=True)
    _classes(n, _dense(n, "loss3/classifier", n["pool5/drop"], 1000))


def _residual(n, counts: tuple[int, ...], deep: bool) -> None:
    """ResNet: blocks of two 3x3 convolutions, or (deep) of 1x1, 3x3 and 1x1.

    As in the authors' models, the first convolution of a block has the stride.
    """
    x = _pool(n, "pool1", _conv_bn(n, "conv1", n.data, 64, 7, stride=2))
    before = 64
    for i, count in enumerate(counts):
        narrow = 64 << i
        channels = 4 * narrow if deep else narrow
        for k in range(count):
            name, stride = f"res{i + 2}{chr(97 + k)}", 2 if i and k == 0 else 1
            start = x
            if before != channels or stride > 1:
                start = _conv_bn(n, f"{name}_branch1", x, channels, 1, relu=False, stride=stride)
            branch = f"{name}_branch2"
            x = _conv_bn(n, f"{branch}a", x, narrow, 1 if deep else 3, stride=stride)
            x = _conv_bn(n, f"{branch}b", x, narrow, 3, relu=deep)
            if deep:
                x = _conv_bn(n, f"{branch}c", x, channels, 1, relu=False)
            n[name] = L.Eltwise(start, x)
            n[f"{name}_relu"] = L.ReLU(n[name], in_place=True)
            x, before = n[name], channels
    _classes(n, _dense(n, "fc1000", _mean(n, "pool5", x), 1000))


def resnet18(n) -> None:
    _residual(n, (2, 2, 2, 2), deep=False)


def resnet50(n) -> None:
    _residual(n, (3, 4, 6, 3), deep=True)


def densenet121(n) -> None:
    x = _pool(n, "pool1", _conv_bn(n, "conv1", n.data, 64, 7, stride=2))
    channels = 64
    for i, count in enumerate((6, 12, 24, 16), 2):
        for k in range(1, count + 1):
            name = f"conv{i}_{k}"
            new = _norm(n, f"{name}/x1", x, in_place=False, relu=True)
            new = _conv_bn(n, f"{name}/x1/conv", new, 128, 1)
            new = _conv(n, f"{name}/x2/conv", new, 32, 3, relu=False, bias_term=False)
            x = n[f"{name}/concat"] = L.Concat(x, new)
            channels += 32
        x = _norm(n, f"conv{i}_blk", x, in_place=True, relu=True)
        if i < 5:
            channels //= 2
            x = _conv(n, f"conv{i}_blk/conv", x, channels, 1, relu=False, bias_term=False)
            x = _pool(n, f"pool{i}", x, 2, pool=P.Pooling.AVE)
    _classes(n, _conv(n, "fc6", _mean(n, "pool5", x), 1000, 1, relu=False))


VGG = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def _vgg(n, pools: int) -> dict:
    """VGG-16's convolutions, and the first `pools` poolings; returns the blocks' last blobs."""
    x, ends = n.data, {}
    for i, block in enumerate(VGG, 1):
        for k, channels in enumerate(block, 1):
            x = _conv(n, f"conv{i}_{k}", x, channels, 3)
        ends[i] = x
        if i <= pools:
            x = _pool(n, f"pool{i}", x, 2)
    return ends


def vgg16(n) -> None:
    _vgg(n, pools=5)
    x = _dense(n, "fc7", _dense(n, "fc6", n.pool5, 4096, relu=True), 4096, relu=True)
    _classes(n, _dense(n, "fc8", x, 1000))


# -- detection and segmentation ----------------------------------------------------------------


def ssd300(n) -> None:
    """The places and classes of all boxes, without the choice among them (DetectionOutput)."""
    ends = _vgg(n, pools=4)
    n.conv4_3_norm = L.Normalize(
        ends[4],
        across_spatial=False,
        channel_shared=False,
        scale_filler={"type": "constant", "value": 20},
    )
    x = _conv(n, "fc6", _pool(n, "pool5", ends[5], 3, 1, pad=1), 1024, 3, pad=6, dilation=6)
    x = _conv(n, "fc7", x, 1024, 1)
    sources = [n.conv4_3_norm, x]
    for i, (less, channels, stride, pad) in enumerate(
        ((256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0)), 6
    ):
        x = _conv(n, f"conv{i}_1", x, less, 1)
        x = _conv(n, f"conv{i}_2", x, channels, 3, stride=stride, pad=pad)
        sources.append(x)
    for what, numbers in (("loc", 4), ("conf", 21)):
        flat = []
        for k, (source, boxes) in enumerate(zip(sources, (4, 6, 6, 6, 4, 4), strict=True), 1):
            y = _conv(n, f"source{k}_{what}", source, boxes * numbers, 3, relu=False)
            n[f"source{k}_{what}_perm"] = L.Permute(y, order=[0, 2, 3, 1])
            flat.append(L.Flatten(n[f"source{k}_{what}_perm"]))
        n[f"mbox_{what}"] = L.Concat(*flat)
    n.mbox_conf_reshape = L.Reshape(n.mbox_conf, shape={"dim": [0, -1, 21]})
    n.mbox_conf_softmax = L.Softmax(n.mbox_conf_reshape, axis=2)


def unet(n) -> None:
    """With padding, so that nothing is cropped."""
    x, left = n.data, []
    for i in range(5):
        for k in (1, 2):
            x = _conv(n, f"down{i}_{k}", x, 64 << i, 3)
        if i < 4:
            left.append(x)
            x = _pool(n, f"pool{i}", x, 2)
    for i in reversed(range(4)):
        wider = {"num_output": 64 << i, "kernel_size": 2, "stride": 2, **HE}
        n[f"up{i}"] = L.Deconvolution(x, convolution_param=wider)
        x = n[f"joined{i}"] = L.Concat(left[i], n[f"up{i}"])
        for k in (1, 2):
            x = _conv(n, f"up{i}_{k}", x, 64 << i, 3)
    _classes(n, _conv(n, "score", x, 2, 1, relu=False))


NETS: dict[str, Published] = {
    "P-Net": Published(pnet, 1, 12, 6_632, 45_000, "Zhang et al. 2016, MTCNN"),
    "AlexNet": Published(
        alexnet, 10, 227, 60_965_224, 724_000_000, "Krizhevsky et al. 2012; BVLC's model"
    ),
    "SqueezeNet 1.1": Published(
        squeezenet, 10, 227, 1_235_496, 388_000_000, "Iandola et al. 2016; the authors' model"
    ),
    "MobileNet v1": Published(mobilenet_v1, 1, 224, 4_231_976, 569_000_000, "Howard et al. 2017"),
    "MobileNet v2": Published(mobilenet_v2, 1, 224, 3_504_872, 300_000_000, "Sandler et al. 2018"),
    "GoogLeNet": Published(
        googlenet, 10, 224, 6_998_552, 1_580_000_000, "Szegedy et al. 2015; BVLC's model"
    ),
    "ResNet-18": Published(resnet18, 1, 224, 11_689_512, 1_814_000_000, "He et al. 2016"),
    "ResNet-50": Published(resnet50, 1, 224, 25_557_032, 3_860_000_000, "He et al. 2016"),
    "DenseNet-121": Published(
        densenet121, 1, 224, 7_978_856, 2_830_000_000, "Huang et al. 2017"
    ),
    "VGG-16": Published(
        vgg16, 1, 224, 138_357_544, 15_470_000_000, "Simonyan and Zisserman 2015"
    ),
    "SSD300": Published(ssd300, 1, 300, 26_285_486, 31_400_000_000, "Liu et al. 2016, on VGG-16"),
    "U-Net": Published(unet, 1, 256, 31_031_810, 48_000_000_000, "Ronneberger et al. 2015"),
}  # fmt: skip
