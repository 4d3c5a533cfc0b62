"""Upgrades nets and solvers of Caffe's older formats to today's, as Caffe does when it reads them.

The older formats are V0 (2013, one message of settings for every layer type), V1 (2014, layer types
as an enum, learning rates as lists), and today's format with fields that have moved since: data
transformations, input fields, the learning rates of BatchNorm, the solver's type. Follows BVLC
Caffe's src/caffe/util/upgrade_proto.cpp, including its log lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from caffe.errors import CaffeError
from caffe.proto import caffe_pb2 as pb

INFO, WARNING, ERROR = range(3)

# log(place, message, severity): the arguments of caffe.process.log.emit.
Log = Callable[[str, str, int], None]

V0_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

# V0 type -> its parameter message, for types that have settings.
_V0_MESSAGES = {
    "concat": "concat_param",
    "conv": "convolution_param",
    "data": "data_param",
    "dropout": "dropout_param",
    "hdf5_data": "hdf5_data_param",
    "images": "image_data_param",
    "infogain_loss": "infogain_loss_param",
    "innerproduct": "inner_product_param",
    "lrn": "lrn_param",
    "pool": "pooling_param",
    "window_data": "window_data_param",
}

# V0 field -> the types that have it, its name today, and the line of upgrade_proto.cpp that reports
# it as unknown for any other type.
_V0_FIELDS = {
    "num_output": ("conv innerproduct", "num_output", 237),
    "biasterm": ("conv innerproduct", "bias_term", 249),
    "weight_filler": ("conv innerproduct", "weight_filler", 261),
    "bias_filler": ("conv innerproduct", "bias_filler", 273),
    "pad": ("conv pool", "pad", 283),
    "kernelsize": ("conv pool", "kernel_size", 295),
    "group": ("conv", "group", 304),
    "stride": ("conv pool", "stride", 316),
    "pool": ("pool", "pool", 341),
    "dropout_ratio": ("dropout", "dropout_ratio", 350),
    "local_size": ("lrn", "local_size", 359),
    "alpha": ("lrn", "alpha", 367),
    "beta": ("lrn", "beta", 375),
    "k": ("lrn", "k", 383),
    "source": ("data hdf5_data images window_data infogain_loss", "source", 403),
    "batchsize": ("data hdf5_data images window_data", "batch_size", 429),
    "rand_skip": ("data images", "rand_skip", 449),
    "shuffle_images": ("images", "shuffle", 458),
    "new_height": ("images", "new_height", 467),
    "new_width": ("images", "new_width", 476),
    "concat_dim": ("concat", "concat_dim", 485),
    "det_fg_threshold": ("window_data", "fg_threshold", 494),
    "det_bg_threshold": ("window_data", "bg_threshold", 504),
    "det_fg_fraction": ("window_data", "fg_fraction", 514),
    "det_context_pad": ("window_data", "context_pad", 524),
    "det_crop_mode": ("window_data", "crop_mode", 534),
}
# V0 fields of data transformation, which any layer may have -> their names today.
_V0_TRANSFORM = {
    "scale": "scale",
    "meanfile": "mean_file",
    "cropsize": "crop_size",
    "mirror": "mirror",
}

V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "ELTWISE": "Eltwise",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "SLICE": "Slice",
    "TANH": "TanH",
    "WINDOW_DATA": "WindowData",
    "THRESHOLD": "Threshold",
    # Forks': DeconvNet and DecoupledNet, FCN and HED, CRF-RNN,
    "BIN_ACCURACY": "BinaryAccuracy",
    "BN": "BN",
    "CROP": "Crop",
    "DROPOUT_CHANNEL": "DropoutChannel",
    "ELTWISE_ACCURACY": "EltwiseAccuracy",
    "IMAGE_SEG_DATA": "ImageSegData",
    "MULTI_STAGE_MEANFIELD": "MultiStageMeanfield",
    "RED_ACCURACY": "RedAccuracy",
    "RED_SOFTMAX_LOSS": "RedSoftmaxWithLoss",
    "SELECT_SEG_BINARY": "SelectSegBinary",
    "UNPOOLING": "Unpooling",
    "WINDOW_CLS_DATA": "WindowClsData",
    "WINDOW_INST_SEG_DATA": "WindowInstSegData",
    "WINDOW_SEG_BINARY": "WindowSegBinary",
    "WINDOW_SEG_DATA": "WindowSegData",
    # caffe-windows,
    "BATCH_NORM": "BatchNorm",
    "COMPACT_DATA": "CompactData",
    "ELTWISE_AFFINE": "EltwiseAffine",
    "INSANITY": "Insanity",
    "LOCAL": "Local",
    "NORMALIZE": "Normalize",
    "PRELU": "PReLU",
    "RELU6": "ReLU6",
    "ROIPOOLING": "ROIPooling",
    "TRIPLET_LOSS": "TripletLoss",
    # C3D,
    "CONVOLUTION3D": "Convolution3D",
    "DECONVOLUTION3D": "Deconvolution3D",
    "DOWN_SAMPLING": "DownSampling",
    "ELTWISE_PRODUCT": "EltwiseProduct",
    "POOLING3D": "Pooling3D",
    "VIDEO_DATA": "VideoData",
    "VIDEO_SEGMENTATION_DATA": "VideoSegmentationData",
    "VIDEO_WITH_VOXEL_TRUTH_DATA": "VideoWithVoxelTruthData",
    "VOLUME_DATA": "VolumeData",
    "VOXEL_CUSTOM_LOSS": "VoxelCustomLoss",
    "VOXEL_SOFTMAX": "VoxelSoftmax",
    "VOXEL_SOFTMAX_LOSS": "VoxelSoftmaxLoss",
    # and others.
    "ACCURACY_VIEW": "AccuracyView",
    "CONADD": "Conadd",
    "DEFORMABLECONVOLUTION": "DeformableConvolution",
    "NORM": "Norm",
    "RANK_HARD_LOSS": "RankHardLoss",
    "SIGMOID_EUCLIDEAN_LOSS": "SigmoidEuclideanLoss",
    "SOFTMAX_WITH_LOSS5": "SoftmaxWithLoss5",
    "SOFTMAX_WITH_VIEW_LOSS": "SoftmaxWithViewLoss",
}

# V1 layer types whose transformation fields moved to transform_param -> the message they were in.
_V1_DATA = {
    pb.V1LayerParameter.DATA: "data_param",
    pb.V1LayerParameter.IMAGE_DATA: "image_data_param",
    pb.V1LayerParameter.WINDOW_DATA: "window_data_param",
}
_TRANSFORM = ("scale", "mean_file", "crop_size", "mirror")

SOLVER_TYPES = {
    pb.SolverParameter.SGD: "SGD",
    pb.SolverParameter.NESTEROV: "Nesterov",
    pb.SolverParameter.ADAGRAD: "AdaGrad",
    pb.SolverParameter.RMSPROP: "RMSProp",
    pb.SolverParameter.ADADELTA: "AdaDelta",
    pb.SolverParameter.ADAM: "Adam",
}


class _Reporter:
    """Logs the upgrade of one file in Caffe's words, and makes its errors."""

    def __init__(self, source: str, log: Log | None) -> None:
        self.source = source
        self.log = log
        self.errors = 0  # how many settings could not be carried over

    def say(self, line: int, message: str, severity: int = INFO) -> None:
        if severity == ERROR:
            self.errors += 1
        if self.log is not None:
            self.log(f"upgrade_proto.cpp:{line}", message, severity)

    def fail(self, message: str) -> CaffeError:
        return CaffeError(f"{self.source}: {message}" if self.source else message)


