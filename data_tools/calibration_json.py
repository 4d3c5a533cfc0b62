"""Calibrations in JSON: our own form, Open3D's, Record3D's and the Azure Kinect's.

Ours is {"width", "height", "fx", "fy", "cx", "cy", "distortion"} for a camera, {"rotation",
"translation"} for extrinsics, and {"color", "depth", "extrinsics"} of these for a pair of cameras;
a camera may be a list of its modes. Open3D has "intrinsic_matrix", Record3D "K".
"""

from __future__ import annotations

from typing import Any

from data_tools import calibration_matrix as matrix
from data_tools.camera import Calibration, Camera, Extrinsics, Intrinsics
from data_tools.cli import DataError

_MATRICES = ("intrinsic_matrix", "camera_matrix", "K")
_LENSES = ("distortion", "coeffs", "dist_coeffs", "distortion_coefficients")
_KEYS = "width, height, fx, fy, cx, cy"
# The Azure Kinect's modes: the picture, the calibration's whole picture at this scale, and the
# corner of the picture in it.
_AZURE_DEPTH = (
    ((640, 576), (1024, 1024), (192, 180)),
    ((320, 288), (512, 512), (96, 90)),
    ((1024, 1024), (1024, 1024), (0, 0)),
    ((512, 512), (512, 512), (0, 0)),
)
_AZURE_COLOR = (
    ((1280, 720), (1280, 960), (0, 120)),
    ((1920, 1080), (1920, 1440), (0, 180)),
    ((2560, 1440), (2560, 1920), (0, 240)),
    ((3840, 2160), (3840, 2880), (0, 360)),
    ((2048, 1536), (2048, 1536), (0, 0)),
    ((4096, 3072), (4096, 3072), (0, 0)),
)


def parse(value: Any) -> Calibration:
    """The calibration in a JSON value. Raises DataError if there is none, or if it is unusable."""
    if isinstance(value, list) and value and not isinstance(value[0], dict):
        return matrix.parse(numbers(value, "the matrix"))
    if not isinstance(value, dict):
        return Calibration(camera=_camera(value))
    if "CalibrationInformation" in value:
        return _azure(value["CalibrationInformation"])
    if any(key in value for key in ("color", "depth", "extrinsics")):
        return _pair(value)
    if "rotation" in value or "translation" in value:
        return Calibration(motion=_extrinsics(value))
    return Calibration(camera=_camera(value))


def numbers(value: Any, what: str, count: int | None = None) -> list[float]:
    """The numbers in a list, also of lists, row by row. Raises DataError, naming `what`."""
    flat: list[float] = []
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, list):
            flat += numbers(part, what)
        elif isinstance(part, (int, float)) and not isinstance(part, bool):
            flat.append(float(part))
        else:
            raise DataError(f"{what}: expected numbers")
    if count is not None and len(flat) != count:
        raise DataError(f"{what}: {len(flat)} numbers, expected {count}")
    return flat


def _pair(value: dict[str, Any]) -> Calibration:
    parts: dict[str, Any] = {}
    for key in ("color", "depth"):
        if key in value:
            try:
                parts[key] = _camera(value[key])
            except DataError as problem:
                raise DataError(f"{key}: {problem}") from problem
    if "extrinsics" in value:
        parts["extrinsics"] = _extrinsics(value["extrinsics"])
    return Calibration(**parts)


def _camera(value: Any) -> Camera:
    modes = value if isinstance(value, list) else [value]
    if not modes or not all(isinstance(mode, dict) for mode in modes):
        raise DataError(f"expected an object with {_KEYS}")
    return Camera(tuple(_intrinsics(mode) for mode in modes))


def _intrinsics(value: dict[str, Any]) -> Intrinsics:
    size = [value.get(one, value.get(other)) for one, other in (("width", "w"), ("height", "h"))]
    if any(not isinstance(side, (int, type(None))) or isinstance(side, bool) for side in size):
        raise DataError("width, height: expected whole numbers of pixels")
    if (size[0] is None) != (size[1] is None):
        raise DataError("one of width and height is missing")
    lens = next((numbers(value[key], key) for key in _LENSES if value.get(key)), [])
    known = None if size[0] is None else (size[0], size[1])
    for key in _MATRICES:
        if key in value:
            return matrix.intrinsics(numbers(value[key], key, 9), lens, known)
    found = []
    for key, other in (("fx", "fx"), ("fy", "fy"), ("cx", "ppx"), ("cy", "ppy")):
        if key not in value and other not in value:
            raise DataError(f"{key} is missing; expected an object with {_KEYS}")
        found += numbers(value.get(key, value.get(other)), key, 1)
    return Intrinsics(*found, matrix.lens(lens), known).check()


def _extrinsics(value: Any) -> Extrinsics:
    if not isinstance(value, dict) or not {"rotation", "translation"} <= set(value):
        raise DataError("extrinsics: expected an object with rotation (3 x 3) and translation")
    rotation = numbers(value["rotation"], "rotation", 9)
    translation = numbers(value["translation"], "translation", 3)
    return Extrinsics(tuple(rotation), tuple(translation)).check()


def _azure(value: Any) -> Calibration:
    """The Azure Kinect's calibration, as it is stored in the device and in its recordings.

    Its values are parts of the whole picture's width and height, from the corner of its first
    pixel; the modes show parts of that picture.
    """
    cameras = {camera["Location"].rpartition("Location")[2]: camera for camera in value["Cameras"]}
    for name in ("D0", "PV0"):
        if name not in cameras:
            raise DataError(f"there is no camera at CALIBRATION_CameraLocation{name}")
    depth, color = cameras["D0"], cameras["PV0"]
    places = [_extrinsics({key.lower(): camera["Rt"][key] for key in ("Rotation", "Translation")})
              for camera in (depth, color)]  # fmt: skip
    broad = color["SensorWidth"] * 9 == color["SensorHeight"] * 16
    return Calibration(
        color=_azure_camera(color, _AZURE_COLOR, broad),
        depth=_azure_camera(depth, _AZURE_DEPTH),
        extrinsics=places[0].inverse().then(places[1]),
    )


def _azure_camera(value: dict[str, Any], modes: Any, broad: bool = False) -> Camera:
    """broad: whether it was calibrated at 16:9, the middle of the picture of 4:3."""
    kind = str(value["Intrinsics"]["ModelType"]).rpartition("Model")[2]
    if kind not in ("BrownConrady", "Rational6KT"):
        raise DataError(f"the lens's model {kind[:40]!r} is not known; expected BrownConrady")
    cx, cy, fx, fy, k1, k2, k3, k4, k5, k6, _, _, p2, p1 = numbers(
        value["Intrinsics"]["ModelParameters"], "ModelParameters", 14
    )
    lens = (k1, k2, p1, p2, k3, k4, k5, k6)
    if broad:
        cy, fy = 0.125 + 0.75 * cy, 0.75 * fy
    found = []
    for size, (width, height), (left, top) in modes:
        x, y = cx * width - left - 0.5, cy * height - top - 0.5
        found.append(Intrinsics(fx * width, fy * height, x, y, lens, size).check())
    return Camera(tuple(found))
