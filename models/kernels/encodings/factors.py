"""Products of interpolated tables, with input gradient and every derivative that training an SDF needs.

A factor is a table over one axis (a line), two (a plane) or all three (a grid), interpolated linearly on each. A term
is the product of its factors, number by number; all terms side by side, or their sum, are the features:

    planes and lines    sum over three terms of plane(x, y) line(z)    Chen et al., "TensoRF" (2022), eq. 6
    lines               one term, line(x) line(y) line(z)              the same, eq. 5
    a dense grid        one term of one factor                         Sun et al., "DVGO" (2022), section 3

The Jacobian is never stored; see `hash_encode`, whose passes these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import warp as wp
from torch import Tensor

from models.kernels.encodings.factor_blocks import look_up_block, pull_block, scatter_block
from models.kernels.encodings.hash_encode import Lookup, look_up, look_up_with_vjp
from models.kernels.encodings.table_gradients import sums, zeros_like
from models.kernels.runtime.launch import at_once, lanes, launch, launch_blocks
from models.kernels.runtime.native import Floats, Ints, Rows

GRAIN = 64  # blocks that are worth a second thread
REGISTERS = (16, 4, 1)  # numbers of a row that a CPU takes at once, if they divide it


@dataclass(frozen=True)
class Factors:
    """Layout of a table [N, F]: which rows are whose corners.

    layout: [K, 5] int32, per factor the number of its axes, these (x = 0), and its first row; corner (i, j, k) of its
    axes is in row first + i + (n_i + 1) (j + (n_j + 1) k). resolution: [3] int32, cells on x, y and z. box: [6]
    float32, the least and the greatest corner of what is covered, beyond which features are constant. together: the
    factors of a term, which follow one another. base: [M] int32, of each point the rows before the tables that it
    looks up, of several like these in one; None: there are no others. links: [W, 2] int32 of a single grid of which
    only some corners have a row: bit b of word w, whether corner 32 w + b has one, and the rows of the corners of
    earlier words; a corner without one counts as zeros. None: all have one.
    """

    layout: Tensor
    resolution: Tensor
    box: Tensor
    together: int
    base: Tensor | None = None
    links: Tensor | None = None

    @property
    def terms(self) -> int:
        return len(self.layout) // self.together

    def arguments(self) -> list[Tensor]:
        """What every kernel is given of it: factors, links, resolution and box."""
        links = self.layout.new_empty(0) if self.links is None else self.links.view(-1)
        return [self.layout.view(-1), links, self.resolution, self.box]


def layout_of(axes: Sequence[Sequence[int]], resolution: Sequence[int]) -> tuple[Tensor, int]:
    """[K, 5] int32 as of `Factors.layout` for tables over `axes`, one after the other; and the rows of all."""
    rows, first = [], 0
    for own in axes:
        rows.append([len(own), *own, *[0] * (3 - len(own)), first])
        size = 1
        for axis in own:
            size *= resolution[axis] + 1
        first += size
    return torch.tensor(rows, dtype=torch.int32), first


def factor_features(points: Tensor, table: Tensor, factors: Factors, *, lead: int = 0, summed: bool = False) -> Tensor:
    """Features of `points`.

    points: [M, 3] float32. table: [N, F] float32. lead: 3 for the point itself in front of its features, else 0.
    summed: the sum over terms and numbers instead. Returns [M, lead + terms F], term by term; [M, 1] where summed.
    Differentiable in `points` and `table`, once; use `factor_features_with_vjp` for gradients of the input gradient.
    """
    return look_up(points, table, _Lookup(factors, lead, summed))


def factor_features_with_vjp(
    points: Tensor, table: Tensor, factors: Factors, *, lead: int = 0
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """As `factor_features`, and a function from feature weights w [M, lead + terms F] to d(sum w . features)/d(points).

    To be called once at most; it gives [M, 3]. Features and vjp are differentiable in `points`, `table` and w, once,
    the mixed second derivatives within a cell included.
    """
    return look_up_with_vjp(points, table, _Lookup(factors, lead, False))


@dataclass(frozen=True)
class _Lookup(Lookup):
    factors: Factors
    lead: int
    summed: bool

    def features(self, points: Tensor, table: Tensor, along: Tensor) -> Tensor:
        """See `Lookup.features`."""
        width = 1 if self.summed else self.lead + self.factors.terms * table.shape[1]
        out = points.new_empty(len(points), width)
        self._by_point(_look_up, points, table, [along, out])
        return out

    def pull(self, points: Tensor, table: Tensor, weight: Tensor, second: Tensor, along: Tensor) -> Tensor:
        """See `Lookup.pull`."""
        out = torch.empty_like(points)
        self._by_point(_pull, points, table, [weight, second, along, out])
        return out

    def scatter(self, points: Tensor, table: Tensor, grad: Tensor, weight: Tensor, along: Tensor) -> Tensor | None:
        """See `Lookup.scatter`. One thread of a CPU has a term's share of the numbers, block after block."""
        own = self.factors
        grad_table, rows = sums.of(table, fresh=zeros_like)
        numbers = at_once(table.shape[1], REGISTERS, points.device)
        shares = table.shape[1] // numbers
        blocks = -(-len(points) // lanes(points.device))
        inputs = [blocks, shares, numbers, *self._tables(points, table), own.together, self.lead, int(self.summed)]
        inputs += [grad, weight, along, rows]
        launch(_scatter, blocks * shares * own.terms, inputs, device=points.device, block=max(blocks, 1), grain=GRAIN)
        return grad_table

    def _by_point(self, kernel: Any, points: Tensor, table: Tensor, rest: list[Any]) -> None:
        """Launch over blocks of points."""
        own = self.factors
        inputs = [*self._tables(points, table), own.terms, own.together, self.lead, int(self.summed), *rest]
        launch_blocks(kernel, len(points), inputs, device=points.device, grain=GRAIN)

    def _tables(self, points: Tensor, table: Tensor) -> list[Any]:
        """What all kernels take first: points, where their tables begin, and the layout of these."""
        own = self.factors
        base = points.new_empty(0, dtype=torch.int32) if own.base is None else own.base
        return [points, base, table.detach(), *own.arguments()]


@wp.kernel(enable_backward=False)
def _look_up(
    first: int, points: Rows, base: Ints, table: Rows, factors: Ints, links: Ints, resolution: Ints, box: Floats,
    terms: int, together: int, lead: int, summed: int, along: Rows, out: Rows,
):
    """Features, or their derivative along a direction per point."""
    block = first + wp.tid()
    look_up_block(
        block, points, base, table, factors, links, resolution, box, terms, together, lead, summed, along, out
    )


@wp.kernel(enable_backward=False)
def _pull(
    first: int, points: Rows, base: Ints, table: Rows, factors: Ints, links: Ints, resolution: Ints, box: Floats,
    terms: int, together: int, lead: int, summed: int, weight: Rows, second: Rows, along: Rows, out: Rows,
):
    """Gradient of sum(weight * features) in the points, plus that of the derivative along a direction."""
    block = first + wp.tid()
    pull_block(
        block, points, base, table, factors, links, resolution, box, terms, together, lead, summed, weight, second,
        along, out,
    )


@wp.kernel(enable_backward=False)
def _scatter(
    first: int, blocks: int, shares: int, numbers: int, points: Rows, base: Ints, table: Rows, factors: Ints,
    links: Ints, resolution: Ints, box: Floats, together: int, lead: int, summed: int, grad: Rows, weight: Rows,
    along: Rows, rows: Rows,
):
    """Gradient of the table: of the features, and of their derivative along a direction."""
    item = first + wp.tid()
    share = item // blocks
    term = share // shares
    number = numbers * (share - term * shares)
    scatter_block(
        item - share * blocks, term, number, points, base, table, factors, links, resolution, box, together, lead,
        summed, grad, weight, along, rows,
    )
