"""Model and weighted losses in one module: the thing that DDP wraps, so that every gradient is taken inside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.capabilities import Capability
from models.kernels.networks.normals import off_unit
from models.model import Model
from models.samples import RaySamples, places
from models.volume import Rendering
from utils.config.parts import Part
from utils.config.schedule import Schedule, constant
from utils.distributed import is_parallel, mean_across_ranks
from utils.random_stream import normal, permutation, uniform

if TYPE_CHECKING:
    from dataio.batches import RayBatch


class LossConfig(Part):
    """A term of the objective. Means over samples are taken over all ranks' samples.

    needs: what the first medium's field and opacity must offer.
    """

    needs: ClassVar[frozenset[Capability]] = frozenset()

    weight: Schedule = Field(constant(1.0), description="a number or a schedule over the run")

    @property
    def least_patch(self) -> int:
        """Side of the squares of neighboring pixels that it needs, at least; 1: none."""
        return 1

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        """The unweighted term, a scalar; finite also for an empty batch."""
        raise TypeError("a loss config computes its term")


class ColorLoss(LossConfig):
    """Distance of colors, mean over rays and channels; that of proposals, where there are any, is added."""

    type: Literal["color"] = "color"
    norm: Literal["l1", "l2", "huber"] = "l1"
    masked: bool = Field(False, description="count only rays within the masks, as NeuS does with masks")

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        loss = self._distance(rendering.color, batch)
        return loss if rendering.proposed is None else loss + self._distance(rendering.proposed, batch)

    def _distance(self, color: Tensor, batch: RayBatch) -> Tensor:
        distances: dict[str, Callable[..., Tensor]] = {"l1": F.l1_loss, "l2": F.mse_loss, "huber": _huber}
        per_ray = distances[self.norm](color, batch.color, reduction="none").mean(-1)
        if self.masked and batch.mask is not None:
            return shared_mean(batch.weighed(per_ray * batch.mask), batch.total_mask())
        return shared_mean(batch.weighed(per_ray))


class EikonalLoss(LossConfig):
    """(|gradient| - 1)^2 of the first medium, mean over samples. Gropp et al., "IGR" (2020), eq. 4."""

    type: Literal["eikonal"] = "eikonal"
    needs: ClassVar[frozenset[Capability]] = frozenset({"sdf", "gradient"})
    random_points: int = Field(0, ge=0, description="also at this many random points of the unit ball per step")

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        gradient = rendering.media[0].field.gradient
        if gradient is None:
            raise TypeError("the eikonal loss needs a field with a gradient")
        residual = off_unit(gradient)
        samples = rendering.media[0].samples
        loss = shared_mean(samples.total(residual), samples.count())
        if self.random_points:
            points = math.ceil(self.random_points * batch.share)
            near_and_far = off_unit(model.random_gradient(points, gradient.device))
            loss = loss + shared_mean(near_and_far)
        return loss


class MaskLoss(LossConfig):
    """Binary cross entropy between the opacity of the first medium and the mask; nothing without masks."""

    type: Literal["mask"] = "mask"
    margin: float = Field(1e-3, gt=0, lt=0.5, description="the opacity is cut to [margin, 1 - margin]")

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        if batch.mask is None:
            return rendering.opacity.new_zeros(())
        opacity = rendering.opacity.clamp(self.margin, 1 - self.margin)
        return shared_mean(batch.weighed(F.binary_cross_entropy(opacity, batch.mask, reduction="none")))


class DepthLoss(LossConfig):
    """Distance between the rendered and the measured depth along the ray, mean over rays with one; scene units."""

    type: Literal["depth"] = "depth"
    norm: Literal["l1", "huber"] = "l1"

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        if batch.depth is None:
            return rendering.depth.new_zeros(())
        known = batch.depth > 0
        distance = _huber if self.norm == "huber" else F.l1_loss
        per_ray = distance(rendering.depth, batch.depth, reduction="none") * known
        return shared_mean(batch.weighed(per_ray), batch.total_measured())


class SdfDepthLoss(LossConfig):
    """The sdf along rays of measured depth: free before the surface, a distance near it; nothing without depth.

    At distance b = depth - t before (b > 0) or behind the surface, within `band` of it, the value should be b times
    the cosine between ray and normal; further in front it should be positive, and at most b. Sum of both means over
    all ranks' points. After Ortiz et al., "iSDF" (2022), eq. 5 to 7, and Azinovic et al., "Neural RGB-D Surface
    Reconstruction" (2022), eq. 6 and 7; the cosine is ours.
    """

    type: Literal["sdf_depth"] = "sdf_depth"
    needs: ClassVar[frozenset[Capability]] = frozenset({"sdf"})
    band: float = Field(0.03, gt=0, description="half its width, scene units")
    near_points: int = Field(4, ge=1, description="points per ray within the band")
    free_points: int = Field(4, ge=1, description="points per ray in front of the band")
    rays: int = Field(1024, ge=1, description="rays per step and rank, the first ones")

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        if batch.depth is None:
            return rendering.depth.new_zeros(())
        first = batch.depth[: math.ceil(self.rays * batch.share)]
        known, real = chosen(first > 0, len(first))
        rays, depth = batch.rays[known], batch.depth[known, None]
        cosine = self._cosine(rendering.normal[known], rays.directions)
        near = self.band * (2 * uniform((len(known), self.near_points), depth.device) - 1)
        share = uniform((len(known), self.free_points), depth.device)
        free = self.band + share * (depth - self.band - rays.near[:, None]).clamp_min(0)
        value = model.foreground.value(rays.at(depth - torch.cat([near, free], dim=1)))
        beside, ahead = value.split([self.near_points, self.free_points], dim=1)
        too_small = torch.exp(-5 * ahead.clamp_min(-1)) - 1
        in_front = F.relu(torch.maximum(too_small, ahead - free))
        return mean_of((beside - near * cosine).abs().mean(1) + in_front.mean(1), real)

    def _cosine(self, normal: Tensor, directions: Tensor) -> Tensor:
        """[R, 1] of the angle between rendered normals [R, 3] and rays; 1 where the normals do not agree yet."""
        cosine = F.cosine_similarity(normal, -directions, dim=-1).clamp_min(0.1)
        return torch.where(normal.norm(dim=-1) > 0.5, cosine, 1.0)[:, None]


class SmoothnessLoss(LossConfig):
    """Distance of the normals at the surface and at random points beside it, mean over rays that hit.

    Oechsle et al., "UNISURF" (2021), eq. 11: |n(x) - n(x + e)|, the length itself, as in its code.
    """

    type: Literal["smoothness"] = "smoothness"
    needs: ClassVar[frozenset[Capability]] = frozenset({"gradient"})
    shift: float = Field(5e-3, gt=0, description="e is uniform within +/- this on each axis, scene units")
    points: int = Field(1024, ge=1, description="at most this many surface points per step")

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        x, real = surface_points(rendering, self.points)
        beside = x + (2 * uniform(x.shape, x.device) - 1) * self.shift
        here, there = model.normal(torch.cat([x, beside])).chunk(2)
        return mean_of(((here - there).square().sum(-1) + 1e-12).sqrt(), real)


class CurvatureLoss(LossConfig):
    """How fast the normal turns along the surface: |n(x) - n(x + h t)|^2 / h^2 for a random unit tangent t.

    For small h the square of the curvature (and twist) along t, in 1 / scene unit^2; mean over rays that hit. After
    Rosu and Behnke, "PermutoSDF" (2023), section 3.3, who have the angle between the normals.
    """

    type: Literal["curvature"] = "curvature"
    needs: ClassVar[frozenset[Capability]] = frozenset({"gradient"})
    shift: float = Field(5e-3, gt=0, description="h, scene units")
    points: int = Field(512, ge=1, description="at most this many surface points per step")

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        x, real = surface_points(rendering, self.points)
        here = model.normal(x)
        tangent = torch.linalg.cross(here.detach(), F.normalize(normal(x.shape, x.device), dim=-1))
        there = model.normal(x + self.shift * F.normalize(tangent, dim=-1))
        return mean_of((here - there).square().sum(-1), real) / self.shift**2


class DistortionLoss(LossConfig):
    """Spread of a ray's weights in the first medium, mean over rays; zero for one thin layer.

    Barron et al., "Mip-NeRF 360" (2022), eq. 15, in scene units.
    """

    type: Literal["distortion"] = "distortion"

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        part = rendering.media[0]
        samples, weight = part.samples, part.weight()
        middle = (samples.t0 + samples.t1) / 2
        # Pairs i < j, by running sums: sum_j w_j (t_j sum_i w_i - sum_i w_i t_i).
        apart = weight * (middle * samples.exclusive_sum(weight) - samples.exclusive_sum(weight * middle))
        thick = weight.square() * (samples.t1 - samples.t0) / 3
        return shared_mean(batch.weighed(samples.total(2 * apart + thick)))


class EntropyLoss(LossConfig):
    """Entropy of a ray's opacity in the first medium, in nats, mean over rays: a ray should hit or miss."""

    type: Literal["entropy"] = "entropy"
    margin: float = Field(1e-3, gt=0, lt=0.5, description="the opacity is cut to [margin, 1 - margin]")

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        hit = rendering.opacity.clamp(self.margin, 1 - self.margin)
        return shared_mean(batch.weighed(-hit * hit.log() - (1 - hit) * (1 - hit).log()))