# ---------------------------------------------------------------------------------------------
# Detection of older formats
# ---------------------------------------------------------------------------------------------


def needs_upgrade(net: pb.NetParameter) -> bool:
    """True if any part of a net is in an older format."""
    return bool(
        net.layers or _needs_data_upgrade(net) or net.input or _needs_batch_norm_upgrade(net)
    )


def _is_v0(net: pb.NetParameter) -> bool:
    return any(layer.HasField("layer") for layer in net.layers)


def _needs_data_upgrade(net: pb.NetParameter) -> bool:
    for layer in net.layers:
        if layer.type in _V1_DATA:
            param = getattr(layer, _V1_DATA[layer.type])
            if any(param.HasField(field) for field in _TRANSFORM):
                return True
    return False


def _needs_batch_norm_upgrade(net: pb.NetParameter) -> bool:
    return any(_old_batch_norm(layer) for layer in net.layer)


def _old_batch_norm(layer: pb.LayerParameter) -> bool:
    # BatchNorm once needed three ParamSpecs to keep its statistics from being learned.
    return layer.type == "BatchNorm" and len(layer.param) == 3


# ---------------------------------------------------------------------------------------------
# Nets
# ---------------------------------------------------------------------------------------------


def upgrade_net(net: pb.NetParameter, source: str = "", log: Log | None = None) -> pb.NetParameter:
    """The net in today's format; the same message if it is in that format already.

    source: the path of the net's file, for log lines and errors.
    log: called as log(place, message, severity) for each of Caffe's log lines; severity ERROR (2)
    means that a setting could not be carried over.

    Raises CaffeError if the old net is invalid: an unknown layer type, V1 and today's layers in one
    net, a padding layer before anything but a convolution or pooling, too few input dimensions.
    """
    reporter = _Reporter(source, log)
    if not needs_upgrade(net):
        return net
    if _is_v0(net):
        net = _upgrade_v0(net, reporter)
    if _needs_data_upgrade(net):
        net = _upgrade_data(net, reporter)
    if net.layers:
        net = _upgrade_v1(net, reporter)
    if net.input:
        net = _upgrade_input(net, reporter)
    if _needs_batch_norm_upgrade(net):
        net = _upgrade_batch_norm(net, reporter)
    return net


