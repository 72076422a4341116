"""Static shapes on a GPU: arrays of fixed capacity instead of lengths for which the host would synchronize."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.kernels.rays.packed import Compacted, compact
from models.samples import compact_indices

FIT_EVERY = 16  # training steps between two choices of the capacities
SPARE = 1.25  # capacity over the largest recent demand
QUANTUM = 256


class Capacity(nn.Module):
    """The capacities of a few arrays that are made one after the other in each training step, its stages.

    sizes: of the stages, in elements; None on a CPU, in evaluation, and until a demand was counted: each array is then
    as long as its data.
    """

    demand: Tensor
    limits: Tensor

    def __init__(self, stages: int) -> None:
        super().__init__()
        self.sizes: tuple[int, ...] | None = None
        # The largest number of elements since the last fit, per stage; and `sizes` on the device.
        self.register_buffer("demand", torch.zeros(stages, dtype=torch.int64), persistent=False)
        self.register_buffer("limits", torch.zeros(stages, dtype=torch.int64), persistent=False)

    def stages(self) -> Stages:
        """The stages of one step, or of a micro-batch of it."""
        return Stages(self)

    def fit(self) -> None:
        """Choose capacities for the demand since the last fit; synchronizes. Nothing on a CPU, which counts none."""
        demand = [int(count) for count in self.demand.tolist()]
        self.demand.zero_()
        sizes = self.sizes or (0,) * len(demand)
        if any(demand) and not all(n <= size <= 2 * (n + QUANTUM) for n, size in zip(demand, sizes, strict=True)):
            self.resize(*(QUANTUM * (int(SPARE * n / QUANTUM) + 1) for n in demand))

    def resize(self, *sizes: int) -> None:
        """Set the capacities of the stages, in elements."""
        self.sizes = sizes
        self.limits.copy_(torch.tensor(sizes))


class Stages:
    """The capacities of a step in order, and the demand that each of them met."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.sizes = capacity.sizes if capacity.training else None
        self.counting = capacity.training and (self.sizes is not None or capacity.demand.device.type != "cpu")
        self.counts: list[Tensor] = []

    def size(self) -> int | None:
        """Capacity of the current stage; None: as long as its data."""
        return None if self.sizes is None else self.sizes[len(self.counts)]

    def count(self, demand: Tensor) -> None:
        """End the current stage, whose data had `demand` [] elements."""
        if self.counting:
            self.counts.append(demand)

    def compact_indices(self, mask: Tensor) -> Tensor:
        """[K] int64, where mask [M] bool is true, within the stage's capacity; see `samples.compact_indices`."""
        index = compact_indices(mask, self.size())
        if self.counting:
            self.count(mask.sum())
        return index

    def compact(self, mask: Tensor, offsets: Tensor) -> Compacted:
        """The packed samples where mask [M] bool is true, within this stage's capacity; `kernels.rays.packed.compact`.

        offsets: [R+1] int32. Not differentiable.
        """
        compacted = compact(mask, offsets, self.size())
        self.count(compacted.total)
        return compacted

    def overflow(self) -> Tensor | None:
        """End the step. [] bool: whether a demand exceeded its capacity; None where there is no capacity."""
        if not self.counting:
            return None
        now, before = torch.stack(self.counts), self.capacity.demand[: len(self.counts)]
        torch.maximum(before, now, out=before)
        return None if self.sizes is None else (now > self.capacity.limits[: len(self.counts)]).any()
