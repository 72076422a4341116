"""The surface alone: where a ray first meets it, and its color there, by one sample instead of many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.model import Model, Rendering, render_rays
from models.samplers.root_finding import secant
from models.samples import Points
from models.volume import Volume

if TYPE_CHECKING:
    from dataio.cameras import Rays

LEAST_STEP = 1e-3  # scene units: what is thinner may be missed
MOST_STEP = 0.2  # scene units: how far a value is trusted that is a distance by training only
MARCH_STEP = 2 / 256  # scene units, where values are no distances
MOST_STEPS = 400
TOLERANCE = 1e-4  # scene units
SHADED = {"cpu": 1 << 14, "cuda": 1 << 19}  # points whose colors are computed at a time


class Surface(nn.Module):
    """A model whose foreground is rendered as an opaque surface; used in place of the model.

    A ray that meets the surface gets its color, and its normal at full length; any other renders the media behind.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, rays: Rays) -> Rendering:
        foreground = self.model.foreground
        t = intersect(foreground.bounds.clip(rays), foreground)
        meets = torch.isfinite(t)
        hits, misses = meets.nonzero()[:, 0], (~meets).nonzero()[:, 0]
        missed = rays[misses]
        behind = render_rays(missed, self.model.media[1:], self.model.behind(missed))
        depth = t.index_copy(0, misses, behind.depth)
        beyond = self.model.shaded(behind.color, rays.directions[misses])
        color = rays.origins.new_zeros(len(rays), 3).index_copy(0, misses, beyond)
        normal = torch.zeros_like(color)
        for part in hits.split(SHADED[hits.device.type]):
            color[part], normal[part] = shade(rays[part], t[part], foreground)
        return Rendering(color, meets.to(color.dtype), depth, normal, behind.media)


def shade(rays: Rays, t: Tensor, volume: Volume) -> tuple[Tensor, Tensor]:
    """Color [R, 3] in [0, 1] and outward unit normal [R, 3], scene frame, at distances t [R], scene units."""
    return shade_points(rays.at(t), rays.directions, volume)


def shade_points(points: Tensor, directions: Tensor, volume: Volume) -> tuple[Tensor, Tensor]:
    """Color [N, 3] in [0, 1] and outward unit normal [N, 3] at points [N, 3] seen along directions [N, 3].

    All in the scene frame.
    """
    seen, color = volume.shaded(Points(points, directions))
    slope = seen.gradient * volume.opacity.outside_sign if seen.gradient is not None else slope_at(points, volume)
    return color, F.normalize(slope, dim=-1)


def slope_at(points: Tensor, volume: Volume) -> Tensor:
    """Central differences [N, 3] of the surface's value over 2 `LEAST_STEP` at points [N, 3], for any field."""
    aside = LEAST_STEP * torch.eye(3, device=points.device)
    return torch.stack([volume.surface_value(points + d) - volume.surface_value(points - d) for d in aside], -1)


@torch.no_grad()
def intersect(rays: Rays, volume: Volume) -> Tensor:
    """[R] scene units, where each ray first goes from outside to inside within [near, far]; infinite for a miss.

    Sphere tracing where values are distances, even steps elsewhere, until the sign changes, then the secant. A ray
    whose last point is not within `TOLERANCE` of the surface, or that ran out of steps, is a miss; one that starts
    inside has to come out first. Only rays that are still on their way are evaluated. Not differentiable.
    """
    found, ends = _brackets(rays, volume)
    hit, bracket = rays[found], list(ends)
    t = secant(hit, volume, *bracket, steps=4)
    off = ~_converged(hit, volume, t, ends)
    if off.any():
        t[off] = secant(hit[off], volume, *(x[off] for x in bracket), steps=20)
        off[off.clone()] = ~_converged(hit[off], volume, t[off], ends[:, off])
    result = torch.full_like(rays.near, torch.inf)
    result[found] = torch.where(off, torch.inf, t)
    return result


def _brackets(rays: Rays, volume: Volume) -> tuple[Tensor, Tensor]:
    """Rays that enter the surface [K], and [4, K]: two distances around it and the values there."""
    index = (rays.far > rays.near).nonzero()[:, 0]
    found, ends = [index[:0]], [rays.near.new_empty(4, 0)]
    going, t = rays[index], rays.near[index]
    value = volume.surface_value(going.at(t))
    for _ in range(MOST_STEPS):
        if len(index) == 0:
            break
        step = value.abs().clamp(LEAST_STEP, MOST_STEP) if volume.opacity.reads_distance else MARCH_STEP
        ahead = torch.minimum(t + step, going.far)
        below = volume.surface_value(going.at(ahead))
        enters = (value > 0) & (below <= 0)
        found.append(index[enters])
        ends.append(torch.stack([x[enters] for x in (t, ahead, value, below)]))
        on = (~enters & (ahead < going.far)).nonzero()[:, 0]
        index, going, t, value = index[on], going[on], ahead[on], below[on]
    return torch.cat(found), torch.cat(ends, 1)


def _converged(rays: Rays, volume: Volume, t: Tensor, ends: Tensor) -> Tensor:
    """Whether the value at t is as near to zero as `TOLERANCE` is on the slope between the ends."""
    low, high, above, below = ends
    return volume.surface_value(rays.at(t)).abs() * (high - low) <= TOLERANCE * (above - below)
