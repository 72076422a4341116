"""Distances and normals against any true surface, in its own size; against points, in world units."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import trimesh
from numpy.typing import NDArray
from pydantic import Field

from engine.protocols.base import Floats, ProtocolConfig, Scored, Subject
from utils.evaluation.mesh_metrics import THRESHOLDS, compare_meshes, distances_to_surface
from utils.evaluation.point_metrics import THRESHOLDS as POINT_THRESHOLDS
from utils.evaluation.point_metrics import compare_points, has_faces, read_points
from utils.evaluation.point_sets import nearest_distances
from utils.meshing.mesh import read_mesh


class GenericProtocol(ProtocolConfig):
    """Accuracy, completeness, chamfer, F at several thresholds, normals. --reference: a mesh; or points, of which those

    count, and of the mesh that part, which `min_views` training views saw.
    """

    type: Literal["generic"] = "generic"

    samples: int = Field(200_000, ge=1, le=100_000_000, description="points that are drawn from each surface")
    crop: float | None = Field(None, ge=0, le=1000, description="drop what is so many radii outside the truth's box")
    min_views: int = Field(2, ge=1, le=100_000, description="of points, those that so many training views saw")
    seed: int = Field(0, ge=0, description="of the drawing")

    def score(self, subject: Subject) -> Scored:
        if has_faces(subject.reference):
            return self.against(subject.mesh, read_mesh(subject.reference, up=subject.up))
        return self._against_points(subject)

    def against(self, mesh: trimesh.Trimesh, truth: trimesh.Trimesh) -> Scored:
        """Score a mesh against the true one, in the same frame and units."""
        found = compare_meshes(mesh, truth, samples=self.samples, crop=self.crop, seed=self.seed)
        middle = truth.bounds.mean(axis=0)
        centered = trimesh.Trimesh(truth.vertices - middle, truth.faces, process=False)
        error, _ = distances_to_surface(np.asarray(mesh.vertices) - middle, centered)
        if self.crop is not None:
            beyond = np.abs(mesh.vertices - middle) - truth.extents / 2
            error[beyond.max(axis=1) >= self.crop * found.reference_radius] = np.nan
        return Scored(found.as_dict(), mesh, error, worst=THRESHOLDS[-1] * found.reference_radius)

    def _against_points(self, subject: Subject) -> Scored:
        points = read_points(subject.reference, least_views=self.min_views)

        def observed(places: Floats) -> NDArray[np.bool_]:
            if subject.sight is None:  # a foreign mesh: all of it counts
                return np.ones(len(places), dtype=bool)
            return subject.sight().times_seen(places) >= self.min_views

        numbers: dict[str, Any] = compare_points(
            subject.mesh, points, observed=observed, samples=self.samples, seed=self.seed
        )
        if subject.sight is not None:
            numbers["min_views"] = self.min_views
        vertices = np.asarray(subject.mesh.vertices, np.float64)
        error = np.where(observed(vertices), nearest_distances(vertices, points), np.nan)
        return Scored(numbers, subject.mesh, error, worst=2 * POINT_THRESHOLDS[-1])
