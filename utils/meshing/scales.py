"""Meshes far from the origin of their world, and very small ones: what float32 holds, and normals at any scale."""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray

Floats = NDArray[np.float64]
COARSEST = 1e-6  # step of float32 as a share of a mesh's size, above which it shows


def extent(vertices: Floats) -> float:
    """The longest side of the box around vertices [V, 3]; 1 where it has no size."""
    longest = float(np.ptp(vertices, axis=0).max()) if len(vertices) else 0.0
    return longest or 1.0


def float32_offset(vertices: Floats) -> Floats:
    """What has to be taken off vertices [V, 3] so that float32 holds them, [3]; zero where it holds them as they are.

    An object of 1 m at UTM coordinates would fall onto steps of 0.5 m. The offset is near the middle of the box, in
    round numbers.
    """
    size = extent(vertices)
    largest = np.float32(np.abs(vertices).max(initial=0.0))
    if float(np.spacing(largest)) <= COARSEST * size:
        return np.zeros(3)
    step = 10.0 ** np.floor(np.log10(size))
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2.0
    return np.asarray(np.round(middle / step) * step)


def seamless_normals(mesh: trimesh.Trimesh) -> Floats:
    """As `smooth_normals`, [V, 3], where vertices at one place are one, as on the seams of a texture."""
    _, first, again = np.unique(mesh.vertices, axis=0, return_index=True, return_inverse=True)
    again = again.reshape(-1)
    whole = trimesh.Trimesh(mesh.vertices[first], again[mesh.faces], process=False)
    return smooth_normals(whole)[again]


def smooth_normals(mesh: trimesh.Trimesh) -> Floats:
    """Unit normals of the vertices, [V, 3], whatever the mesh's unit; zero for a vertex without a face of some area.

    trimesh takes a face for degenerate whose cross product is below a fixed bound, so faces are brought to about unit
    size before.
    """
    vertices = np.asarray(mesh.vertices, np.float64)
    side = np.sqrt(mesh.area / max(len(mesh.faces), 1)) or 1.0
    middle = vertices.mean(axis=0) if len(vertices) else np.zeros(3)
    return np.asarray(trimesh.Trimesh((vertices - middle) / side, mesh.faces, process=False).vertex_normals)
