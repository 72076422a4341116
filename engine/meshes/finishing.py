"""A surface as the training views saw it: colored, and open where none saw what the unit sphere closed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.meshes.gains import photograph_gains
from engine.meshes.masks import Masks, MaskTally
from engine.meshes.photographs import colors_as_photographed, photographs_of
from engine.meshes.views import colors_as_seen, sights_of, views_of, without_caps
from utils.errors import InputError
from utils.meshing.mesh import simplified_among, with_colors
from utils.pictures.images import to_uint8

if TYPE_CHECKING:
    import trimesh

    from engine.run import Run
    from models.rendering.visible import Seen

LEAST_SEEN = 0.05  # share of vertices


@dataclass(frozen=True)
class Finished:
    """A surface as the training views saw it, scene frame: whole, as it hides what is behind it, and what is kept."""

    whole: trimesh.Trimesh
    kept: NDArray[np.bool_]  # [F]
    said: str

    @property
    def mesh(self) -> trimesh.Trimesh:
        """What is kept, with its colors."""
        if self.kept.all():
            return self.whole
        mesh = self.whole.copy()
        mesh.update_faces(self.kept)
        mesh.remove_unreferenced_vertices()
        return mesh


def as_seen(
    run: Run,
    mesh: trimesh.Trimesh,
    *,
    cell: float,
    color: bool,
    close: bool,
    min_views: int = 0,
    masks: Masks | None = None,
    faces: int | None = None,
) -> Finished:
    """The mesh with colors as training views saw it, open where none saw what the sphere closed.

    mesh: scene frame, triangles of about `cell` scene units. min_views: as of `faces_kept`. masks: what is outside of
    them goes too. faces: to which what is kept is simplified, None to leave it as it is.
    """
    seen, within = looked_at(run, mesh, cell, masks)
    kept, said = faces_kept(run, mesh, seen, close=close, min_views=min_views, within=within)
    if faces is not None and kept.sum() > faces:
        mesh, kept = simplified_among(mesh, kept, faces)
        cell = max(cell, float(mesh.area_faces[kept].mean()) ** 0.5)
        seen = views_of(run, mesh, sights_of(run, mesh, cell)) if color else seen
    return Finished(colored(run, mesh, seen, cell) if color else mesh, kept, said)


def colored(run: Run, mesh: trimesh.Trimesh, seen: Seen, cell: float) -> trimesh.Trimesh:
    """The mesh, scene frame, with the colors of the photographs, or of the field along the views that see it."""
    colors, scene = colors_as_seen(run, mesh, seen), photographs_of(run)
    if scene is not None:
        gains = photograph_gains(run, scene, mesh, 2 * cell)
        colors = colors_as_photographed(run, scene, mesh, colors, gains)
    return with_colors(mesh, to_uint8(colors))


def looked_at(
    run: Run, mesh: trimesh.Trimesh, cell: float, masks: Masks | None = None
) -> tuple[Seen, NDArray[np.bool_] | None]:
    """As `views_of`, and which vertices [V] are within the masks; a line says where it is not what was photographed."""
    sights, tally = sights_of(run, mesh, cell), None if masks is None else MaskTally(run, masks, mesh)
    seen = views_of(run, mesh, sights if tally is None else tally.counted(sights))
    if seen.share < LEAST_SEEN:
        print(
            f"warning: {seen.share:.1%} of the surface is seen by a training view: it is not what was photographed - is"
            " the object in the unit sphere? See data.center and data.radius, and python prepare.py --check",
            file=sys.stderr,
        )
    return seen, None if tally is None else tally.within()


def faces_kept(
    run: Run,
    mesh: trimesh.Trimesh,
    seen: Seen,
    *,
    close: bool,
    min_views: int,
    within: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.bool_], str]:
    """[F] bool: the faces that stay, and what to say of them.

    close: the unit sphere closes the surface. min_views: faces of which a vertex is seen by fewer training views go
    too. within: [V] bool, and so do those of which a vertex is not among these. Raises InputError where nothing would
    be left by that.
    """
    said = f"{1 - seen.share:.0%} of it unseen"
    kept, opened = without_caps(run, mesh, seen)
    if close or not kept.any():
        kept, opened = np.ones(len(mesh.faces), bool), 0.0
    if opened > 0:
        said += f", {opened:.0%} of the area left open (--close keeps it)"
    if min_views:
        kept = kept & (seen.count.numpy() >= min_views)[mesh.faces].all(1)
    if not kept.any():
        raise InputError(f"--min-views {min_views}: no face is seen by so many training views - expected fewer")
    if within is not None:
        kept = kept & within[mesh.faces].all(1)
    if not kept.any():
        raise InputError("--masks: all of the surface lies outside of the masks - expected masks of what was trained")
    if min_views or within is not None:
        said += f", {kept.mean():.0%} of the faces kept"
    return kept, said
