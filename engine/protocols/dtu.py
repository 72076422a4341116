"""DTU's evaluation of a surface, in millimeters, on its own files: scanned points, observed volume, ground plane."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from pydantic import Field
from scipy.io import loadmat
from scipy.spatial import cKDTree

from dataio.files import need_folder
from engine.meshes.masks import grown, mask_at
from engine.protocols.base import Floats, ProtocolConfig, Scored, Sight, Subject, need_points
from utils.errors import InputError, printable
from utils.evaluation.point_metrics import read_points
from utils.evaluation.point_sets import lattice_points, thinned
from utils.meshing.mesh import submesh

LOW, HIGH = 1, 2  # margins below and above the box, as multiples of 60 mm: not alike in the published code either


class DtuProtocol(ProtocolConfig):
    """Mean distances of points no closer than 0.2 mm, those beyond 20 mm left out. --reference: a folder with

    Points/stl/stl024_total.ply, ObsMask/ObsMask24_10.mat and ObsMask/Plane24.mat of the scan 24. Source: Jensen et al.
    2014, in the form of DTUeval-python.
    """

    type: Literal["dtu"] = "dtu"

    scan: int = Field(ge=1, le=999, description="number of the scan, as 24")
    spacing: float = Field(0.2, gt=0, description="of the points, mm")
    margin: float = Field(60.0, ge=0, description="around the box of the observed volume, mm")
    farthest: float = Field(20.0, gt=0, description="distances beyond do not count, mm")
    dilation: int | None = Field(
        None, ge=0, le=500, description="cull what is outside of masks grown by a disk of so many pixels; null: nothing"
    )
    seed: int = Field(0, ge=0, description="of the order in which points are thinned")

    def score(self, subject: Subject) -> Scored:
        truth = _Truth.read(need_folder(str(subject.reference), "--reference"), self.scan)
        mesh = subject.mesh
        if self.dilation is not None:
            mesh = _culled(mesh, subject.seen("masks cull the mesh"), self.dilation)
        sampled = np.concatenate([mesh.vertices, lattice_points(mesh, self.spacing)])
        points = thinned(sampled, self.spacing, seed=self.seed)
        near = need_points(points[truth.near(points, self.margin)], "mesh")
        observed = need_points(near[truth.observed(near)], "mesh within the observed volume")
        tree = cKDTree(truth.points)
        scanned = need_points(truth.above_plane, "scanned points above the plane")
        there = _mean_within(self.farthest, observed, tree)
        back = _mean_within(self.farthest, scanned, cKDTree(near))
        vertices = np.asarray(mesh.vertices, np.float64)
        counts = truth.near(vertices, self.margin) & truth.observed(vertices)
        error = np.full(len(vertices), np.nan)
        error[counts] = tree.query(vertices[counts])[0]
        numbers = {
            "accuracy": there,
            "completeness": back,
            "overall": (there + back) / 2,
            "unit": "mm",
            "scan": self.scan,
            "points": len(observed),
            "reference_points": len(scanned),
            "culled_by_masks": self.dilation is not None,
        }
        return Scored(numbers, mesh, error, worst=self.farthest / 2)


@dataclass(frozen=True)
class _Truth:
    """The official files of a scan, millimeters."""

    points: Floats  # [P, 3]
    plane: Floats  # [4]
    volume: NDArray[np.bool_]  # [X, Y, Z] observed voxels
    box: NDArray[np.float32]  # [2, 3] least and greatest corner
    voxel: float

    @staticmethod
    def read(folder: Path, scan: int) -> _Truth:
        """Raises InputError."""
        mask = _matrices(folder / "ObsMask" / f"ObsMask{scan}_10.mat", ObsMask=(None, None, None), BB=(2, 3), Res=None)
        plane = _matrices(folder / "ObsMask" / f"Plane{scan}.mat", P=None)["P"].ravel()
        if plane.size != 4 or mask["Res"].size != 1 or not mask["Res"].item() > 0:
            raise InputError(f"{folder}: scan {scan} - got a plane of {plane.size} numbers - expected 4, and one Res")
        points = read_points(folder / "Points" / "stl" / f"stl{scan:03d}_total.ply")
        box = mask["BB"].astype(np.float32)  # as the published code has it
        return _Truth(points, plane.astype(np.float64), mask["ObsMask"] != 0, box, float(mask["Res"].item()))

    @property
    def above_plane(self) -> Floats:
        """[Q, 3] the scanned points that are not of the table."""
        return self.points[self.points @ self.plane[:3] + self.plane[3] > 0]

    def near(self, points: Floats, margin: float) -> NDArray[np.bool_]:
        """[N] whether points [N, 3] are in the box, or not far from it."""
        low, high = self.box[0] - LOW * margin, self.box[1] + HIGH * margin
        return np.asarray(((points >= low) & (points < high)).all(axis=1))

    def observed(self, points: Floats) -> NDArray[np.bool_]:
        """[N] whether points [N, 3] lie in voxels that were observed."""
        cell = np.rint((points - self.box[0]) / self.voxel)
        inside = ((cell >= 0) & (cell < self.volume.shape)).all(axis=1)
        found = np.zeros(len(points), dtype=bool)
        found[inside] = self.volume[tuple(cell[inside].astype(np.int64).T)]
        return found


def _matrices(path: Path, **shapes: tuple[int | None, ...] | None) -> dict[str, NDArray[Any]]:
    """Arrays of a MATLAB file by name, of these shapes. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such file - expected DTU's own files, as Points/stl and ObsMask/*.mat have them")
    try:
        content = loadmat(path, variable_names=list(shapes))
    except Exception as error:  # scipy's reader raises whatever its parsing stumbles over
        raise InputError(f"{path}: not a readable MATLAB file ({printable(str(error)[:100])})") from error
    for name, shape in shapes.items():
        array: Any = content.get(name)
        numbers = isinstance(array, np.ndarray) and array.dtype.kind in "biuf" and array.size > 0
        if not numbers or not (shape is None or _fits(array.shape, shape)):
            raise InputError(f"{path}: {name} - missing or of another shape - expected numbers, as DTU has them")
    return {name: content[name] for name in shapes}


