"""What forks of Caffe add to the schema, and which of it has an effect here.

The schema has the fields of many forks, so that their texts are read. A layer type uses some of
them; the others are named, because a net that asks for something and does not get it would be
silently wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from caffe.proto import caffe_pb2 as pb

# Choices of speed and memory, records of training and notes for tools: nothing computed depends on
# them. Numbers of less precision are among them; here all is float32 unless the user says bf16.
HARMLESS = frozenset(
    {
        "backward_math",
        "backward_type",
        "cache",
        "compile_net_state",
        "conv_algorithm",
        "conv_algos_override",
        "cudnn_convolution_algo_seeker",
        "cudnn_math_override",
        "debug",
        "default_backward_math",
        "default_backward_type",
        "default_conv_algos_override",
        "default_cudnn_math_override",
        "default_forward_math",
        "default_forward_type",
        "disk_reader_threads",
        "display",
        "eltwise_mem_sharing",
        "engine",
        "forward_math",
        "forward_packing",
        "forward_type",
        "device_ids",
        "group_id",
        "huge_video_dataset",
        "mem_param",
        "mn_activation_param",
        "mn_grad_compress_param",
        "multinode",
        "parser_threads",
        "precache",
        "record_id",
        "reduce_buckets",
        "richness",
        "share_in_parallel",
        "shuffle_threads",
        "solver_data_type",
        "store_blobs_in_old_format",
        "threads",
        "use_gpu_transform",
        "verbose",
        "visualise",
    }
)
# Types of layers that are not here -> the fork they come from.
FORK_TYPES: dict[str, str] = {
    "AUMaskBasedLand": "ZhiwenShao/JAANet",
    "AlignDataTransform": "ZhiwenShao/JAANet",
    "ArgMaxAll": "chwilms/AttentionMask",
    "ArgMaxMy": "chwilms/AttentionMask",
    "AssistedExcitation": "MobileNet-YOLO",
    "BboxData": "opencv/opencv_contrib",
    "BoxData": "BirdeeChen/caffe_yolo_v2",
    "CPMData": "ZheC/Realtime_Multi-Person_Pose_Estimation",
    "CheckAtt": "chwilms/AttentionMask",
    "CompactData": "ChenglongChen/caffe-windows",
    "ConsistencyLoss": "qxcv/joint-regressor",
    "ConvertIndices": "chwilms/AttentionMask",
    "DSALoss": "huangyangyu/SeqFace",
    "DataHeatmap": "HongwenZhang/ECT-FaceAlignment",
    "DataRandTransform": "naibaf7/caffe_neural_models",
    "DetectionData": "Cascade R-CNN",
    "DistLoss": "aharley/segaware",
    "DriveData": "SeokjuLee/VPGNet",
    "EuclideanLoss2": "ZhiwenShao/JAANet",
    "EuclideanLossHeatmap": "HongwenZhang/ECT-FaceAlignment",
    "FlagsToIndices": "chwilms/AttentionMask",
    "FrcnnAnchorTarget": "makefile/frcnn",
    "FrcnnProposal": "makefile/frcnn",
    "FrcnnProposalTarget": "makefile/frcnn",
    "FrcnnRoiData": "makefile/frcnn",
    "GlobalLSEMargin": "happynear/AMSoftmax",
    "Im2dist": "aharley/segaware",
    "Im2parity": "aharley/segaware",
    "ImageFloatData": "goodluckcwl/Face-alignment-mobilenet-v2",
    "LSROLoss": "huangyangyu/SeqFace",
    "LabelData": "StevenHickson/SemanticLabelingDemo",
    "LabeledMatching": "ShuangLI59/person_search",
    "LaneData": "MobileNet-YOLO",
    "MILLoss": "pathak22/caffe-ccnn",
    "MatWrite": "aharley/segaware",
    "Maximum": "CMU-Perceptual-Computing-Lab/caffe_rtpose",
    "NormConvMeanfield": "aharley/segaware",
    "NormL2": "huangyangyu/SeqFace",
    "NormalizationL2": "liu-xb/GGL",
    "Octree2FullVoxel": "microsoft/O-CNN",
    "OctreeConv": "microsoft/O-CNN",
    "OctreeDataBase": "microsoft/O-CNN",
    "OctreeDeconv": "microsoft/O-CNN",
    "OctreeGrow": "microsoft/O-CNN",
    "OctreeMask": "microsoft/O-CNN",
    "OctreePooling": "microsoft/O-CNN",
    "OctreeProperty": "microsoft/O-CNN",
    "OctreeSetFeature": "microsoft/O-CNN",
    "OctreeUnpooling": "microsoft/O-CNN",
    "OctreeUpdateLabel": "microsoft/O-CNN",
    "OctreeZeroize": "microsoft/O-CNN",
    "PwAttend": "Mhaiyang/TMM2018_DRFN",
    "QuartetLoss": "amena6490/Joint-Verification-Identification",
    "SegData": "Cysu/caffe",
    "Segmentation": "StevenHickson/SemanticLabelingDemo",
    "SetLoss2": "liu-xb/GGL",
    "SlidingWindowIndex": "chwilms/AttentionMask",
    "SmoothMarginInnerProduct": "huangyangyu/SeqFace",
    "SplitIndices": "chwilms/AttentionMask",
    "SqueezeDetLoss": "opencv/opencv_contrib",
    "Switch": "CMU-Perceptual-Computing-Lab/caffe_rtpose",
    "TileProduct": "chwilms/AttentionMask",
    "TopK": "chwilms/AttentionMask",
    "TopKOld": "chwilms/AttentionMask",
    "TwoImageData": "aharley/segaware",
    "UnlabeledMatching": "ShuangLI59/person_search",
    "VarLoss": "liu-xb/GGL",
    "VideoSegmentationData": "C3D",
    "VideoWithVoxelTruthData": "C3D",
    "Warping": "JunhyeongBak/Caffe_Light_Field",
}
_FORKS_FILE = pb.PermuteParameter.DESCRIPTOR.file


def fork_of(field: FieldDescriptor) -> str:
    """The forks that a field comes from, "SegNet, ENet"; empty for a field of BVLC's or ours."""
    return field.GetOptions().Extensions[pb.fork]


