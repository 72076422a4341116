"""The made-up object of the demo scene: its distance function, its colors, and pictures of it.

Everything here is in the object's own frame: z up, the object inside a ball of radius BALL around the origin.
The object is a synthetic statue with two ring handles, a hole through the middle, grooves and a crown: closed, of
genus four, with parts from thick to thin. Points are [3, N] arrays, so that each coordinate is contiguous.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating[Any]]
Vector = tuple[float, float, float]

BALL = 0.9
# The distance changes by at most 1 / STEP per unit of length: the grooves bend it.
STEP = np.float32(0.75)
HIT = np.float32(1e-4)
POLISH = 3  # more steps after a hit
CHUNK = 40000  # rays at once: the arrays of one step stay in the cache
MAX_STEPS = 600


def distance(points: Floats) -> Floats:
    """Distance to the object's surface, [3, N] -> [N]: positive outside, zero exactly on the surface.

    A lower bound of the true distance up to the factor STEP.
    """
    x, y, z = points
    across2 = x * x + y * y
    across = np.sqrt(across2)
    groove = np.float32(0.012) * np.sin(np.float32(28.0) * z)
    belly = np.sqrt(across2 + (z + 0.08) ** 2) - 0.42 - groove
    foot = _ring(across - 0.27, z + 0.56, 0.1)
    neck = np.maximum(np.abs(z - 0.42) - 0.2, across - 0.12)
    solid = _joined(_joined(belly, foot, 0.16), neck, 0.12)
    # One handle serves both sides, because |x| folds them together.
    side = np.abs(x) - 0.48
    handle = _ring(np.sqrt(side * side + (z + 0.02) ** 2) - 0.22, y, 0.065)
    solid = _joined(solid, handle, 0.06)
    crown = _ring(np.sqrt(y * y + (z - 0.68) ** 2) - 0.15, x, 0.055)
    solid = _joined(solid, crown, 0.05)
    hole = np.sqrt(x * x + (z + 0.08) ** 2) - 0.15
    return -_joined(-solid, hole, 0.05)


def _ring(from_circle: Floats, height: Floats, thickness: float) -> Floats:
    return np.asarray(np.sqrt(from_circle * from_circle + height * height) - np.float32(thickness))


def _joined(a: Floats, b: Floats, blend: float) -> Floats:
    """Union of two solids with a rounded seam (quadratic smooth minimum, after Quilez)."""
    overlap = np.maximum(np.float32(blend) - np.abs(a - b), 0)
    return np.asarray(np.minimum(a, b) - overlap * overlap * np.float32(0.25 / blend))


def normals(points: Float32) -> Float32:
    """Unit normals [3, N] of surface points [3, N], from four values on a tetrahedron."""
    step = np.float32(1e-3)
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], dtype=np.float32)
    slope = np.zeros_like(points)
    for corner in corners:
        slope += corner[:, None] * distance(points + step * corner[:, None])
    return np.asarray(slope / np.linalg.norm(slope, axis=0), dtype=np.float32)


@dataclass(frozen=True)
class Picture:
    """What N rays hit."""

    color: Float32  # [N, 3] in [0, 1], 0 where nothing is hit
    t: Float32  # [N] distance along the ray, 0 where nothing is hit


def render(origins: Float32, directions: Float32) -> Picture:
    """What rays hit of the object. origins, directions: [N, 3], object frame, directions of unit length."""
    color = np.zeros_like(origins)
    t = np.zeros(len(origins), dtype=np.float32)
    for start in range(0, len(origins), CHUNK):
        part = slice(start, start + CHUNK)
        o, d = np.ascontiguousarray(origins[part].T), np.ascontiguousarray(directions[part].T)
        hit, t_hit = _trace(o, d)
        if len(hit):
            t[start + hit] = t_hit
            color[start + hit] = _shade(o[:, hit] + t_hit * d[:, hit], d[:, hit]).T
    return Picture(color, t)


def _trace(origins: Float32, directions: Float32) -> tuple[npt.NDArray[np.int64], Floats]:
    """Sphere tracing: which rays [N] hit, and where along them."""
    middle = -(origins * directions).sum(axis=0)
    inside = BALL**2 - (origins * origins).sum(axis=0) + middle**2
    ray = np.flatnonzero(inside > 0)
    half = np.sqrt(inside[ray])
    t, leave = middle[ray] - half, middle[ray] + half
    hits: list[npt.NDArray[np.int64]] = []
    places: list[Floats] = []
    for _ in range(MAX_STEPS):
        o, d = origins[:, ray], directions[:, ray]
        gap = distance(o + t * d)
        t = t + STEP * gap
        done = gap < HIT
        hits.append(ray[done])
        places.append(t[done])
        going = ~done & (t < leave)
        ray, t, leave = ray[going], t[going], leave[going]
        if len(ray) == 0:
            break
    hit, t = np.concatenate(hits), np.concatenate(places)
    o, d = origins[:, hit], directions[:, hit]
    for _ in range(POLISH):
        t = t + distance(o + t * d)
    return hit, t


LIGHTS: tuple[tuple[Vector, Vector], ...] = (
    ((0.5, -0.6, 0.8), (0.72, 0.68, 0.62)),
    ((-0.8, 0.3, 0.3), (0.28, 0.33, 0.42)),
    ((0.3, 0.7, -0.5), (0.16, 0.14, 0.12)),
)  # direction to the light, color
AMBIENT = 0.33
GLOSS, SHARPNESS = 0.22, 24


def _shade(points: Float32, directions: Float32) -> Float32:
    """Color [3, N]: texture under three lights, darker in corners, with soft highlights."""
    normal = normals(points)
    corner = np.clip(distance(np.asarray(points + np.float32(0.1) * normal, np.float32)) * 10, 0.25, 1)
    light = np.full_like(points, AMBIENT)
    shine = np.zeros_like(points)
    for towards, strength in LIGHTS:
        direction = np.array(towards, dtype=np.float32)[:, None]
        direction = direction / np.linalg.norm(direction)
        tint = np.array(strength, dtype=np.float32)[:, None]
        halfway = direction - directions
        halfway /= np.linalg.norm(halfway, axis=0)
        light += tint * np.maximum((normal * direction).sum(axis=0), 0)
        shine += tint * np.maximum((normal * halfway).sum(axis=0), 0) ** SHARPNESS
    return np.clip((_texture(points) * light + GLOSS * shine) * corner, 0, 1)


def _texture(points: Float32) -> Float32:
    """Albedo [3, N] of solid paint: warped bands, blots and a fine check."""
    x, y, z = points
    warp = np.sin(7 * x + 2 * np.sin(5 * z)) + np.sin(6 * y - 3 * np.sin(4 * x))
    band = _smooth(np.sin(17 * z + 2.5 * warp))
    blot = _smooth(np.sin(11 * x + 1) * np.sin(12 * y) * np.sin(13 * z + 2) * 4 - 0.8)
    check = 0.85 + 0.15 * _smooth(6 * np.sin(48 * x) * np.sin(48 * y) * np.sin(48 * z))
    clay, cream, teal = (np.array(c, dtype=np.float32)[:, None] for c in PAINTS)
    base = clay + (cream - clay) * band
    return np.asarray((base + (teal - base) * blot) * check, dtype=np.float32)


PAINTS: tuple[Vector, ...] = ((0.78, 0.33, 0.18), (0.95, 0.83, 0.58), (0.10, 0.42, 0.48))


def _smooth(value: Float32) -> Float32:
    """A soft step from 0 to 1 around 0."""
    return np.asarray(0.5 + 0.5 * np.tanh(3 * value))


def spiral(count: int, *, low: float, high: float, turn: float) -> Iterator[Vector]:
    """`count` unit vectors spread evenly over the sphere between two heights (sines of elevation).

    turn: angle of the first one, radians. Golden-angle spiral, from the top down.
    """
    golden = np.pi * (3 - np.sqrt(5))
    for index in range(count):
        height = high - (high - low) * (index + 0.5) / count
        angle = turn + golden * index
        around = np.sqrt(1 - height * height)
        yield float(around * np.cos(angle)), float(around * np.sin(angle)), float(height)
