"""Bags of ROS 1 and ROS 2, and RealSense's, which are ROS 1 bags; read by the library rosbags.

A topic of colour and one of depth are paired by the times in the messages' headers. Depth is in
millimetres (16UC1, mono16) or metres (32FC1); a RealSense bag says its unit. The types of messages
are the library's own: definitions in a bag would become code.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from boundary.errors import shown
from boundary.reading import reading
from data_tools import cli
from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.recordings import ros_images, words
from data_tools.recordings.association import SECOND, Association, Pair, Picture, by_time
from data_tools.recordings.base import Kind, Recording, Settings

SUFFIXES = (".bag", ".mcap", ".db3")
FLOAT = "std_msgs/msg/Float32"
# The option of a RealSense depth sensor: metres in a step.
_UNITS = re.compile(r"/option/Depth[ _]Units/value$")
# The topics of a device's streams in RealSense's own bags.
_NATIVE = re.compile(r"/device_[0-9]+/sensor_[0-9]+/")
# Words in topics of depth that is aligned to colour, and of colour that is aligned to depth.
_ALIGNED = ("aligned_depth_to", "depth_to_rgb", "depth_to_color", "depth_registered")
_TURNED_ROUND = ("rgb_to_depth", "color_to_depth")
# Endings of the topics that image_transport adds to one of plain pictures.
_TRANSPORTS = ("/compressed", "/compressedDepth")
_FAR = 64  # messages ahead, beyond which a search by time is faster than reading on


@dataclass(frozen=True)
class Place:
    """A message of a topic: the time at which it was recorded, in nanoseconds, its rank among those
    of that time, and its rank in the topic."""

    time: int
    rank: int
    number: int


class Bag:
    """An open bag. Raises DataError if it cannot be read."""

    def __init__(self, path: Path):
        self.path = path
        try:
            from rosbags import rosbag1, rosbag2
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise DataError(
                f"{shown(path)}: bags are read by rosbags, which is missing: "
                "pip install 'fusenet[bag]'"
            ) from error
        first = path.suffix.lower() == ".bag"
        types = get_typestore(Stores.ROS1_NOETIC if first else Stores.ROS2_HUMBLE)
        self._message = types.deserialize_ros1 if first else types.deserialize_cdr
        with self.guard():
            self._opened = ExitStack()
            reader = (rosbag1 if first else rosbag2).Reader(path)
            self._reader = self._opened.enter_context(reader)

    def guard(self) -> Any:
        """Turns what the library raises into DataError."""
        return reading(self.path, "a bag that can be read", DataError)

    def topics(self) -> dict[str, str]:
        """The type of each topic's messages."""
        return {one.topic: one.msgtype for one in self._reader.connections}

    def messages(self, topic: str, start: int | None = None) -> Iterator[tuple[int, Any]]:
        """Time of recording and message of a topic, from a time on, in order."""
        chosen = [one for one in self._reader.connections if one.topic == topic]
        with self.guard():
            for connection, time, data in self._reader.messages(chosen, start):
                yield time, self._message(data, connection.msgtype)

    def first(self, topic: str) -> Any:
        """The first message of a topic; None if there is none."""
        return next((message for _, message in self.messages(topic)), None)

    def close(self) -> None:
        """Closes the file."""
        self._opened.close()


class Stream:
    """The messages of one topic, by their places. It has a reader of its own, because two that read
    in turns would disturb each other."""

    def __init__(self, path: Path, topic: str):
        self._bag, self._topic = Bag(path), topic
        self._messages: Iterator[tuple[int, Any]] = iter(())
        self._next = -1  # the number in the topic of the message that comes next

    def get(self, place: Place) -> Any:
        """The message at a place. Raises DataError if it is not there any more."""
        if not 0 <= place.number - self._next <= _FAR or self._next < 0:
            self._messages = self._bag.messages(self._topic, place.time)
            self._next = place.number - place.rank
        for time, message in self._messages:
            self._next += 1
            if self._next > place.number:
                if time != place.time:
                    break
                return message
        self._next = -1
        raise DataError(f"{shown(self._bag.path)}: {self._topic}: has changed while it was read")

    def close(self) -> None:
        """Closes the file."""
        self._bag.close()


