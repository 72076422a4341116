"""The hash encoding against PyTorch in float64: values, input gradient, and the gradients of both."""

import itertools
from typing import Literal

import pytest
import torch
from torch import Tensor

from models.encodings.hash_grid import HashGridConfig
from models.kernels.encodings.hash_encode import HashLevels, hash_encode, hash_encode_with_vjp
from models.kernels.runtime.launch import set_threads
from models.optimizers.adam import Adam
from tests.support.second_order import check_pullback, check_values

LEVELS = HashLevels.geometric(4, base=3, top=40, log2_rows=10)


def encode_reference(points: Tensor, table: Tensor, levels: HashLevels, active: int) -> Tensor:
    """Müller et al. (2022), section 3, corner by corner."""
    outputs = []
    for level, n in enumerate(levels.resolution.tolist()):
        first, end = levels.first_row[level].item(), levels.first_row[level + 1].item()
        u = (points * 0.5 + 0.5).clamp(0, 1) * n
        base = u.detach().floor().clamp(max=n - 1).long()
        fraction = u - base
        value = torch.zeros(len(points), 2, dtype=points.dtype)
        for corner in itertools.product((0, 1), repeat=3):
            at = base + torch.tensor(corner)
            if (n + 1) ** 3 <= end - first:
                row = (at[:, 2] * (n + 1) + at[:, 1]) * (n + 1) + at[:, 0]
            else:
                row = (at[:, 0] ^ (at[:, 1] * 2654435761) ^ (at[:, 2] * 805459861)) & (end - first - 1)
            weight = torch.stack([f if c else 1 - f for f, c in zip(fraction.T, corner, strict=True)]).prod(0)
            value = value + weight[:, None] * table[first + row]
        outputs.append(value if level < active else torch.zeros_like(value))
    return torch.cat(outputs, -1)


def inputs(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, 3, generator=generator) * 1.8 - 0.9, torch.randn(LEVELS.rows, 2, generator=generator)
KINDS: tuple[Literal["float32"], Literal["float16"]] = ("float32", "float16")


def test_levels() -> None:
    assert LEVELS.resolution.tolist()[0] == 3 and LEVELS.resolution.tolist()[-1] == 40
    rows = LEVELS.first_row.diff().tolist()
    assert rows[0] == 64 and rows[-1] == 1024


def reference(points: torch.Tensor, table: torch.Tensor, active: int, lead: int) -> torch.Tensor:
    """With the point itself in front of its features."""
    return torch.cat([points[:, :lead], encode_reference(points, table, LEVELS, active)], 1)


@pytest.mark.parametrize("count", [0, 1, 300])
@pytest.mark.parametrize("active", [4, 2])
@pytest.mark.parametrize("lead", [0, 3])
def test_values_and_gradients(count: int, active: int, lead: int, device: torch.device) -> None:
    points, table = inputs(count)
    check_values(
        lambda p, t: hash_encode(p, t, LEVELS.to(device), active=active, lead=lead),
        lambda p, t: reference(p, t, active, lead),
        points,
        table,
        device,
        values=(2e-5, 1e-5),
        gradients=2e-3,
    )


@pytest.mark.parametrize("count", [0, 1, 300])
@pytest.mark.parametrize("active", [4, 2])
@pytest.mark.parametrize("lead", [0, 3])
def test_pullback_and_its_gradients(count: int, active: int, lead: int, device: torch.device) -> None:
    """The double backward of an eikonal loss: gradients of the input gradient in table, points and weights."""
    points, table = inputs(count)
    check_pullback(
        lambda p, t: hash_encode_with_vjp(p, t, LEVELS.to(device), active=active, lead=lead),
        lambda p, t: reference(p, t, active, lead),
        points,
        table,
        device,
    )


def test_pullback_alone_reaches_the_table(device: torch.device) -> None:
    """A loss on the input gradient only, whose weights do not depend on the features."""
    points, table = inputs(40)
    p64, t64 = points.double().requires_grad_(), table.double().requires_grad_()
    pulled = torch.autograd.grad(encode_reference(p64, t64, LEVELS, 4).sum(), p64, create_graph=True)[0]
    wanted = torch.autograd.grad(pulled.square().sum(), t64)[0]
    t = table.to(device).requires_grad_()
    value, vjp = hash_encode_with_vjp(points.to(device), t, LEVELS.to(device), active=4)
    got = torch.autograd.grad(vjp(torch.ones_like(value)).square().sum(), t)[0]
    torch.testing.assert_close(got.cpu().double(), wanted, atol=1e-2, rtol=1e-4)


