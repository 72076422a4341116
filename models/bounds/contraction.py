"""All of space, contracted: one medium for an object and all that lies behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.bounds.base import Bounds, BoundsConfig
from models.capabilities import EVERYWHERE, Offer

if TYPE_CHECKING:
    from dataio.cameras import Rays


class ContractionConfig(BoundsConfig):
    """All of space; the field gets contracted coordinates. Barron et al., "Mip-NeRF 360" (2022), eq. 10, halved."""

    type: Literal["contraction"] = "contraction"
    region: ClassVar[Offer] = EVERYWHERE
    norm: Literal["l2", "linf"] = Field("l2", description="of a point: space becomes a ball, or a cube")

    def build(self) -> Contraction:
        return Contraction(self)


class Contraction(Bounds):
    """x -> x / 2 in the unit sphere (or cube), (1 - 1 / (2 |x|)) x / |x| beyond it, so that all lies within one."""

    contracts = True

    def __init__(self, config: ContractionConfig) -> None:
        super().__init__()
        self.largest = config.norm == "linf"

    def clip(self, rays: Rays) -> Rays:
        """Rays [R] as they are; see `Bounds.clip`."""
        return rays

    def contains(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N] bool, all true; see `Bounds.contains`."""
        return torch.ones_like(x[..., 0], dtype=torch.bool)

    def contract(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N, 3], of norm below one; see `Bounds.contract`. Differentiable in x."""
        size = x.abs().amax(-1, keepdim=True) if self.largest else x.norm(dim=-1, keepdim=True)
        size = size.clamp_min(1.0)
        return x / size * (1 - 0.5 / size)


def expanded(y: Tensor, *, farthest: float = 1e4) -> Tensor:
    """[*N, 3] -> [*N, 3], the inverse of `Contraction.contract` with norm l2; at most `farthest` away, scene units."""
    size = y.norm(dim=-1, keepdim=True)
    radius = 0.5 / (1 - size).clamp_min(0.5 / farthest)
    return torch.where(size < 0.5, 2 * y, y / size.clamp_min(0.5) * radius)
