"""Model and weighted losses in one module: what a step evaluates, and whose parameters ranks exchange gradients of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.feedback import asking
from models.losses.base import Counts, LossConfig, Step, shared_mean
from models.model import Model
from models.samples import RaySamples
from models.structure import LayoutChange

if TYPE_CHECKING:
    from dataio.batches import RayBatch
    from dataio.seen_points import SeenPoints
    from dataio.source_views import SourceViews


@dataclass(frozen=True)
class Report:
    """One step or micro-batch: the loss [] to minimize, its unweighted terms [], mean squared color error [], number of
    samples [].

    overflowed: [] bool, whether rays missed samples beyond the static capacity, so that nothing should be learned from
    the step. opacity: [R], and gradients: per micro-batch [*N, 3] and its samples; of the first medium, detached, for
    diagnostics. error: [R] squared error of the color, mean over channels, detached, for the choice of pixels.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    squared_error: Tensor
    samples: Tensor
    overflowed: Tensor
    opacity: Tensor
    gradients: list[tuple[Tensor, RaySamples]]
    error: Tensor

    def off_unit(self) -> Tensor:
        """[], the mean over samples of how far the gradient's length is from one. Of detached gradients."""
        off = [samples.total((gradient.norm(dim=-1) - 1).abs()).sum() for gradient, samples in self.gradients]
        count = torch.stack([samples.count() for _, samples in self.gradients]).sum()
        return torch.stack(off).sum() / count.clamp_min(1.0)

    @staticmethod
    def merged(reports: Sequence[Report], shares: Sequence[float]) -> Report:
        """The report of a whole batch from those of its micro-batches; the loss without its graph."""
        if len(reports) == 1:
            return reports[0]

        def mean(values: list[Tensor]) -> Tensor:
            return torch.stack([share * value.detach() for share, value in zip(shares, values, strict=True)]).sum()

        return Report(
            loss=mean([report.loss for report in reports]),
            terms={name: mean([report.terms[name] for report in reports]) for name in reports[0].terms},
            squared_error=mean([report.squared_error for report in reports]),
            samples=torch.stack([report.samples for report in reports]).sum(),
            overflowed=torch.stack([report.overflowed for report in reports]).any(),
            opacity=torch.cat([report.opacity for report in reports]),
            gradients=[pair for report in reports for pair in report.gradients],
            error=torch.cat([report.error for report in reports]),
        )


@dataclass(frozen=True)
class Context:
    """What losses may see beside the step, and what is not trained: photographs, a trained model, sparse points."""

    views: SourceViews | None = None
    teacher: Model | None = None
    points: SeenPoints | None = None


class Objective(nn.Module):
    """RayBatch -> Report: renders, and sums the weighted losses. Those whose weight is 0 at the time are not computed.

    active: the names of the others; of all, if the weight of each is 0. weights: [L], first those of the active ones.
    """

    weights: Tensor

    def __init__(self, model: Model, losses: dict[str, LossConfig], context: Context = Context()) -> None:
        super().__init__()
        self.model, self.context = model, context
        self.losses = losses
        self.register_buffer("weights", torch.zeros(len(losses)), persistent=False)
        self._weigh(0.0)
        self.counts = Counts()
        self.feedback = asking(model)

    def update(self, progress: float, step: int) -> list[LayoutChange]:
        """Follow the schedules and bring layouts and samplers up to date; the same on every rank. Call before a step.

        Returns what changed its layout: the optimizer is to forget those parameters.
        """
        self._weigh(progress)
        self.model.update(progress)
        return self.model.refresh(step, progress)

    def _weigh(self, progress: float) -> None:
        weights = {name: loss.weight(progress) for name, loss in self.losses.items()}
        self.active = tuple(name for name, weight in weights.items() if weight != 0) or tuple(weights)
        for place, name in enumerate(self.active):
            self.weights[place].fill_(weights[name])

    def share_counts(self, *, of_nothing: bool = False) -> None:
        """Of several ranks: call on all of them between an evaluation and its backward pass, which is then over all.

        of_nothing: this rank has evaluated nothing while others did. See `models.losses.base.Counts`; on one rank there
        is nothing to do.
        """
        self.counts.exchange(of_nothing=of_nothing)

    def forward(self, batch: RayBatch) -> Report:
        with self.counts.counting():
            return self._evaluated(batch)

    def _evaluated(self, batch: RayBatch) -> Report:
        if self.model.poses is not None:
            turn = self.model.poses.turns(batch.rays.camera).detach()
            # Some losses look at the rays themselves, and at normals in the frame of the cameras.
            batch = replace(batch, rays=self.model.posed(batch.rays)).turned(turn)
        rendering = self.model.render(batch.rays)
        step = Step(rendering, batch, self.model, self.context.views, self.context.teacher, self.context.points)
        terms = {name: self.losses[name](step) for name in self.active}
        loss = (self.weights[: len(terms)] * torch.stack(list(terms.values()))).sum()
        with torch.no_grad():
            squares = (rendering.color - batch.color).square()
            squared_error, error = shared_mean(squares), squares.mean(-1)
            samples = torch.stack([part.samples.count() for part in rendering.media]).sum()
            overflowed = rendering.overflowed
            if overflowed is None:
                overflowed = loss.new_zeros((), dtype=torch.bool)
            if self.training:
                for feedback in self.feedback:
                    contract = self.model.foreground.contract
                    feedback.observe(rendering.media[0], error, counts=~overflowed, contract=contract)
        gradient = rendering.media[0].field.gradient
        return Report(
            loss=loss,
            terms={name: term.detach() for name, term in terms.items()},
            squared_error=squared_error,
            samples=samples,
            overflowed=overflowed,
            opacity=rendering.opacity.detach(),
            gradients=[] if gradient is None else [(gradient.detach(), rendering.media[0].samples)],
            error=error,
        )
