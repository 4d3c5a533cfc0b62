"""VideoData: clips from folders of frames."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from boundary import limits
from boundary.late import cv2
from caffe.blob import check_shape
from caffe.data.order import RecordRandom, endless
from caffe.data.prefetch import Batch
from caffe.data.transform import RecordTransformer
from caffe.errors import CaffeError
from caffe.formats.files import read_blob
from caffe.formats.lists import read_words
from caffe.layers.base import Shape, register
from caffe.layers.data import PrefetchingLayer, Sample, in_batches, transformed_shape
from caffe.layers.image_data import read_image
from caffe.process.log import emit
from caffe.proto import caffe_pb2 as pb

_NUMBER = re.compile("%0?[1-9]?d")
MOST_FRAMES = 10**5  # of a clip: each gets means of its own
SEGMENTED = ("num_segments", "modality", "name_pattern", "grayscale", "encoded")


@dataclass(frozen=True)
class Clip:
    """A line of a list: a folder of frames, a number, and a label."""

    folder: str
    number: int  # the first frame, or how many frames there are
    label: int


@dataclass(frozen=True)
class Frames:
    """How a clip's frames are found and read.

    names: what stands before and behind a frame's number, for each picture of a frame. length: the
    frames of a clip or of each segment; every `step`-th is taken. size: width and height, 0 for the
    pictures' own. by_channel: whether a channel's frames lie together (C3D), or a frame's channels.
    """

    names: tuple[str, ...]
    length: int
    step: int
    size: tuple[int, int]
    color: bool
    by_channel: bool
    mean: np.ndarray | None = None

    def read(self, folder: str, starts: Sequence[int]) -> np.ndarray:
        """The pixels from these first frames on, as (channels, height, width), uint8 or float32.

        Raises CaffeError for a picture that cannot be read or has another size.
        """
        frames: list[np.ndarray] = []
        for start in starts:
            for i in range(self.length):
                for name in self.names:
                    path = f"{folder}/{name % (start + i * self.step)}"
                    frames.append(self._frame(path))
                    if frames[-1].shape != frames[0].shape:
                        raise CaffeError(f"{path}: its size is not that of the clip's first frame")
        clip = np.stack(frames)  # frames x channels x height x width
        clip = clip.swapaxes(0, 1) if self.by_channel else clip
        clip = np.ascontiguousarray(clip).reshape(-1, *clip.shape[2:])
        if self.mean is None:
            return clip
        if clip.shape != self.mean.shape:
            raise CaffeError(
                f"{folder}: clips are {clip.shape}, the mean {self.mean.shape} (channels and "
                "frames, height, width)"
            )
        return clip - self.mean

    def _frame(self, path: str) -> np.ndarray:
        image = read_image(path, self.color)
        if any(self.size):
            image = np.atleast_3d(cv2.resize(image, self.size))
        return image.transpose(2, 0, 1)


@register("VideoData")
class VideoData(PrefetchingLayer):
    """Clips from folders of frames, and their labels: two layers of one name.

    C3D's (video_data_layer.cpp; parameters in video_data_param, or in image_data_param in version
    1.0): lines "folder first_frame label", frames %06d.jpg, every sampling_rate-th, top 0 (N, 3,
    new_length, H, W). With use_temporal_jitter the number is how many frames there are: training
    begins at random, testing at 0. TSN's (yjxiong), meant where num_segments, modality,
    name_pattern or grayscale is set: lines "folder frames label", new_length frames from each of
    num_segments parts of the video, a random place in training and the middle in testing, top 0 (N,
    channels and frames, H, W); FLOW has two pictures a frame, x and y.
    Top 1: the labels, (N), in TSN and C3D 1.0 with axes of one behind.
    """

    fork = "C3D, TSN"
    judge = "worked cases"
    reads = ("video_data_param", "image_data_param", "transform_param", "data_param")
    takes = (
        *(f"video_data_param.{n}" for n in ("source", "batch_size", "root_folder", "use_image")),
        *(f"video_data_param.{n}" for n in ("new_length", "new_height", "new_width", "shuffle")),
        *(f"video_data_param.{n}" for n in ("sampling_rate", "use_temporal_jitter", "rand_skip")),
        *(f"video_data_param.{n}" for n in ("num_segments", "modality", "name_pattern")),
        *(f"video_data_param.{n}" for n in ("grayscale", "show_data")),
        *(f"image_data_param.{n}" for n in ("new_length", "use_image", "sampling_rate")),
        *(f"image_data_param.{n}" for n in ("use_temporal_jitter", "mean_value", "show_data")),
    )
    differs = (
        "Folders of frames only: video files, webcams and several labels a clip are refused. A "
        "frame that is missing is an error; in training the forks pass over the clip. A mirrored "
        "flow keeps its sign. Of data_param, `prefetch`."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.old = not self.layer_param.HasField("video_data_param")
        p = self.layer_param.image_data_param if self.old else self.layer_param.video_data_param
        self.segmented = not self.old and any(p.HasField(name) for name in SEGMENTED)
        self._refuse(p)
        self.batch_size, self.rand_skip = p.batch_size, p.rand_skip
        self.origin, self.prefetch = p.source, self.layer_param.data_param.prefetch
        self.check(p.batch_size > 0 and p.new_length > 0, "batch_size and new_length must be set")
        frames = p.new_length * (p.num_segments if self.segmented else 1)
        self.check(
            frames <= MOST_FRAMES,
            f"new_length and num_segments make clips of {frames} frames, expected at most "
            f"{MOST_FRAMES}",
        )
        self.check(
            (p.new_height > 0) == (p.new_width > 0), "give both new_height and new_width, or none"
        )
        emit("video_data_layer.cpp:65", f"Opening file {p.source}")
        with self.named():
            self.clips = _read_list(p.source, p.root_folder)
            self.frames = self._frames(p)
            self.transformer = self._transformer(p)
        self.shuffled = len(self.clips) if p.shuffle else None
        self._set_shape(p)

    def _refuse(self, p: pb.VideoDataParameter | pb.ImageDataParameter) -> None:
        """Raise CaffeError for what the forks have and this does not."""
        if not self.old:
            self.check(not p.use_multiple_label, "use_multiple_label is not implemented")
            self.check(
                not p.video_file and not p.HasField("video_type"), "reads no webcam or video_file"
            )
        self.check(
            self.segmented or p.use_image,
            "reads folders of frames, no video files: take the frames out of the videos, and set "
            "use_image: true",
        )

    def _frames(self, p: pb.VideoDataParameter | pb.ImageDataParameter) -> Frames:
        size = (p.new_width, p.new_height)
        if not self.segmented:
            self.check(p.sampling_rate > 0, "sampling_rate must be positive")
            mean = None
            if self.old and p.HasField("mean_file"):
                mean = read_blob(p.mean_file)
                mean = mean.reshape(-1, *mean.shape[-2:])
            return Frames(("%06d.jpg",), p.new_length, p.sampling_rate, size, True, True, mean)
        flow = p.modality == p.FLOW
        pattern = p.name_pattern or ("flow_%c_%04d.jpg" if flow else "image_%04d.jpg")
        names = [pattern.replace("%c", axis, 1) for axis in "xy"] if flow else [pattern]
        for name in names:
            rest = _NUMBER.sub("", name, count=1)
            self.check(
                rest != name and "%" not in rest,
                f"name_pattern {pattern!r} must hold %d or %0Nd once"
                + (", and %c once" if flow else ""),
            )
        color = not (flow or p.grayscale)
        return Frames(tuple(names), p.new_length, 1, size, color, False)

    def _transformer(self, p: pb.VideoDataParameter | pb.ImageDataParameter) -> RecordTransformer:
        """The transformer for clips whose frames are channels; means are repeated for these."""
        t = pb.TransformationParameter()
        if self.old:
            t.scale, t.crop_size, t.mirror = p.scale, p.crop_size, p.mirror
            if p.HasField("mean_value") and not p.HasField("mean_file"):
                t.mean_value.append(p.mean_value)
            return RecordTransformer(t, self.phase)
        t.CopyFrom(self.layer_param.transform_param)
        values = list(t.mean_value)
        if len(values) > 1:
            del t.mean_value[:]
            if self.segmented:
                t.mean_value.extend(values * (p.num_segments * p.new_length))
            else:
                t.mean_value.extend(np.repeat(values, p.new_length).tolist())
        return RecordTransformer(t, self.phase)

    def _set_shape(self, p: pb.VideoDataParameter | pb.ImageDataParameter) -> None:
        """The tops' shapes, from the first clip."""
        segments = p.num_segments if self.segmented else 1
        channels = len(self.frames.names) * (3 if self.frames.color else 1)
        with self.named():
            check_shape((p.batch_size, channels * segments * p.new_length))
            if p.new_height:
                check_shape(
                    (p.batch_size, channels * segments * p.new_length, p.new_height, p.new_width)
                )
                limits.check_pixels(p.new_width, p.new_height, "new_height, new_width", CaffeError)
            starts = _starts(self._plan(), self.clips[0], None)
            first = Sample(
                0, self.clips[0].folder, self.frames.read(self.clips[0].folder, starts), 0
            )
            shape = transformed_shape(first, self.transformer)
        if not self.segmented:
            shape = (3, p.new_length, *shape[1:])
        self.shape = (p.batch_size, *shape)
        ones = 4 if self.old else 3 if self.segmented else 0
        self.label_shape = (p.batch_size, *[1] * ones)
        emit("video_data_layer.cpp:141", f"output data size: {','.join(map(str, self.shape))}")

    def _plan(self) -> tuple[int, int, bool]:
        """Segments (0: C3D), frames of a clip from the first to behind the last, and jitter."""
        if self.segmented:
            p = self.layer_param.video_data_param
            self.check(p.num_segments > 0, "num_segments must be positive")
            return p.num_segments, p.new_length, self.phase == pb.TRAIN
        p = self.layer_param.image_data_param if self.old else self.layer_param.video_data_param
        return 0, p.new_length * p.sampling_rate, p.use_temporal_jitter

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [self.shape, self.label_shape][: self.num_tops]

    def contents(self) -> dict[str, int]:
        return {"clips": len(self.clips)}

    def batches(self) -> Iterator[Batch]:
        draws = RecordRandom(self.seed, f"{self.name} frames", self.phase)
        read = functools.partial(_read_clip, self.frames, self._plan(), draws, self.phase)
        places = endless(len(self.clips), self.turns(), self.shuffling())
        clips = self.clips
        samples = (read(clips[i], number) for number, i in places)
        batches = in_batches(samples, self.transformer, self.random(), self.batch_size)
        return _shaped(batches, self.shape, self.label_shape)


