"""Calibrations as texts that programs print.

RealSense: what `rs-enumerate-devices -c` prints, and pyrealsense2's intrinsics and extrinsics as
texts. Azure Kinect: what the SDK's `calibration_info` prints. ScanNet: `scene0000_00.txt`. ROS:
camera_info messages and the YAML of camera_calibration and OpenCV. ORB-SLAM's settings, and other
lines of `fx: 525`. Else plain numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from data_tools import calibration_matrix as matrix
from data_tools.camera import Calibration, Camera, Extrinsics, Intrinsics
from data_tools.cli import DataError

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBERS = re.compile(_NUMBER)
# pyrealsense2: "[ 640x480  p[319.5 239.5]  f[600 600]  Brown Conrady [0 0 0 0 0] ]", and before
# 2.50 "width: 640, height: 480, ppx: 319.5, ... model: Brown Conrady, coeffs: [0, 0, 0, 0, 0]".
_REPR = re.compile(
    r"\[\s*(\d+)x(\d+)\s+p\[([^]]*)\]\s+f\[([^]]*)\]\s+([A-Za-z][\w -]*?)\s*\[([^]]*)\]"
)
_OLD_REPR = re.compile(
    r"width:\s*(\d+),\s*height:\s*(\d+),\s*(ppx:[^,]*,\s*ppy:[^,]*),\s*(fx:[^,]*,\s*fy:[^,]*),"
    r"\s*model:\s*([\w. -]*?),\s*coeffs:\s*\[([^]]*)\]"
)
_SECTION = re.compile(
    r"Width:\s*(\d+)\s+Height:\s*(\d+)\s+PPX:\s*(\S+)\s+PPY:\s*(\S+)\s+Fx:\s*(\S+)\s+Fy:\s*(\S+)"
    r"\s+Distortion:[ \t]*([^\r\n]*)\s+Coeffs:([^\r\n]*)"
)
_MOTION = re.compile(
    rf"Rotation Matrix:((?:\s+{_NUMBER}){{9}})\s*Translation Vector:((?:\s+{_NUMBER}){{3}})"
)
_MOTION_REPR = re.compile(r"rotation:\s*\[([^]]*)\]\s*,?\s*translation:\s*\[([^]]*)\]")
_STREAM = re.compile(r'Intrinsic of "([^"]*)"')
_WAY = re.compile(r'Extrinsic from "([^"]*)"\s+To\s+"([^"]*)"')
_NAMED = re.compile(
    rf"^\s*(?:\w+\.)?(fx|fy|cx|cy|k[1-6]|p[12]|width|height)\s*[:=]\s*({_NUMBER})\s*$", re.I | re.M
)
_K4A = ("resolution width", "resolution height", "focal length x", "focal length y",
        "principal point x", "principal point y")  # fmt: skip


def parse(text: str) -> Calibration:
    """The calibration in a text. Raises DataError if there is none, or if it is unusable."""
    lines = [re.sub(r"^\s*#.*", "", line) for line in text.splitlines()]
    text = "\n".join(lines)
    if _SECTION.search(text) or _MOTION.search(text) or _REPR.search(text):
        return _realsense(text)
    if _OLD_REPR.search(text) or _MOTION_REPR.search(text):
        return _realsense(text)
    if "resolution width" in text:
        return _azure(text)
    if "fx_color" in text:
        return _scannet(text)
    if re.search(r"^\s*(?:k|camera_?matrix)\s*:", text, re.I | re.M):
        return _ros(text)
    if named := _named(text):
        return named
    words = text.replace(",", " ").replace(";", " ").split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        word = next(word for word in words if not _NUMBERS.fullmatch(word))
        raise DataError(f"{word[:40]!r}: not a calibration of a known form") from None
    if not values:
        raise DataError("holds nothing")
    return matrix.parse(values)


def _floats(text: str) -> list[float]:
    return [float(number) for number in _NUMBERS.findall(text)]


def _realsense(text: str) -> Calibration:
    modes: dict[str, list[Intrinsics]] = {}
    for found in _SECTION.finditer(text):
        width, height, ppx, ppy, fx, fy, model, lens = found.groups()
        stream = _before(text, found.start(), _STREAM)
        _add(modes, stream, (width, height), f"{fx} {fy}", f"{ppx} {ppy}", model, lens)
    for pattern in (_REPR, _OLD_REPR):
        for found in pattern.finditer(text):
            width, height, point, focal, model, lens = found.groups()
            stream = _before(text, found.start(), re.compile(r"(colou?r|rgb|depth)", re.I))
            _add(modes, stream, (width, height), focal, point, model, lens)
    cameras = {kind: Camera(tuple(found)) for kind, found in modes.items() if found}
    if "camera" in cameras and len(cameras["camera"].modes) > 1:
        raise DataError(
            f"holds {len(cameras['camera'].modes)} intrinsics and does not say which are colour's "
            "and which are depth's; expected one, or 'color' or 'depth' before each"
        )
    return Calibration(**cameras, **_motions(text))


def _before(text: str, end: int, pattern: re.Pattern[str]) -> str:
    """What the pattern finds last before `end`, in small letters; empty if it finds nothing."""
    found = ""
    for match in pattern.finditer(text, max(0, end - 400), end):
        found = match[1].lower()
    return found


def _add(
    modes: dict[str, list[Intrinsics]],
    stream: str,
    size: tuple[str, str],
    focal: str,
    point: str,
    model: str,
    lens: str,
) -> None:
    """Adds a stream's intrinsics to those of 'color', 'depth' or, if it is not said, 'camera'."""
    kinds = {"color": "color", "colour": "color", "rgb": "color", "depth": "depth", "": "camera"}
    kind = kinds.get(stream)
    if kind is None:  # infrared, fisheye
        return
    (fx, fy), (cx, cy) = _two(focal, "focal lengths"), _two(point, "principal point")
    values = _floats(lens)
    # librealsense's three Brown-Conrady models project alike, but for products of tangential and
    # radial distortion, which are below what the numbers are known to.
    if any(values) and "brown conrady" not in model.lower().replace("_", " "):
        raise DataError(
            f"the lens's model {model.strip()[:40]!r} is not known; expected Brown Conrady"
        )
    whole = (int(size[0]), int(size[1]))
    known = Intrinsics(fx, fy, cx, cy, matrix.lens(values), whole).check()
    if known not in modes.setdefault(kind, []):
        modes[kind].append(known)


