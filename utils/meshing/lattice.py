"""The zero surface of a function on a cubic lattice, found block by block and only where the surface can be.

First every eighth lattice point is evaluated. A coarse cell whose corners are far from zero, measured by the
steepest slope seen, holds no surface; the others are evaluated point by point and go through marching cubes
in blocks. Memory holds the coarse lattice, one block and the mesh, never the whole lattice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from utils.errors import InputError

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
Values = Callable[[NDArray[np.float32]], NDArray[np.floating]]

STEP = 8  # lattice cells along the side of a coarse cell
BLOCK = 8  # coarse cells along the side of a block
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
    def coarse(self) -> Indices:
        """[M] lattice indices of the coarse points along an axis: every eighth, and the last."""
        last = self.resolution - 1
        return np.minimum(np.arange(-(-last // STEP) + 1) * STEP, last)

    def positions(self, index: Indices | Floats) -> Floats:
        """Coordinates [*N] of lattice indices [*N] along an axis, in -extent .. extent."""
        return np.asarray(index, np.float64) * self.spacing - self.extent


def lattice_surface(
    value: Values, lattice: Lattice, *, radius: float | None, safety: float, batch: int, solid_beyond: bool = False
) -> tuple[Floats, Indices]:
    """Vertices [V, 3] and faces [F, 3] of the zero level, counter-clockwise seen from the positive side.

    value, radius, safety, batch, solid_beyond: as in `mesh.extract_surface`. Blocks share the vertices on their
    seams, so the result is that of marching cubes on the whole lattice. Raises InputError for values that are
    not finite.
    """
    field = _Field(value, lattice, radius, batch, solid_beyond=solid_beyond)
    coarse = field.on_coarse_points()
    if lattice.resolution <= SMALL:
        safety = np.inf
    active = _near_zero(coarse, margin=safety * field.slope * 0.5 * np.sqrt(3.0) * STEP * lattice.spacing)
    pieces = [piece for block in _blocks(active) if (piece := _block_surface(field, coarse, active, block))]
    return _merge(pieces, lattice)


class _Field:
    """The function on lattice indices, in batches, checked, and closed off by the sphere.

    Beyond the sphere the function is taken at the sphere's nearest point, so that it is never evaluated
    where it is not defined. The distance to the sphere is scaled to the function's own slope, because a
    density may change a thousandfold where a distance changes by one.
    """

    def __init__(
        self, value: Values, lattice: Lattice, radius: float | None, batch: int, *, solid_beyond: bool
    ) -> None:
        self.value, self.lattice, self.radius, self.batch = value, lattice, radius, batch
        self.solid_beyond = solid_beyond
        self.slope = 1.0

    def on_coarse_points(self) -> Floats:
        """Values on the coarse points; sets `slope`, the steepest change per unit of length among them."""
        axis = self.lattice.coarse
        index = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        raw = self._raw(index).reshape(3 * (len(axis),))
        self.slope = max(_steepest(raw, self.lattice.positions(axis)), 1e-30)  # a constant has none
        return self._closed(raw.ravel(), index).reshape(raw.shape)

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
        shares = range(0, len(index), self.batch)
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


def _near_zero(values: Floats, margin: float) -> Mask:
    """The coarse cells that may hold a zero: corners of both signs, or one within the margin."""
    ends = (slice(None, -1), slice(1, None))
    corners = np.stack([values[box] for box in product(ends, repeat=3)])
    return (corners.min(0) <= margin) & (corners.max(0) >= -margin)


def _blocks(active: Mask) -> Iterator[tuple[Indices, ...]]:
    """The coarse cells' indices along each axis, for every block with an active cell."""
    runs = [np.arange(start, min(start + BLOCK, len(active))) for start in range(0, len(active), BLOCK)]
    for block in product(runs, repeat=3):
        if active[np.ix_(*block)].any():
            yield block


def _block_surface(
    field: _Field, coarse: Floats, active: Mask, block: tuple[Indices, ...]
) -> tuple[Floats, Indices] | None:
    """Vertices in lattice index units and faces of one block; None without a crossing."""
    points = field.lattice.coarse
    axes = [np.arange(points[cells[0]], points[cells[-1] + 1] + 1) for cells in block]
    # Where no evaluated cell touches a point, a corner nearby has its sign; in all blocks the same corner.
    values = coarse[np.ix_(*[axis // STEP for axis in axes])] / field.unit
    wanted = _touched(active, axes)
    index = np.argwhere(wanted) + np.array([axis[0] for axis in axes])
    values[wanted] = field.on_lattice(index)
    if values.min() > 0.0 or values.max() < 0.0:
        return None
    vertices, faces = _marching_cubes(values)
    return vertices + [axis[0] for axis in axes], faces


def _touched(active: Mask, axes: list[Indices]) -> Mask:
    """Which of a block's lattice points belong to an active coarse cell, of this block or of a neighbor."""
    padded = np.pad(active, 1)
    sides = [((axis - 1) // STEP + 1, axis // STEP + 1) for axis in axes]
    last = len(padded) - 1
    touched = np.zeros([len(axis) for axis in axes], bool)
    for side in product(*sides):
        touched |= padded[np.ix_(*[np.minimum(cells, last) for cells in side])]
    return touched


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


def _merge(pieces: list[tuple[Floats, Indices]], lattice: Lattice) -> tuple[Floats, Indices]:
    """One mesh from the blocks', in the lattice's units: vertices on the same lattice edge become one."""
    if not pieces:
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    starts = np.cumsum([0] + [len(vertices) for vertices, _ in pieces])
    vertices = np.concatenate([piece[0] for piece in pieces])
    faces = np.concatenate([piece[1] + start for piece, start in zip(pieces, starts[:-1], strict=True)])
    _, first, number = np.unique(_edges(vertices, lattice.resolution), return_index=True, return_inverse=True)
    return lattice.positions(vertices[first]), number[faces]


def _edges(vertices: Floats, resolution: int) -> Indices:
    """A number for the lattice edge on which each vertex lies (or for the cell, when it lies within one)."""
    nearest = np.rint(vertices)
    off = np.abs(vertices - nearest)
    axis = off.argmax(1)
    rows = np.arange(len(vertices))
    lower = nearest.astype(np.int64)
    lower[rows, axis] = np.floor(vertices[rows, axis]).astype(np.int64)
    # scikit-image may put a vertex into the middle of a cell, one at most
    within = np.partition(off, 1, axis=1)[:, 1] > 1e-4
    lower[within] = np.floor(vertices[within]).astype(np.int64)
    kind = np.where(within, 3, axis)
    return ((lower[:, 0] * resolution + lower[:, 1]) * resolution + lower[:, 2]) * 4 + kind
