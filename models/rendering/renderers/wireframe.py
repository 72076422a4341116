"""The edges of an extracted mesh, on its shaded faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import trimesh
from pydantic import Field
from torch import Tensor

from models.rendering.renderers.mesh import MeshRenderer, OfMesh

if TYPE_CHECKING:
    from dataio.cameras import Rays

INK = (0.10, 0.20, 0.45)
DENSE = (2.0, 8.0)  # a triangle's least height in pixels: with less no edges are drawn, from the second on all


class WireframeRendererConfig(OfMesh):
    """A triangle mesh in the world frame: faces lit from the camera, their edges as lines.

    Where triangles are hardly larger than pixels there are no lines: they would cover all.
    """

    type: Literal["wireframe"] = "wireframe"
    width: float = Field(1.2, gt=0, le=100, description="of a line, pixels")

    def renderer(self, mesh: trimesh.Trimesh, behind: Tensor) -> MeshRenderer:
        return WireframeRenderer(mesh, behind, self.rays, self.width)


class WireframeRenderer(MeshRenderer):
    """Rays cast at a mesh in the scene frame; width: of a line, pixels."""

    def __init__(self, mesh: trimesh.Trimesh, background: Tensor, rays: int, width: float) -> None:
        super().__init__(mesh, background, rays)
        self.width = width
        corners = np.asarray(mesh.vertices)[np.asarray(mesh.faces)]
        sides = np.linalg.norm(corners[:, [2, 0, 1]] - corners[:, [1, 2, 0]], axis=2)  # opposite of each corner
        heights = 2.0 * np.asarray(mesh.area_faces)[:, None] / sides.clip(1e-30)
        both = np.concatenate([heights, np.asarray(mesh.face_normals)], 1).astype(np.float32)
        self.flat = torch.from_numpy(both).to(background.device)  # [F, 6] heights over the sides, and the normal

    def shaded(self, rays: Rays, t: Tensor, face: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Shades with the lines over them, and the normals of the faces, [K, 3]; all as of `MeshRenderer`."""
        heights, normal = self.flat[face].split(3, -1)
        assert rays.pixel is not None
        pixel = (rays.pixel * t)[:, None]
        facing = (normal * rays.directions).sum(-1).abs()
        shade = (0.25 + 0.7 * facing)[:, None].expand(-1, 3)
        covered = self._covered(share * heights / pixel, heights.amin(-1) / pixel[:, 0])
        return shade + covered[:, None] * (torch.tensor(INK, device=t.device) - shade), normal

    def _covered(self, away: Tensor, height: Tensor) -> Tensor:
        """[K] how much of a ray's surroundings lines cover: away [K, 3] from the sides, least height [K]; pixels."""
        fades = ((height - DENSE[0]) / (DENSE[1] - DENSE[0])).clamp(0, 1)
        return fades * (0.5 * self.width - away.amin(-1) + 0.5).clamp(0, 1)
