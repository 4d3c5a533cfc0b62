"""A small ray caster of indoor scenes: a room, flat patches on its faces, boxes and cylinders.

World coordinates are in metres: x to the right, y up, z forward. The room is the box from the
origin to its size. Rays have length 1 along the optical axis, so the ray parameter of a hit is its
depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data_tools.camera import Extrinsics, Intrinsics

FAR = np.float32(1e9)
TEXELS = 256
TEXELS_PER_METRE = 96


@dataclass(frozen=True)
class Material:
    """color: (blue, green, red) 0..1. grain: strength of its noise. stripes: number per metre."""

    color: tuple[float, float, float]
    grain: float = 0.1
    stripes: float = 0.0


@dataclass(frozen=True)
class Patch:
    """A rectangle on a face of the room: low and high are its (s, t) corners in metres.

    face: 0 left, 1 right (s = z, t = y), 2 floor, 3 ceiling (s = x, t = z), 4 back, 5 front
    (s = x, t = y).
    """

    face: int
    low: tuple[float, float]
    high: tuple[float, float]
    material: Material
    label: int


@dataclass(frozen=True)
class Solid:
    """An upright box ('box') or cylinder on the floor, turned by `yaw` radians about its axis.

    size: (width, height, depth); a cylinder's radius is width / 2. painted: it is only a picture on
    the surfaces behind it, in correct perspective; such pixels get `painted_label`.
    """

    kind: str
    center: tuple[float, float]
    size: tuple[float, float, float]
    yaw: float
    material: Material
    label: int
    painted: bool = False
    painted_label: int = 0


@dataclass(frozen=True)
class Scene:
    """A scene to render. room: (width, height, length). camera: x, y, z. yaw, pitch: radians."""

    room: tuple[float, float, float]
    camera: tuple[float, float, float]
    yaw: float
    pitch: float
    light: tuple[float, float, float]
    surfaces: tuple[Material, Material, Material]  # walls, floor, ceiling
    labels: tuple[int, int, int]
    patches: tuple[Patch, ...]
    solids: tuple[Solid, ...]


@dataclass
class Hits:
    """The hits of rays in a window of the image, each H x W: ray parameter t, normal, and
    coordinates (s, r) in metres on the surface."""

    t: np.ndarray
    normal: tuple[np.ndarray, np.ndarray, np.ndarray]
    s: np.ndarray
    r: np.ndarray


@lru_cache(maxsize=4)
def _pixel_grid(width: int, height: int, view: float) -> tuple[np.ndarray, np.ndarray]:
    """Tangents (right, up) of every column and row; view: horizontal field of view, radians."""
    step = 2 * np.tan(view / 2) / width
    right = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) * step
    up = (height / 2 - 0.5 - np.arange(height, dtype=np.float32)) * step
    return right[None, :].astype(np.float32), up[:, None].astype(np.float32)


@lru_cache(maxsize=4)
def noise(falloff: float = 1.0) -> np.ndarray:
    """TEXELS x TEXELS of tileable noise, mean 0, about -1..1; a higher falloff is smoother."""
    rng = np.random.default_rng(20161121)
    spectrum = np.fft.rfft2(rng.standard_normal((TEXELS, TEXELS)))
    rows, columns = np.fft.fftfreq(TEXELS)[:, None], np.fft.rfftfreq(TEXELS)[None]
    spectrum /= (rows**2 + columns**2 + 1e-3) ** (falloff / 2)
    texture = np.fft.irfft2(spectrum, (TEXELS, TEXELS))
    texture -= texture.mean()
    return (texture / (2.5 * texture.std())).astype(np.float32)


@dataclass(frozen=True)
class Seen:
    """A solid as the image shows it.

    box: left, top, right, bottom of its visible pixels, in pixels; the last two are exclusive.
    pixels: how many are visible. share: these over the pixels that it covers without what hides it.
    """

    solid: Solid
    box: tuple[int, int, int, int]
    pixels: int
    share: float


class Renderer:
    """Renders scenes at one size. view: horizontal field of view in radians.

    intrinsics: those of the camera, of this size, instead of the view. extrinsics: from the scene's
    camera to this one, which renders what a second camera beside it sees.
    """

    def __init__(
        self,
        width: int,
        height: int,
        view: float = np.radians(60),
        intrinsics: Intrinsics | None = None,
        extrinsics: Extrinsics | None = None,
    ):
        self.size = (width, height)
        self._extrinsics = extrinsics
        self._right, self._up = _pixel_grid(width, height, view)
        # Whether all pixels of a column look equally far to the right, and those of a row up.
        self._regular = intrinsics is None or not intrinsics.distortion
        if intrinsics is not None:
            x, y = intrinsics.scaled(self.size).rays()
            if self._regular:
                x, y = x[:1], y[:, :1]
            self._right, self._up = x.astype(np.float32), -y.astype(np.float32)

    def render(self, scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """scene -> colour (H x W x 3, BGR, float32 0..1), depth (H x W, metres), label (uint8)."""
        self._scene = scene
        self._origin = np.array(scene.camera, np.float32)
        cy, sy = np.cos(scene.yaw), np.sin(scene.yaw)
        cp, sp = np.cos(scene.pitch), np.sin(scene.pitch)
        # Rows: the camera's right, up and forward in world coordinates.
        self._axes = np.array(
            [[cy, 0, -sy], [-sy * sp, cp, -cy * sp], [sy * cp, sp, cy * cp]], np.float32
        )
        if self._extrinsics is not None:
            self._move(self._extrinsics)
        right, up, forward = self._axes
        rays = (self._right * right[i] + (self._up * up[i] + forward[i]) for i in range(3))
        # No ray is parallel to a plane, so that nothing is divided by zero.
        self._ray = tuple(np.where(ray == 0, np.float32(1e-6), ray) for ray in rays)
        self._paint_room()
        self._owner = np.full(self.depth.shape, -1, np.int16)  # the number of the visible solid
        self._covered = [0] * len(scene.solids)
        seen = self.depth.copy()
        for number, solid in enumerate(scene.solids):
            if solid.painted:
                self._draw(number, seen, solid.painted_label)
        for number, solid in enumerate(scene.solids):
            if not solid.painted:
                self._draw(number, self.depth, solid.label)
        return self.color, self.depth, self.label

    def _move(self, extrinsics: Extrinsics) -> None:
        """Moves the camera from the scene's one to the second."""
        # Cameras have y down, the renderer up.
        flip = np.array([[1.0], [-1.0], [1.0]])
        axes = flip * self._axes
        back = axes.T @ extrinsics.matrix.T @ np.array(extrinsics.translation)
        self._origin = (self._origin - back).astype(np.float32)
        self._axes = (flip * (extrinsics.matrix @ axes)).astype(np.float32)

    def seen(self) -> list[Seen]:
        """The solids that the last image shows, painted ones, too."""
        found = []
        for number, solid in enumerate(self._scene.solids):
            rows, columns = np.nonzero(self._owner == number)
            if len(rows):
                box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                share = len(rows) / self._covered[number]
                found.append(Seen(solid, tuple(map(int, box)), len(rows), share))
        return found

    def _paint_room(self) -> None:
        """Paints the room: each ray ends at the nearest of the three planes before it."""
        scene, origin = self._scene, self._origin
        ends = []
        for axis in range(3):
            ray = self._ray[axis]
            wall = np.where(ray > 0, np.float32(scene.room[axis]), np.float32(0)) - origin[axis]
            ends.append(wall / ray)
        depth = np.minimum(np.minimum(ends[0], ends[1]), ends[2])
        on_side, on_level = ends[0] == depth, ends[1] == depth
        x, y, z = (origin[i] + depth * self._ray[i] for i in range(3))
        sign = [np.where(ray > 0, np.float32(-1), np.float32(1)) for ray in self._ray]
        zero = np.float32(0)
        normal = (
            np.where(on_side, sign[0], zero),
            np.where(on_level & ~on_side, sign[1], zero),
            np.where(on_side | on_level, zero, sign[2]),
        )
        s, r = np.where(on_side, z, x), np.where(on_level & ~on_side, z, y)
        hits = Hits(depth, normal, s, r)
        face = np.where(on_side, 0, np.where(on_level, 2, 4)).astype(np.int8)
        face += np.where(on_side, sign[0] < 0, np.where(on_level, sign[1] < 0, sign[2] > 0))
        self._paint_faces(hits, face, self._light(hits, self._ray))
        self.depth = depth

    def _paint_faces(self, hits: Hits, face: np.ndarray, light: np.ndarray) -> None:
        scene = self._scene
        kind = np.array([0, 0, 1, 2, 0, 0])[face]  # wall, floor, ceiling
        self.label = np.array(scene.labels, np.uint8)[kind]
        colors = np.array([material.color for material in scene.surfaces], np.float32)
        grain = np.array([material.grain for material in scene.surfaces], np.float32)
        texture = _sample(hits.s, hits.r)
        self.color = colors[kind] * (light * (1 + grain[kind] * texture))[..., None]
        for patch in scene.patches:
            inside = (
                (face == patch.face)
                & (hits.s > patch.low[0])
                & (hits.s < patch.high[0])
                & (hits.r > patch.low[1])
                & (hits.r < patch.high[1])
            )
            if inside.any():
                window = Hits(
                    hits.t[inside],
                    (),
                    hits.s[inside] - np.float32(patch.low[0]),
                    hits.r[inside] - np.float32(patch.low[1]),
                )
                self.color[inside] = _shade(patch.material, window, light[inside])
                self.label[inside] = patch.label

    def _light(self, hits: Hits, ray: tuple[np.ndarray, ...]) -> np.ndarray:
        """Ambient light and one lamp, by Lambert's law with falloff over distance."""
        towards = [
            np.float32(self._scene.light[i]) - self._origin[i] - hits.t * ray[i] for i in range(3)
        ]
        square = sum(part * part for part in towards)
        facing = sum(n * part for n, part in zip(hits.normal, towards, strict=True))
        lambert = np.maximum(facing, 0) / np.sqrt(square)
        return np.float32(0.55) + np.float32(0.65) * lambert / (1 + np.float32(0.06) * square)

    def _draw(self, number: int, nearest: np.ndarray, label: int) -> None:
        """Draws a solid where it is nearer than `nearest` (H x W, updated in place)."""
        solid = self._scene.solids[number]
        window = self._window(solid)
        if window is None:
            return
        ray = tuple(part[window] for part in self._ray)
        hits = (_box if solid.kind == "box" else _cylinder)(solid, self._origin, ray)
        self._covered[number] = int(np.count_nonzero(hits.t < FAR))
        visible = hits.t < nearest[window]
        if not visible.any():
            return
        only = Hits(
            hits.t[visible],
            tuple(part[visible] for part in hits.normal),
            hits.s[visible],
            hits.r[visible],
        )
        light = self._light(only, tuple(part[visible] for part in ray))
        self.color[window][visible] = _shade(solid.material, only, light)
        self.label[window][visible] = label
        self._owner[window][visible] = number
        nearest[window][visible] = only.t

    def _window(self, solid: Solid) -> tuple[slice, slice] | None:
        """The rows and columns in which a solid can appear."""
        width, height, depth = solid.size
        half = np.hypot(width, depth) / 2
        corners = np.array(
            [(x, y, z) for x in (-half, half) for y in (0, height) for z in (-half, half)],
            np.float32,
        )
        corners += np.array([solid.center[0], 0, solid.center[1]], np.float32) - self._origin
        right, up, forward = self._axes @ corners.T
        if (forward < 0.05).all():
            return None
        if (forward < 0.05).any() or not self._regular:
            return slice(0, self.size[1]), slice(0, self.size[0])
        columns = np.searchsorted(
            self._right[0], [(right / forward).min(), (right / forward).max()]
        )
        rows = np.searchsorted(-self._up[:, 0], [-(up / forward).max(), -(up / forward).min()])
        window = (
            slice(max(rows[0] - 1, 0), rows[1] + 1),
            slice(max(columns[0] - 1, 0), columns[1] + 1),
        )
        return None if rows[0] == self.size[1] or columns[0] == self.size[0] else window


