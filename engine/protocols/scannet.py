"""The evaluation of rooms on ScanNet and 7-Scenes: what cameras saw, thinned to 2 cm, F at 5 cm."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from pydantic import Field

from dataio.cameras import Cameras
from engine.protocols.base import Floats, ProtocolConfig, Scored, Subject, need_points
from models.kernels.rays.cast import Triangles
from models.rendering.visible import unhidden
from utils.evaluation.point_metrics import has_faces, read_points
from utils.evaluation.point_sets import lattice_points, nearest_distances, precision_and_recall, voxel_means
from utils.meshing.mesh import read_mesh


class ScannetProtocol(ProtocolConfig):
    """Accuracy, completeness, precision, recall and F of points 2 cm apart. --reference: the true mesh, or points.

    The published code fuses depth maps of the mesh anew, in voxels of 1 cm, so that what no camera saw is gone. Here
    points of the mesh 1 cm apart are kept where a camera saw them. Source: Guo et al. 2022 (Manhattan-SDF), as MonoSDF
    has it.
    """

    type: Literal["scannet"] = "scannet"

    threshold: float = Field(0.05, gt=0, description="of precision, recall and F, meters")
    voxel: float = Field(0.02, gt=0, description="to which both surfaces are thinned, meters")
    cull: bool = Field(True, description="leave out what no camera of the run or of --data saw")
    every: int = Field(10, ge=1, description="one camera in so many looks")
    farthest: float = Field(5.0, gt=0, description="depth up to which a camera sees, meters")
    spacing: float = Field(0.01, gt=0, description="of points on the mesh, meters; as far may a surface be before one")

    def score(self, subject: Subject) -> Scored:
        mesh, truth = subject.mesh, _truth(subject)
        vertices = np.asarray(mesh.vertices, np.float64)
        points = np.concatenate([vertices, lattice_points(mesh, self.spacing)])
        seen = np.ones(len(points), dtype=bool)
        if self.cull:
            cameras = subject.seen("they say what of the mesh was seen, unless cull: false is said").cameras
            seen = self._seen(mesh, points, cameras[np.arange(0, len(cameras), self.every)])
        ours = voxel_means(need_points(points[seen], "mesh that a camera saw"), self.voxel)
        theirs = voxel_means(truth, self.voxel)
        accuracy, completeness = nearest_distances(ours, theirs), nearest_distances(theirs, ours)
        error = np.where(seen[: len(vertices)], nearest_distances(vertices, theirs), np.nan)
        numbers = {
            "accuracy": float(accuracy.mean()),
            "completeness": float(completeness.mean()),
            **precision_and_recall(accuracy, completeness, self.threshold),
            "threshold": self.threshold,
            "unit": "m",
            "seen_share": float(seen.mean()),
            "points": len(ours),
            "reference_points": len(theirs),
        }
        return Scored(numbers, mesh, error, worst=2 * self.threshold)

    def _seen(self, mesh: trimesh.Trimesh, points: Floats, cameras: Cameras) -> NDArray[np.bool_]:
        """[N] whether one of the cameras, world frame, sees points [N, 3] of the mesh."""
        middle = points.mean(axis=0)  # float32 is precise near zero alone
        local = cameras.transformed(np.block([[np.eye(3), -middle[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]))
        place = torch.from_numpy((points - middle).astype(np.float32))
        corners = torch.from_numpy((np.asarray(mesh.vertices) - middle).astype(np.float32))
        triangles = Triangles(corners, torch.from_numpy(np.array(mesh.faces, np.int32)))
        seen = torch.zeros(len(points), dtype=torch.bool)
        for view in range(len(local)):
            open_ = (~seen).nonzero()[:, 0]
            pixel, depth = local.project(place[open_], view)
            held = (depth > 0) & (depth <= self.farthest) & (pixel >= 0).all(-1) & (pixel < local.size[view]).all(-1)
            found = open_[held]
            seen[found] = unhidden(triangles, place[found], local.centers[view], self.spacing)
        return seen.numpy()


def _truth(subject: Subject) -> Floats:
    """[N, 3] the vertices of the true mesh, or points. Raises InputError."""
    if not has_faces(subject.reference):
        return read_points(subject.reference)
    return np.asarray(read_mesh(subject.reference, up=subject.up).vertices, np.float64)
