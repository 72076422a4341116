"""Intervals along rays, dense or packed: the only types that know the layout."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.kernels.rays import packed, sums

if TYPE_CHECKING:
    from dataio.cameras import Rays

COLOR = 3  # channels of a color

@dataclass(frozen=True)
class Points:
    """Where a field is evaluated, and from where it is seen.

    x: [*N, 3] scene frame, or what bounds contract it to. directions: [*N, 3] unit, from the camera into the scene.
    samples: those on rays that the points are; None for points of no photograph, as of a mesh.
    """

    x: Tensor
    directions: Tensor
    samples: RaySamples | None = None

    @property
    def camera(self) -> Tensor | None:
        """[*N] int64, the camera that sees each point, -1 for one that took no photograph; None: of a mesh."""
        return None if self.samples is None else self.samples.spread(self.samples.rays.camera)

    @property
    def footprint(self) -> Tensor | None:
        """[*N] width of a pixel at each point, scene units; None for points of no photograph, or of none that tells."""
        if self.samples is None or self.samples.rays.pixel is None:
            return None
        return self.samples.spread(self.samples.rays.pixel) * self.samples.t


@dataclass(frozen=True)
class FieldSample:
    """A field's output at points `*N`.

    value: [*N], sdf (scene units, positive outside), density (per scene unit, raw) or occupancy logit.
    features: [*N, F] for the appearance. gradient: [*N, 3] d(value)/dx in scene units, None where the field has none.
    """

    value: Tensor
    features: Tensor
    gradient: Tensor | None = None


@dataclass(frozen=True)
class RaySamples:
    """Intervals [t0, t1] along rays; `*N` is [R, S] (dense) or [M] (packed).

    t0, t1: [*N] ray distances in scene units, ascending within a ray, t0 <= t1.
    t: [*N] where the field is evaluated; the middle unless a sampler says otherwise.
    length: [*N] the measure of the interval that multiplies a density; t1 - t0 unless a sampler measures otherwise
    (NeRF++ measures in 1/r).
    proposal: the rendering by which the samples were placed, where that is to be trained on the colors too.
    """

    rays: Rays
    t0: Tensor
    t1: Tensor
    t: Tensor
    length: Tensor
    proposal: MediumRendering | None = field(default=None, kw_only=True)

    def spread(self, per_ray: Tensor) -> Tensor:
        """[R, ...] -> [*N, ...]: each sample gets its ray's row. Differentiable in per_ray."""
        raise TypeError("RaySamples is DenseSamples or PackedSamples")

    def exclusive_sum(self, x: Tensor) -> Tensor:
        """[*N] -> [*N]: the sum of x over the earlier samples of the same ray; differentiable in x, once."""
        raise TypeError("RaySamples is DenseSamples or PackedSamples")

    def total(self, x: Tensor) -> Tensor:
        """[*N] or [*N, K] -> [R] or [R, K]: the sum over each ray's samples; differentiable in x, once."""
        raise TypeError("RaySamples is DenseSamples or PackedSamples")

    def preceding(self, x: Tensor) -> Tensor:
        """[*N] -> [*N]: the value at the sample before on the same ray, at the first its own. Not differentiable."""
        raise TypeError("RaySamples is DenseSamples or PackedSamples")

    def weight(self, tau: Tensor) -> Tensor:
        """[*N] weights T_i (1 - exp(-tau_i)) in [0, 1] for optical depths tau [*N]. Differentiable in tau, once."""
        return torch.exp(-self.exclusive_sum(tau)) * -torch.expm1(-tau)

    def composite(self, tau: Tensor, color: Tensor, gradient: Tensor | None) -> tuple[Tensor, Tensor]:
        """Composite samples of optical depth tau [*N]: sums along rays [R, C + 4], and the transmittance [R] behind.

        color: [*N, C], channels. gradient: [*N, 3], whose direction is the normal; None: zero normals. The sums are
        those of color, distance t (scene units) and normal, each times its `weight`. Differentiable in color and tau,
        once, but not by way of the normals.
        """
        weight = self.weight(tau)
        if gradient is None:
            normal = torch.zeros_like(self.directions)
        else:
            normal = torch.nn.functional.normalize(gradient, dim=-1) * weight.detach()[..., None]
        parts = [color * weight[..., None], (self.t * weight)[..., None], normal.detach()]
        return self.total(torch.cat(parts, -1)), torch.exp(-self.total(tau))

    def count(self) -> Tensor:
        """[] float32, the number of samples without padding."""
        return torch.full((), self.t.numel(), dtype=torch.float32, device=self.t.device)

    def overflow(self) -> Tensor | None:
        """[] bool, whether rays miss samples that exceeded the capacity; None: there is no capacity."""
        return None

    @property
    def directions(self) -> Tensor:
        """[*N, 3] unit ray directions, scene frame. Differentiable in the rays' directions."""
        return self._kept("directions", lambda: self.spread(self.rays.directions))

    @property
    def positions(self) -> Tensor:
        """[*N, 3] points at t, scene frame. Differentiable in the rays' origins and directions; t is a constant."""
        return self._kept("positions", self._points)

    def _points(self) -> Tensor:
        return self.spread(self.rays.origins) + self.t[..., None] * self.directions

    def _kept(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What was made once, unless a gradient is wanted now and was not then."""
        kept: tuple[Tensor, bool] | None = self.__dict__.get(name)
        moves = torch.is_grad_enabled() and (self.rays.origins.requires_grad or self.rays.directions.requires_grad)
        if kept is None or (moves and not kept[1]):
            kept = self.__dict__[name] = make(), moves
        return kept[0]


@dataclass(frozen=True)
class DenseSamples(RaySamples):
    """The same number of samples on every ray. An interval of length zero has no optical depth."""

    @staticmethod
    def from_edges(rays: Rays, edges: Tensor) -> DenseSamples:
        """edges: [R, S+1] ascending, scene units; returns the S intervals between them, with t in the middle."""
        t0, t1 = edges[:, :-1], edges[:, 1:]
        return DenseSamples(rays, t0, t1, (t0 + t1) / 2, t1 - t0)

    def spread(self, per_ray: Tensor) -> Tensor:
        """[R, ...] -> [R, S, ...]; see `RaySamples.spread`."""
        return per_ray[:, None].expand(-1, self.t.shape[1], *per_ray.shape[1:])

    def exclusive_sum(self, x: Tensor) -> Tensor:
        """[R, S] -> [R, S]; see `RaySamples.exclusive_sum`."""
        return torch.nn.functional.pad(x, (1, 0))[:, :-1].cumsum(1)

    def total(self, x: Tensor) -> Tensor:
        """[R, S] or [R, S, K] -> [R] or [R, K]; see `RaySamples.total`."""
        return x.sum(1)

    def preceding(self, x: Tensor) -> Tensor:
        """[R, S] -> [R, S]; see `RaySamples.preceding`."""
        return torch.cat([x[:, :1], x[:, :-1]], 1)


@dataclass(frozen=True)
class PackedSamples(RaySamples):
    """All samples of all rays in one row: ray r owns offsets[r] .. offsets[r+1]-1.

    ray_index: [M] int32. offsets: [R+1] int32. overflowed: [] bool, of samples within a capacity of M: whether there
    were more. The padding behind offsets[R] has finite numbers and no meaning: no sum over a ray counts it, so nothing
    is learned from it.
    """

    ray_index: Tensor
    offsets: Tensor
    overflowed: Tensor | None = None

    @staticmethod
    def from_intervals(
        rays: Rays,
        starts: Tensor,
        ends: Tensor,
        *,
        ray_index: Tensor,
        offsets: Tensor,
        overflowed: Tensor | None = None,
    ) -> PackedSamples:
        """Intervals from `starts` to `ends`, [M] each, scene units; the other arguments as of the class."""
        middle, length = (starts + ends) / 2, ends - starts
        return PackedSamples(rays, starts, ends, middle, length, ray_index.int(), offsets, overflowed)

    def count(self) -> Tensor:
        """[] float32, offsets[R]; see `RaySamples.count`."""
        return self.offsets[-1].float()

    def overflow(self) -> Tensor | None:
        """[] bool or None; see `RaySamples.overflow`."""
        return self.overflowed

    def spread(self, per_ray: Tensor) -> Tensor:
        """[R, ...] -> [M, ...]; see `RaySamples.spread`."""
        return sums.spread(per_ray, self.ray_index, self.offsets)

    def exclusive_sum(self, x: Tensor) -> Tensor:
        """[M] -> [M]; see `RaySamples.exclusive_sum`."""
        return sums.exclusive_sum(x, self.offsets)

    def total(self, x: Tensor) -> Tensor:
        """[M] or [M, K] -> [R] or [R, K]; see `RaySamples.total`."""
        return sums.total(x, self.offsets)

    def composite(self, tau: Tensor, color: Tensor, gradient: Tensor | None) -> tuple[Tensor, Tensor]:
        """[R, C + 4] and [R]; see `RaySamples.composite`. By one kernel where there are three channels."""
        if color.shape[-1] != COLOR:
            return super().composite(tau, color, gradient)
        return sums.composite(tau, color, self.t, gradient, self.offsets)

    def _points(self) -> Tensor:
        rays = self.rays
        return packed.points(rays.origins, rays.directions, self.ray_index, self.t, offsets=self.offsets)

    def positions_at(self, index: Tensor) -> Tensor:
        """[K, 3] points of the samples `index` [K] int64, as of `at`; scene frame. Not differentiable."""
        return packed.points(self.rays.origins, self.rays.directions, self.ray_index, self.t, index)

    def preceding(self, x: Tensor) -> Tensor:
        """[M] -> [M]; see `RaySamples.preceding`."""
        return packed.preceding(x, self.ray_index)

    def before_gap(self) -> Tensor:
        """[M] bool: whether the samples of its ray up to this one lie close together, without half a step between.

        Not differentiable.
        """
        return sums.unbroken(self.t0, self.t1, self.offsets)

    def visible(self, tau: Tensor, counted: Tensor, least: float) -> Tensor:
        """[M] bool: whether the transmittance in front of a sample, by the samples that are `counted`, exceeds `least`.

        tau: [M] optical depth. counted: [M] bool. False for padding. Not differentiable.
        """
        return sums.below(tau, counted, self.offsets, most=-math.log(least))

    def at(self, index: Tensor, offsets: Tensor) -> PackedSamples:
        """The samples `index` [K] int64, ray r's from offsets[r] on; M for padding. As of `rays.packed.compact`.

        Not differentiable.
        """
        columns = [self.t0, self.t1, self.t, self.length]
        (t0, t1, t, length), ray_index = packed.gather(index, columns, self.ray_index)
        return PackedSamples(self.rays, t0, t1, t, length, ray_index, offsets, self.overflowed)

    def with_crossings(self, value: Tensor, of: PackedSamples, index: Tensor, steep: float) -> PackedSamples:
        """These samples, those of `of` at `index`, evaluated where the value [M] there meets zero, if it does.

        index: [K] int64. Not differentiable. As of `models.kernels.rays.packed.crossings`.
        """
        t = packed.crossings(value, of.t, of.ray_index, index, self.t0, self.t1, steep=steep)
        return replace(self, t=t)


@dataclass(frozen=True)
class MediumRendering:
    """A medium along rays: samples [*N], the field's output there, colors [*N, C], optical depth tau [*N].

    outward: 1 where the field's gradient points out of the object, -1 where it points in.
    """

    samples: RaySamples
    field: FieldSample
    color: Tensor
    tau: Tensor
    outward: float = 1.0

    @property
    def proposal(self) -> MediumRendering | None:
        """The coarse rendering by which the samples were placed, where that is to be trained on the colors too."""
        return self.samples.proposal

    def weight(self) -> Tensor:
        """[*N] weights T_i (1 - exp(-tau_i)), with a transmittance of one in front of the medium; see `RaySamples`."""
        return self.samples.weight(self.tau)

    def accumulate(self) -> tuple[Tensor, Tensor]:
        """[R, C + 4] per ray: color, ray distance and normal, each times the weight; no normal without a gradient. And
        the transmittance [R] of the medium. Differentiable in color and tau, once, not by way of the normals.
        """
        gradient = self.field.gradient
        if gradient is not None:
            gradient = gradient.detach() if self.outward > 0 else -gradient.detach()
        return self.samples.composite(self.tau, self.color, gradient)


def compact_indices(mask: Tensor, capacity: int | None) -> Tensor:
    """Stream compaction: [K] int64, ascending, where mask [M] bool is true.

    capacity: K; what exceeds it is dropped, the padding is M. None: their number, for which the host synchronizes with
    a GPU.
    """
    if capacity is None:
        return mask.nonzero()[:, 0]
    return torch.nonzero_static(mask, size=capacity, fill_value=len(mask))[:, 0]


def gather_padded(x: Tensor, index: Tensor) -> Tensor:
    """x [M, ...] at index [K] <= M, ascending; for the padding M the last row stands in. Differentiable in x."""
    return x.index_select(0, index.clamp_max(len(x) - 1))
