"""What every loss offers, and means that are the same on one rank and on many."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.capabilities import Offer
from models.model import Model, Rendering
from models.samples import compact_indices
from utils.config.parts import Part
from utils.config.schedule import Schedule, constant
from utils.distributed import mean_across_ranks
from utils.random_stream import permutation

if TYPE_CHECKING:
    from dataio.batches import RayBatch
    from dataio.seen_points import SeenPoints
    from dataio.source_views import SourceViews

SMALLEST_COUNT = 1e-9
MOST_COUNTS = 64  # means of all losses of an objective


@dataclass(frozen=True)
class DataNeeds:
    """What a loss needs of the data and the run, beside colors.

    pixels: names of quantities per pixel: mask, depth, ...; a loss whose data lack one is zero there, which is said
    once. patch: side of the squares of neighboring pixels that it needs, at least; 1: none. views: how many other
    photographs it looks into. teacher: whether it needs another, trained model. points: whether it needs sparse points.
    """

    pixels: tuple[str, ...] = ()
    patch: int = 1
    views: int = 0
    teacher: bool = False
    points: bool = False


@dataclass(frozen=True)
class Step:
    """All that a loss sees of a training step, or of a micro-batch of it.

    batch: R rays and what the photographs say of them. rendering: of these rays by `model`. views: the training
    photographs, where a loss needs them. teacher: a trained model in the same scene frame, in evaluation mode. points:
    the sparse points, where a loss needs them and the data have, or show, enough.
    """

    rendering: Rendering
    batch: RayBatch
    model: Model
    views: SourceViews | None = None
    teacher: Model | None = None
    points: SeenPoints | None = None

    def mean(self, per_ray: Tensor, count: Tensor | None = None) -> Tensor:
        """[], the mean of [R] over all ranks' rays, each times its weight. Differentiable in per_ray.

        count: [] what the sum is divided by instead of the number of rays; see `shared_mean`.
        """
        weight = self.batch.weight
        return shared_mean(per_ray if weight is None else per_ray * weight, count)


class LossConfig(Part):
    """A term of the objective. Means over samples are taken over all ranks' samples.

    needs: what the first medium's field must offer.
    """

    needs: ClassVar[frozenset[Offer]] = frozenset()

    weight: Schedule = Field(constant(1.0), description="a number or a schedule over the run")

    @property
    def data_needs(self) -> DataNeeds:
        """What it needs of the data and the run."""
        return DataNeeds()

    def kept(self, model: Model) -> int:
        """Bytes that stay for the backward pass, whatever the samples."""
        return 0

    def __call__(self, step: Step) -> Tensor:
        """[], the unweighted term; finite also for an empty batch. Differentiable in the model's parameters, once."""
        raise TypeError("a loss config computes its term")


def shared_mean(values: Tensor, count: Tensor | None = None) -> Tensor:
    """[], the sum of values [*N] over count [] (None: their number), on this rank.

    Differentiable in values. Zero for empty values. Within `Counts.counting` its gradient is that of the sum over the
    mean count of all ranks, so that the mean over ranks of gradients is the gradient of the mean over all.
    """
    counts = _counting.counts if torch.is_grad_enabled() else None
    if count is None and values.numel() and counts is None:
        return values.mean()
    own = values.new_full((), values.numel()) if count is None else count.detach()
    mean = values.sum() / own.clamp_min(SMALLEST_COUNT)
    return mean if counts is None else counts.rescaled(mean, own)


