"""What rendering says about space, for structure that follows it: where weights are, and where colors are wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.model import Model
from models.samples import MediumRendering
from utils import distributed
from utils.errors import InputError

UNIT = 2.0**-24  # sums of errors are whole multiples of it
MOST = 256.0  # of one sample; beyond it is a step that went wrong
_taking_turns = threading.Lock()  # micro-batches are rendered by several threads


@dataclass(frozen=True)
class Observed:
    """Per cell of a grid over the cube [-1, 1]^3, or over a box, indexed by x, y, z; all [N, N, N].

    weight: the largest weight of a sample, in [0, 1]. error: float64, the sum over samples of weight times the squared
    color error of the ray (mean over channels). count: int64, the number of samples.
    """

    weight: Tensor
    error: Tensor
    count: Tensor


class Feedback(nn.Module):
    """Accumulates over training steps what happens in each cell of space. A structure asks for it by owning one.

    It is filled by `Objective` from the samples of the foreground; where no part owns one, nothing is computed. Sums
    are of integers, errors in units of 2^-24, so that they do not depend on the order of samples, threads, ranks or
    checkpoints: a resumed run continues exactly. What the ranks agree on is part of the state; what a rank has observed
    since is its own, until `fold`. One with `listening` false takes nothing in.
    """

    weight: Tensor
    error: Tensor
    count: Tensor
    own_weight: Tensor
    own_error: Tensor
    own_count: Tensor
    box: Tensor

    def __init__(self, resolution: int, *, sums: bool = True) -> None:
        """resolution: N, cells over the cube's side. sums: whether errors and counts are wanted, beside weights."""
        super().__init__()
        self.resolution, self.sums, self.listening = resolution, sums, True
        self.register_buffer("box", torch.tensor([-1.0, -1, -1, 1, 1, 1]), persistent=False)
        for prefix, persistent in (("", True), ("own_", False)):
            cells = resolution**3
            self.register_buffer(f"{prefix}weight", torch.zeros(cells), persistent=persistent)
            for name in ("error", "count"):
                zeros = torch.zeros(cells if sums else 0, dtype=torch.int64)
                self.register_buffer(f"{prefix}{name}", zeros, persistent=persistent)
        self.register_load_state_dict_post_hook(_forget_own)

    @torch.no_grad()
    def observe(
        self,
        part: MediumRendering,
        error: Tensor,
        *,
        counts: Tensor,
        contract: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Take in the samples of a medium, if `counts` [] bool. error: [R] squared color error of each ray.

        contract: what the medium does to points before its field sees them, which is where the cells are; None:
        nothing. Padding, points outside of the box and numbers that are not finite are left out; without
        synchronization.
        """
        if not self.listening:
            return
        samples = part.samples
        weight, ray_error = part.weight().flatten(), samples.spread(error).flatten()
        positions = samples.positions if contract is None else contract(samples.positions)
        low, high = self.box.chunk(2)
        place = (positions.reshape(-1, 3) - low) / (high - low) * self.resolution
        known = torch.arange(len(weight), device=weight.device) < samples.count()
        known &= torch.isfinite(weight * ray_error) & (place >= 0).all(-1) & (place <= self.resolution).all(-1) & counts
        x, y, z = place.nan_to_num().clamp(0, self.resolution - 1).long().unbind(-1)
        cell = (x * self.resolution + y) * self.resolution + z
        product = torch.where(known, weight * ray_error, 0.0).clamp(0.0, MOST)
        with _taking_turns:
            self.own_weight.scatter_reduce_(0, cell, torch.where(known, weight, 0.0), "amax")
            if not self.sums:
                return
            self.own_error.index_add_(0, cell, (product.double() / UNIT).round().long())
            self.own_count.index_add_(0, cell, known.long())

    @torch.no_grad()
    def fold(self) -> None:
        """Add what each rank has observed to what all know; to be called on all ranks, as before a checkpoint."""
        torch.maximum(self.weight, distributed.max_across_ranks(self.own_weight), out=self.weight)
        self.error += distributed.sum_across_ranks(self.own_error)
        self.count += distributed.sum_across_ranks(self.own_count)
        _forget_own(self)

    def weights(self) -> Tensor:
        """[N, N, N] the largest weights, as of `Observed`; to be called on all ranks."""
        self.fold()
        return self.weight[: self.resolution**3].view(3 * (self.resolution,)).clone()

    def watch(self, resolution: int, box: Tensor) -> None:
        """Divide `box` [6], its least corner and its greatest, into `resolution` cells on each axis from now on.

        At most as many as at first; what was observed of others is to be forgotten by `reset`.
        """
        self.resolution = resolution
        self.box.copy_(box)

    def read(self) -> Observed:
        """What all ranks have observed since the last `reset`; to be called on all ranks."""
        weights = self.weights()
        error, count = (x.view(weights.shape) for x in (self.error, self.count))
        return Observed(weights, error.double() * UNIT, count.clone())

    def reset(self) -> None:
        """Start anew; to be called on all ranks."""
        for buffer in (self.weight, self.error, self.count):
            buffer.zero_()
        _forget_own(self)


def asking(model: Model) -> list[Feedback]:
    """The feedback that parts of the foreground ask for. Raises InputError where a part behind it does."""
    found = [part for part in model.modules() if isinstance(part, Feedback)]
    if found and not set(model.foreground.modules()).issuperset(found):
        raise InputError(
            "model.background: a part of it follows the color error, which is known of the foreground alone - expected"
            " it there, or another part"
        )
    return found


def _forget_own(feedback: nn.Module, missing: object = None) -> None:
    assert isinstance(feedback, Feedback)
    for buffer in (feedback.own_weight, feedback.own_error, feedback.own_count):
        buffer.zero_()
