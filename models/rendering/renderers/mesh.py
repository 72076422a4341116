"""The extracted mesh, by casting rays at its triangles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from models.kernels.rays.cast import Triangles
from models.rendering.frames import Seen, Tile, places_in_pixel, tiles_of
from models.rendering.renderers.base import Renderer, RendererConfig, Source
from utils.errors import InputError
from utils.meshing.mesh import read_mesh, texture_of, transformed, vertex_colors

if TYPE_CHECKING:
    from dataio.cameras import Cameras, Rays

GRAY, WHITE = 0.7, (1.0, 1.0, 1.0)  # of a mesh without colors; behind a mesh without a model


class OfMesh(RendererConfig):
    """What is cast at a triangle mesh in the world frame."""

    path: Path | None = Field(None, description="a .ply, .obj, .glb or .stl; default RUN/meshes/mesh.ply")
    rays: int = Field(2, ge=1, le=8, description="per pixel along each of its sides, averaged")

    def build(self, source: Source) -> MeshRenderer:
        path = self.path or source.meshes / "mesh.ply"
        if self.path is None and not path.is_file():
            raise InputError(f"{path}: no such file - run extract_mesh.py, or name one: {{type: mesh, path: FILE}}")
        mesh = transformed(read_mesh(path, up=source.up), np.linalg.inv(source.world_from_scene))
        behind = torch.tensor(WHITE) if source.model is None else source.model.background_color
        return self.renderer(mesh, behind.to(source.device))

    def renderer(self, mesh: trimesh.Trimesh, behind: Tensor) -> MeshRenderer:
        """What shows a mesh in the scene frame before a color [3]."""
        return MeshRenderer(mesh, behind, self.rays)


class MeshRendererConfig(OfMesh):
    """A triangle mesh in the world frame, with its texture or its vertices' colors, and smooth normals."""

    type: Literal["mesh"] = "mesh"


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
        texture = texture_of(mesh)
        self.picture = None if texture is None else _sampled(texture[1], device)
        both = np.concatenate([colors if texture is None else texture[0], mesh.vertex_normals], 1).astype(np.float32)
        self.attributes = torch.from_numpy(both).to(device)  # [V, 6] color and normal, or [V, 5] with a texture's place

    def tiles(self, cameras: Cameras, index: int, *, coarse: int = 1) -> Iterator[Tile]:
        return tiles_of(self.look, cameras, index, coarse=coarse, places=self.places)

    def look(self, rays: Rays) -> Seen:
        """What rays [R] see of the mesh, from either side."""
        t, face, share = self.triangles.cast(rays.origins, rays.directions, near=rays.near)
        meets = torch.isfinite(t)
        hits = meets.nonzero()[:, 0]
        color, normal = self.shaded(rays[hits], t[hits], face[hits].long(), share[hits])
        return Seen(
            depth=torch.where(meets, t, 0.0),
            opacity=meets.float(),
            color=self.background.repeat(len(t), 1).index_copy(0, hits, color),
            normal=torch.zeros_like(rays.origins).index_copy(0, hits, F.normalize(normal, dim=-1)),
        )

    def shaded(self, rays: Rays, t: Tensor, face: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Color and normal [K, 3] between those of the vertices, the color by the texture where there is one.

        Of rays [K] that meet faces [K] at distance t [K], at barycentric shares [K, 3].
        """
        corners = self.attributes[self.faces[face].long()]  # [K, 3, 5 or 6]
        look, normal = (corners * share[:, :, None]).sum(1).tensor_split([-3], -1)
        return look if self.picture is None else _between_texels(self.picture, look), normal


def _sampled(picture: NDArray[np.uint8], device: torch.device) -> Tensor:
    """[1, 3, H, W] in [0, 1] of a picture [H, W, 3]."""
    return torch.from_numpy(picture.transpose(2, 0, 1).copy()).to(device)[None].float() / 255.0


def _between_texels(picture: Tensor, uv: Tensor) -> Tensor:
    """Colors [K, 3] of a picture [1, 3, H, W] at places [K, 2] from the bottom left, linear between texels."""
    places = torch.stack([2.0 * uv[:, 0] - 1.0, 1.0 - 2.0 * uv[:, 1]], -1)
    found = F.grid_sample(picture, places[None, :, None], padding_mode="border", align_corners=False)
    return found[0, :, :, 0].T
