"""Records for data layers: their order, transformation, and reading ahead."""

from __future__ import annotations

import atexit
import queue
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from google.protobuf.message import DecodeError

from caffe.augment import Augmentation
from caffe.db import Database
from caffe.errors import CaffeError
from caffe.log import ERROR, emit
from caffe.proto import caffe_pb2 as pb

# -- databases --------------------------------------------------------------------------------


def open_database(path: str, backend: int) -> Database:
    """The database of a DataParameter. Raises CaffeError where it cannot be read."""
    if backend == pb.DataParameter.LEVELDB and (Path(path) / "data.mdb").is_file():
        raise CaffeError(
            f"{path}: this is an LMDB, but the backend is LEVELDB (so it is where none is given); "
            "say backend: LMDB"
        )
    return Database.open(path, pb.DataParameter.DB.Name(backend).lower())


def parse_datum(value: bytes, where: str) -> pb.Datum:
    try:
        return pb.Datum.FromString(value)
    except DecodeError:
        raise CaffeError(f"{where}: the record is not a Datum") from None


# -- order ------------------------------------------------------------------------------------


def epoch_order(count: int, seed: int, source: str, epoch: int) -> np.ndarray:
    """The order of `count` records in one epoch: the same for the same seed, source and epoch."""
    entropy = [seed & 0xFFFFFFFF, zlib.crc32(source.encode(errors="surrogateescape")), epoch]
    return np.random.default_rng(entropy).permutation(count)


@dataclass(frozen=True)
class Turns:
    """Which records of an endless stream, numbered from 0, fall to one of several readers.

    `first`, and then every `step`-th: readers in step take turns, and a number says it all: what
    epoch a record is of, where in it, and what is drawn for it.
    """

    first: int = 0
    step: int = 1


def endless(
    count: int,
    turns: Turns,
    seed: int | None = None,
    source: str = "",
    on_restart: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, int]]:
    """(number, index) of a reader's records, forever: each index below `count` once an epoch.

    In order, or, with a seed, permuted anew each epoch. on_restart: called after each epoch.
    """
    number = turns.first
    while True:
        epoch, place = divmod(number, count)
        order = range(count) if seed is None else epoch_order(count, seed, source, epoch)
        for i in order[place :: turns.step]:
            yield number, int(i)
            number += turns.step
        on_restart()


def endless_records(
    database: Database,
    turns: Turns,
    seed: int | None,
    source: str,
    on_restart: Callable[[], None],
) -> Iterator[tuple[int, bytes, bytes]]:
    """(number, key, record) of a reader's records, forever, as `endless` orders them."""
    count = len(database)
    if seed is not None:
        keys = database.keys()
        for number, i in endless(count, turns, seed, source, on_restart):
            yield number, keys[i], database.get(keys[i])
    number = turns.first
    while True:
        for key, value in database.every(number % count, turns.step):
            yield number, key, value
            number += turns.step
        on_restart()


# -- randomness -------------------------------------------------------------------------------


class RecordRandom:
    """Random numbers for each record of a stream: a function of seed, name and record number.

    So that a position in the stream is all there is to remember, and that it does not matter how
    many readers share the records out.
    """

    def __init__(self, seed: int, name: str, phase: int) -> None:
        entropy = [seed & 0xFFFFFFFF, zlib.crc32(name.encode()), phase]
        key = np.random.SeedSequence(entropy).generate_state(2, np.uint64)
        self._bits = np.random.Philox(key=key)
        self._start = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, number: int) -> np.random.Generator:
        """Record `number`'s random numbers, from the first; the generator is one for all."""
        self._start["state"]["counter"][1] = number  # counter[0] counts what is drawn
        self._bits.state = self._start
        return self._generator


# -- transformation ---------------------------------------------------------------------------


