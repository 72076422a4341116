"""Rooms of fixed length on a GPU: what would otherwise be as long as there is something, and wait to hear how much."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.kernels.rays.packed import Chosen, choose
from models.samples import places

FIT_EVERY = 16  # training steps between two choices of the rooms
SPARE = 1.25  # how much larger they are than what was wanted of late
QUANTUM = 256


class Rooms(nn.Module):
    """The lengths of a few arrays that are made one after the other in each training step.

    sizes: of the stages; None until something was counted, on a CPU, and in evaluation: each is then as long as it
    needs to be.
    """

    wanted: Tensor
    limits: Tensor

    def __init__(self, stages: int) -> None:
        super().__init__()
        self.sizes: tuple[int, ...] | None = None
        self.register_buffer("wanted", torch.zeros(stages, dtype=torch.int64), persistent=False)  # the most, of late
        self.register_buffer("limits", torch.zeros(stages, dtype=torch.int64), persistent=False)  # as `sizes`

    def enter(self) -> Stages:
        """The stages of one step, or of a part of it."""
        return Stages(self)

    def fit(self) -> None:
        """Choose sizes for what was wanted since the last time, which is nothing on a CPU; waits for a GPU."""
        wanted = [int(count) for count in self.wanted.tolist()]
        self.wanted.zero_()
        sizes = self.sizes or (0,) * len(wanted)
        if any(wanted) and not all(n <= size <= 2 * (n + QUANTUM) for n, size in zip(wanted, sizes, strict=True)):
            self.resize(*(QUANTUM * (int(SPARE * n / QUANTUM) + 1) for n in wanted))

    def resize(self, *sizes: int) -> None:
        """From now on rooms are so long."""
        self.sizes = sizes
        self.limits.copy_(torch.tensor(sizes))


class Stages:
    """Hands out the rooms in order, and notes how much each of them should have held."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.sizes = rooms.sizes if rooms.training else None
        self.noting = rooms.training and (self.sizes is not None or rooms.wanted.device.type != "cpu")
        self.counts: list[Tensor] = []

    def size(self) -> int | None:
        """Of the stage that comes now; None: as long as it needs to be."""
        return None if self.sizes is None else self.sizes[len(self.counts)]

    def note(self, count: Tensor) -> None:
        """The stage is done, and should have held `count`, []."""
        if self.noting:
            self.counts.append(count)

    def places(self, mask: Tensor) -> Tensor:
        """[K] int64, ascending: where mask [M] is true, in the room of this stage; `models.samples.places`."""
        index = places(mask, self.size())
        if self.noting:
            self.note(mask.sum())
        return index

    def choose(self, mask: Tensor, offsets: Tensor) -> Chosen:
        """Where mask [M] is true of packed samples, in the room of this stage; `models.kernels.rays.packed.choose`."""
        chosen = choose(mask, offsets, self.size())
        self.note(chosen.total)
        return chosen

    def leave(self) -> Tensor | None:
        """[] bool: whether a room was too short; None where there are none."""
        if not self.noting:
            return None
        now, before = torch.stack(self.counts), self.rooms.wanted[: len(self.counts)]
        torch.maximum(before, now, out=before)
        return None if self.sizes is None else (now > self.rooms.limits[: len(self.counts)]).any()