def _fits(found: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(found) == len(wanted) and all(w in (None, f) for f, w in zip(found, wanted, strict=True))


def _mean_within(farthest: float, points: Floats, others: cKDTree) -> float:
    """The mean of those distances of points [N, 3] to the nearest of others that count; InputError where none does."""
    distance = np.asarray(others.query(points, distance_upper_bound=farthest)[0])
    near = distance[distance < farthest]
    if len(near) == 0:
        raise InputError(f"mesh - nothing of it is within {farthest:g} mm of the scan - is it in DTU's world frame?")
    return float(near.mean())


def _culled(mesh: trimesh.Trimesh, sight: Sight, dilation: int) -> trimesh.Trimesh:
    """The faces all of whose corners lie, in each picture that holds them, in its mask grown by `dilation` pixels."""
    masks = sight.masks()
    if masks is None:
        raise InputError("--protocol: dilation - the data have no masks - expected masks, or dilation: null")
    vertices = torch.from_numpy(np.asarray(mesh.vertices, np.float32))
    kept = np.ones(len(vertices), dtype=bool)
    for view in range(len(sight.cameras)):
        pixel, depth = (x.numpy() for x in sight.cameras.project(vertices, view))
        held, inside = mask_at(grown(masks[view], dilation), pixel, depth)
        kept &= inside | ~held
    chosen = kept[np.asarray(mesh.faces)].all(axis=1)
    if not chosen.any():
        raise InputError("mesh - nothing of it lies within the masks - is it in the world frame of the data?")
    return submesh(mesh, chosen)