class Counts(nn.Module):
    """What losses have averaged over, of several ranks: known when an evaluation ends, exchanged before its gradient.

    So an evaluation asks no other rank, and its backward pass neither: one exchange of all counts between the two.
    """

    own: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Where they lie stays: a recorded evaluation writes the ones, a recorded backward pass reads the others.
        self.register_buffer("own", torch.ones(MOST_COUNTS), persistent=False)
        self.register_buffer("total", torch.ones(MOST_COUNTS), persistent=False)  # means over ranks
        self._found: list[Tensor] = []

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Within, in this thread, means are over all ranks: their gradients, once `exchange` was called.

        Of a single process nothing changes.
        """
        if not several_ranks():
            yield
            return
        before, _counting.counts, self._found = _counting.counts, self, []
        try:
            yield
        finally:
            _counting.counts = before
        if self._found:
            self.own[: len(self._found)].copy_(torch.stack(self._found))

    def rescaled(self, mean: Tensor, own: Tensor) -> Tensor:
        """The mean [] over own [], with the gradient of one over the mean count of all ranks."""
        self._found.append(own.to(self.own.dtype))
        result: Tensor = _OverAllRanks.apply(mean, self._found[-1], self.total, len(self._found) - 1)
        return result

    def exchange(self, *, of_nothing: bool = False) -> None:
        """Make the counts those of all ranks; all call it, after an evaluation of the same losses, or of_nothing."""
        if several_ranks():
            self.total.copy_(mean_across_ranks(torch.zeros_like(self.own) if of_nothing else self.own))


def several_ranks() -> bool:
    """Whether this process is one of several."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


class _OverAllRanks(torch.autograd.Function):
    """mean -> mean; its gradient times the own count over the mean one of all ranks, as known when it is asked."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, own: Tensor, total: Tensor, place: int) -> Tensor:
        ctx.save_for_backward(own)
        ctx.total, ctx.place = total, place  # not among what is saved: it changes before the backward pass
        return mean.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (own,) = ctx.saved_tensors
        return gradient * (own / ctx.total[ctx.place].clamp_min(SMALLEST_COUNT)), None, None, None


class _Counting(threading.local):
    counts: Counts | None = None


_counting = _Counting()


def mean_of(values: Tensor, valid: Tensor) -> Tensor:
    """[], the mean over all ranks of those of values [P] for which valid [P] bool is true. Differentiable in values."""
    return shared_mean(values * valid, valid.float().sum())


def first_indices(mask: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The first indices [P] int64 where mask [M] bool is true, P <= most, and which of them are valid, bool [P].

    On a CPU all of them are; on a GPU there are always as many, the rest padding, so that the host does not
    synchronize.
    """
    capacity = min(most, len(mask))
    index = compact_indices(mask, None if mask.device.type == "cpu" else capacity)[:capacity]
    return index.clamp_max(len(mask) - 1), index < len(mask)


@torch.no_grad()
def surface_hits(rendering: Rendering, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rays [P] int64 of opacity above one half, P <= most, the distances [P] where they meet the surface, the mean by
    the weights of the first medium, and which are valid, [P], as of `first_indices`. Which rays, if there are more, is
    random. Not differentiable.
    """
    part = rendering.media[0]
    weight = part.weight()
    opacity, distance = part.samples.total(torch.stack([weight, weight * part.samples.t], -1)).unbind(-1)
    order = permutation(len(opacity), opacity.device)
    place, valid = first_indices(opacity[order] > 0.5, most)
    hit = order[place]
    return hit, distance[hit] / opacity[hit].clamp_min(0.5), valid


@torch.no_grad()
def surface_points(rendering: Rendering, most: int) -> tuple[Tensor, Tensor]:
    """[P, 3] where rays meet the surface, scene frame, and which of the points are valid, [P]; see `surface_hits`."""
    hit, distance, valid = surface_hits(rendering, most)
    rays = rendering.media[0].samples.rays[hit]
    return rays.at(distance), valid


def huber(predicted: Tensor, target: Tensor, reduction: str) -> Tensor:
    """Huber's distance of two [*N], quadratic up to 0.1, of slope one beyond: [*N], or [] by torch's `reduction`.

    Differentiable in predicted.
    """
    return F.huber_loss(predicted, target, reduction=reduction, delta=0.1) / 0.1