def _sample(s: np.ndarray, r: np.ndarray) -> np.ndarray:
    """The noise texture at surface coordinates in metres."""
    scale = np.float32(TEXELS_PER_METRE)
    rows = (r * scale).astype(np.int32) & (TEXELS - 1)
    columns = (s * scale).astype(np.int32) & (TEXELS - 1)
    return noise()[rows, columns]


def _shade(material: Material, hits: Hits, light: np.ndarray) -> np.ndarray:
    """The colour (N x 3) of hits on a material."""
    level = light * (1 + np.float32(material.grain) * _sample(hits.s, hits.r))
    if material.stripes:
        odd = np.floor(hits.s * np.float32(material.stripes)).astype(np.int32) & 1
        level = level * np.where(odd, np.float32(0.7), np.float32(1.1))
    return level[:, None] * np.array(material.color, np.float32)


def _local(
    solid: Solid, origin: np.ndarray, ray: tuple[np.ndarray, ...]
) -> tuple[tuple[float, float, float], tuple[np.ndarray, ...], tuple[float, float]]:
    """Origin and rays in the solid's own axes, and the cosine and sine of its yaw."""
    c, s = np.float32(np.cos(solid.yaw)), np.float32(np.sin(solid.yaw))
    x, z = origin[0] - np.float32(solid.center[0]), origin[2] - np.float32(solid.center[1])
    start = (c * x - s * z, origin[1], s * x + c * z)
    return start, (c * ray[0] - s * ray[2], ray[1], s * ray[0] + c * ray[2]), (c, s)


