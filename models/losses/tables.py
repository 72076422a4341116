"""What is asked of the tables of an encoding themselves: small numbers, or numbers that change slowly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.capabilities import Offer
from models.encodings.factors import TABLES, FactorEncoding
from models.encodings.voxel_grid import VOXELS
from models.kernels.encodings.variation import Stretch, voxel_variation
from models.losses.base import LossConfig, Step
from models.model import Model
from utils.errors import InputError
from utils.random_stream import uniform

UNIT = 2 / 256  # scene units: total variation is of differences over a cell of 256 across the cube
# A table [*sides, F] -> its penalty [], and writes the penalty's gradient to a tensor of zeros of the same shape.
Penalty = Callable[[Tensor, Tensor], Tensor]


class TableLossConfig(LossConfig):
    """What terms on the tables themselves share. The gradient is written by hand, in one pass over the table."""

    needs: ClassVar[frozenset[Offer]] = frozenset({TABLES})
    of: str = Field("density", description="the encoding, by its key in the foreground's field")

    def kept(self, model: Model) -> int:
        return self._encoding(model).table.nbytes  # its gradient

    def __call__(self, step: Step) -> Tensor:
        encoding = self._encoding(step.model)
        return _Penalized.apply(encoding.table, encoding.grids, self.penalty)

    def _encoding(self, model: Model) -> FactorEncoding:
        return _encoding_of(model, self.of, "with tables", lambda part: part.whole)

    def penalty(self, grid: Tensor, grad: Tensor) -> Tensor:
        """[], of one table [*sides, F], whose gradient is added to `grad`."""
        raise TypeError("a loss on tables defines penalty")


def _encoding_of(model: Model, name: str, kind: str, fits: Callable[[FactorEncoding], bool]) -> FactorEncoding:
    """The encoding of the foreground's field by its key. Raises InputError for one that does not fit."""
    field = model.foreground.field
    known = {key: part for key, part in field.named_children() if isinstance(part, FactorEncoding) and fits(part)}
    if name not in known:
        raise InputError(f"losses: of: {name} - no encoding {kind} - expected one of {', '.join(known)}")
    return known[name]


class _Penalized(torch.autograd.Function):
    """The sum of a penalty over tables that are views of one parameter [N, F]."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, views: Callable[[Tensor], list[Tensor]], penalty: Penalty) -> Tensor:
        grad = torch.zeros_like(table)
        ctx.save_for_backward(grad)
        return torch.stack([penalty(*pair) for pair in zip(views(table.detach()), views(grad), strict=True)]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (own,) = ctx.saved_tensors
        return grad * own, None, None


class TableL1Loss(TableLossConfig):
    """Mean absolute number of each table in use, summed over the tables. Chen et al., "TensoRF" (2022), eq. 11."""

    type: Literal["table_l1"] = "table_l1"

    def penalty(self, grid: Tensor, grad: Tensor) -> Tensor:
        """[]; see `TableLossConfig.penalty`."""
        grad.add_(grid.sign(), alpha=1 / grid.numel())
        return grid.abs().mean()


class TableVariationLoss(TableLossConfig):
    """Mean square of the differences of neighbors in each table, summed over its axes and the tables.

    Chen et al., "TensoRF" (2022), section 4.3, whose code doubles it and weighs planes ten times as much as lines.
    """

    type: Literal["table_variation"] = "table_variation"

    def penalty(self, grid: Tensor, grad: Tensor) -> Tensor:
        """[]; see `TableLossConfig.penalty`."""
        found = grid.new_zeros(())
        for axis in range(grid.dim() - 1):
            change = grid.diff(dim=axis)
            found = found + change.square().mean()
            change *= 2 / change.numel()
            count = grid.shape[axis] - 1
            grad.narrow(axis, 1, count).add_(change)
            grad.narrow(axis, 0, count).sub_(change)
        return found


class VoxelVariationLoss(LossConfig):
    """Total variation sqrt(dx^2 + dy^2 + dz^2), summed over the numbers of a corner, mean over some corners.

    These follow one another from a random one on, other ones in each step, on each rank and in each micro-batch.
    Fridovich-Keil, Yu et al., "Plenoxels" (2022), eq. 3; the share as in its published code.
    """

    type: Literal["voxel_variation"] = "voxel_variation"
    needs: ClassVar[frozenset[Offer]] = frozenset({VOXELS})
    of: str = Field("density", description="the encoding, by its key in the foreground's field")
    share: float = Field(0.01, gt=0, le=1, description="of the corners")

    def __call__(self, step: Step) -> Tensor:
        encoding = _encoding_of(step.model, self.of, "by voxels", lambda part: part.by_voxels)
        return voxel_variation(encoding.table, encoding.factors(), self._stretch(encoding))

    def _stretch(self, encoding: FactorEncoding) -> Stretch:
        corners = math.prod(side + 1 for side in encoding.sides[encoding.generation])
        low, high = encoding.box.chunk(2)
        first = (uniform((1,), encoding.box.device).double() * corners).int()
        return Stretch(first, math.ceil(self.share * corners), corners, UNIT * encoding.resolution / (high - low))