def _announce(reporter: _Reporter, line: int, what: str) -> None:
    reporter.say(line, f"Attempting to upgrade {what}: {reporter.source}")


def _upgrade_v0(old: pb.NetParameter, reporter: _Reporter) -> pb.NetParameter:
    _announce(reporter, 28, "input file specified using deprecated V0LayerParameter")
    unpadded = _fold_padding(old, reporter)
    net = pb.NetParameter(input=old.input, input_dim=old.input_dim)
    for field in ("name", "force_backward"):
        if old.HasField(field):
            setattr(net, field, getattr(old, field))
    for layer in unpadded.layers:
        _upgrade_v0_layer(layer, net.layers.add(), reporter)
    if reporter.errors:
        reporter.say(
            33,
            "Warning: had one or more problems upgrading V0NetParameter to NetParameter "
            "(see above); continuing anyway.",
            ERROR,
        )
    else:
        reporter.say(36, "Successfully upgraded file specified using deprecated V0LayerParameter")
    reporter.say(
        39,
        "Note that future Caffe releases will not support V0NetParameter; use "
        "./build/tools/upgrade_net_proto_text for prototxt and "
        "./build/tools/upgrade_net_proto_binary for model weights upgrade this and any other "
        "net protos to the new format.",
        WARNING,
    )
    return net


def _fold_padding(old: pb.NetParameter, reporter: _Reporter) -> pb.NetParameter:
    """Replace V0's padding layers by the `pad` of the layers that follow them."""
    net = pb.NetParameter()
    net.CopyFrom(old)
    del net.layers[:]
    maker: dict[str, pb.V1LayerParameter | None] = dict.fromkeys(old.input)
    for layer in old.layers:
        if layer.layer.type != "padding":
            net.layers.add().CopyFrom(layer)
        for j, blob in enumerate(layer.bottom):
            if blob not in maker:
                raise reporter.fail(
                    f"layer {layer.layer.name!r} takes blob {blob!r}, which nothing before it makes"
                )
            padding = maker[blob]
            if padding is None or padding.layer.type != "padding":
                continue
            _check_padding(padding, layer, reporter)
            net.layers[-1].layer.pad = padding.layer.pad
            net.layers[-1].bottom[j] = padding.bottom[0]
        for blob in layer.top:
            maker[blob] = layer
    return net


def _check_padding(
    padding: pb.V1LayerParameter, layer: pb.V1LayerParameter, reporter: _Reporter
) -> None:
    where = f"layer {layer.layer.name!r} behind padding layer {padding.layer.name!r}"
    if layer.layer.type not in ("conv", "pool"):
        raise reporter.fail(f"{where} is of type {layer.layer.type!r}; expected 'conv' or 'pool'")
    if len(layer.bottom) != 1:
        raise reporter.fail(f"{where} has {len(layer.bottom)} bottoms; expected 1")
    if len(padding.bottom) != 1 or len(padding.top) != 1:
        raise reporter.fail(
            f"padding layer {padding.layer.name!r}: expected one bottom and one top"
        )


