"""Writes bags of ROS 1 and ROS 2, by the library rosbags, for tests of recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rosbags import rosbag1, rosbag2, typesys

from data_tools.recordings.bag import FLOAT
from data_tools.recordings.ros_images import COMPRESSED, IMAGE

START = 1_600_000_000_000_000_000
MS = 1_000_000


class Maker:
    """Writes messages to a bag of ROS 1 (.bag) or ROS 2 (a folder; `storage` says how)."""

    def __init__(self, path: Path, storage: str = "SQLITE3"):
        self.first = path.suffix == ".bag"
        stores = typesys.Stores
        self.types = typesys.get_typestore(stores.ROS1_NOETIC if self.first else stores.ROS2_HUMBLE)
        if self.first:
            self.writer = rosbag1.Writer(path)
        else:
            plugin = rosbag2.StoragePlugin[storage]
            self.writer = rosbag2.Writer(path, version=9, storage_plugin=plugin)
        self.writer.open()
        self.connections = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.writer.close()

    def header(self, time: int, frame: str = "c"):
        stamp = self.types.types["builtin_interfaces/msg/Time"](*divmod(time, 10**9))
        make = self.types.types["std_msgs/msg/Header"]
        return make(seq=0, stamp=stamp, frame_id=frame) if self.first else make(stamp, frame)

    def put(self, topic, kind, message, time):
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, kind, typestore=self.types)
        serialize = self.types.serialize_ros1 if self.first else self.types.serialize_cdr
        self.writer.write(self.connections[topic], time, serialize(message, kind))

    def image(self, topic, encoding, array, time, came=None, pad=0, big=False, frame="c"):
        step = array.strides[0] + pad
        lines = array.reshape(array.shape[0], -1).view(np.uint8)
        lines = np.pad(lines, ((0, 0), (0, pad)))
        message = self.types.types[IMAGE](
            self.header(time, frame), *array.shape[:2], encoding, int(big), step, lines.ravel()
        )
        self.put(topic, IMAGE, message, came or time)

    def compressed(self, topic, form, data, time):
        message = self.types.types[COMPRESSED](
            self.header(time), form, np.frombuffer(data, np.uint8)
        )
        self.put(topic, COMPRESSED, message, time)

    def number(self, topic, value, time):
        self.put(topic, FLOAT, self.types.types[FLOAT](value), time)


def write(path, frames, storage="SQLITE3", color="/camera/color/image_raw",
          depth="/camera/aligned_depth_to_color/image_raw"):  # fmt: skip
    with Maker(path, storage) as out:
        for i, (picture, deep) in enumerate(frames):
            time = START + 33 * MS * i
            out.image(color, "rgb8", np.ascontiguousarray(picture[..., ::-1]), time, time + 7 * MS)
            out.image(depth, "16UC1", deep, time + 3 * MS, time + 50 * MS)
    return path
