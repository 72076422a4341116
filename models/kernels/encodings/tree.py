"""Features at the corners of the voxels of an octree, with input gradient and every derivative an SDF needs.

A point's features are the sum, over the voxels that it lies in from the coarsest to its leaf, of the trilinear
interpolation of the rows at the voxel's corners: what a finer voxel has is added to what the coarser ones say.

The Jacobian is never stored; see `hash_encode`, whose passes these are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import warp as wp
from torch import Tensor

from models.kernels.encodings.hash_encode import Lookup, look_up, look_up_with_vjp
from models.kernels.encodings.table_gradients import sums, zeros_like
from models.kernels.encodings.tree_blocks import look_up_block, pull_block, scatter_block
from models.kernels.runtime.launch import at_once, lanes, launch, launch_blocks
from models.kernels.runtime.native import Ints, Rows

GRAIN = 16  # blocks that are worth a second thread
REGISTERS = (16, 8, 4, 1)  # numbers of a row that a CPU takes at once, if they divide it


@dataclass(frozen=True)
class Voxels:
    """Which rows of a table [N, F] are whose corners, in an octree over the cube [-1, 1]^3.

    The first side^3 voxels are the coarsest, in the order x, y, z. children: [V] int32, the first of a voxel's eight,
    which follow one another, bits x, y, z; below zero where it has none. corners: [V, 8] int32, the rows at its
    corners in the same order; below zero where there is none, which is as a row of zeros.
    """

    children: Tensor
    corners: Tensor
    side: int


def tree_features(points: Tensor, table: Tensor, voxels: Voxels, *, lead: int = 0) -> Tensor:
    """Features of `points`.

    points: [M, 3] float32, clamped to the cube [-1, 1]^3. table: [N, F] float32. lead: 3 for the point itself in front
    of its features, else 0. Returns [M, lead + F].
    Differentiable in `points` and `table`, once; use `tree_features_with_vjp` for gradients of the input gradient.
    """
    return look_up(points, table, _Lookup(voxels, lead))


def tree_features_with_vjp(
    points: Tensor, table: Tensor, voxels: Voxels, *, lead: int = 0
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """As `tree_features`, and a function from feature weights w [M, lead + F] to d(sum w . features)/d(points) [M, 3].

    To be called once at most. Features and vjp are differentiable in `points`, `table` and w, once, the mixed second
    derivatives within a voxel included.
    """
    return look_up_with_vjp(points, table, _Lookup(voxels, lead))


@dataclass(frozen=True)
class _Lookup(Lookup):
    voxels: Voxels
    lead: int

    def features(self, points: Tensor, table: Tensor, along: Tensor) -> Tensor:
        """See `Lookup.features`."""
        out = points.new_empty(len(points), self.lead + table.shape[1])
        self._by_point(_look_up, points, table, [along, out])
        return out

    def pull(self, points: Tensor, table: Tensor, weight: Tensor, second: Tensor, along: Tensor) -> Tensor:
        """See `Lookup.pull`."""
        out = torch.empty_like(points)
        self._by_point(_pull, points, table, [weight, second, along, out])
        return out

    def scatter(self, points: Tensor, table: Tensor, grad: Tensor, weight: Tensor, along: Tensor) -> Tensor | None:
        """See `Lookup.scatter`. One thread of a CPU has a share of the numbers, block after block."""
        grad_table, rows = sums.of(table, fresh=zeros_like)
        numbers = at_once(table.shape[1], REGISTERS, points.device)
        blocks = -(-len(points) // lanes(points.device))
        inputs = [blocks, numbers, points, table.detach(), *self._tree(), grad, weight, along, rows]
        items = blocks * (table.shape[1] // numbers)
        launch(_scatter, items, inputs, device=points.device, block=max(blocks, 1), grain=GRAIN)
        return grad_table

    def _tree(self) -> list[Any]:
        return [self.voxels.children, self.voxels.corners.view(-1), self.voxels.side, self.lead]

    def _by_point(self, kernel: Any, points: Tensor, table: Tensor, rest: list[Any]) -> None:
        """Launch over blocks of points."""
        inputs = [points, table.detach(), *self._tree(), *rest]
        launch_blocks(kernel, len(points), inputs, device=points.device, grain=GRAIN)


@wp.kernel(enable_backward=False)
def _look_up(
    first: int, points: Rows, table: Rows, children: Ints, corners: Ints, side: int, lead: int, along: Rows, out: Rows
):
    """Features, or their derivative along a direction per point."""
    look_up_block(first + wp.tid(), points, table, children, corners, side, lead, along, out)


@wp.kernel(enable_backward=False)
def _pull(
    first: int, points: Rows, table: Rows, children: Ints, corners: Ints, side: int, lead: int, weight: Rows,
    second: Rows, along: Rows, out: Rows,
):
    """Gradient of sum(weight * features) in the points, plus that of the derivative along a direction."""
    pull_block(first + wp.tid(), points, table, children, corners, side, lead, weight, second, along, out)


@wp.kernel(enable_backward=False)
def _scatter(
    first: int, blocks: int, numbers: int, points: Rows, table: Rows, children: Ints, corners: Ints, side: int,
    lead: int, grad: Rows, weight: Rows, along: Rows, rows: Rows,
):
    """Gradient of the table: of the features, and of their derivative along a direction."""
    item = first + wp.tid()
    share = item // blocks
    block = item - share * blocks
    scatter_block(block, numbers * share, points, table, children, corners, side, lead, grad, weight, along, rows)
