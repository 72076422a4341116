"""How close a surface is to points on the true one: for scenes of which only a part was seen."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from utils.errors import InputError
from utils.evaluation.mesh_metrics import distances_to_surface
from utils.evaluation.point_sets import precision_and_recall

Floats = NDArray[np.float64]
THRESHOLDS = (0.02, 0.05)  # world units
MAX_BYTES = 2**31


def read_points(path: Path, *, least_views: int = 2) -> Floats:
    """Points [N, 3] of an .npz file with an array `points`, or the vertices of a .ply without faces.

    Where the .npz has `n_train_views` [N], only points with `least_views` or more are taken. Raises InputError.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file, points were expected")
    try:
        points = _from_npz(path, least_views) if path.suffix.lower() == ".npz" else _from_mesh_file(path)
    except InputError:
        raise
    except Exception as error:  # trimesh's and numpy's readers raise whatever their parsing stumbles over
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not readable points ({type(error).__name__}: {reason})") from error
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0 or not np.isfinite(points).all():
        raise InputError(f"{path}: points - got {points.shape} - expected finite numbers [N, 3]")
    return np.asarray(points, np.float64)


def _from_mesh_file(path: Path) -> Floats:
    loaded = trimesh.load(path, process=False)
    return np.asarray(getattr(loaded, "vertices", np.zeros((0, 3))), np.float64)


def _from_npz(path: Path, least_views: int) -> Floats:
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MAX_BYTES:
        raise InputError(f"{path}: got {size} bytes - expected at most {MAX_BYTES}")
    with np.load(path, allow_pickle=False) as arrays:
        if "points" not in arrays:
            raise InputError(f"{path}: points - missing - got {', '.join(arrays.files)[:200]}")
        points = arrays["points"]
        if "n_train_views" in arrays:
            points = points[arrays["n_train_views"] >= least_views]
    return np.asarray(points, np.float64)


def has_faces(path: Path) -> bool:
    """Whether a reference file is a mesh rather than points, by its header."""
    if path.suffix.lower() == ".npz":
        return False
    if path.suffix.lower() != ".ply" or not path.is_file():
        return True
    with path.open("rb") as stream:
        return b"element face" in stream.read(1 << 16).partition(b"end_header")[0]


def compare_points(
    predicted: trimesh.Trimesh,
    points: Floats,
    *,
    observed: Callable[[Floats], NDArray[np.bool_]],
    samples: int = 200_000,
    seed: int = 0,
) -> dict[str, float | int]:
    """Recall of points [N, 3] by a mesh, precision of the part of the mesh that was observed; world units.

    observed: mesh samples [S, 3] -> bool [S]. The distance of a sample is that to the nearest of the points, so it is
    too large by up to half their spacing, which is returned. Raises InputError when nothing of the mesh was observed.
    """
    center = points.mean(axis=0)
    moved = trimesh.Trimesh(predicted.vertices - center, predicted.faces, process=False)
    completeness, _ = distances_to_surface(points - center, moved)
    drawn = np.asarray(trimesh.sample.sample_surface(predicted, samples, seed=seed)[0])
    kept = drawn[observed(drawn)]
    if len(kept) == 0:
        raise InputError("mesh - no part of it was seen by two training views - are mesh and data in one frame?")
    tree = cKDTree(points)
    accuracy = np.asarray(tree.query(kept)[0])
    score: dict[str, float | int] = {
        "accuracy": float(accuracy.mean()),
        "completeness": float(completeness.mean()),
        "reference_points": len(points),
        "reference_spacing": float(np.median(np.asarray(tree.query(points[:10_000], k=2)[0])[:, -1])),
        "observed_share": len(kept) / len(drawn),
    }
    for threshold in THRESHOLDS:
        found = precision_and_recall(accuracy, completeness, threshold)
        score |= {f"{name}_at_{threshold:g}": value for name, value in found.items()}
    return score
