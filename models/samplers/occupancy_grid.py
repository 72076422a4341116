"""Steps through the cells in which something may be."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from models.capabilities import EVERYWHERE, INSIDE, OUTSIDE, Offer
from models.capacity import Capacity, Stages
from models.cells import NOTHING, Cells
from models.kernels.rays.march import blocks, march
from models.samplers.base import Queryable, Sampler, SamplerConfig
from models.samples import PackedSamples
from utils.random_stream import uniform

if TYPE_CHECKING:
    from dataio.cameras import Rays


# Samples behind less transmittance than this are dropped.
HIDDEN = 1e-3
# Where values fall less than this per scene unit, the point at which the ray meets the surface is not estimated.
STEEP = 0.1


Length = Annotated[float, Field(ge=1e-5, le=100.0)]  # of a step, scene units


class OccupancyGridConfig(SamplerConfig):
    """Steps through the occupied cells of nested grids, each about a cube of twice the side."""

    type: Literal["occupancy_grid"] = "occupancy_grid"
    resolution: int = Field(64, ge=4, le=512, description="cells to a side")
    levels: int = Field(
        1, ge=1, le=16, description="level l covers [-2^l, 2^l]^3 where finer ones do not; beyond the last is nothing"
    )
    step: tuple[Length, Length] = Field(
        (0.006, 0.03),
        description="shortest and longest step, scene units; the opacity's width decides between them, or, where it has"
        " none, the progress of the run: long steps first, the shortest from its middle on",
    )
    step_per_width: float = Field(1.0, gt=0, description="step as a multiple of the width of the opacity's rise")
    cone: float = Field(0.0, ge=0, le=0.5, description="a step at ray distance t is no shorter than this times t")
    measure: Literal["metric", "inverse_radius"] = Field(
        "metric", description="what multiplies a density: t, or 1/r beyond the unit sphere, as in NeRF++"
    )
    prune: bool = Field(True, description="look at the value first, and spend color and gradient where it matters")
    every: int = Field(16, ge=1, description="training steps between two partial refreshes")
    share: int = Field(8, ge=1, description="each refresh visits one cell in this many, in turn")

    @model_validator(mode="after")
    def _levels_fit(self) -> OccupancyGridConfig:
        if self.levels > 1 and self.resolution % 32:
            raise ValueError(f"resolution should be a multiple of 32 with levels above 1 (got {self.resolution})")
        return self

    @property
    def covers(self) -> frozenset[Offer]:
        # Beyond the last level is nothing: with one, the cube about the unit sphere is all.
        return frozenset({INSIDE} if self.levels == 1 else {INSIDE, OUTSIDE, EVERYWHERE})

    def build(self) -> OccupancyGrid:
        return OccupancyGrid(self)


class OccupancyGrid(Sampler):
    """Packed samples at lattice steps in occupied cells.

    A cell is occupied when the opacity says that some point within its half diagonal may matter. The grid is a
    function of the field at the cells' centers: the same on every rank, with no random numbers. Levels and steps that
    grow with the distance: Müller et al., "Instant Neural Graphics Primitives" (2022), appendix E.
    """

    occupied: Tensor
    coarse: Tensor
    steps: Tensor
    share: Tensor

    def __init__(self, config: OccupancyGridConfig) -> None:
        super().__init__()
        self.config = config
        self.capacity = Capacity(4)  # of the march and of pruning, which takes three steps
        self.register_buffer("steps", torch.tensor([config.step[1], config.cone]), persistent=False)
        self.register_buffer("share", torch.zeros(()), persistent=False)
        n = config.resolution
        self.register_buffer("occupied", torch.ones(config.levels * n, n, n, dtype=torch.uint8))
        self.register_buffer("coarse", blocks(self.grids()), persistent=False)

    def grids(self) -> Tensor:
        """[L, N, N, N] uint8, indexed by level, x, y, z."""
        n = self.config.resolution
        return self.occupied.view(-1, n, n, n)

    def more_to_come(self) -> float:
        """See `Sampler.more_to_come`: steps become shorter."""
        return max(self.config.step) / min(self.config.step)

    def measures(self) -> dict[str, float]:
        """See `Sampler.measures`."""
        return {"occupied_share": float(self.occupied.float().mean())}

    def cells_at(self, x: Tensor) -> Cells | None:
        """See `Sampler.cells_at`; those of the first level, which covers the cube."""
        n = self.config.resolution
        place = ((x + 1) * (n / 2)).long().clamp(0, n - 1)
        occupied = self.grids()[0][tuple(place.unbind(-1))] > 0
        return Cells(torch.where(occupied, 0, NOTHING), torch.full(x.shape[:-1], 2 / n, device=x.device))

    def update(self, progress: float) -> None:
        self.share.fill_(min(2 * progress, 1.0))

    def get_extra_state(self) -> dict[str, float]:
        return {"step": float(self.steps[0])}

    def set_extra_state(self, state: Any) -> None:
        step, (shortest, longest) = float(state["step"]), sorted(self.config.step)
        if not 0.5 * shortest <= step <= 2 * longest:  # rounded, or of a config that was changed on purpose
            raise ValueError(f"a step of {step:g} through the occupancy grid - expected {shortest:g} to {longest:g}")
        self.steps[0] = step
        self.coarse.copy_(blocks(self.grids()))  # the occupied cells have been loaded by now

    @torch.no_grad()
    def forward(self, rays: Rays, medium: Queryable) -> PackedSamples:
        jitter = uniform(rays.near.shape, rays.near.device) if self.training else torch.full_like(rays.near, 0.5)
        stages = self.capacity.stages()
        capacity = stages.size()
        starts, ends, ray_index, offsets, total = march(
            rays.origins,
            rays.directions,
            near=rays.near,
            far=rays.far,
            jitter=jitter,
            cells=(self.grids(), self.coarse),
            steps=self.steps,
            capacity=capacity,
        )
        overflowed = None if capacity is None else total > capacity
        samples = PackedSamples.from_intervals(
            rays, starts, ends, ray_index=ray_index, offsets=offsets, overflowed=overflowed
        )
        stages.count(total)
        if self.config.measure == "inverse_radius":
            samples = replace(samples, length=_in_inverse_radius(samples))
        if self.config.prune:
            samples = self._prune(samples, medium, stages)
        return replace(samples, overflowed=stages.overflow())

    def _prune(self, samples: PackedSamples, medium: Queryable, stages: Stages) -> PackedSamples:
        """Drop samples that are transparent or hidden by their values alone, before gradients and colors are computed.

        Those that are left are evaluated where their interval meets the surface, if it does: its color counts.
        """
        value, known = self._values(samples, medium, stages)
        visible = samples.visible(medium.estimated_optical_depth(value, samples), known, HIDDEN)
        index, offsets, _ = stages.compact(known & visible & medium.occupied(value, samples.length), samples.offsets)
        kept = samples.at(index, offsets)
        return kept.with_crossings(value, samples, index, STEEP) if medium.has_width else kept

    def _values(self, samples: PackedSamples, medium: Queryable, stages: Stages) -> tuple[Tensor, Tensor]:
        """Values [M], and which are known: not those behind a ray's first gap once it is opaque."""
        value = samples.t.new_zeros(len(samples.t) + 1)  # one more for padding
        front = samples.before_gap()
        first = stages.compact(front, samples.offsets).indices
        value.index_copy_(0, first, medium.value(samples.positions_at(first)))
        behind = samples.visible(medium.estimated_optical_depth(value[:-1], samples), front, HIDDEN) & ~front
        rest = stages.compact(behind, samples.offsets).indices
        value.index_copy_(0, rest, medium.value(samples.positions_at(rest)))
        return value[:-1], front | behind

    @torch.no_grad()
    def refresh(self, medium: Queryable, step: int) -> None:
        if step % self.config.every:
            return
        width = medium.width()
        shortest, longest = self.config.step
        if width is not None:
            self.steps[0] = min(max(width * self.config.step_per_width, shortest), longest)
        else:
            self.steps[0] = longest ** (1 - self.share) * shortest**self.share
        turn, count = step // self.config.every, self.occupied.numel()
        cells = torch.arange(count, device=self.occupied.device)
        if turn > 0:
            cells = cells[turn % self.config.share :: self.config.share]
        flat = self.occupied.view(-1)
        for part in cells.split(65536):
            center, reach = self._centers(part)
            flat[part] = medium.occupied(medium.value(center), reach).to(torch.uint8)
        self.coarse.copy_(blocks(self.grids()))

    def _centers(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Centers [K, 3] of cells, and half their diagonals [K] as intervals are measured; cells: [K] int64."""
        n = self.config.resolution
        place = torch.stack([cells // (n * n) % n, cells // n % n, cells % n], -1)
        scale = torch.exp2((cells // n**3).float())
        center = ((place + 0.5) * (2 / n) - 1) * scale[:, None]
        reach = scale * (math.sqrt(3) / n)
        if self.config.measure == "inverse_radius":
            reach = reach / center.norm(dim=-1).clamp_min(1.0).square()
        return center, reach


def _in_inverse_radius(samples: PackedSamples) -> Tensor:
    """[M] lengths of intervals beyond the unit sphere as the change of 1/r, of those within it as they are."""
    origins = samples.spread(samples.rays.origins)
    ends = torch.stack([origins + t[:, None] * samples.directions for t in (samples.t0, samples.t1)]).norm(dim=-1)
    change = (1 / ends.clamp_min(1.0)).diff(dim=0)[0].abs()
    return torch.where((ends < 1).all(0), samples.length, change)