def _two(text: str, what: str) -> tuple[float, float]:
    values = _floats(text)
    if len(values) != 2:
        raise DataError(f"{what} {text.strip()[:40]!r}: expected two numbers")
    return values[0], values[1]


def _motions(text: str) -> dict[str, Extrinsics]:
    """The extrinsics between depth and colour, as fields of a Calibration."""
    unsaid: list[Extrinsics] = []
    there: set[Extrinsics] = set()
    for found in _MOTION.finditer(text):
        motion = Extrinsics(tuple(_floats(found[1])), tuple(_floats(found[2])))
        ways = list(_WAY.finditer(text, max(0, found.start() - 200), found.start()))
        if not ways:
            unsaid.append(motion.check())
        elif (way := (ways[-1][1].lower(), ways[-1][2].lower())) == ("depth", "color"):
            there.add(motion.check())
        elif way == ("color", "depth") and 'Extrinsic from "Depth"' not in text:
            there.add(motion.check().inverse())
    if len(there) > 1:
        raise DataError("holds several extrinsics from depth to colour; expected one device's")
    if there:
        return {"extrinsics": there.pop()}
    for found in _MOTION_REPR.finditer(text):
        rotation, translation = _floats(found[1]), _floats(found[2])
        if (len(rotation), len(translation)) != (9, 3):
            raise DataError("extrinsics: expected 9 numbers of rotation and 3 of translation")
        columns = [rotation[3 * column + row] for row in range(3) for column in range(3)]
        motion = Extrinsics(tuple(columns), tuple(translation)).check()
        way = _before(text, found.start(), re.compile(r"(depth_to_colou?r|colou?r_to_depth)", re.I))
        if way:
            return {"extrinsics": motion if way.startswith("depth") else motion.inverse()}
        unsaid.append(motion)
    if len(unsaid) > 1:
        raise DataError(f"holds {len(unsaid)} extrinsics; expected those from depth to colour only")
    return {"motion": unsaid[0]} if unsaid else {}


def _value(text: str, key: str, separator: str = ":") -> float:
    """The number behind `key:`. Raises DataError if there is none."""
    found = re.search(rf"^\s*{re.escape(key)}\s*{separator}\s*({_NUMBER})\s*$", text, re.M)
    if not found:
        raise DataError(f"{key} is missing")
    return float(found[1])


