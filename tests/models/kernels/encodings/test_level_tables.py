"""What is true of every encoding by a table with several levels: against PyTorch in float64, on threads, in halves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from models.kernels.encodings.hash_encode import HashLevels, hash_encode, hash_encode_with_vjp
from models.kernels.encodings.permutohedral import (
    PermutohedralLevels,
    permutohedral_encode,
    permutohedral_encode_with_vjp,
)
from models.kernels.runtime.launch import set_threads
from tests.models.kernels.encodings import test_hash_encode as cubes
from tests.models.kernels.encodings import test_permutohedral as simplices
from tests.support.second_order import check_pullback, check_values, points_and_table


@dataclass(frozen=True)
class Kind:
    """An encoding, its published form on `levels`, of four levels, and two fine levels of 4,096 rows."""

    encode: Callable[..., Tensor]
    with_vjp: Callable[..., tuple[Tensor, Callable[[Tensor], Tensor]]]
    published: Callable[[Tensor, Tensor, Any, int], Tensor]
    levels: Any
    fine: Any
    off: float  # absolute tolerance of features

    def reference(self, points: Tensor, table: Tensor, active: int, lead: int) -> Tensor:
        """With the point itself in front of its features."""
        return torch.cat([points[:, :lead], self.published(points, table, self.levels, active)], 1)

    def inputs(self, count: int) -> tuple[Tensor, Tensor]:
        return points_and_table(count, self.levels.rows)


FINE = {"base": 2000, "top": 65536, "log2_rows": 12}
KINDS = {
    "hash grid": Kind(
        hash_encode, hash_encode_with_vjp, cubes.encode_reference, cubes.LEVELS, HashLevels.geometric(2, **FINE), 2e-5
    ),
    "permutohedral": Kind(
        permutohedral_encode,
        permutohedral_encode_with_vjp,
        simplices.encode_reference,
        simplices.LEVELS,
        PermutohedralLevels.geometric(2, **FINE, shift=simplices.SHIFT[:2]),
        5e-5,
    ),
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@each_kind
@pytest.mark.parametrize("count", [0, 1, 300])
@pytest.mark.parametrize("active", [4, 2])
@pytest.mark.parametrize("lead", [0, 3])
def test_values_and_gradients(kind: Kind, count: int, active: int, lead: int, device: torch.device) -> None:
    points, table = kind.inputs(count)
    check_values(
        lambda p, t: kind.encode(p, t, kind.levels.to(device), active=active, lead=lead),
        lambda p, t: kind.reference(p, t, active, lead),
        points,
        table,
        device,
        values=(kind.off, 1e-5),
        gradients=2e-3,
    )


@each_kind
@pytest.mark.parametrize("count", [0, 1, 300])
@pytest.mark.parametrize("active", [4, 2])
@pytest.mark.parametrize("lead", [0, 3])
def test_pullback_and_its_gradients(kind: Kind, count: int, active: int, lead: int, device: torch.device) -> None:
    """The double backward of an eikonal loss: gradients of the input gradient in table, points and weights."""
    points, table = kind.inputs(count)
    check_pullback(
        lambda p, t: kind.with_vjp(p, t, kind.levels.to(device), active=active, lead=lead),
        lambda p, t: kind.reference(p, t, active, lead),
        points,
        table,
        device,
    )


@each_kind
def test_beyond_the_cube_nothing_changes(kind: Kind, device: torch.device) -> None:
    _, table = kind.inputs(0)
    points = torch.tensor([[1.5, 0.2, -0.3], [0.1, -2.0, 0.4]])
    value, vjp = kind.with_vjp(points.to(device), table.to(device), kind.levels.to(device), active=4)
    gradient = vjp(torch.ones_like(value)).cpu()
    assert gradient[0, 0] == 0 and gradient[1, 1] == 0 and gradient[0, 1] != 0 and gradient[1, 2] != 0


@each_kind
def test_fine_levels_do_not_overflow_32_bits(kind: Kind, device: torch.device) -> None:
    table = torch.randn(kind.fine.rows, 2, generator=torch.Generator().manual_seed(1))
    points = torch.tensor([[0.3, -0.7, 0.9], [1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    got = kind.encode(points.to(device), table.to(device), kind.fine.to(device), active=2).cpu()
    # The points are float32, so where they lie in a cell or simplex is known to 65536 * 6e-8 or 2e-7 only.
    truth = kind.published(points.double(), table.double(), kind.fine, 2)
    torch.testing.assert_close(got.double(), truth, atol=0.1, rtol=0)


@each_kind
def test_threads_do_not_change_the_sums(kind: Kind) -> None:
    """Bit-equal gradients with one and two threads: a level is scattered by one thread, in order."""
    points, table = kind.inputs(6000)
    results = []
    try:
        for threads in (1, 2):
            set_threads(threads)
            t = table.clone().requires_grad_()
            value, vjp = kind.with_vjp(points, t, kind.levels, active=4)
            slope = vjp(value.cos())
            results.append(torch.autograd.grad(value.sin().sum() + slope.sin().sum(), t)[0])
    finally:
        set_threads(1)
    assert torch.equal(*results)


@each_kind
@pytest.mark.parametrize("smallest", [-6, 0])  # down to numbers below the smallest normal half
def test_a_table_in_half_precision_is_read_with_its_gradients(kind: Kind, smallest: int, device: torch.device) -> None:
    """As if the table held the rounded numbers, with the gradient at the table itself."""
    points, table = kind.inputs(300)
    table = table * torch.logspace(smallest, 0, len(table))[:, None]
    rounded = table.half()
    weight, for_gradient = torch.randn(300, 11), torch.randn(300, 3)
    results = []
    for t, read in ((table, rounded.to(device)), (rounded.float(), None)):
        p, t, w = (x.to(device).requires_grad_() for x in (points, t, weight))
        value, vjp = kind.with_vjp(p, t, kind.levels.to(device), active=4, lead=3, read=read)
        slope = vjp(w)
        loss = value.sin().sum() + (slope * for_gradient.to(device)).sum()
        results.append([value, slope, *torch.autograd.grad(loss, [p, t, w])])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other)
