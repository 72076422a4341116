"""The extracted mesh, by casting rays at its triangles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import trimesh
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from models.kernels.rays.cast import Triangles
from models.rendering.frames import Seen, Tile, places_in_pixel, tiles_of
from models.rendering.renderers.base import Renderer, RendererConfig, Source
from utils.errors import InputError
from utils.meshing.mesh import read_mesh, transformed, vertex_colors

if TYPE_CHECKING:
    from dataio.cameras import Cameras, Rays

GRAY, WHITE = 0.7, (1.0, 1.0, 1.0)  # of a mesh without colors; behind a mesh without a model


class MeshRendererConfig(RendererConfig):
    """A triangle mesh in the world frame, with its vertices' colors and smooth normals."""

    type: Literal["mesh"] = "mesh"
    path: Path | None = Field(None, description="a .ply, .obj or .glb; default RUN/meshes/mesh.ply")
    rays: int = Field(2, ge=1, le=8, description="per pixel along each of its sides, averaged")

    def build(self, source: Source) -> MeshRenderer:
        path = self.path or source.meshes / "mesh.ply"
        if self.path is None and not path.is_file():
            raise InputError(f"{path}: no such file - run extract_mesh.py, or name one: {{type: mesh, path: FILE}}")
        mesh = transformed(read_mesh(path, up=source.up), np.linalg.inv(source.world_from_scene))
        behind = torch.tensor(WHITE) if source.model is None else source.model.background_color
        return MeshRenderer(mesh, behind.to(source.device), self.rays)


class MeshRenderer(Renderer):
    """Rays cast at a mesh in the scene frame; a color [3], whose device it uses, where they miss it.

    rays: per pixel along each of its sides. What an edge covers of a pixel is seen by some of them, as by a photograph.
    """

    def __init__(self, mesh: trimesh.Trimesh, background: Tensor, rays: int = 1) -> None:
        device, own = background.device, vertex_colors(mesh)
        self.background, self.places = background, places_in_pixel(rays)
        self.faces = torch.from_numpy(np.array(mesh.faces, np.int32)).to(device)
        self.triangles = Triangles(torch.from_numpy(np.array(mesh.vertices, np.float32)).to(device), self.faces)
        colors = np.full((len(mesh.vertices), 3), GRAY) if own is None else own[:, :3] / 255.0
        both = np.concatenate([colors, mesh.vertex_normals], 1).astype(np.float32)
        self.attributes = torch.from_numpy(both).to(device)  # [V, 6] color and normal

    def tiles(self, cameras: Cameras, index: int, *, coarse: int = 1) -> Iterator[Tile]:
        return tiles_of(self.look, cameras, index, coarse=coarse, places=self.places)

    def look(self, rays: Rays) -> Seen:
        """What rays [R] see of the mesh, from either side: colors and normals between those of the vertices."""
        t, face, share = self.triangles.cast(rays.origins, rays.directions, near=rays.near)
        meets = torch.isfinite(t)
        hits = meets.nonzero()[:, 0]
        corners = self.attributes[self.faces[face[hits].long()].long()]  # [K, 3, 6]
        color, normal = (corners * share[hits, :, None]).sum(1).split(3, -1)
        return Seen(
            depth=torch.where(meets, t, 0.0),
            opacity=meets.float(),
            color=self.background.repeat(len(t), 1).index_copy(0, hits, color),
            normal=torch.zeros_like(rays.origins).index_copy(0, hits, F.normalize(normal, dim=-1)),
        )