def _azure(text: str) -> Calibration:
    """The text of the SDK's calibration_info, which is the depth camera's."""
    width, height, fx, fy, cx, cy = (_value(text, key) for key in _K4A)
    k1, k2, k3, k4, k5, k6 = (_value(text, f"k{number}") for number in range(1, 7))
    p1, p2 = (_value(text, f"tangential distortion coefficient {axis}") for axis in "xy")
    lens = (k1, k2, p1, p2, k3, k4, k5, k6)
    found = Intrinsics(fx, fy, cx, cy, matrix.lens(lens), (int(width), int(height))).check()
    return Calibration(camera=Camera((found,)))


def _scannet(text: str) -> Calibration:
    cameras = {}
    for kind in ("color", "depth"):
        fx, fy, cx, cy = (_value(text, f"{key}_{kind}", "=") for key in ("fx", "fy", "mx", "my"))
        size = tuple(int(_value(text, f"{kind}{side}", "=")) for side in ("Width", "Height"))
        cameras[kind] = Camera((Intrinsics(fx, fy, cx, cy, (), size).check(),))
    found = re.search(r"^\s*colorToDepthExtrinsics\s*=(.*)$", text, re.M)
    if not found:
        return Calibration(**cameras)
    values = _floats(found[1])
    if len(values) != 16:
        raise DataError(f"colorToDepthExtrinsics: {len(values)} numbers, expected 16")
    return Calibration(**cameras, extrinsics=matrix.motion(values).inverse())


def _ros(text: str) -> Calibration:
    """A camera_info message, or the YAML of camera_calibration or OpenCV."""
    square = _listed(text, r"(?:k|camera_?matrix)", 9)
    lens = _listed(text, r"(?:d|distortion_?coefficients)", None)
    model = re.search(r"^\s*distortion_model\s*:\s*[\"']?(\w*)", text, re.M)
    known = ("plumb_bob", "rational_polynomial", "")
    if any(lens) and model and model[1] not in known:
        raise DataError(f"the lens's model {model[1][:40]!r} is not known; expected {known[0]}")
    sides = [
        re.search(rf"^\s*(?:image_)?{side}\s*:\s*(\d+)\s*$", text, re.M)
        for side in ("width", "height")
    ]
    size = (int(sides[0][1]), int(sides[1][1])) if sides[0] and sides[1] else None
    return Calibration(camera=Camera((matrix.intrinsics(square, lens, size),)))


def _named(text: str) -> Calibration | None:
    """Values with their names, one a line, as in ORB-SLAM's settings; None if fx is not there."""
    found: dict[str, float] = {}
    for key, value in _NAMED.findall(text):
        found.setdefault(key.lower(), float(value))
    if "fx" not in found:
        return None
    missing = [key for key in ("fy", "cx", "cy") if key not in found]
    if missing:
        raise DataError(f"{missing[0]} is missing")
    lens = [found.get(key, 0.0) for key in ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")]
    lens = lens if any(lens[5:]) else lens[:5]
    sides = [found.get(side, 0.0) for side in ("width", "height")]
    size = (int(sides[0]), int(sides[1])) if all(sides) else None
    fx, fy, cx, cy = (found[key] for key in ("fx", "fy", "cx", "cy"))
    return Calibration(
        camera=Camera((Intrinsics(fx, fy, cx, cy, matrix.lens(lens), size).check(),))
    )


def _listed(text: str, key: str, count: int | None) -> Sequence[float]:
    """The numbers of a list in YAML, [in, brackets] or with a dash each, perhaps in `data:`."""
    found = re.search(
        rf"^[ \t]*{key}[ \t]*:(?:[^\[\n]*\n(?:[ \t]+(?:rows|cols|dt)[ \t]*:.*\n)*)?"
        rf"(?:[ \t]*data[ \t]*:)?\s*(?:\[([^]]*)\]|((?:\s*-\s+{_NUMBER}[ \t]*(?:\n|$))+))",
        text,
        re.I | re.M,
    )
    values = _floats(re.sub(r"^\s*-\s", " ", found[1] or found[2], flags=re.M)) if found else []
    if count is not None and len(values) != count:
        raise DataError(f"the camera's matrix has {len(values)} numbers, expected {count}")
    return values