def _upgrade_v0_layer(
    old: pb.V1LayerParameter, new: pb.V1LayerParameter, reporter: _Reporter
) -> None:
    """Fill `new` with the V1 form of a V0 layer."""
    new.bottom.extend(old.bottom)
    new.top.extend(old.top)
    if not old.HasField("layer"):
        raise reporter.fail(
            f"layer {old.name!r} is not in the V0 format (it has no 'layer' message) while others "
            "of this net are; write all of them in one format"
        )
    v0 = old.layer
    if v0.HasField("name"):
        new.name = v0.name
    if v0.HasField("type"):
        if v0.type not in V0_TYPES:
            raise reporter.fail(f"layer {v0.name!r}: unknown V0 layer type {v0.type!r}")
        new.type = pb.V1LayerParameter.LayerType.Value(V0_TYPES[v0.type])
    new.blobs.extend(v0.blobs)
    new.blobs_lr.extend(v0.blobs_lr)
    new.weight_decay.extend(v0.weight_decay)
    for field, (types, name, line) in _V0_FIELDS.items():
        if not v0.HasField(field):
            continue
        if v0.type in types.split():
            _put(getattr(new, _V0_MESSAGES[v0.type]), name, getattr(v0, field))
        else:
            shown = "shuffle" if field == "shuffle_images" else field
            reporter.say(line, f"Unknown parameter {shown} for layer type {v0.type}", ERROR)
    for field, name in _V0_TRANSFORM.items():
        if v0.HasField(field):
            setattr(new.transform_param, name, getattr(v0, field))
    if v0.HasField("hdf5_output_param"):
        if v0.type == "hdf5_output":
            new.hdf5_output_param.CopyFrom(v0.hdf5_output_param)
        else:
            text = f"Unknown parameter hdf5_output_param for layer type {v0.type}"
            reporter.say(544, text, ERROR)


def _put(message: Any, field: str, value: Any) -> None:
    """Set a field, which may be a message or a single value, or append to a repeated one."""
    current = getattr(message, field)
    if hasattr(current, "CopyFrom"):
        current.CopyFrom(value)
    elif hasattr(current, "append"):
        current.append(value)
    else:
        setattr(message, field, value)


def _upgrade_data(old: pb.NetParameter, reporter: _Reporter) -> pb.NetParameter:
    _announce(reporter, 46, "input file specified using deprecated transformation parameters")
    net = pb.NetParameter()
    net.CopyFrom(old)
    for layer in net.layers:
        if layer.type not in _V1_DATA:
            continue
        param = getattr(layer, _V1_DATA[layer.type])
        param.SetInParent()  # as in Caffe, every data layer gets both messages
        layer.transform_param.SetInParent()
        for field in _TRANSFORM:
            if param.HasField(field):
                setattr(layer.transform_param, field, getattr(param, field))
                param.ClearField(field)
    what = "file specified using deprecated data transformation parameters."
    reporter.say(49, f"Successfully upgraded {what}")
    reporter.say(
        51,
        "Note that future Caffe releases will only support transform_param messages for "
        "transformation fields.",
        WARNING,
    )
    return net


def _upgrade_v1(old: pb.NetParameter, reporter: _Reporter) -> pb.NetParameter:
    _announce(reporter, 55, "input file specified using deprecated V1LayerParameter")
    if old.layer:
        raise reporter.fail(
            "the net has both 'layer' (today's format) and 'layers' (V1); "
            "write all of them as layer { type: 'Name' ... }"
        )
    net = pb.NetParameter()
    net.CopyFrom(old)
    del net.layers[:]
    for layer in old.layers:
        _upgrade_v1_layer(layer, net.layer.add())
    reporter.say(63, "Successfully upgraded file specified using deprecated V1LayerParameter")
    return net


