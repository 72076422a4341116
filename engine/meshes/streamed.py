"""A mesh that is finer than memory would hold: colored and written part by part, by the look of a coarser one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.meshes.finishing import faces_kept, looked_at
from engine.meshes.masks import Masks
from engine.meshes.photographs import photographs_of
from engine.meshes.points import PointColors
from engine.meshes.surface import Near, scene_surface, surface_files
from utils.meshing.mesh import keep_pieces

if TYPE_CHECKING:
    import trimesh

    from engine.run import Run
    from utils.meshing.lattice import Region
    from utils.meshing.mesh import Keep
    from utils.meshing.scales import Floats

GUIDE = 256  # lattice points along an axis: the finest mesh that is held in memory, and what hides of a finer one


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a surface, as the options of extract_mesh.py say it."""

    resolution: int
    region: Region | None
    keep: Keep
    most: int | None
    close: bool
    color: bool
    min_views: int
    masks: Masks | None = None


def write_streamed(run: Run, paths: list[Path], wanted: Wanted, frame: Floats) -> tuple[str, str]:
    """Write .ply files of a surface moved by the similarity frame [4, 4]; its size, and what to say of it.

    A mesh of `GUIDE` points per side, with the same options, says what the training views see, what is left open, and
    what hides what. Raises InputError where there is no surface, StorageError where the disk refuses.
    """
    guide, _ = keep_pieces(scene_surface(run, GUIDE, wanted.region), wanted.keep, wanted.most)
    seen, within = looked_at(run, guide, 2 / GUIDE, wanted.masks)
    kept, said = faces_kept(run, guide, seen, close=wanted.close, min_views=wanted.min_views, within=within)
    region = wanted.region if kept.all() else Near.of(guide, kept, wanted.region)
    colors = _colors(run, guide) if wanted.color else None
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=paths[0].parent, prefix=".surface-") as folder:
        files, dropped = surface_files(
            run, wanted.resolution, Path(folder), region, keep=wanted.keep, most=wanted.most
        )
        for path in paths:
            files.write_ply(path, frame, colors)
    vertices, faces = files.size
    return f"{vertices} vertices, {faces} faces", f"{dropped} pieces dropped, {said}"


def _colors(run: Run, guide: trimesh.Trimesh) -> _Opaque:
    return _Opaque(PointColors(run, photographs_of(run), guide, margin=4 / GUIDE))


@dataclass(frozen=True)
class _Opaque:
    colors: PointColors

    def __call__(self, points: Floats, normals: Floats) -> NDArray[np.uint8]:
        """RGBA [N, 4] of points [N, 3] with normals [N, 3]."""
        return np.pad(self.colors(points, normals), ((0, 0), (0, 1)), constant_values=255)