def _box(solid: Solid, origin: np.ndarray, ray: tuple[np.ndarray, ...]) -> Hits:
    """Slab test: the hit is the last of the three entries, if it precedes the first exit."""
    start, turned, (c, s) = _local(solid, origin, ray)
    width, height, depth = solid.size
    low, high = (-width / 2, 0.0, -depth / 2), (width / 2, height, depth / 2)
    enters, leaves = [], FAR
    for axis in range(3):
        inverse = 1 / np.where(turned[axis] == 0, np.float32(1e-6), turned[axis])
        one = (np.float32(low[axis]) - start[axis]) * inverse
        other = (np.float32(high[axis]) - start[axis]) * inverse
        enters.append(np.minimum(one, other))
        leaves = np.minimum(leaves, np.maximum(one, other))
    t = np.maximum(np.maximum(enters[0], enters[1]), enters[2])
    on_x, on_y = enters[0] == t, enters[1] == t
    x, y, z = (start[i] + t * turned[i] for i in range(3))
    t = np.where((t < leaves) & (t > 0), t, FAR)
    sign = [np.where(part > 0, np.float32(-1), np.float32(1)) for part in turned]
    zero = np.float32(0)
    nx, ny = np.where(on_x, sign[0], zero), np.where(on_y & ~on_x, sign[1], zero)
    nz = np.where(on_x | on_y, zero, sign[2])
    normal = (c * nx + s * nz, ny, c * nz - s * nx)
    return Hits(t, normal, np.where(on_x, z, x), np.where(on_y, z, y))


