"""The sdf along rays of measured depth."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from models.capabilities import SDF, Offer
from models.losses.base import DataNeeds, LossConfig, Step, first_indices, mean_of
from utils.random_stream import uniform


class SdfDepthLoss(LossConfig):
    """The sdf along rays of measured depth: free before the surface, a distance near it; nothing without depth.

    At distance b = depth - t before (b > 0) or behind the surface, within `band` of it, the value should be b times
    the cosine between ray and normal; further in front it should be positive, and at most b. Sum of both means over
    all ranks' points. After Ortiz et al., "iSDF" (2022), eq. 5 to 7, and Azinovic et al., "Neural RGB-D Surface
    Reconstruction" (2022), eq. 6 and 7; the cosine is ours.
    """

    type: Literal["sdf_depth"] = "sdf_depth"
    needs: ClassVar[frozenset[Offer]] = frozenset({SDF})
    band: float = Field(0.03, gt=0, description="half its width, scene units")
    near_points: int = Field(4, ge=1, le=4096, description="points per ray within the band")
    free_points: int = Field(4, ge=1, le=4096, description="points per ray in front of the band")
    rays: int = Field(1024, ge=1, le=1 << 24, description="rays per step and rank, the first ones")

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(pixels=("depth",))

    def __call__(self, step: Step) -> Tensor:
        if step.batch.depth is None:
            return step.rendering.depth.new_zeros(())
        first = step.batch.depth[: math.ceil(self.rays * step.batch.share)]
        known, valid = first_indices(first > 0, len(first))
        rays, depth = step.batch.rays[known], step.batch.depth[known, None]
        cosine = self._cosine(step.rendering.normal[known], rays.directions)
        near = self.band * (2 * uniform((len(known), self.near_points), depth.device) - 1)
        share = uniform((len(known), self.free_points), depth.device)
        free = self.band + share * (depth - self.band - rays.near[:, None]).clamp_min(0)
        value = step.model.foreground.value(rays.at(depth - torch.cat([near, free], dim=1)))
        beside, ahead = value.split([self.near_points, self.free_points], dim=1)
        return mean_of((beside - near * cosine).abs().mean(1) + in_front(ahead, free).mean(1), valid)

    def _cosine(self, normal: Tensor, directions: Tensor) -> Tensor:
        """[R, 1] of the angle between rendered normals [R, 3] and rays; 1 where the normals do not agree yet."""
        cosine = F.cosine_similarity(normal, -directions, dim=-1).clamp_min(0.1)
        return torch.where(normal.norm(dim=-1) > 0.5, cosine, 1.0)[:, None]


def in_front(value: Tensor, distance: Tensor) -> Tensor:
    """[*N] penalty of sdf values [*N] at points that lie `distance` [*N] in free space before the surface.

    Zero for values between zero and that distance. Differentiable in value. Ortiz et al., "iSDF" (2022), eq. 5.
    """
    return F.relu(torch.maximum(torch.exp(-5 * value.clamp_min(-1)) - 1, value - distance))
