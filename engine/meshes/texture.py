"""A picture on a mesh, baked from the photographs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import trimesh

from engine.meshes.points import PointColors
from utils.meshing.mesh import with_texture
from utils.meshing.scales import smooth_normals
from utils.meshing.texture import Atlas, padded

if TYPE_CHECKING:
    from dataio.scene import Scene
    from engine.run import Run

MARGIN = 2e-3  # scene units: how far before a texel its own surface may be met


def textured(
    run: Run, scene: Scene | None, mesh: trimesh.Trimesh, hiding: trimesh.Trimesh, size: int
) -> trimesh.Trimesh:
    """The mesh with a picture of about size x size texels, whose colors are those of `PointColors`; scene frame.

    hiding: what may stand before a texel, the same mesh before it was opened.
    """
    atlas, colors = Atlas.of(mesh, size), PointColors(run, scene, hiding, MARGIN)
    vertices, normals = np.asarray(mesh.vertices), smooth_normals(mesh)
    picture = np.zeros((atlas.size[1], atlas.size[0], 3), np.uint8)
    known = np.zeros(picture.shape[:2], bool)
    for texels, corners, share in atlas.texels():
        points, along = ((values[corners] * share[..., None]).sum(1) for values in (vertices, normals))
        picture[texels[:, 0], texels[:, 1]] = colors(points, along)
        known[texels[:, 0], texels[:, 1]] = True
    flat = trimesh.Trimesh(vertices[atlas.rows], atlas.faces, process=False)
    return with_texture(flat, atlas.uv, padded(picture, known))
