"""How close a surface is to the true one, in units of the true one's size, so that scenes compare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
import warp as wp
from numpy.typing import NDArray

from utils.errors import InputError
from utils.evaluation.point_sets import precision_and_recall
from utils.meshing.mesh import submesh

Floats = NDArray[np.float64]
THRESHOLDS = (0.005, 0.01, 0.02)
FARTHEST = 1.0e6  # radii: beyond any distance that occurs


@dataclass(frozen=True)
class MeshScore:
    """Distances in units of the reference's bounding sphere (around its box's middle)."""

    accuracy: float  # mean distance from the predicted surface to the reference
    completeness: float  # mean distance from the reference to the predicted surface
    chamfer: float  # mean of the two
    normal_consistency: float  # mean absolute cosine between normals at nearest points, of both directions
    f_scores: tuple[float, ...]  # harmonic mean of precision and recall, at THRESHOLDS
    reference_radius: float  # in the meshes' own units
    predicted_faces: int
    predicted_watertight: bool
    predicted_components: int

    def as_dict(self) -> dict[str, float | int | bool]:
        """The numbers by the names that metrics.json uses."""
        named: dict[str, float | int | bool] = {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name != "f_scores"
        }
        shares = zip(THRESHOLDS, self.f_scores, strict=True)
        return named | {f"f_score_{threshold:g}": score for threshold, score in shares}


def compare_meshes(
    predicted: trimesh.Trimesh,
    reference: trimesh.Trimesh,
    *,
    samples: int = 200_000,
    crop: float | None = None,
    seed: int = 0,
) -> MeshScore:
    """Score a mesh against the true one; both in the same frame and units.

    samples: points drawn evenly from each surface; a distance is that to the other surface itself, not to
    points on it. crop: drops predicted faces with a corner farther than this many radii outside the
    reference's bounding box (backgrounds). seed: of the drawing. Raises InputError when nothing is left to
    compare.
    """
    low, high = reference.bounds
    center = (low + high) / 2.0
    radius = float(np.linalg.norm(reference.vertices - center, axis=1).max())
    if not radius > 0.0:
        raise InputError("reference mesh - all its vertices are one point - a surface was expected")
    if crop is not None:
        predicted = _cropped(predicted, low - crop * radius, high + crop * radius)
    truth = _normalized(reference, center, radius)
    guess = _normalized(predicted, center, radius)
    to_truth, cosine_there = _distances(guess, truth, samples, seed)
    to_guess, cosine_back = _distances(truth, guess, samples, seed)
    accuracy, completeness = float(to_truth.mean()), float(to_guess.mean())
    return MeshScore(
        accuracy=accuracy,
        completeness=completeness,
        chamfer=(accuracy + completeness) / 2.0,
        normal_consistency=float(cosine_there.mean() + cosine_back.mean()) / 2.0,
        f_scores=tuple(precision_and_recall(to_truth, to_guess, x)["f_score"] for x in THRESHOLDS),
        reference_radius=radius,
        predicted_faces=len(guess.faces),
        predicted_watertight=bool(guess.is_watertight),
        predicted_components=int(guess.body_count),
    )


def distances_to_surface(points: Floats, surface: trimesh.Trimesh) -> tuple[Floats, NDArray[np.int32]]:
    """Distance of each point [N, 3] to the nearest point of the surface, [N], and the face [N] it lies on.

    Exact up to float32: bring coordinates near 1 first. The surface must have faces.
    """
    wp.config.log_level = wp.LOG_ERROR  # no banner among the results
    mesh = wp.Mesh(
        points=wp.array(surface.vertices.astype(np.float32), dtype=wp.vec3, device="cpu"),
        indices=wp.array(surface.faces.astype(np.int32).ravel(), dtype=wp.int32, device="cpu"),
    )
    at = wp.array(points.astype(np.float32), dtype=wp.vec3, device="cpu")
    distance = wp.empty(len(points), dtype=wp.float32, device="cpu")
    face = wp.empty(len(points), dtype=wp.int32, device="cpu")
    inputs, outputs = [mesh.id, at, FARTHEST], [distance, face]
    wp.launch(_nearest, dim=len(points), inputs=inputs, outputs=outputs, device="cpu")
    return distance.numpy().astype(np.float64), face.numpy()


def _distances(
    start: trimesh.Trimesh, end: trimesh.Trimesh, samples: int, seed: int
) -> tuple[Floats, Floats]:
    """From one surface to the other: distances [S], absolute cosines of normals [S]."""
    points, face = trimesh.sample.sample_surface(start, samples, seed=seed)
    distance, nearest = distances_to_surface(np.asarray(points), end)
    cosine = np.abs((start.face_normals[face] * end.face_normals[nearest]).sum(1))
    return distance, cosine


def _normalized(mesh: trimesh.Trimesh, center: Floats, radius: float) -> trimesh.Trimesh:
    return trimesh.Trimesh((mesh.vertices - center) / radius, mesh.faces, process=False)


def _cropped(mesh: trimesh.Trimesh, low: Floats, high: Floats) -> trimesh.Trimesh:
    vertices = np.asarray(mesh.vertices)
    beyond = np.maximum(low - vertices, vertices - high).max(axis=1)
    chosen = beyond[np.asarray(mesh.faces)].max(axis=1) < 0.0
    if not chosen.any():
        raise InputError("predicted mesh - nothing of it is near the reference - are both in the same frame?")
    return submesh(mesh, chosen)


@wp.kernel(enable_backward=False)
def _nearest(
    mesh: wp.uint64,
    points: wp.array(dtype=wp.vec3),  # type: ignore[valid-type]
    farthest: wp.float32,
    distance: wp.array(dtype=wp.float32),  # type: ignore[valid-type]
    face: wp.array(dtype=wp.int32),  # type: ignore[valid-type]
) -> None:
    i = wp.tid()
    query = wp.mesh_query_point_no_sign(mesh, points[i], farthest)
    distance[i] = wp.length(points[i] - wp.mesh_eval_position(mesh, query.face, query.u, query.v))
    face[i] = query.face
