"""The zero surface of a function on a cubic lattice, found block by block and only where the surface can be.

First every eighth lattice point is evaluated, of a large lattice fewer, about 64 along an axis. A coarse cell whose
corners are far from zero, measured by the steepest slope seen, holds no surface. Within a block the others are divided
down to cells of eight, passed over by the same rule, and what is left is evaluated point by point and goes through
marching cubes. Memory holds the coarse lattice and one block, never the whole lattice; who takes the pieces block by
block needs no more of it for a finer one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from utils.errors import InputError
from utils.meshing.welding import Welded, Welder

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
Values = Callable[[NDArray[np.float32]], NDArray[np.floating]]

STEP = 8  # lattice cells along the side of the smallest coarse cell
BLOCK = 8  # coarse cells along the side of a block
COARSE = 64  # cells along an axis that the coarsest level has, at about the most
SMALL = 65  # up to here every point is evaluated: too few coarse cells to learn the slope from
NUDGE = 1e-9  # of the steepest change over a lattice cell; see `_Field.on_lattice`
NUDGE_FLOAT32 = 1e-5  # the same where vertices come back in float32


@dataclass(frozen=True)
class Lattice:
    """`resolution`^3 points over the cube [-extent, extent]^3, spaced 2 extent / (resolution - 1)."""

    resolution: int
    extent: float

    @property
    def spacing(self) -> float:
        return 2.0 * self.extent / (self.resolution - 1)

    @property
    def step(self) -> int:
        """Lattice cells along the side of a cell of the coarsest level: `STEP` doubled until few enough are left."""
        step = STEP
        while step < STEP * BLOCK and self.resolution - 1 > COARSE * step:
            step *= 2
        return step

    def points(self, step: int) -> Indices:
        """[M] lattice indices along an axis: every `step`-th, and the last."""
        last = self.resolution - 1
        return np.minimum(np.arange(-(-last // step) + 1) * step, last)

    def positions(self, index: Indices | Floats) -> Floats:
        """Coordinates [*N] of lattice indices [*N] along an axis, in -extent .. extent."""
        return np.asarray(index, np.float64) * self.spacing - self.extent

    def index(self, positions: Floats) -> Floats:
        """The inverse of `positions`, not rounded."""
        return (positions + self.extent) / self.spacing


class Region(Protocol):
    """Where a surface is wanted, in the function's units."""

    def contains(self, points: Floats) -> Mask:
        """[N] bool of points [N, 3]."""

    def bounds(self) -> tuple[Floats, Floats]:
        """The least [3] and the largest [3] coordinates of a box around it."""


@dataclass(frozen=True)
class Box:
    """From `low` [3] to `high` [3] in the frame into which a similarity [4, 4] maps points of the function."""

    similarity: Floats
    low: Floats
    high: Floats

    def contains(self, points: Floats) -> Mask:
        there = points @ self.similarity[:3, :3].T + self.similarity[:3, 3]
        return np.asarray(((there >= self.low) & (there <= self.high)).all(1))

    def bounds(self) -> tuple[Floats, Floats]:
        back = np.linalg.inv(self.similarity)
        corners = np.array(list(product(*zip(self.low, self.high, strict=True)))) @ back[:3, :3].T + back[:3, 3]
        return corners.min(0), corners.max(0)


@dataclass(frozen=True)
class Piece:
    """What one block adds to a surface; see `welding.Welded`, which numbers it."""

    vertices: Floats  # [K, 3] in the function's units, those that no earlier block has
    normals: Floats  # [K, 3] unit, smooth over all faces around a vertex; [0, 3] where they were not asked for
    areas: Floats  # [F] of the faces, in the function's units squared
    welded: Welded


def lattice_surface(
    field: Field, welder: Welder, *, safety: float = 1.5, region: Region | None = None, normals: bool = False
) -> Iterator[Piece]:
    """The zero level of a function, block by block, faces counter-clockwise seen from the positive side.

    welder: a new one. safety: as in `mesh.extract_surface`. region: faces whose middle lies outside of it are left out.
    Blocks share the vertices on their seams, so that all pieces together are what marching cubes makes of the whole
    lattice. Raises InputError for values that are not finite.
    """
    lattice, halo = field.lattice, int(normals)
    if lattice.resolution <= SMALL:
        safety = np.inf
    top = field.coarsest(safety)
    for low, high in _blocks(lattice, top, region):
        level = field.refined(top, low, high, safety)
        vertices, faces = _block_surface(field, level, np.maximum(low - halo, 0), np.minimum(high + halo, field.last))
        along = _vertex_normals(vertices, faces) if normals else np.zeros((0, 3))
        faces = faces[_belongs(vertices[faces].mean(1), lattice, low, high, region)] if len(faces) else faces
        if len(faces):
            welded = welder.add(vertices, faces, low, high)
            areas = np.linalg.norm(_across(vertices, faces[welded.order]), axis=1) * lattice.spacing**2 / 2.0
            along = along[welded.rows] if normals else along
            yield Piece(lattice.positions(vertices[welded.rows]), along, areas, welded)