class BagRecording(Recording):
    """Frames of a bag. topics: of 'color' and 'depth'. unit: of integer depth, if the bag says."""

    block = 16

    def __init__(
        self, where: Path, association: Association, topics: dict[str, str], steps: float | None
    ):
        super().__init__(where, KIND, association)
        self._topics, self._given = topics, steps
        self._streams: dict[str, Stream] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_streams": {}}  # each worker opens the file for itself

    def _get(self, part: str, place: Place) -> Any:
        if part not in self._streams:
            self._streams[part] = Stream(self.where, self._topics[part])
        return self._streams[part].get(place)

    def read_color(self, pair: Pair) -> np.ndarray:
        """The picture of the message."""
        return ros_images.color(self._get("color", pair.color), self._told("color", pair.color))

    def read_depth(self, pair: Pair) -> np.ndarray:
        """The picture of the message, as stored."""
        return ros_images.depth(self._get("depth", pair.depth), self._told("depth", pair.depth))

    def _told(self, part: str, place: Place) -> str:
        return f"{shown(self.where)}: message {place.number} of {self._topics[part]}"

    def tell(self, source: Any) -> str:
        """How messages name a picture."""
        return f"{shown(self.where)}: message {source.number}"

    def files(self, index: int) -> dict[str, Path]:
        """None: the pictures are in the bag."""
        return {}

    def inputs(self) -> list[Path]:
        """The bag, or its files."""
        return [self.where] if self.where.is_file() else sorted(self.where.iterdir())

    def beside(self) -> str | None:
        """Whether the headers name two cameras, or the bag is a RealSense's own."""
        try:
            color, depth = (
                str(self._get(part, getattr(self.pairs[0], part)).header.frame_id).strip("/")
                for part in ("color", "depth")
            )
        except DataError:  # a bad frame, which is told as such
            return None
        native = all(_NATIVE.match(topic) for topic in self._topics.values())
        if _has(self._topics["depth"], _ALIGNED) or not (native or color != depth):
            return None
        cameras = "two lenses of a RealSense" if native else f"{shown(color)} and {shown(depth)}"
        return f"colour and depth are not aligned ({cameras}); --intrinsics aligns them"

    def facts(self) -> dict[str, Any]:
        """The topics."""
        return {"labeled": False, "topics": self._topics}

    def unit(self) -> DepthUnit:
        """As the bag says; else metres for floats and millimetres for integers."""
        unit = super().unit()
        return DepthUnit("steps", self._given) if self._given and unit.steps != 1 else unit


def _recognise(where: Path) -> bool:
    if where.is_dir():
        return (where / "metadata.yaml").is_file() and any(
            file.suffix in SUFFIXES or file.suffix == ".zstd" for file in where.iterdir()
        )
    return where.suffix.lower() in SUFFIXES


def _open(where: Path, settings: Settings) -> Recording:
    bag = Bag(where)
    try:
        parts = _parts(bag)
        color = choose(where, "color", parts, settings.color_topic)
        depth = choose(where, "depth", parts, settings.depth_topic, color)
        topics = {"color": color, "depth": depth}
        sides = [_pictures(bag, topics[part]) for part in topics]
        return BagRecording(where, _paired(sides, settings.max_gap), topics, _steps(bag))
    finally:
        bag.close()


def _paired(sides: list[list[Picture]], max_gap: int) -> Association:
    """Pairs by the headers' times; by those of recording if the headers' never meet, as where the
    sensors have clocks of their own."""
    found = by_time(*sides, max_gap)
    if found.pairs:
        return found
    came = [[replace(one, time=one.source.time) for one in side] for side in sides]
    other = by_time(*came, max_gap)
    if not other.pairs:
        return found
    return replace(other, rule=f"{other.rule}, as recorded; the headers' times never meet")


def _parts(bag: Bag) -> dict[str, str | None]:
    """What each topic of pictures shows, by its first message."""
    found = {}
    for topic, kind in bag.topics().items():
        if kind in (ros_images.IMAGE, ros_images.COMPRESSED):
            message = bag.first(topic)
            if message is not None:
                found[topic] = ros_images.part_of(message)
    return found


