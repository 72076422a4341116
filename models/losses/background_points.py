"""The background ends at the sparse points beyond the sphere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.losses.base import DataNeeds, LossConfig, Step, mean_of
from models.samples import DenseSamples
from models.volume import Medium
from utils.random_stream import uniform

if TYPE_CHECKING:
    from dataio.seen_points import SeenPoints

BEFORE = 0.95  # of the way to a point: nearer to it nothing is asked
LEAST = 2e-3  # of the distance before a point, contracted units


class BackgroundPointsLoss(LossConfig):
    """The background is transparent before sparse points, and opaque behind those beyond the unit sphere.

    On the lines of sight that found them: the light that is lost before points beyond the sphere, and the light that
    goes on behind them, by the background's own samples; and, at one random place of each line, the light that would be
    lost between the camera and the sphere, where the renderer does not look but other views do. Sum of the means over
    lines. After Deng et al., "Depth-supervised NeRF" (2022), whose depths are a normal distribution.

    Of a background that is a distance: |distance| at the points beyond the sphere, as far as it exceeds what a point
    may be off, and at one random place before each point how far it is from positive, both in its own units.

    Zero without a background, and where the data have, or show, too few points. Differentiable in the background's
    parameters, once.
    """

    type: Literal["background_points"] = "background_points"
    count: int = Field(512, ge=1, le=1 << 24, description="lines of sight of each kind, per step and rank")

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(points=True)

    def __call__(self, step: Step) -> Tensor:
        model, points, nothing = step.model, step.points, step.rendering.depth.new_zeros(())
        if model.background is None or points is None:
            return nothing
        terms = _of_distance if model.background.opacity.reads_distance else _of_density
        count = math.ceil(self.count * step.batch.share)
        return torch.stack([nothing, *terms(model.foreground, model.background, points, count)]).sum()


def _of_density(foreground: Medium, background: Medium, points: SeenPoints, count: int) -> Iterator[Tensor]:
    if points.within:
        yield _lost_on_the_way(foreground, background, points.drawn(count))
    if points.within < len(points):
        yield _ends_at(background, points.drawn_beyond(count))


def _of_distance(foreground: Medium, background: Medium, points: SeenPoints, count: int) -> Iterator[Tensor]:
    asked: list[tuple[Tensor, Callable[[Tensor], Tensor]]] = []  # points [T, 3]; distances there -> how far off, [T]
    if points.within:
        within = points.drawn(count)
        asked.append((_on_the_way(within, foreground.bounds.clip(within.rays()).near), _from_positive))
    if points.within < len(points):
        beyond = points.drawn_beyond(count)
        asked.append((beyond.point, partial(_from_zero, beyond.doubt / (2 * beyond.point.square().sum(-1)))))
        asked.append((_on_the_way(beyond, BEFORE * beyond.distance), _from_positive))
    # At once: one launch of each kernel.
    values = background.value(torch.cat([at for at, _ in asked])).split([len(at) for at, _ in asked])
    for (at, off), value in zip(asked, values, strict=True):
        yield mean_of(off(value), background.bounds.contains(at))


def _on_the_way(drawn: SeenPoints, way: Tensor) -> Tensor:
    """[T, 3], one random place of each way [T] from a camera towards its point."""
    return drawn.rays().at(uniform(way.shape, way.device) * way)


def _from_zero(doubt: Tensor, distance: Tensor) -> Tensor:
    """[T] how far the surface is from points, contracted units, beyond what they may be off."""
    return (distance.abs() - doubt).clamp_min(0)


def _from_positive(distance: Tensor) -> Tensor:
    """[T] how far distances are from positive, contracted units."""
    return (LEAST - distance).clamp_min(0)


def _lost_on_the_way(foreground: Medium, background: Medium, drawn: SeenPoints) -> Tensor:
    rays = drawn.rays()
    way = foreground.bounds.clip(rays).near
    t = uniform(way.shape, way.device) * way
    at = rays.at(t)
    samples = DenseSamples(rays, torch.zeros_like(way)[:, None], way[:, None], t[:, None], way[:, None])
    tau = background.estimated_optical_depth(background.value(at)[:, None], samples)[:, 0]
    return mean_of(-torch.expm1(-tau), background.bounds.contains(at))


def _ends_at(medium: Medium, drawn: SeenPoints) -> Tensor:
    rays = medium.bounds.clip(drawn.rays())
    samples = medium.sampler(rays, medium)
    tau = medium.estimated_optical_depth(medium.value(samples.positions), samples)
    nearest, farthest = (samples.spread(drawn.distance + sign * drawn.doubt) for sign in (-1, 1))
    lost = -torch.expm1(-samples.total(tau * (samples.t1 < nearest)))
    # The interval that a point is in may be looked at before it: the next one counts as well.
    behind = torch.exp(-samples.total(tau * (2 * samples.t0 - samples.t1 < farthest)))
    return mean_of(lost + behind, rays.near < drawn.distance)
