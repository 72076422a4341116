"""An axis-aligned box within the unit cube."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from models.bounds.base import Bounds, BoundsConfig

if TYPE_CHECKING:
    from dataio.cameras import Rays

Corner = tuple[float, float, float]


class BoxConfig(BoundsConfig):
    """Between two corners; the default is the cube about the unit sphere. Meshes show what of it the sphere holds."""

    type: Literal["box"] = "box"
    low: Corner = Field((-1.0, -1.0, -1.0), description="scene units, at least -1")
    high: Corner = Field((1.0, 1.0, 1.0), description="scene units, at most 1")

    @model_validator(mode="after")
    def _within_the_cube(self) -> BoxConfig:
        for low, high in zip(self.low, self.high, strict=True):
            if not -1 <= low < high <= 1:
                raise ValueError(f"should have -1 <= low < high <= 1 on each axis (got {low:g} and {high:g})")
        return self

    def build(self) -> Box:
        return Box(self)


class Box(Bounds):
    """low <= x <= high on each axis. Kay and Kajiya, "Ray Tracing Complex Scenes" (1986): slabs."""

    cuts = True
    low: Tensor
    high: Tensor

    def __init__(self, config: BoxConfig) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(config.low), persistent=False)
        self.register_buffer("high", torch.tensor(config.high), persistent=False)

    def clip(self, rays: Rays) -> Rays:
        """Rays [R] -> their pieces [R] inside the box; see `Bounds.clip`. A ray within a wall's plane may miss."""
        # A ray parallel to a wall meets it at a distance beyond all others.
        along = torch.where(rays.directions.abs() < 1e-12, 1e-12, rays.directions)
        first, second = (self.low - rays.origins) / along, (self.high - rays.origins) / along
        near = torch.maximum(rays.near, torch.minimum(first, second).amax(-1))
        far = torch.minimum(rays.far, torch.maximum(first, second).amin(-1))
        empty = far < near
        return replace(rays, near=torch.where(empty, rays.near, near), far=torch.where(empty, rays.near, far))

    def contains(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N] bool; see `Bounds.contains`."""
        return ((x >= self.low) & (x <= self.high)).all(-1)