class RecordTransformer:
    """Crop, mirror, subtract the mean, scale: Caffe's DataTransformer; before these, augmentation.

    All channels are treated alike, labels in a channel too, but for what augmentation_param says;
    mirror also works in TEST.
    """

    def __init__(self, param: pb.TransformationParameter, phase: int) -> None:
        self.param, self.train = param, phase == pb.TRAIN
        self.random = param.mirror or (self.train and param.crop_size > 0)
        self.augmentation: Augmentation | None = None
        if param.HasField("augmentation_param"):
            mean_file = param.HasField("mean_file")
            augment = Augmentation(param.augmentation_param, param.crop_size, mean_file)
            if self.train and (augment.moves or augment.jitters):
                self.augmentation, self.random = augment, True
        self.mean: np.ndarray | None = None
        if param.HasField("mean_file"):
            from caffe.files import read_blob

            if param.mean_value:
                raise CaffeError("transform_param: give either mean_file or mean_value, not both")
            emit("data_transformer.cpp:25", f"Loading mean file from: {param.mean_file}")
            mean = read_blob(param.mean_file).astype(np.float32)
            self.mean = mean.reshape(mean.shape[-3:])
        self._warned = False

    def pixels(self, datum: pb.Datum, where: str) -> np.ndarray:
        """The record's values, channels x height x width, uint8 or float32, decoded if need be."""
        p = self.param
        if datum.encoded:
            import cv2  # not above: 16 MB that most records do without

            if p.force_color and p.force_gray:
                raise CaffeError("transform_param: force_color and force_gray exclude each other")
            mode = cv2.IMREAD_UNCHANGED
            if p.force_color or p.force_gray:
                mode = cv2.IMREAD_COLOR if p.force_color else cv2.IMREAD_GRAYSCALE
            image = cv2.imdecode(np.frombuffer(datum.data, np.uint8), mode)
            if image is None:
                raise CaffeError(f"{where}: the encoded picture cannot be decoded")
            return np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1))
        if (p.force_color or p.force_gray) and not self._warned:
            self._warned = True
            emit(
                "data_transformer.cpp:152",
                "force_color and force_gray only for encoded datum",
                ERROR,
            )
        shape = (datum.channels, datum.height, datum.width)
        if datum.data:
            values = np.frombuffer(datum.data, np.uint8)
        else:
            values = np.array(datum.float_data, np.float32)
        if values.size != shape[0] * shape[1] * shape[2] or not values.size:
            raise CaffeError(
                f"{where}: the record holds {values.size} values, its shape "
                f"{' x '.join(map(str, shape))} needs {shape[0] * shape[1] * shape[2]}"
            )
        return values.reshape(shape)

    def shape(self, pixels: np.ndarray) -> tuple[int, int, int]:
        """The shape after cropping."""
        shape = self.augmentation.shape(pixels.shape) if self.augmentation else pixels.shape
        channels, height, width = shape
        crop = self.param.crop_size
        if crop > min(height, width):
            raise CaffeError(f"crop_size {crop} exceeds the record's {height} x {width}")
        return (channels, crop, crop) if crop else (channels, height, width)

    def apply(
        self, pixels: np.ndarray, out: torch.Tensor, rng: np.random.Generator | None = None
    ) -> None:
        """Write the transformed record into `out`, a float32 tensor of shape(pixels).

        rng: the record's random numbers; may be left out where `random` is false.
        """
        p = self.param
        mirror = p.mirror and bool(rng.integers(2))
        if self.augmentation is not None:
            changed = np.empty(self.augmentation.shape(pixels.shape), np.float32)
            self.augmentation.apply(pixels, changed, rng)
            pixels = changed
        rows, columns = self._window(pixels, rng)
        values = pixels[:, rows, columns]
        mean = self._mean_for(pixels)
        if mean is not None:
            whole = mean.shape == pixels.shape  # else one value a channel
            values = values - (mean[:, rows, columns] if whole else mean)
        target = out.numpy()
        np.copyto(target, values[:, :, ::-1] if mirror else values)
        if p.scale != 1:
            target *= np.float32(p.scale)

    def _window(self, pixels: np.ndarray, rng: np.random.Generator | None) -> tuple[slice, slice]:
        _, height, width = pixels.shape
        crop = self.param.crop_size
        if not crop:
            return slice(None), slice(None)
        if self.train:
            top = int(rng.integers(height - crop + 1))
            left = int(rng.integers(width - crop + 1))
        else:
            top, left = (height - crop) // 2, (width - crop) // 2
        return slice(top, top + crop), slice(left, left + crop)

    def _mean_for(self, pixels: np.ndarray) -> np.ndarray | None:
        values = self.param.mean_value
        if self.mean is not None:
            if self.mean.shape != pixels.shape:
                raise CaffeError(
                    f"mean_file {self.param.mean_file!r} has the shape {self.mean.shape}, "
                    f"the record {pixels.shape}"
                )
            return self.mean
        if not values:
            return None
        if len(values) not in (1, pixels.shape[0]):
            raise CaffeError(
                f"mean_value is given {len(values)} time(s), expected 1 or the record's "
                f"{pixels.shape[0]} channels"
            )
        return np.array(values, np.float32).reshape(-1, 1, 1)