def test_beyond_the_cube_nothing_changes(device: torch.device) -> None:
    _, table = inputs(0)
    points = torch.tensor([[1.5, 0.2, -0.3], [0.1, -2.0, 0.4]])
    value, vjp = hash_encode_with_vjp(points.to(device), table.to(device), LEVELS.to(device), active=4)
    gradient = vjp(torch.ones_like(value)).cpu()
    assert gradient[0, 0] == 0 and gradient[1, 1] == 0 and gradient[0, 1] != 0 and gradient[1, 2] != 0


def test_fine_levels_do_not_overflow_32_bits(device: torch.device) -> None:
    levels = HashLevels.geometric(2, base=2000, top=65536, log2_rows=12)
    table = torch.randn(levels.rows, 2, generator=torch.Generator().manual_seed(1))
    points = torch.tensor([[0.3, -0.7, 0.9], [1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    got = hash_encode(points.to(device), table.to(device), levels.to(device), active=2).cpu()
    # The points are float32, so the fraction within a cell is known to 65536 * 6e-8 only.
    truth = encode_reference(points.double(), table.double(), levels, 2)
    torch.testing.assert_close(got.double(), truth, atol=0.1, rtol=0)


def test_threads_do_not_change_the_sums() -> None:
    """Bit-equal gradients with one and two threads: a level is scattered by one thread, in order."""
    points, table = inputs(6000)
    results = []
    try:
        for threads in (1, 2):
            set_threads(threads)
            t = table.clone().requires_grad_()
            value, vjp = hash_encode_with_vjp(points, t, LEVELS, active=4)
            slope = vjp(value.cos())
            results.append(torch.autograd.grad(value.sin().sum() + slope.sin().sum(), t)[0])
    finally:
        set_threads(1)
    assert torch.equal(*results)


def test_encodings_of_one_table_add_up(device: torch.device) -> None:
    """Also where the table is the result of an operation, and in a second backward pass through the same graph."""
    points, table = inputs(50)
    p64, t64 = points.double(), table.double().requires_grad_()
    first, second = (encode_reference(2 * t, t64 * 2, LEVELS, 4) for t in (p64 / 2, -p64 / 2))
    wanted = torch.autograd.grad((first.sin() + second.cos()).sum(), t64)[0]
    t = table.to(device).requires_grad_()
    doubled = t * 2
    mine = [hash_encode(p.to(device), doubled, LEVELS.to(device), active=4) for p in (points, -points)]
    loss = (mine[0].sin() + mine[1].cos()).sum()
    for _ in range(2):
        got = torch.autograd.grad(loss, t, retain_graph=True)[0]
        torch.testing.assert_close(got.cpu().double(), wanted, atol=1e-3, rtol=1e-4)


def test_a_table_in_half_precision_is_read_with_its_gradients(device: torch.device) -> None:
    """As if the table held the rounded numbers, with the gradient at the table itself."""
    points, table = inputs(300)
    table = table * torch.logspace(-6, 0, len(table))[:, None]  # down to numbers below the smallest normal half
    rounded = table.half()
    weight, for_gradient = torch.randn(300, 11), torch.randn(300, 3)
    results = []
    for t, read in ((table, rounded.to(device)), (rounded.float(), None)):
        p, t, w = (x.to(device).requires_grad_() for x in (points, t, weight))
        value, vjp = hash_encode_with_vjp(p, t, LEVELS.to(device), active=4, lead=3, read=read)
        slope = vjp(w)
        loss = value.sin().sum() + (slope * for_gradient.to(device)).sum()
        results.append([value, slope, *torch.autograd.grad(loss, [p, t, w])])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other)


def test_the_half_precision_copy_follows_the_table() -> None:
    x = torch.rand(50, 3) * 2 - 1
    whole, halves = (HashGridConfig(levels=3, base=4, top=16, log2_rows=8, entries=e).build() for e in KINDS)
    halves.load_state_dict(whole.state_dict())
    for grid in (whole, halves):
        optimizer = Adam(list(grid.parameters()), lr=0.01)
        for _ in range(3):
            grid.zero_grad()
            grid(x).sin().sum().backward()
            optimizer.step()
    assert halves.table.dtype == torch.float32 and halves(x).dtype == torch.float32
    torch.testing.assert_close(halves(x), whole(x), atol=5e-3, rtol=1e-3)
    assert not torch.equal(halves(x), whole(x))
    halves.load_state_dict({"table": torch.zeros_like(halves.table)})
    assert (halves(x)[:, 3:] == 0).all()
