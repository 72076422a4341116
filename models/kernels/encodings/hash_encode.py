"""Multi-resolution hash encoding with its input gradient, and every derivative that training an SDF needs.

Source: Müller et al., "Instant Neural Graphics Primitives with a Multiresolution Hash Encoding" (2022), section 3.

The Jacobian d(features)/d(points) is never stored: the vjp from feature weights to the points reads the table a
second time, which costs less than the memory traffic of 6 numbers per point and level. In the backward pass of a
loss on the input gradient, the first- and second-order gradients of the table are scattered together, in one pass.

Which pass reads what of which other one is the same for every encoding by a table, and stands in `Lookup` and below.
A kernel handles a block of points at one level: `LANES` points of one vector register on a CPU, one point per thread
on a GPU; the bodies are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.encodings.hash_blocks import encode_block, frame_block, lead_block, pull_block, scatter_block
from models.kernels.encodings.table_gradients import sums
from models.kernels.runtime.launch import lanes, launch
from models.kernels.runtime.native import Ints, Pairs, Rows

FEATURES = 2  # per level; a level's entry is one 8-byte load
CHUNK = 32  # blocks that go through all levels together, where levels are summed up
PARTS = 8  # of the points, of which a thread takes one at a time through a level
GRAIN = 256  # (level, block) items that are worth a second thread


class Lookup(ABC):
    """The kernels of an encoding over a table [N, F], for points [M, 3]; features are [M, W].

    along: [M, 3], a direction for each point, or of no rows: none.
    """

    @abstractmethod
    def features(self, points: Tensor, table: Tensor, along: Tensor) -> Tensor:
        """[M, W] features or, with a direction, their derivative in it."""

    @abstractmethod
    def pull(self, points: Tensor, table: Tensor, weight: Tensor, second: Tensor, along: Tensor) -> Tensor:
        """[M, 3] gradient of sum(weight * features) in the points, and of the derivative along a direction.

        weight, second: [M, W], of the features and of their derivative; `second` has no rows without a direction.
        """

    @abstractmethod
    def scatter(self, points: Tensor, table: Tensor, grad: Tensor, weight: Tensor, along: Tensor) -> Tensor | None:
        """Gradient of the table, as `TableGradients.of` returns it: of the features and of their derivative.

        grad, weight: [M, W], as `weight` and `second` of `pull`.
        """


def look_up(points: Tensor, table: Tensor, lookup: Lookup) -> Tensor:
    """[M, W] features of points [M, 3]. Differentiable in `points` and `table`, once."""
    return _Features.apply(points, table, lookup, None)


def look_up_with_vjp(points: Tensor, table: Tensor, lookup: Lookup) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """As `look_up`, and a function from feature weights w [M, W] to d(sum w . features)/d(points) [M, 3].

    To be called once at most. Features and vjp are differentiable in `points`, `table` and w, once.
    """
    later = _Later()
    features = _Features.apply(points, table, lookup, later)
    return features, lambda weight: _Pull.apply(points, table, weight, features, lookup, later)


@dataclass
class _Later:
    """What the backward pass of the vjp hands to that of the features, which runs after it."""

    second: list[tuple[Tensor, Tensor]] = field(default_factory=list)


def _nothing(points: Tensor) -> Tensor:
    return points.new_empty(0, 3)


class _Features(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, lookup: Lookup, later: _Later | None) -> Tensor:
        points = points.contiguous()
        ctx.save_for_backward(points, table)
        ctx.lookup, ctx.later = lookup, later
        return lookup.features(points, table, _nothing(points))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        points, table = ctx.saved_tensors
        grad, nothing = grad.contiguous(), _nothing(points)
        weight, along = ctx.later.second.pop() if ctx.later and ctx.later.second else (nothing, nothing)
        grad_points = grad_table = None
        if ctx.needs_input_grad[1]:
            grad_table = ctx.lookup.scatter(points, table, grad, weight, along)
        if ctx.needs_input_grad[0]:
            grad_points = ctx.lookup.pull(points, table, grad, weight, along)
        return grad_points, grad_table, None, None


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, points: Tensor, table: Tensor, weight: Tensor, features: Tensor, lookup: Lookup, later: _Later
    ) -> Tensor:
        # `features` is not read: as an input it makes its backward pass run after this one's.
        points, weight = points.contiguous(), weight.contiguous()
        ctx.save_for_backward(points, table, weight)
        ctx.lookup, ctx.later = lookup, later
        return lookup.pull(points, table, weight, _nothing(points), _nothing(points))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor | None, None, None, None]:
        points, table, weight = ctx.saved_tensors
        along = grad.contiguous()
        ctx.later.second.append((weight, along))
        grad_weight = ctx.lookup.features(points, table, along) if ctx.needs_input_grad[2] else None
        return None, None, grad_weight, None, None, None


@dataclass(frozen=True)
class HashLevels:
    """Layout of the table: per level the cells per axis and the first row; dense where it fits, hashed above.

    resolution: [L] int32, cells over the cube's side. first_row: [L+1] int32, rows of level l are
    first_row[l] .. first_row[l+1]-1. A hashed level has a power of two of rows.
    """

    resolution: Tensor
    first_row: Tensor

    @staticmethod
    def geometric(levels: int, *, base: int, top: int, log2_rows: int) -> HashLevels:
        """`levels` resolutions from `base` to `top` in geometric progression, at most 2^log2_rows rows each."""
        growth = (top / base) ** (1 / max(levels - 1, 1))
        resolution = [int(base * growth**level + 0.5) for level in range(levels)]
        rows = [min((n + 1) ** 3, 2**log2_rows) for n in resolution]
        first = torch.tensor([0, *rows]).cumsum(0)
        return HashLevels(torch.tensor(resolution, dtype=torch.int32), first.to(torch.int32))

    def to(self, device: torch.device) -> HashLevels:
        return HashLevels(self.resolution.to(device), self.first_row.to(device))

    @property
    def rows(self) -> int:
        return int(self.first_row[-1])


def hash_encode(
    points: Tensor, table: Tensor, levels: HashLevels, *, active: int, lead: int = 0, read: Tensor | None = None
) -> Tensor:
    """Trilinear features of `points`.

    points: [M, 3] float32 in the cube [-1, 1]^3 (clamped to it). table: [rows, 2] float32. active: 1 to L, the levels
    from this one on are zero (coarse to fine training). lead: 3 for the point itself in front of its features, else 0.
    read: [rows, 2] float16, a copy of the table that is read in its place; gradients are the table's all the same.
    Returns [M, lead + 2L], level by level.
    Differentiable in `points` and `table`, once; use `hash_encode_with_vjp` for gradients of the input gradient.
    """
    return look_up(points, table, _Lookup(levels, active, lead, read))


def hash_encode_with_vjp(
    points: Tensor, table: Tensor, levels: HashLevels, *, active: int, lead: int = 0, read: Tensor | None = None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """As `hash_encode`, and a function from feature weights w [M, lead + 2L] to d(sum w . features)/d(points) [M, 3].

    To be called once at most. Features and vjp are differentiable in `points`, `table` and w, once. Along one
    axis the features are piecewise linear; their mixed second derivatives within a cell are in the backward pass.
    """
    return look_up_with_vjp(points, table, _Lookup(levels, active, lead, read))


@dataclass(frozen=True)
class LevelLookup(Lookup):
    """Over a table of two features in the rows of several levels: how its kernels are launched.

    levels: the layout, with `first_row` [L+1] int32. active: 1 to L, the levels from this one on are zero.
    """

    levels: Any
    active: int
    lead: int  # columns in front of the features, for the point itself
    read: Tensor | None  # in place of the table

    @property
    @abstractmethod
    def kernels(self) -> tuple[Any, Any, Any]:
        """That of the features, of the gradient in the points and of the table's; arguments as of those below."""

    @abstractmethod
    def layout(self) -> list[Any]:
        """Their arguments about the levels."""

    def words(self, table: Tensor) -> list[Any]:
        """The table that is read as 32-bit words, and how many of them make a row."""
        read = table if self.read is None else self.read
        return [read.detach().view(torch.int32).view(-1), FEATURES * read.element_size() // 4]

    def arguments(self, points: Tensor) -> list[Any]:
        return [points, *self.layout(), self.active, self.lead]

    def features(self, points: Tensor, table: Tensor, along: Tensor) -> Tensor:
        """See `Lookup.features`."""
        out = points.new_empty(len(points), self.lead + FEATURES * (len(self.levels.first_row) - 1))
        self.by_level(self.kernels[0], points, [*self.words(table), along, out], in_order=False)
        return out

    def pull(self, points: Tensor, table: Tensor, weight: Tensor, second: Tensor, along: Tensor) -> Tensor:
        """See `Lookup.pull`."""
        out = torch.empty_like(points)
        self.by_point(self.kernels[1], points, [*self.words(table), weight, second, along, out])
        return out

    def scatter(self, points: Tensor, table: Tensor, grad: Tensor, weight: Tensor, along: Tensor) -> Tensor | None:
        """See `Lookup.scatter`."""
        grad_table, rows = sums.of(table, wp.vec2)
        fresh = self.fresh(grad_table, points)
        self.by_level(self.kernels[2], points, [rows, int(fresh), grad, weight, along], in_order=True)
        return grad_table

    def fresh(self, grad: Tensor | None, points: Tensor) -> bool:
        """Whether the kernel is to fill the levels of a new table with zeros; the others are filled here.

        On a CPU a level is in the cache then when it is added to. On a GPU its blocks are not in order.
        """
        if grad is None:
            return False
        by_kernel = points.device.type == "cpu" and len(points) > 0
        grad[int(self.levels.first_row[self.active]) if by_kernel else 0 :].zero_()
        return by_kernel

    def by_level(self, kernel: Any, points: Tensor, rest: list[Any], *, in_order: bool) -> None:
        """Launch over (level, block of points).

        in_order: what is written within a level is written by one thread of a CPU, block after block. Otherwise its
        threads are at one level together, each at about the same points as in the level before, since the rows that it
        has written there lie in its own core's cache. Some blocks may lie behind the last; there is nothing to do.
        """
        blocks = -(-len(points) // lanes(points.device))
        together = max(blocks if in_order else -(-blocks // PARTS), 1)
        blocks = blocks if points.device.type != "cpu" else -(-blocks // together) * together
        inputs = [*self.arguments(points), blocks, *rest]
        launch(kernel, blocks * self.active, inputs, device=points.device, block=together, grain=GRAIN)

    def by_point(self, kernel: Any, points: Tensor, rest: list[Any]) -> None:
        """Launch over chunks of blocks of points, each through all levels."""
        blocks = -(-len(points) // lanes(points.device))
        chunk = CHUNK if points.device.type == "cpu" else 1
        inputs = [*self.arguments(points), blocks, chunk, *rest]
        launch(kernel, -(-blocks // chunk), inputs, device=points.device, grain=2)


class _Lookup(LevelLookup):
    @property
    def kernels(self) -> tuple[Any, Any, Any]:
        return _encode, _pull, _scatter

    def layout(self) -> list[Any]:
        return [self.levels.resolution, self.levels.first_row]


@wp.kernel(enable_backward=False)
def _encode(
    first: int, points: Rows, resolution: Ints, first_row: Ints, active: int, lead: int, blocks: int, table: Ints,
    words: int, along: Rows, out: Rows,
):
    """Features, or their derivative along a direction per point."""
    item = first + wp.tid()
    level = item // blocks
    rows = first_row[level + 1] - first_row[level]
    column = lead + 2 * level
    block = item - level * blocks
    if level == 0:
        frame_block(block, lead, lead + 2 * active, points, along, out)
    encode_block(block, column, resolution[level], first_row[level], rows, points, table, words, along, out)


@wp.kernel(enable_backward=False)
def _pull(
    first: int, points: Rows, resolution: Ints, first_row: Ints, active: int, lead: int, blocks: int, chunk: int,
    table: Ints, words: int, weight: Rows, second: Rows, along: Rows, out: Rows,
):
    """Gradient of sum(weight * features) in the points, plus that of the derivative along a direction."""
    begin = (first + wp.tid()) * chunk
    for block in range(begin, wp.min(begin + chunk, blocks)):
        lead_block(block, lead, weight, out)
    for level in range(active):
        rows = first_row[level + 1] - first_row[level]
        column = lead + 2 * level
        for block in range(begin, wp.min(begin + chunk, blocks)):
            pull_block(
                block, column, resolution[level], first_row[level], rows, points, table, words, weight, second, along,
                out,
            )


@wp.kernel(enable_backward=False)
def _scatter(
    first: int, points: Rows, resolution: Ints, first_row: Ints, active: int, lead: int, blocks: int, table: Pairs,
    fresh: int, grad: Rows, weight: Rows, along: Rows,
):
    """Gradient of the table: of the features, and of their derivative along a direction."""
    item = first + wp.tid()
    level = item // blocks
    rows = first_row[level + 1] - first_row[level]
    column = lead + 2 * level
    block = item - level * blocks
    if fresh != 0 and block == 0:
        for row in range(first_row[level], first_row[level + 1]):
            table[row] = wp.vec2(0.0, 0.0)
    scatter_block(block, column, resolution[level], first_row[level], rows, points, table, grad, weight, along)
