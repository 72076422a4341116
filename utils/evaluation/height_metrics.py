"""How far a surface is above or below where it should be: the errors of a height model."""

from __future__ import annotations

import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import trimesh
import warp as wp
from numpy.typing import NDArray

from utils.errors import InputError
from utils.meshing.mesh import read_mesh

Floats = NDArray[np.float64]
LEAST_VIEWS = 2  # of photographs that a reference point was seen in
MOST_POINTS = 20_000_000
SAMPLES = 200_000


@dataclass(frozen=True)
class HeightScore:
    """Vertical distances of the uppermost surface from reference points, in the meshes' own units."""

    median_error: float  # of the absolute distances
    error_90: float  # nine of ten are nearer
    bias: float  # median of the signed ones, positive where the surface is too high
    covered: float  # share of the points with surface above or below
    points: int

    def as_dict(self) -> dict[str, float | int]:
        """The numbers by the names that metrics.json uses."""
        return {f"height_{name}": value for name, value in asdict(self).items()}


def compare_heights(mesh: trimesh.Trimesh, points: Floats) -> HeightScore:
    """The uppermost surface against points [N, 3], z up, same frame. Raises InputError when none is covered."""
    found = uppermost(mesh, points[:, :2])
    covered = np.isfinite(found)
    if not covered.any():
        raise InputError("mesh - no part of it is above or below a reference point - are both in the same frame?")
    error = found[covered] - points[covered, 2]
    return HeightScore(
        median_error=float(np.median(np.abs(error))),
        error_90=float(np.quantile(np.abs(error), 0.9)),
        bias=float(np.median(error)),
        covered=float(covered.mean()),
        points=len(points),
    )


def uppermost(mesh: trimesh.Trimesh, places: Floats) -> Floats:
    """The greatest z of the surface at each place [N, 2], NaN where there is none."""
    low, high = mesh.bounds
    middle, size = (low + high) / 2, float((high - low).max())
    scaled = ((mesh.vertices - middle) / size).astype(np.float32)  # single precision is enough near 1
    surface = wp.Mesh(
        points=wp.array(scaled, dtype=wp.vec3, device="cpu"),
        indices=wp.array(mesh.faces.astype(np.int32).ravel(), dtype=wp.int32, device="cpu"),
    )
    starts = np.column_stack([(places - middle[:2]) / size, np.ones(len(places))]).astype(np.float32)
    depth = wp.empty(len(places), dtype=wp.float32, device="cpu")
    at = wp.array(starts, dtype=wp.vec3, device="cpu")
    wp.launch(_fall, dim=len(places), inputs=[surface.id, at], outputs=[depth], device="cpu")
    fallen = depth.numpy().astype(np.float64)
    return np.where(fallen >= 0, middle[2] + size * (1 - fallen), np.nan)


def reference_points(path: Path) -> Floats:
    """[N, 3] of an .npz file with `points` (and `n_train_views`, of which two are needed), or of a mesh's surface.

    Raises InputError for files without points.
    """
    if path.suffix.lower() != ".npz":
        return np.asarray(trimesh.sample.sample_surface(read_mesh(path), SAMPLES, seed=0)[0])
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            points = np.asarray(arrays["points"], dtype=np.float64)
            views = np.asarray(arrays["n_train_views"]) if "n_train_views" in arrays else None
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} - cannot be read: {error} - expected an .npz file with `points` [N,3]") from error
    fits = points.ndim == 2 and points.shape[1:] == (3,) and 0 < len(points) <= MOST_POINTS
    if not fits or not np.isfinite(points).all() or (views is not None and views.shape != points.shape[:1]):
        raise InputError(f"{path}: points - got {points.shape} - expected finite numbers [N,3]")
    return points if views is None else points[views >= LEAST_VIEWS]


@wp.kernel(enable_backward=False)
def _fall(
    mesh: wp.uint64,
    starts: wp.array(dtype=wp.vec3),  # type: ignore[valid-type]
    depth: wp.array(dtype=wp.float32),  # type: ignore[valid-type]
) -> None:
    i = wp.tid()
    query = wp.mesh_query_ray(mesh, starts[i], wp.vec3(0.0, 0.0, -1.0), 3.0)
    depth[i] = wp.where(query.result, query.t, -1.0)
