"""A surface as the training views saw it: colored, and open where none saw what the unit sphere closed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.meshes.masks import Masks, within_masks
from engine.meshes.photographs import colors_as_photographed, photographs_of
from engine.meshes.views import colors_as_seen, views_of, without_caps
from utils.errors import InputError
from utils.meshing.mesh import with_colors
from utils.pictures.images import to_uint8

if TYPE_CHECKING:
    import trimesh

    from engine.run import Run
    from models.rendering.visible import Seen

LEAST_SEEN = 0.05  # share of vertices


def as_seen(
    run: Run,
    mesh: trimesh.Trimesh,
    *,
    cell: float,
    color: bool,
    close: bool,
    min_views: int = 0,
    masks: Masks | None = None,
) -> tuple[trimesh.Trimesh, str]:
    """The mesh with colors as training views saw it, open where none saw what the sphere closed; and what to say of it.

    mesh: scene frame, triangles of about `cell` scene units. min_views: as of `faces_kept`. masks: what is outside of
    them goes too.
    """
    seen = seen_or_warned(run, mesh, cell)
    within = within_masks(run, masks, mesh, cell) if masks is not None else None
    kept, said = faces_kept(run, mesh, seen, close=close, min_views=min_views, within=within)
    if color:
        colors, scene = colors_as_seen(run, mesh, seen), photographs_of(run)
        if scene is not None:
            colors = colors_as_photographed(run, scene, mesh, colors)
        mesh = with_colors(mesh, to_uint8(colors))
    if not kept.all():
        mesh.update_faces(kept)
        mesh.remove_unreferenced_vertices()
    return mesh, said


def seen_or_warned(run: Run, mesh: trimesh.Trimesh, cell: float) -> Seen:
    """As `views_of`; a line says where it is not what was photographed."""
    seen = views_of(run, mesh, cell)
    if seen.share < LEAST_SEEN:
        print(
            f"warning: {seen.share:.1%} of the surface is seen by a training view: it is not what was photographed - is"
            " the object in the unit sphere? See data.center and data.radius, and python prepare.py --check",
            file=sys.stderr,
        )
    return seen


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