def _read_list(source: str, root: str) -> list[Clip]:
    """Lines of: folder, number, label."""
    expected = "folder number label"
    clips = []
    for where, words in read_words(source, expected):
        if len(words) != 3 or not all(re.fullmatch("[0-9]{1,9}", word) for word in words[1:]):
            raise CaffeError(f"{where}: expected: {expected}, two whole numbers")
        clips.append(Clip(root + words[0], int(words[1]), int(words[2])))
    return clips


def _starts(plan: tuple[int, int, bool], clip: Clip, rng: np.random.Generator | None) -> list[int]:
    """The first frames of a clip. rng: None for the middle, or for C3D's start in testing."""
    segments, length, jitter = plan
    if not segments:
        if not jitter:
            return [clip.number]
        if clip.number < length:
            raise CaffeError(f"{clip.folder}: {clip.number} frames, expected at least {length}")
        return [0 if rng is None else int(rng.integers(clip.number - length + 1)) + 1]
    each, starts = clip.number // segments, []
    for i in range(segments):
        free = each - length + 1
        if free <= 0:
            starts.append(1)
        elif rng is None:
            starts.append(1 + free // 2 + i * each)
        else:
            starts.append(1 + int(rng.integers(free)) + i * each)
    return starts


def _read_clip(
    frames: Frames,
    plan: tuple[int, int, bool],
    draws: RecordRandom,
    phase: int,
    clip: Clip,
    number: int,
) -> Sample:
    rng = draws.at(number) if plan[2] and phase == pb.TRAIN else None
    pixels = frames.read(clip.folder, _starts(plan, clip, rng))
    return Sample(number, clip.folder, pixels, clip.label)


def _shaped(batches: Iterator[Batch], shape: Shape, labels: Shape) -> Iterator[Batch]:
    """The batches with clips and labels in their shapes."""
    for batch in batches:
        values, numbers = batch.tops
        if math.prod(values.shape) != math.prod(shape):
            raise CaffeError(
                f"clips are {tuple(values.shape[1:])}, the first one {shape[1:]} (channels and "
                "frames, height, width)"
            )
        yield Batch((values.view(shape), numbers.view(labels)))