def without_effect(
    message: Message, reads: Collection[str], takes: Collection[str]
) -> list[tuple[str, str]]:
    """The fields of forks that are set in a message and not used: ("pooling_param.dilation", fork).

    reads: the fields of the message that are used. takes: the fields of forks inside them that are,
    as "pooling_param.ceil_mode". A message that only forks have is used as a whole unless `takes`
    names some of its fields.
    """
    found = []
    for field, value in message.ListFields():
        if field.name in HARMLESS:
            continue
        if field.name not in reads:
            if fork := fork_of(field):
                found.append((field.name, fork))
        elif isinstance(value, Message):
            found += _inside(field, value, takes)
    return found


def has_effect(outer: str, field: FieldDescriptor, takes: Collection[str]) -> bool:
    """Whether a field inside a message of parameters that a type reads is used by it.

    outer: the field of LayerParameter that holds the message, "pooling_param".
    """
    if f"{outer}.{field.name}" in takes:
        return True
    named = any(name.startswith(f"{outer}.") for name in takes)
    return not fork_of(field) and not (named and field.file is _FORKS_FILE)


def _inside(
    outer: FieldDescriptor, message: Message, takes: Collection[str]
) -> Iterator[tuple[str, str]]:
    """The unused fields of one message of parameters."""
    for field, _ in message.ListFields():
        if field.name not in HARMLESS and not has_effect(outer.name, field, takes):
            yield f"{outer.name}.{field.name}", fork_of(field) or fork_of(outer)
