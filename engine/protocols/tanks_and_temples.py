"""Tanks and Temples' evaluation of a surface: aligned by cameras and nearest points, cropped, F at the scene's tau."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dataio.alignment import moved, nearest_similarity, robust_similarity
from dataio.files import need_folder, read_json, read_text
from engine.protocols.base import Floats, ProtocolConfig, Scored, Subject, need_points
from utils.errors import InputError, printable
from utils.evaluation.point_metrics import read_points
from utils.evaluation.point_sets import nearest_distances, precision_and_recall, voxel_means
from utils.meshing.mesh import transformed

TAU = {"Barn": 0.01, "Caterpillar": 0.005, "Church": 0.025, "Courthouse": 0.025, "Ignatius": 0.003,
       "Meetingroom": 0.01, "Truck": 0.005}  # fmt: skip
CAMERAS_REACH = 0.2  # meters
ROUNDS = ((1.0, 80.0), (0.5, 20.0), (None, 2.0))  # voxel and reach in tau; None: all points, evenly thinned
ITERATIONS = 20
MOST_POINTS = 4_000_000
AXES = {"X": (1, 2, 0), "Y": (0, 2, 1), "Z": (0, 1, 2)}  # two in the polygon's plane, one across


class TanksAndTemplesProtocol(ProtocolConfig):
    """Precision, recall and F at tau. --reference: the folder of a scene, as Barn/, with Barn.ply, Barn.json,

    Barn_trans.txt and Barn_COLMAP_SfM.log. Source: Knapitsch et al. 2017, as the official Python toolbox has it.
    """

    type: Literal["tanks_and_temples"] = "tanks_and_temples"

    tau: float | None = Field(None, gt=0, description="meters; null: that of the scene, by the folder's name")
    align: Literal["cameras", "nearest", "none"] = Field(
        "cameras",
        description="cameras: of the run or --data onto the official ones, then nearest points; nearest: these alone;"
        " none: the mesh lies in the frame of the truth",
    )
    trajectory: str | None = Field(None, description="a .log file with our cameras, instead of those of the data")
    centers: bool = Field(False, description="also the middles of faces, as 2DGS and GOF have it")
    seed: int = Field(0, ge=0)

    def score(self, subject: Subject) -> Scored:
        truth = _Truth.read(need_folder(str(subject.reference), "--reference"), self.tau)
        vertices = np.asarray(subject.mesh.vertices, np.float64)
        points = np.concatenate([vertices, subject.mesh.triangles_center]) if self.centers else vertices
        place = self._refined(points, truth, self._first(subject, truth))
        ours = voxel_means(need_points(truth.cropped(moved(points, place)), "mesh"), truth.tau / 2)
        theirs = voxel_means(need_points(truth.counted, "truth"), truth.tau / 2)
        accuracy, completeness = nearest_distances(ours, theirs), nearest_distances(theirs, ours)
        mesh = transformed(subject.mesh, place)
        error = np.full(len(vertices), np.nan)
        inside = truth.inside(np.asarray(mesh.vertices))
        error[inside] = nearest_distances(np.asarray(mesh.vertices)[inside], theirs) if inside.any() else 0.0
        numbers: dict[str, Any] = {
            **precision_and_recall(accuracy, completeness, truth.tau),
            "accuracy": float(accuracy.mean()),
            "completeness": float(completeness.mean()),
            "tau": truth.tau,
            "unit": "m",
            "points": len(ours),
            "reference_points": len(theirs),
            "scale": float(np.cbrt(np.linalg.det(place[:3, :3]))),
        }
        return Scored(numbers, mesh, error, worst=3 * truth.tau)

    def _first(self, subject: Subject, truth: _Truth) -> Floats:
        """[4, 4] where the mesh goes before nearest points refine it."""
        if self.align != "cameras":
            return np.eye(4)
        if self.trajectory is not None:
            centers = read_trajectory(Path(self.trajectory).expanduser())
        else:
            reason = "its cameras align the mesh, unless align: nearest or none is said"
            centers = subject.seen(reason).cameras.centers.double().numpy()
        if len(centers) != len(truth.cameras):
            raise InputError(
                f"{subject.reference}: {len(truth.cameras)} official cameras - got {len(centers)} of ours - expected"
                " the same pictures, or trajectory: FILE.log"
            )
        return robust_similarity(centers, truth.cameras, reach=CAMERAS_REACH, seed=self.seed)

    def _refined(self, points: Floats, truth: _Truth, place: Floats) -> Floats:
        """[4, 4] where the points [N, 3] go, after three rounds of nearest points within the crop."""
        for voxel, reach in ROUNDS if self.align != "none" else ():
            both = [truth.cropped(moved(points, place)), truth.counted]
            ours, theirs = (_fewer(part, None if voxel is None else voxel * truth.tau) for part in both)
            if len(ours) and len(theirs):
                found = nearest_similarity(ours, theirs, reach=reach * truth.tau, most=ITERATIONS)
                place = found @ place
        return place


def _fewer(points: Floats, voxel: float | None) -> Floats:
    """The points [N, 3] thinned to voxels, or every k-th of them so that about 4 million are left."""
    if voxel is not None:
        return voxel_means(points, voxel)
    return points[:: max(1, round(len(points) / MOST_POINTS))]


@dataclass(frozen=True)
class _Truth:
    """The official files of a scene, meters."""

    points: Floats  # [P, 3]
    cameras: Floats  # [C, 3]
    polygon: Floats  # [K, 2] in the plane of `axes`
    span: tuple[float, float]  # across it
    axes: tuple[int, int, int]
    tau: float

    @staticmethod
    def read(folder: Path, tau: float | None) -> _Truth:
        """Raises InputError."""
        name = folder.resolve().name
        if tau is None and name not in TAU:
            raise InputError(f"--reference: {folder} - expected a scene's folder, of {', '.join(TAU)}, or tau said")
        cameras = read_trajectory(folder / f"{name}_COLMAP_SfM.log")
        place = _matrix(read_text(folder / f"{name}_trans.txt").split(), folder / f"{name}_trans.txt")
        polygon, span, axes = _crop(folder / f"{name}.json")
        points = read_points(folder / f"{name}.ply")
        return _Truth(points, moved(cameras, place), polygon, span, axes, tau or TAU[name])

    @cached_property
    def counted(self) -> Floats:
        """The true points [N, 3] in the volume that counts."""
        return self.cropped(self.points)

    def cropped(self, points: Floats) -> Floats:
        """The points [N, 3] in the volume that counts."""
        return points[self.inside(points)]

    def inside(self, points: Floats) -> NDArray[np.bool_]:
        """[N] whether points [N, 3] are in the volume: a polygon, even-odd, extruded along an axis."""
        u, v, w = (points[:, axis] for axis in self.axes)
        crossed = np.zeros(len(points), dtype=np.int64)
        for (u0, v0), (u1, v1) in zip(self.polygon, np.roll(self.polygon, -1, axis=0), strict=True):
            spans = ((v0 < v) & (v1 >= v)) | ((v1 < v) & (v0 >= v))
            crossing = u0 + (v - v0) / np.where(v1 == v0, 1.0, v1 - v0) * (u1 - u0)
            crossed += spans & (crossing < u)
        return np.asarray((crossed % 2 == 1) & (w >= self.span[0]) & (w <= self.span[1]))


def read_trajectory(path: Path) -> Floats:
    """[C, 3] the cameras' centers in a .log file: three whole numbers, then a 4x4 camera-to-world, per camera.

    Raises InputError.
    """
    words = read_text(path).split()
    if not words or len(words) % 19:
        raise InputError(f"{path}: got {len(words)} numbers - expected 19 for each camera: 3 and a 4x4 matrix")
    poses = [_matrix(words[start + 3 : start + 19], path) for start in range(0, len(words), 19)]
    return np.array([pose[:3, 3] for pose in poses])


def _matrix(words: list[str], path: Path) -> Floats:
    """[4, 4] of 16 words. Raises InputError."""
    try:
        matrix = np.array([float(word) for word in words])
    except ValueError as error:
        raise InputError(f"{path}: not a file of numbers: {printable(str(error)[:80])}") from error
    if matrix.size != 16 or not np.isfinite(matrix).all():
        raise InputError(f"{path}: got {matrix.size} numbers - expected 16 finite ones, a 4x4 matrix")
    return matrix.reshape(4, 4)


def _crop(path: Path) -> tuple[Floats, tuple[float, float], tuple[int, int, int]]:
    """Polygon [K, 2], span across it and axes of a file of Open3D's polygon volumes. Raises InputError."""
    try:
        content = read_json(path)
        axes = AXES[content["orthogonal_axis"]]
        corners = np.array(content["bounding_polygon"], dtype=np.float64)
        span = float(content["axis_min"]), float(content["axis_max"])
    except (ValueError, KeyError, TypeError) as error:
        expected = "orthogonal_axis, axis_min, axis_max and bounding_polygon"
        raise InputError(f"{path}: {printable(repr(error)[:80])} - expected {expected}") from error
    fits = corners.ndim == 2 and corners.shape[1] == 3 and len(corners) >= 3
    if not fits or not np.isfinite([*corners.ravel(), *span]).all():
        raise InputError(f"{path}: bounding_polygon - got {corners.shape} - expected three corners or more, [K, 3]")
    return corners[:, axes[:2]], span, axes
