"""Model and weighted losses in one module: the thing that DDP wraps, so that every gradient is taken inside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.model import Model
from models.volume import Rendering
from utils.config import Part
from utils.distributed import mean_across_ranks
from utils.schedule import Schedule, constant

if TYPE_CHECKING:
    from dataio.batches import RayBatch


class LossConfig(Part):
    """A term of the objective. Means over samples are taken over all ranks' samples."""

    weight: Schedule = Field(constant(1.0), description="a number or a schedule over the run")

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        """The unweighted term, a scalar; finite also for an empty batch."""
        raise TypeError("a loss config computes its term")


class ColorLoss(LossConfig):
    """Distance of colors, mean over rays and channels."""

    type: Literal["color"] = "color"
    norm: Literal["l1", "l2", "huber"] = "l1"
    masked: bool = Field(False, description="count only rays within the masks, as NeuS does with masks")

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        distances: dict[str, Callable[..., Tensor]] = {"l1": F.l1_loss, "l2": F.mse_loss, "huber": _huber}
        per_ray = distances[self.norm](rendering.color, batch.color, reduction="none").mean(-1)
        if batch.weight is not None:
            per_ray = per_ray * batch.weight
        if self.masked and batch.mask is not None:
            return shared_mean(per_ray * batch.mask, batch.mask.sum())
        return shared_mean(per_ray)


class EikonalLoss(LossConfig):
    """(|gradient| - 1)^2 of the first medium, mean over samples. Gropp et al., "IGR" (2020), eq. 4."""

    type: Literal["eikonal"] = "eikonal"
    random_points: int = Field(0, ge=0, description="also at this many random points of the unit ball per step")

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        gradient = rendering.media[0].field.gradient
        if gradient is None:
            raise TypeError("the eikonal loss needs a field with a gradient")
        residual = _residual(gradient)
        loss = shared_mean(residual)
        if self.random_points:
            near_and_far = _residual(model.random_gradient(self.random_points, gradient.device))
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
        return shared_mean(F.binary_cross_entropy(opacity, batch.mask, reduction="none"))


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
        return shared_mean(per_ray, known.sum())


class SdfDepthLoss(LossConfig):
    """The sdf along rays of measured depth: free before the surface, a distance near it; nothing without depth.

    At distance b = depth - t before (b > 0) or behind the surface, within `band` of it, the value should be b times
    the cosine between ray and normal; further in front it should be positive, and at most b. Sum of both means over
    all ranks' points. After Ortiz et al., "iSDF" (2022), eq. 5 to 7, and Azinovic et al., "Neural RGB-D Surface
    Reconstruction" (2022), eq. 6 and 7; the cosine is ours.
    """

    type: Literal["sdf_depth"] = "sdf_depth"
    band: float = Field(0.03, gt=0, description="half its width, scene units")
    near_points: int = Field(4, ge=1, description="points per ray within the band")
    free_points: int = Field(4, ge=1, description="points per ray in front of the band")
    rays: int = Field(1024, ge=1, description="rays per step and rank, the first of the batch")

    def __call__(self, rendering: Rendering, batch: RayBatch, model: Model) -> Tensor:
        if batch.depth is None:
            return rendering.depth.new_zeros(())
        batch = batch[: self.rays]
        known = batch.depth > 0
        batch, normal = batch[known], rendering.normal[: self.rays][known]
        depth, rays = batch.depth[:, None], batch.rays
        cosine = F.cosine_similarity(normal, -rays.directions, dim=-1)[:, None]
        cosine = torch.where(normal.norm(dim=-1, keepdim=True) > 0.5, cosine.clamp_min(0.1), 1.0)
        near = self.band * (2 * torch.rand(len(depth), self.near_points, device=depth.device) - 1)
        free = torch.rand(len(depth), self.free_points, device=depth.device)
        start = rays.near[:, None]
        free = (1 - free) * (depth - self.band - start).clamp_min(0) + self.band
        ahead = torch.cat([near, free], 1)
        value = model.foreground.field.value(rays.at(depth - ahead))
        off = (value[:, : self.near_points] - near * cosine).abs()
        v = value[:, self.near_points :]
        free_off = F.relu(torch.maximum(torch.exp(-5 * v.clamp_min(-1)) - 1, v - free))
        return shared_mean(off) + shared_mean(free_off)


def shared_mean(values: Tensor, count: Tensor | None = None) -> Tensor:
    """Sum of `values` over `count` (default: their number), so that the mean over ranks is the mean over all.

    Differentiable in values. Zero for empty values.
    """
    own = values.new_tensor(float(values.numel())) if count is None else count.detach()
    return values.sum() / mean_across_ranks(own).clamp_min(1e-9)


def _huber(predicted: Tensor, target: Tensor, reduction: str) -> Tensor:
    return F.huber_loss(predicted, target, reduction=reduction, delta=0.1) / 0.1


def _residual(gradient: Tensor) -> Tensor:
    # The small constant keeps the derivative of the norm finite at a gradient of exactly zero.
    return ((gradient.square().sum(-1) + 1e-12).sqrt() - 1).square()


@dataclass(frozen=True)
class Report:
    """One step: the loss to minimize, its unweighted terms, mean squared color error, samples per ray."""

    loss: Tensor
    terms: dict[str, Tensor]
    squared_error: Tensor
    samples: int


class Objective(nn.Module):
    """RayBatch -> Report: renders, and sums the weighted losses."""

    def __init__(self, model: Model, losses: dict[str, LossConfig]) -> None:
        super().__init__()
        self.model = model
        self.losses = losses
        self.weights = {name: loss.weight(0.0) for name, loss in losses.items()}

    def update(self, progress: float, step: int) -> None:
        """Follow the schedules and bring samplers up to date; the same on every rank. Call before every step."""
        self.weights = {name: loss.weight(progress) for name, loss in self.losses.items()}
        self.model.update(progress)
        self.model.refresh(step)

    def forward(self, batch: RayBatch) -> Report:
        rendering = self.model(batch.rays)
        terms = {name: loss(rendering, batch, self.model) for name, loss in self.losses.items()}
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        with torch.no_grad():
            squared_error = shared_mean((rendering.color - batch.color).square())
        samples = sum(part.tau.numel() for part in rendering.media)
        return Report(loss, {k: v.detach() for k, v in terms.items()}, squared_error, samples)
