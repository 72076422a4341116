"""A mesh laid out flat on a picture: charts by xatlas, the texels of each face, and what is between the charts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray

from utils.meshing.scales import Floats

PADDING = 4  # texels around a chart
PART = 1 << 19  # texels at a time, about
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Atlas:
    """Charts of a mesh on a picture. A vertex on a seam between charts is there once for each."""

    rows: NDArray[np.int64]  # [V] of the mesh's vertices
    faces: NDArray[np.int64]  # [F, 3], in the mesh's order, of `rows`
    uv: Floats  # [V, 2] in [0, 1]: from left to right, from the bottom up
    size: tuple[int, int]  # width and height of the picture

    @classmethod
    def of(cls, mesh: trimesh.Trimesh, size: int) -> Atlas:
        """A layout on a picture of about size x size texels. Source: xatlas, after Sander et al. 2001."""
        import xatlas

        layout = xatlas.Atlas()
        layout.add_mesh(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.uint32))
        charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
        packing.resolution, packing.padding, packing.bilinear = size, PADDING, True
        layout.generate(charts, packing)
        rows, faces, uv = layout[0]
        return cls(rows.astype(np.int64), faces.astype(np.int64), uv.astype(np.float64), (layout.width, layout.height))

    def texels(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Floats]]:
        """The texels whose middle a face covers, part by part.

        Row and column [T, 2], the corners [T, 3] of the face, of `rows`' vertices, and their shares [T, 3], which
        make one.
        """
        width, height = self.size
        places = np.stack([self.uv[:, 0] * width, (1.0 - self.uv[:, 1]) * height], -1)[self.faces]
        low = np.ceil(places.min(1) - 0.5).astype(np.int64)
        count = np.maximum(np.floor(places.max(1) - 0.5).astype(np.int64) - low + 1, 0)
        boxes = np.cumsum(count.prod(1))
        for part in np.split(np.arange(len(places)), np.flatnonzero(np.diff(boxes // PART)) + 1):
            yield _covered(places[part], low[part], count[part], self.rows[self.faces[part]], self.size)


def _covered(
    places: Floats, low: NDArray[np.int64], count: NDArray[np.int64], corners: NDArray[np.int64], size: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Of the texels in boxes around faces [F, 3, 2], those that the faces cover; see `Atlas.texels`."""
    boxes = count.prod(1)
    face = np.repeat(np.arange(len(places)), boxes)
    inside = np.arange(len(face)) - np.repeat(np.cumsum(boxes) - boxes, boxes)
    column, row = low[face, 0] + inside % count[face, 0], low[face, 1] + inside // count[face, 0]
    share = _shares(places[face], np.stack([column, row], -1) + 0.5)
    covered = (share >= -1e-6).all(1) & (column >= 0) & (row >= 0) & (column < size[0]) & (row < size[1])
    return np.stack([row, column], -1)[covered], corners[face[covered]], share[covered]


def _shares(places: Floats, points: Floats) -> Floats:
    """Barycentric coordinates [N, 3] of points [N, 2] in triangles [N, 3, 2]; negative for those without an area."""
    a, b, c = (places[:, i] for i in range(3))

    def cross(one: Floats, other: Floats) -> Floats:
        return one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]

    area = cross(b - a, c - a)
    safe = np.where(area == 0.0, 1.0, area)
    second, third = cross(points - a, c - a) / safe, cross(b - a, points - a) / safe
    found = np.stack([1.0 - second - third, second, third], -1)
    return np.where(area[:, None] == 0.0, -1.0, found)


def padded(picture: Picture, known: NDArray[np.bool_]) -> Picture:
    """A picture [H, W, 3] whose unknown texels have the color of the nearest that is known [H, W].

    A viewer that averages neighbors, as all do for a mesh far away, then mixes nothing foreign into a chart.
    """
    from scipy.ndimage import distance_transform_edt

    if not known.any():
        return picture
    row, column = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(picture[row, column])
