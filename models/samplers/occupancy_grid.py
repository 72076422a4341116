"""Steps through the cells in which something may be."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.kernels.march import blocks, march
from models.samplers.base import Probed, Sampler, SamplerConfig
from models.samples import PackedSamples
from utils.random_stream import uniform

if TYPE_CHECKING:
    from dataio.cameras import Rays


# Samples behind less light than this are dropped.
HIDDEN = 1e-3
# Values that fall less than this per unit of distance say nothing about where the ray meets the surface.
STEEP = 0.1


class OccupancyGridConfig(SamplerConfig):
    """Even steps through the occupied cells of a grid over the cube [-1, 1]^3."""

    type: Literal["occupancy_grid"] = "occupancy_grid"
    resolution: int = Field(64, ge=4, le=512)
    step: tuple[float, float] = Field(
        (0.006, 0.03),
        description="shortest and longest step, scene units; the opacity's width decides between them, or, where it has"
        " none, the progress of the run: long steps first, the shortest from its middle on",
    )
    step_per_width: float = Field(1.0, gt=0, description="step as a multiple of the width of the opacity's rise")
    prune: bool = Field(True, description="look at the value first, and spend color and gradient where it matters")
    every: int = Field(16, ge=1, description="training steps between two partial refreshes")
    share: int = Field(8, ge=1, description="each refresh visits one cell in this many, in turn")

    def build(self) -> OccupancyGrid:
        return OccupancyGrid(self)


class OccupancyGrid(Sampler):
    """Packed samples at lattice steps in occupied cells.

    A cell is occupied when the opacity says that some point within its half diagonal may matter. The grid is a
    function of the field at the cells' centers: the same on every rank, with no random numbers.
    """

    occupied: Tensor
    coarse: Tensor

    def __init__(self, config: OccupancyGridConfig) -> None:
        super().__init__()
        self.config = config
        self.step, self.share = config.step[1], 0.0
        n = config.resolution
        self.register_buffer("occupied", torch.ones(n, n, n, dtype=torch.uint8))
        self.register_buffer("coarse", blocks(self.occupied), persistent=False)

    def update(self, progress: float) -> None:
        self.share = min(2 * progress, 1.0)

    def get_extra_state(self) -> dict[str, float]:
        return {"step": self.step}

    def set_extra_state(self, state: Any) -> None:
        self.step = float(state["step"])
        self.coarse = blocks(self.occupied)  # the occupied cells have been loaded by now

    @torch.no_grad()
    def forward(self, rays: Rays, medium: Probed) -> PackedSamples:
        jitter = uniform(rays.near.shape, rays.near.device) if self.training else torch.full_like(rays.near, 0.5)
        starts, ray_index, offsets = march(
            rays.origins,
            rays.directions,
            near=rays.near,
            far=rays.far,
            jitter=jitter,
            occupied=self.occupied,
            coarse=self.coarse,
            step=self.step,
        )
        samples = PackedSamples.from_starts(rays, starts, ray_index, offsets=offsets, step=self.step)
        return self._prune(samples, medium) if self.config.prune else samples

    def _prune(self, samples: PackedSamples, medium: Probed) -> PackedSamples:
        """Drop what a value alone shows to be transparent or hidden, before gradients and colors are computed.

        What is left is evaluated where its interval meets the surface, if it does: there the color is seen.
        """
        value = medium.value(samples.positions)
        through = torch.exp(-samples.exclusive_sum(medium.probe(value, samples)))
        keep = (through > HIDDEN) & medium.occupied(value, self.step)
        kept = samples.where(keep)
        if medium.width() is None:
            return kept
        slope = (value - samples.preceding(value)) / (samples.t - samples.preceding(samples.t)).clamp_min(1e-6)
        meets = kept.t - (value / slope.clamp_max(-STEEP))[keep]
        return replace(kept, t=torch.where((kept.t0 <= meets) & (meets <= kept.t1), meets, kept.t))

    @torch.no_grad()
    def refresh(self, medium: Probed, step: int) -> None:
        if step % self.config.every:
            return
        width = medium.width()
        shortest, longest = self.config.step
        if width is not None:
            self.step = min(max(width * self.config.step_per_width, shortest), longest)
        else:
            self.step = longest ** (1 - self.share) * shortest**self.share
        turn, n = step // self.config.every, self.config.resolution
        cells = torch.arange(n**3, device=self.occupied.device)
        if turn > 0:
            cells = cells[turn % self.config.share :: self.config.share]
        centers = (torch.stack([cells // (n * n), cells // n % n, cells % n], -1) + 0.5) * (2 / n) - 1
        flat, reach = self.occupied.view(-1), math.sqrt(3) / n
        for part, center in zip(cells.split(65536), centers.split(65536), strict=True):
            flat[part] = medium.occupied(medium.value(center), reach).to(torch.uint8)
        self.coarse = blocks(self.occupied)