def _cylinder(solid: Solid, origin: np.ndarray, ray: tuple[np.ndarray, ...]) -> Hits:
    """Hits of the side (a quadratic equation) and the lid."""
    start, turned, (c, s) = _local(solid, origin, ray)
    radius, height = np.float32(solid.size[0] / 2), np.float32(solid.size[1])
    a = turned[0] * turned[0] + turned[2] * turned[2]
    b = start[0] * turned[0] + start[2] * turned[2]
    root = b * b - a * (start[0] * start[0] + start[2] * start[2] - radius * radius)
    side = (-b - np.sqrt(np.maximum(root, 0))) / a
    y = start[1] + side * turned[1]
    side = np.where((root > 0) & (side > 0) & (y > 0) & (y < height), side, FAR)
    lid = (height - start[1]) / turned[1]
    off = (start[0] + lid * turned[0]) ** 2 + (start[2] + lid * turned[2]) ** 2
    lid = np.where((lid > 0) & (off < radius * radius) & (start[1] > height), lid, FAR)
    t = np.minimum(side, lid)
    x, y, z = (start[i] + np.minimum(t, np.float32(1e3)) * turned[i] for i in range(3))
    on_lid = lid < side
    zero = np.float32(0)
    nx, nz = np.where(on_lid, zero, x / radius), np.where(on_lid, zero, z / radius)
    normal = (c * nx + s * nz, on_lid.astype(np.float32), c * nz - s * nx)
    around = np.where(on_lid, x, np.arctan2(x, z) * radius)
    return Hits(t, normal, around, np.where(on_lid, z, y))
