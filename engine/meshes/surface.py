"""The surface of a run, found on a lattice over the unit sphere: as a mesh, or as files for one that is too large."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from utils.meshing.lattice import Field, Lattice, Region, Values, lattice_surface
from utils.meshing.mesh import extract_surface, no_surface
from utils.meshing.surface_files import SurfaceFiles
from utils.meshing.welding import Welder

if TYPE_CHECKING:
    import trimesh

    from engine.run import Run
    from utils.meshing.mesh import Keep

SOLID_SHARE = 0.75  # of the unit sphere: from here on, what lies beyond it counts as solid too


def scene_surface(run: Run, resolution: int, region: Region | None = None) -> trimesh.Trimesh:
    """The surface within the unit sphere, scene frame, closed at the sphere; region: what is beyond it is left out.

    Where most of the sphere lies in the solid, as around a room, the solid goes on beyond: there is no outer side.
    """
    solid = _solid_beyond(run)
    return extract_surface(_value(run), resolution=resolution, radius=1.0, solid_beyond=solid, region=region)


def surface_files(
    run: Run, resolution: int, folder: Path, region: Region | None, *, keep: Keep, most: int | None
) -> tuple[SurfaceFiles, int]:
    """The same in files in a folder that is there, in memory that does not grow with the resolution.

    keep, most: as of `kept_pieces`. Also how many pieces were dropped. Raises OSError.
    """
    field = Field(_value(run), Lattice(resolution, 1.0), radius=1.0, solid_beyond=_solid_beyond(run))
    files, welder = SurfaceFiles(folder), Welder(resolution)
    files.take(lattice_surface(field, welder, region=region, normals=True))
    if not files.size[1]:
        raise no_surface()
    return files, files.keep(welder.pieces(), keep, most)


def _value(run: Run) -> Values:
    def value(points: NDArray[np.float32]) -> NDArray[np.float32]:
        return run.surface_value(torch.from_numpy(points)).numpy()

    return value


def _solid_beyond(run: Run) -> bool:
    around = np.random.default_rng(0).normal(size=(4096, 3)).astype(np.float32)
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    return float((_value(run)(around) < 0).mean()) > SOLID_SHARE


@dataclass(frozen=True)
class Near:
    """What is near the faces of a coarser mesh that are kept: a region to find the same on a finer lattice in.

    tree: of the middles [F, 3] of the faces. kept: [F] bool. within: a region that it is a part of.
    """

    tree: cKDTree
    kept: NDArray[np.bool_]
    within: Region | None

    @classmethod
    def of(cls, mesh: trimesh.Trimesh, kept: NDArray[np.bool_], within: Region | None) -> Near:
        """kept: [F] bool of the mesh's faces."""
        return cls(cKDTree(mesh.triangles_center), kept, within)

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """[N] bool of points [N, 3]."""
        _, nearest = self.tree.query(points)
        inside = self.kept[nearest]
        return inside if self.within is None else inside & self.within.contains(points)

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The least [3] and the largest [3] coordinates of a box around it."""
        return (np.full(3, -1.0), np.full(3, 1.0)) if self.within is None else self.within.bounds()