@torch.no_grad()
def surface_points(rendering: Rendering, most: int) -> tuple[Tensor, Tensor]:
    """[P, 3] where rays meet the surface, P <= most, scene frame: at the mean distance of the light that ends in the
    first medium, for rays of which more than half does. Which ones, if there are more, is random. And which of the
    points are real, as of `chosen`.
    """
    part = rendering.media[0]
    weight = part.weight()
    opacity, distance = part.samples.total(torch.stack([weight, weight * part.samples.t], -1)).unbind(-1)
    order = permutation(len(opacity), opacity.device)
    place, real = chosen(opacity[order] > 0.5, most)
    hit = order[place]
    rays = part.samples.rays[hit]
    return rays.origins + (distance[hit] / opacity[hit].clamp_min(0.5))[:, None] * rays.directions, real


def chosen(mask: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The first places [P] where mask [M] is true, P <= most, and which of them are real, bool [P].

    On a CPU all of them are; on a GPU there are always as many, so that nothing waits to hear how many are real.
    """
    room = min(most, len(mask))
    place = places(mask, None if mask.device.type == "cpu" else room)[:room]
    return place.clamp_max(len(mask) - 1), place < len(mask)


def mean_of(values: Tensor, real: Tensor) -> Tensor:
    """The mean over all ranks of those of `values` [P] that are real."""
    return shared_mean(values * real, real.float().sum())


def shared_mean(values: Tensor, count: Tensor | None = None) -> Tensor:
    """Sum of `values` over `count` (default: their number), so that the mean over ranks is the mean over all.

    Differentiable in values. Zero for empty values.
    """
    if count is None and values.numel() and not is_parallel():
        return values.mean()
    own = values.new_full((), values.numel()) if count is None else count
    return values.sum() / mean_across_ranks(own).clamp_min(1e-9)


def _huber(predicted: Tensor, target: Tensor, reduction: str) -> Tensor:
    return F.huber_loss(predicted, target, reduction=reduction, delta=0.1) / 0.1


@dataclass(frozen=True)
class Report:
    """One step: the loss to minimize, its unweighted terms, mean squared color error, number of samples.

    cut: [] bool, whether rays missed samples that had no room, so that nothing should be learned from the step.
    opacity: [R] and gradients, [*N, 3] at samples of its parts, of the first medium, detached, for those who watch over
    the run.
    error: [R] squared error of the color, mean over channels, detached, for those who choose pixels.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    squared_error: Tensor
    samples: Tensor
    cut: Tensor
    opacity: Tensor
    gradients: list[tuple[Tensor, RaySamples]]
    error: Tensor

    def off_unit(self) -> Tensor:
        """[] the mean over samples of how far the gradient's length is from one."""
        off = [samples.total((gradient.norm(dim=-1) - 1).abs()).sum() for gradient, samples in self.gradients]
        count = torch.stack([samples.count() for _, samples in self.gradients]).sum()
        return torch.stack(off).sum() / count.clamp_min(1.0)

    @staticmethod
    def merged(reports: Sequence[Report], shares: Sequence[float]) -> Report:
        """The report of a whole batch from those of its parts; the loss without its graph."""
        if len(reports) == 1:
            return reports[0]

        def mean(values: list[Tensor]) -> Tensor:
            return torch.stack([share * value.detach() for share, value in zip(shares, values, strict=True)]).sum()

        return Report(
            loss=mean([report.loss for report in reports]),
            terms={name: mean([report.terms[name] for report in reports]) for name in reports[0].terms},
            squared_error=mean([report.squared_error for report in reports]),
            samples=torch.stack([report.samples for report in reports]).sum(),
            cut=torch.stack([report.cut for report in reports]).any(),
            opacity=torch.cat([report.opacity for report in reports]),
            gradients=[pair for report in reports for pair in report.gradients],
            error=torch.cat([report.error for report in reports]),
        )


class Objective(nn.Module):
    """RayBatch -> Report: renders, and sums the weighted losses."""

    weights: Tensor

    def __init__(self, model: Model, losses: dict[str, LossConfig]) -> None:
        super().__init__()
        self.model = model
        self.losses = losses
        weights = [loss.weight(0.0) for loss in losses.values()]
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

    def update(self, progress: float, step: int) -> None:
        """Follow the schedules and bring samplers up to date; the same on every rank. Call before every step."""
        for weight, loss in zip(self.weights, self.losses.values(), strict=True):
            weight.fill_(loss.weight(progress))
        self.model.update(progress)
        self.model.refresh(step)

    def forward(self, batch: RayBatch) -> Report:
        rendering = self.model(batch.rays)
        terms = {name: loss(rendering, batch, self.model) for name, loss in self.losses.items()}
        loss = (self.weights * torch.stack(list(terms.values()))).sum()
        with torch.no_grad():
            squares = (rendering.color - batch.color).square()
            squared_error, error = shared_mean(squares), squares.mean(-1)
            samples = torch.stack([part.samples.count() for part in rendering.media]).sum()
            cut = loss.new_zeros((), dtype=torch.bool) if rendering.cut is None else rendering.cut
        gradient = rendering.media[0].field.gradient
        return Report(
            loss=loss,
            terms={name: term.detach() for name, term in terms.items()},
            squared_error=squared_error,
            samples=samples,
            cut=cut,
            opacity=rendering.opacity.detach(),
            gradients=[] if gradient is None else [(gradient.detach(), rendering.media[0].samples)],
            error=error,
        )