def choose(
    where: Path,
    part: str,
    parts: dict[str, str | None],
    asked: str | None,
    beside: str = "",
) -> str:
    """The topic of colour or depth: the one that was asked for, else the only one.

    parts: what each topic of pictures shows. Grey pictures count as colour if there are no others.
    Infrared pictures of 16 bits are no depth. beside: the topic of colour; topics of depth in its
    namespace go before others. Of several the only one that is aligned to colour is taken, and
    said. Raises DataError, naming the topics, if there are several
    or none.
    """
    told = "colour" if part == "color" else part
    if asked is not None:
        fitting = ("color", "grey") if part == "color" else ("depth",)
        if parts.get(asked) not in fitting:
            raise DataError(f"{shown(where)}: {asked} is no topic of {told}; {_listed(parts)}")
        return asked
    found = [topic for topic in parts if parts[topic] == part]
    if not found and part == "color":
        found = [topic for topic in parts if parts[topic] == "grey"]
    # A compressed copy of a topic is left out.
    found = [topic for topic in found
             if not any(topic.endswith(end) and topic.removesuffix(end) in found
                        for end in _TRANSPORTS)]  # fmt: skip
    if part == "depth":
        found = [topic for topic in found if not words.is_infrared(topic)] or found
        space = [topic for topic in found if topic.split("/")[1:2] == beside.split("/")[1:2]]
        found = space or found
    else:
        found = [topic for topic in found if not _has(topic, _TURNED_ROUND)] or found
    if not found:
        raise DataError(f"{shown(where)}: no topic of {told}; {_listed(parts)}")
    aligned = [topic for topic in found if part == "depth" and _has(topic, _ALIGNED)]
    if len(found) > 1 == len(aligned):
        cli.say(
            f"{shown(where)}: of {len(found)} topics of depth, {aligned[0]} is taken, which is "
            "aligned to colour by its name; --depth-topic takes another"
        )
        return aligned[0]
    if len(found) > 1:
        raise DataError(
            f"{shown(where)}: {len(found)} topics of {told}: {', '.join(sorted(found))}; choose "
            f"one with --{part}-topic"
        )
    return found[0]


def _has(topic: str, texts: tuple[str, ...]) -> bool:
    return any(text in topic for text in texts)


def _listed(parts: dict[str, str | None]) -> str:
    names = {"color": "colour", "grey": "grey", "depth": "depth", None: "other"}
    told = ", ".join(f"{topic} ({names[parts[topic]]})" for topic in sorted(parts))
    return f"its topics of pictures: {told or 'none'}"


def _pictures(bag: Bag, topic: str) -> list[Picture]:
    """The messages of a topic with their headers' times (or, if those are 0, when they came)."""
    found: list[Picture] = []
    ranks: Counter[int] = Counter()
    stamps: Counter[int] = Counter()
    for came, message in cli.progress(bag.messages(topic), None, topic):
        stamp = message.header.stamp
        time = stamp.sec * SECOND + stamp.nanosec or came
        place = Place(came, ranks[came], len(found))
        ranks[came] += 1
        name = f"{time // SECOND}.{time % SECOND:09d}"
        name += f"_{stamps[time]}" if stamps[time] else ""
        stamps[time] += 1
        found.append(Picture(place, f"message {place.number} of {topic}", name, time))
    return found


def _steps(bag: Bag) -> float | None:
    """Steps of integer depth in a metre, if the bag is RealSense's and says so."""
    for topic, kind in bag.topics().items():
        if kind == FLOAT and _UNITS.search(topic):
            message = bag.first(topic)
            if message is not None and 1e-7 < message.data < 1:
                return float(round(1 / message.data, 3))
    return None


KIND = Kind(
    "bag",
    "ROS bag",
    "a ROS 1 or RealSense .bag, a ROS 2 folder with metadata.yaml, or an .mcap or .db3 file",
    1000,
    _recognise,
    _open,
)