def _upgrade_v1_layer(old: pb.V1LayerParameter, new: pb.LayerParameter) -> None:
    """Fill `new` with today's form of a V1 layer."""
    for field in ("bottom", "top", "include", "exclude", "blobs", "loss_weight"):
        getattr(new, field).extend(getattr(old, field))
    if old.HasField("name"):
        new.name = old.name
    if old.HasField("type"):
        new.type = V1_TYPES[pb.V1LayerParameter.LayerType.Name(old.type)]
    specs = (
        ("name", old.param),
        ("share_mode", old.blob_share_mode),
        ("lr_mult", old.blobs_lr),
        ("decay_mult", old.weight_decay),
    )
    for field, values in specs:
        for i, value in enumerate(values):
            while len(new.param) <= i:
                new.param.add()
            setattr(new.param[i], field, value)
    for field, value in old.ListFields():
        if field.name.endswith("_param"):  # these fields kept their names
            getattr(new, field.name).CopyFrom(value)


def _upgrade_input(old: pb.NetParameter, reporter: _Reporter) -> pb.NetParameter:
    _announce(reporter, 69, "input file specified using deprecated input fields")
    net = pb.NetParameter()
    net.CopyFrom(old)
    for field in ("input", "input_shape", "input_dim", "layer"):
        net.ClearField(field)
    # Old models may name inputs without shapes; Caffe then makes no Input layer.
    if old.input_shape or old.input_dim:
        layer = net.layer.add(name="input", type="Input", top=old.input)
        layer.input_param.shape.extend(_input_shapes(old, reporter))
    net.layer.extend(old.layer)
    reporter.say(72, "Successfully upgraded file specified using deprecated input fields.")
    reporter.say(
        74,
        "Note that future Caffe releases will only support input layers and not input fields.",
        WARNING,
    )
    return net


def _input_shapes(old: pb.NetParameter, reporter: _Reporter) -> list[pb.BlobShape]:
    count = len(old.input)
    if old.input_shape:
        if len(old.input_shape) < count:
            raise reporter.fail(
                f"{count} input fields but {len(old.input_shape)} input_shape; expected one each"
            )
        return list(old.input_shape)[:count]
    if len(old.input_dim) < 4 * count:
        raise reporter.fail(
            f"{count} input fields but {len(old.input_dim)} input_dim; expected four each"
        )
    return [pb.BlobShape(dim=old.input_dim[4 * i : 4 * i + 4]) for i in range(count)]


def _upgrade_batch_norm(old: pb.NetParameter, reporter: _Reporter) -> pb.NetParameter:
    _announce(reporter, 79, "batch norm layers using deprecated params")
    net = pb.NetParameter()
    net.CopyFrom(old)
    for layer in net.layer:
        if _old_batch_norm(layer):
            for spec in layer.param:
                spec.lr_mult = 0
                spec.decay_mult = 0
    reporter.say(82, "Successfully upgraded batch norm layers using deprecated params.")
    return net


# ---------------------------------------------------------------------------------------------
# Solvers
# ---------------------------------------------------------------------------------------------


def solver_needs_upgrade(solver: pb.SolverParameter) -> bool:
    """True if a solver gives its type by the old enum."""
    return solver.HasField("solver_type")


def upgrade_solver(
    solver: pb.SolverParameter, source: str = "", log: Log | None = None
) -> pb.SolverParameter:
    """The solver in today's format (`solver_type: ADAM` becomes `type: "Adam"`); the same message
    if it is in that format already. source, log: as for upgrade_net.

    Raises CaffeError if both fields are set.
    """
    if not solver_needs_upgrade(solver):
        return solver
    reporter = _Reporter(source, log)
    _announce(reporter, 1084, "input file specified using deprecated 'solver_type' field (enum)'")
    if solver.HasField("type"):
        raise reporter.fail("both solver_type (the old enum) and type are set; keep only type")
    new = pb.SolverParameter()
    new.CopyFrom(solver)
    new.type = SOLVER_TYPES[solver.solver_type]
    new.ClearField("solver_type")
    reporter.say(
        1091,
        "Successfully upgraded file specified using deprecated 'solver_type' field (enum) to "
        "'type' field (string).",
    )
    text = "Note that future Caffe releases will only support 'type' field (string) for a solver's"
    reporter.say(1093, f"{text} type.", WARNING)
    return new
