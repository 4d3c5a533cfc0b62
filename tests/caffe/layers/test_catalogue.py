"""The catalogue of layer types: complete, and each type says what it reads."""

import inspect
import re
from pathlib import Path

import pytest

from caffe.errors import CaffeError
from caffe.layers import FAMILIES, create_layer
from caffe.layers.base import REGISTRY
from caffe.proto import caffe_pb2 as pb

ROOT = Path(__file__).parents[3]
TYPES = sorted(name for name, c in REGISTRY.items() if c.__module__.split(".")[-1] in FAMILIES)

# What BVLC Caffe's last master registers, and FuseNet's.
EXPECTED = """
AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Clip Concat ContrastiveLoss Convolution Crop
Data Deconvolution Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter Flatten HDF5Data
HDF5Output HingeLoss Im2col ImageData InfogainLoss InnerProduct Input LRN LSTM LSTMUnit Log MVN
MemoryData MultinomialLogisticLoss PReLU Parameter Pooling Power Python RNN ReLU Reduction Reshape
SPP Scale Sigmoid SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss Split Swish TanH
Threshold Tile Unpooling WindowData
"""


def test_every_type_is_there():
    assert set(EXPECTED.split()) <= set(TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_a_type_says_what_it_reads(name):
    """What the class's source takes from layer_param is what the page lists."""
    found = set()
    for c in REGISTRY[name].__mro__:
        if c.__module__.startswith("caffe.layers") and not c.__module__.endswith(".base"):
            found |= set(re.findall(r"\b(\w+_param)\b(?=[.)\s,])", inspect.getsource(c)))
    schema = pb.LayerParameter.DESCRIPTOR.fields_by_name
    fields = set(schema) & found
    for outer in REGISTRY[name].reads:  # a message may have a field of the same name
        fields -= set(schema[outer].message_type.fields_by_name) - set(REGISTRY[name].reads)
    assert set(REGISTRY[name].reads) <= {f.name for f in pb.LayerParameter.DESCRIPTOR.fields}
    assert fields - {"layer_param"} <= set(REGISTRY[name].reads) | SHARED.get(name, set())


# Fields that a class of the family reads, but not for this type, or in a message of its own.
SHARED = {
    "CustomData": {"transform_param"},
    "AnnotatedData": {"noise_param", "resize_param"},
    "DetectionEvaluate": {"resize_param"},
    "DetectionOutput": {"nms_param"},
    "DetectionOutputExtended": {"nms_param"},
    "HDF5Data": {"transform_param"},
    "MemoryData": {"transform_param"},
    "MultiBoxFocalLoss": {"nms_param"},
    "MultiBoxLoss": {"nms_param"},
}


def test_every_parameter_message_belongs_to_some_type():
    """All of BVLC's and our own; of forks' messages some belong to types that are not here."""
    fields = [f for f in pb.LayerParameter.DESCRIPTOR.fields if f.name.endswith("_param")]
    read = {field for name in TYPES for field in REGISTRY[name].reads}
    assert {f.name for f in fields if not f.GetOptions().HasExtension(pb.fork)} <= read
    assert read <= {f.name for f in fields}


@pytest.mark.parametrize("name", TYPES)
def test_fields_of_forks_are_in_the_schema(name):
    for path in REGISTRY[name].takes:
        outer, _, inner = path.partition(".")
        assert outer in REGISTRY[name].reads
        message = pb.LayerParameter.DESCRIPTOR.fields_by_name[outer].message_type
        assert inner in message.fields_by_name, path


def test_types_of_forks_say_where_they_come_from():
    """But for types of our own, which read fields of our own (docs/developing.md)."""
    fields = pb.LayerParameter.DESCRIPTOR.fields
    own = {f.name for f in fields if f.number > 12900 and not f.GetOptions().HasExtension(pb.fork)}
    for name in set(TYPES) - set(EXPECTED.split()):
        assert REGISTRY[name].fork or own & set(REGISTRY[name].reads), name


def test_a_type_that_cannot_be_had_says_why():
    param = pb.LayerParameter(name="engine", type="TRT")
    with pytest.raises(CaffeError, match="'TRT' is refused: NVCaffe's layer runs an engine"):
        create_layer(param)