@dataclass(frozen=True)
class Level:
    """Coarse cells of one size in a part of the lattice: the values at their corners, and which may hold a zero."""

    step: int  # lattice cells along the side of a cell
    first: Indices  # [3] numbers of the first cell
    values: Floats  # [A + 1, B + 1, C + 1]
    active: Mask  # [A, B, C]

    @classmethod
    def of(cls, step: int, first: Indices, values: Floats, margin: float) -> Level:
        """Active are the cells with corners [A + 1, B + 1, C + 1] of both signs, or one within the margin."""
        ends = (slice(None, -1), slice(1, None))
        corners = [values[part] for part in product(ends, repeat=3)]
        least, most = reduce(np.minimum, corners), reduce(np.maximum, corners)
        return cls(step, first, values, (least <= margin) & (most >= -margin))

    def around(self, axes: list[Indices]) -> Floats:
        """The value at the lower corner of the cell of each lattice point; axes: lattice indices, three times [N].

        Where no active cell touches a point, that corner has its sign; in all blocks the same corner.
        """
        return self.values[np.ix_(*[axis // self.step - low for axis, low in zip(axes, self.first, strict=True)])]

    def touched(self, axes: list[Indices]) -> Mask:
        """Which lattice points belong to an active cell, be it beside them; axes: lattice indices, three times [N]."""
        padded = np.pad(self.active, 1)
        sides = []
        for axis, low, size in zip(axes, self.first, padded.shape, strict=True):
            sides.append([np.clip(cells // self.step - low + 1, 0, size - 1) for cells in (axis - 1, axis)])
        found = np.zeros([len(axis) for axis in axes], bool)
        for side in product(*sides):
            found |= padded[np.ix_(*side)]
        return found


class Field:
    """The function on lattice indices, in batches, checked, and closed off by the sphere.

    value, radius, batch, solid_beyond: as in `mesh.extract_surface`. Beyond the sphere the function is taken at the
    sphere's nearest point, so that it is never evaluated where it is not defined. The distance to the sphere is scaled
    to the function's own slope, because a density may change a thousandfold where a distance changes by one.
    """

    def __init__(
        self,
        value: Values,
        lattice: Lattice,
        *,
        radius: float | None = None,
        batch: int = 1 << 16,
        solid_beyond: bool = False,
    ) -> None:
        self.value, self.lattice, self.radius, self.batch = value, lattice, radius, batch
        self.solid_beyond = solid_beyond
        self.slope = 1.0
        self.last = lattice.resolution - 1

    def coarsest(self, safety: float) -> Level:
        """The coarsest level of the whole lattice; sets `slope`, the steepest change per unit of length on it."""
        step = self.lattice.step
        axis = self.lattice.points(step)
        index = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        raw = self._raw(index).reshape(3 * (len(axis),))
        self.slope = max(_steepest(raw, self.lattice.positions(axis)), 1e-30)  # a constant has none
        values = self._closed(raw.ravel(), index).reshape(raw.shape)
        return Level.of(step, np.zeros(3, np.int64), values, self._margin(step, safety))

    def refined(self, top: Level, low: Indices, high: Indices, safety: float) -> Level:
        """The level of `STEP` in and around the block of lattice points from `low` [3] to `high` [3]."""
        if top.step == STEP:
            return top
        points = self.lattice.points(STEP)
        first = np.maximum(low // STEP - 1, 0)
        ends = np.minimum(-(-high // STEP) + 2, len(points))
        axes = [points[start:end] for start, end in zip(first, ends, strict=True)]
        values, wanted = top.around(axes), top.touched(axes)
        index = _chosen(wanted, axes)
        values[wanted] = self._closed(self._raw(index), index)
        return Level.of(STEP, first, values, self._margin(STEP, safety))

    def _margin(self, step: int, safety: float) -> float:
        """How far from zero a corner of a cell can be, at the most, when the cell holds a zero."""
        return safety * self.slope * 0.5 * np.sqrt(3.0) * step * self.lattice.spacing

    @property
    def unit(self) -> float:
        """The steepest change over a lattice cell."""
        return self.slope * self.lattice.spacing

    def on_lattice(self, index: Indices) -> Floats:
        """Values at lattice indices [N, 3], in units of the steepest change over a lattice cell.

        None is exactly 0: a vertex then lies within its edge, never on the lattice point where six edges
        meet, and the two blocks at a seam can tell which edge it is on.
        """
        scaled = self._closed(self._raw(index), index) / self.unit
        return _nudged(scaled, NUDGE)

    def _raw(self, index: Indices) -> Floats:
        shares = range(0, max(len(index), 1), self.batch)
        return np.concatenate([self._checked(index[start : start + self.batch]) for start in shares])

    def _checked(self, index: Indices) -> Floats:
        points = self.lattice.positions(index)
        if self.radius is not None:
            points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True) / self.radius, 1.0)
        values = np.asarray(self.value(points.astype(np.float32)), np.float64).reshape(-1)
        if len(values) != len(points):
            raise ValueError(f"{len(points)} values expected, got {len(values)}")
        bad = ~np.isfinite(values)
        if bad.any():
            where = np.round(points[bad][0], 4).tolist()
            raise InputError(f"surface - {bad.sum()} of {len(bad)} values are not finite, first at {where}")
        return values

    def _closed(self, raw: Floats, index: Indices) -> Floats:
        if self.radius is None:
            return raw
        outside = np.linalg.norm(self.lattice.positions(index), axis=1) - self.radius
        return np.minimum(raw, -self.slope * outside) if self.solid_beyond else np.maximum(raw, self.slope * outside)


def _nudged(values: Floats, least: float) -> Floats:
    return np.where(np.abs(values) < least, np.where(values < 0.0, -least, least), values)


def _steepest(values: Floats, axis: Floats) -> float:
    """The largest length of the difference quotients along the three axes, over all coarse cells."""
    step = np.diff(axis)
    dx = np.diff(values, axis=0)[:, :-1, :-1] / step[:, None, None]
    dy = np.diff(values, axis=1)[:-1, :, :-1] / step[None, :, None]
    dz = np.diff(values, axis=2)[:-1, :-1, :] / step[None, None, :]
    return float(np.sqrt(dx**2 + dy**2 + dz**2).max())


def _chosen(wanted: Mask, axes: list[Indices]) -> Indices:
    """[N, 3] lattice indices of the wanted points of a box; axes: its lattice indices, three times [M]."""
    return np.stack([axis[at] for axis, at in zip(axes, np.nonzero(wanted), strict=True)], -1)


def _blocks(lattice: Lattice, top: Level, region: Region | None) -> Iterator[tuple[Indices, Indices]]:
    """The least and the largest lattice index [3] of every block with an active cell, x slowest."""
    side, last = STEP * BLOCK, lattice.resolution - 1
    least, most = (lattice.index(bound) for bound in region.bounds()) if region is not None else (0.0, float(last))
    for corner in product(range(0, last, side), repeat=3):
        low = np.array(corner)
        high = np.minimum(low + side, last)
        cells = [slice(start // top.step, -(-end // top.step)) for start, end in zip(low, high, strict=True)]
        if top.active[tuple(cells)].any() and np.all(low <= most) and np.all(high >= least):
            yield low, high


def _block_surface(field: Field, level: Level, low: Indices, high: Indices) -> tuple[Floats, Indices]:
    """Vertices [V, 3] in lattice index units and faces [F, 3] between two lattice points; none without a crossing."""
    axes = [np.arange(start, end + 1) for start, end in zip(low, high, strict=True)]
    values, wanted = level.around(axes) / field.unit, level.touched(axes)
    values[wanted] = field.on_lattice(_chosen(wanted, axes))
    if values.min() > 0.0 or values.max() < 0.0:
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    vertices, faces = _marching_cubes(values)
    return vertices + low, faces


def _belongs(middle: Floats, lattice: Lattice, low: Indices, high: Indices, region: Region | None) -> Mask:
    """[F] bool: the faces with middles [F, 3], lattice index units, in the cells of a block and in the region.

    A face that lies in a side of a cell belongs to the cell above it, whichever made it, so that one block has it.
    """
    ends = np.where(high == lattice.resolution - 1, np.inf, high)
    inside = ((middle >= low) & (middle < ends)).all(1)
    return np.asarray(inside if region is None else inside & region.contains(lattice.positions(middle)))


def _across(vertices: Floats, faces: Indices) -> Floats:
    """Normals [F, 3] of faces [F, 3], twice as long as their area."""
    corners = vertices[faces]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def _vertex_normals(vertices: Floats, faces: Indices) -> Floats:
    """Unit normals [V, 3] of vertices [V, 3]: the mean of the faces [F, 3] around each, by their area."""
    across = _across(vertices, faces)
    found = np.stack([np.bincount(faces.ravel(), np.repeat(column, 3), len(vertices)) for column in across.T], -1)
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-30))


def _marching_cubes(values: Floats) -> tuple[Floats, Indices]:
    """Zero level of a dense array with values of both signs, faces outward."""
    try:
        import mcubes
    except ImportError:  # there is no wheel of PyMCubes for Python 3.13 and newer
        return _marching_cubes_skimage(values)
    vertices, faces = mcubes.marching_cubes(values, 0.0)
    return vertices, faces.astype(np.int64)[:, ::-1]  # PyMCubes turns faces towards smaller values


def _marching_cubes_skimage(values: Floats) -> tuple[Floats, Indices]:
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(_nudged(values, NUDGE_FLOAT32).astype(np.float32), 0.0)
    return vertices.astype(np.float64), faces.astype(np.int64)