# -- reading ahead ----------------------------------------------------------------------------


@dataclass
class Batch:
    """What a data layer hands out in one forward pass: one tensor a top."""

    tops: Sequence[torch.Tensor]

    def pin(self) -> Batch:
        """The same in memory that a GPU reads by itself."""
        return Batch([t.pin_memory() for t in self.tops])


class Prefetcher:
    """Makes batches in a thread of its own, a few ahead, so that training never waits on reading.

    The thread ends when the Prefetcher is closed or forgotten.
    """

    def __init__(self, make: Callable[[], Batch], depth: int) -> None:
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(max(1, depth))
        self.waited = 0.0  # seconds that get() took in all
        self._stop = threading.Event()
        arguments = (make, self._ready, self._stop)
        self._thread = threading.Thread(target=_produce, args=arguments, daemon=True)
        weakref.finalize(self, self._stop.set)
        self._thread.start()
        for thread in list(_running):
            if not thread.is_alive():
                _running.pop(thread, None)
        _running[self._thread] = self._stop

    def get(self) -> Batch:
        """The next batch. Raises what the thread ran into."""
        start = time.perf_counter()
        item = self._ready.get()
        self.waited += time.perf_counter() - start
        if isinstance(item, BaseException):
            self._ready.put(item)  # it stays broken
            raise item
        return item

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)


# Threads that may not have ended yet, those of forgotten Prefetchers too, and what stops them. They
# do not leave by themselves: a thread gives its tensors back after all that it could do here.
_running: dict[threading.Thread, threading.Event] = {}


@atexit.register
def _close_all() -> None:
    """End the threads before Python ends: one cut off within PyTorch takes the process down."""
    running = list(_running.items())
    for _, stop in running:
        stop.set()
    for thread, _ in running:
        thread.join(timeout=30)


def _produce(make: Callable[[], Batch], ready: queue.Queue, stop: threading.Event) -> None:
    while not stop.is_set():
        item: Batch | BaseException
        try:
            item = make()
        except BaseException as error:
            item = error
        _hand_over(item, ready, stop)
        if isinstance(item, BaseException):
            return


def _hand_over(item: Batch | BaseException, ready: queue.Queue, stop: threading.Event) -> None:
    """Put an item into the queue once there is room, unless nobody wants it any more."""
    while not stop.is_set():
        try:
            return ready.put(item, timeout=0.1)
        except queue.Full:
            continue


def __getattr__(name: str) -> Any:
    if name == "LMDBDataset":  # here under the name that users look for; it needs this module
        from caffe.dataset import LMDBDataset

        return LMDBDataset
    raise AttributeError(f"module 'caffe.data' has no attribute {name!r}")
