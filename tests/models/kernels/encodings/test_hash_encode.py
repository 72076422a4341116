"""The hash encoding against PyTorch in float64: values, input gradient, and the gradients of both."""

import itertools
from typing import Literal

import torch
from torch import Tensor

from models.encodings.hash_grid import HashGridConfig
from models.kernels.encodings.hash_encode import HashLevels, hash_encode, hash_encode_with_vjp
from models.optimizers.adam import Adam
from tests.support.second_order import points_and_table

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


KINDS: tuple[Literal["float32"], Literal["float16"]] = ("float32", "float16")


def test_levels() -> None:
    assert LEVELS.resolution.tolist()[0] == 3 and LEVELS.resolution.tolist()[-1] == 40
    rows = LEVELS.first_row.diff().tolist()
    assert rows[0] == 64 and rows[-1] == 1024


def test_pullback_alone_reaches_the_table(device: torch.device) -> None:
    """A loss on the input gradient only, whose weights do not depend on the features."""
    points, table = points_and_table(40, LEVELS.rows)
    p64, t64 = points.double().requires_grad_(), table.double().requires_grad_()
    pulled = torch.autograd.grad(encode_reference(p64, t64, LEVELS, 4).sum(), p64, create_graph=True)[0]
    wanted = torch.autograd.grad(pulled.square().sum(), t64)[0]
    t = table.to(device).requires_grad_()
    value, vjp = hash_encode_with_vjp(points.to(device), t, LEVELS.to(device), active=4)
    got = torch.autograd.grad(vjp(torch.ones_like(value)).square().sum(), t)[0]
    torch.testing.assert_close(got.cpu().double(), wanted, atol=1e-2, rtol=1e-4)


def test_encodings_of_one_table_add_up(device: torch.device) -> None:
    """Also where the table is the result of an operation, and in a second backward pass through the same graph."""
    points, table = points_and_table(50, LEVELS.rows)
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
