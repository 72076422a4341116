"""The permutohedral encoding against the published algorithm in float64, and what must be true of any of its kind."""

import pytest
import torch
from torch import Tensor

from models.encodings.permutohedral import PermutohedralConfig
from models.kernels.encodings.permutohedral import (
    PermutohedralLevels,
    permutohedral_encode,
    permutohedral_encode_with_vjp,
)
from tests.support.second_order import points_and_table

SHIFT = 1 + torch.rand(4, 3, generator=torch.Generator().manual_seed(3))
LEVELS = PermutohedralLevels.geometric(4, base=3, top=40, log2_rows=10, shift=SHIFT)


def elevated(points: Tensor, cells: Tensor, shift: Tensor) -> Tensor:
    """[M, 3] in [-1, 1]^3 -> [M, 4], onto the plane of numbers that sum to 0. Adams et al. (2010), section 3.1.

    A rotation times a scale, so that the lattice of the plane is one of space: the four sums below are as long as one
    another and at equal angles. What their elevation has in its place is another such rotation.
    """
    at = (points * 0.5 + 0.5).clamp(0, 1) * cells + shift
    along = torch.tensor([[-1, 1, 1], [1, -1, 1], [1, 1, -1], [-1, -1, -1]], dtype=points.dtype)
    return 2 * at @ torch.roll(along, 1, 0).T


def simplex(e: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices [M, 4, 4], integers, and weights [M, 4] of points [M, 4] of the plane. Adams et al. (2010), 3.2 and A.

    Step by step as in their program: the closest vertex of remainder 0, the order of the differences to it, then
    barycentric coordinates.
    """
    d = 3
    nearest = (e / (d + 1)).round() * (d + 1)
    off = (nearest.sum(1) / (d + 1)).round().long()
    difference = e - nearest
    bigger = (difference[:, :, None] < difference[:, None]).long()
    earlier = torch.ones(4, 4).tril(-1).long()
    ties = ((difference[:, :, None] == difference[:, None]).long() * earlier).sum(2)
    rank = bigger.sum(2) + ties + off[:, None]
    turn = (rank < 0).long() - (rank > d).long()
    rank, nearest = rank + (d + 1) * turn, (nearest + (d + 1) * turn).detach()
    weight = e.new_zeros(len(e), d + 2)
    part = (e - nearest) / (d + 1)
    weight = weight.scatter_add(1, d - rank, part).scatter_add(1, d + 1 - rank, -part)
    weight = torch.cat([weight[:, :1] + 1 + weight[:, -1:], weight[:, 1:-1]], 1)
    remainder = torch.arange(4)
    steps = remainder[None, :, None] - (d + 1) * (rank[:, None] > d - remainder[None, :, None])
    return nearest.long()[:, None] + steps, weight


def rows_of(vertices: Tensor, side: int, rows: int) -> Tensor:
    """[..., 4] vertices -> [...] rows of a level: by the cubic cell and whether it is its center, or hashed."""
    u, v, w = ((vertices[..., i] - vertices[..., 0]).div(4, rounding_mode="floor") for i in (1, 2, 3))
    if side:
        twice = torch.stack([v + w - u, w + u - v, u + v - w], -1)  # of x, y and z
        assert twice.numel() == 0 or (int(twice.min()) >= 0 and int(twice.max()) < 2 * side)
        x, y, z = twice[..., 0] // 2, twice[..., 1] // 2, twice[..., 2]
        return x + side * (y + side * z)
    return (u ^ (v * 2654435761) ^ (w * 805459861)) & (rows - 1)


def encode_reference(points: Tensor, table: Tensor, levels: PermutohedralLevels, active: int) -> Tensor:
    """Rosu and Behnke (2023), section 4, level by level."""
    outputs = []
    for level, side in enumerate(levels.sides.tolist()):
        first, end = levels.first_row[level : level + 2].tolist()
        e = elevated(points, levels.cells[level].to(points), levels.shift[level].to(points))
        vertices, weight = simplex(e)
        value = (weight[..., None] * table[first + rows_of(vertices, side, end - first)]).sum(1)
        outputs.append(value if level < active else torch.zeros_like(value))
    return torch.cat(outputs, -1)


def test_levels() -> None:
    """Dense ones have a row for each vertex around the cube; there are as many in it as cells of the resolution."""
    assert LEVELS.sides.tolist()[0] > 0 and LEVELS.sides.tolist()[-1] == 0
    assert LEVELS.first_row.diff().tolist() == [2 * s**3 if s else 1024 for s in LEVELS.sides.tolist()]
    volume = 8 / LEVELS.cells.double() ** 3 / 2  # of a vertex: two to a cubic cell
    torch.testing.assert_close(volume, 8 / torch.tensor([3.0, 7, 17, 40]).double() ** 3)


def test_the_reference_is_right() -> None:
    """Weights of a partition; first and second derivatives by differences; the simplex contains its point."""
    points, _ = points_and_table(200, LEVELS.rows)
    e = elevated(points.double(), torch.tensor(12.0), SHIFT[0].double())
    vertices, weight = simplex(e)
    assert weight.min() >= 0
    torch.testing.assert_close(weight.sum(1), torch.ones(200).double())
    torch.testing.assert_close((weight[..., None] * vertices).sum(1), e)
    assert (vertices.sum(-1) == 0).all() and (vertices % 4 == torch.arange(4)[:, None]).all()
    few, table = points[:5].double().requires_grad_(), torch.randn(LEVELS.rows, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: torch.cat([p, encode_reference(p, table.detach(), LEVELS, 4)], 1), few)

    def slope(t: Tensor) -> Tensor:
        value = encode_reference(few, t, LEVELS, 2).square().sum()
        return torch.autograd.grad(value, few, create_graph=True)[0]

    assert torch.autograd.gradcheck(slope, table, fast_mode=True)


def test_a_constant_is_reproduced_and_a_linear_function_too(device: torch.device) -> None:
    """Of vertices whose rows hold a linear function of where they lie, on a dense level."""
    points, _ = points_and_table(500, LEVELS.rows)
    levels = PermutohedralLevels.geometric(1, base=9, top=9, log2_rows=16, shift=SHIFT[:1])
    side, cells = int(levels.sides[0]), float(levels.cells[0])
    z, y, x = torch.meshgrid(torch.arange(2 * side), torch.arange(side), torch.arange(side), indexing="ij")
    at = torch.stack([x + z % 2 / 2, y + z % 2 / 2, z / 2], -1).view(-1, 3)
    at = (at - levels.shift) * (2 / cells) - 1
    direction = torch.tensor([0.3, -0.7, 0.4])
    table = torch.stack([torch.full((len(at),), 5.0), at @ direction + 2], 1)
    value, vjp = permutohedral_encode_with_vjp(points.to(device), table.to(device), levels.to(device), active=1)
    torch.testing.assert_close(value.cpu()[:, 0], torch.full((500,), 5.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(value.cpu()[:, 1], points @ direction + 2, atol=1e-5, rtol=0)
    slope = vjp(torch.tensor([3.0, 1.0], device=device).expand(500, 2)).cpu()
    torch.testing.assert_close(slope, direction.expand(500, 3), atol=1e-4, rtol=0)


def test_features_are_continuous(device: torch.device) -> None:
    """Along a line through many simplices a step of 1e-5 changes no more than its length and the slopes allow."""
    t = torch.linspace(-0.95, 0.95, 190_001)[:, None]
    points = t * torch.tensor([1.0, -0.61, 0.37]) + torch.tensor([0.0, 0.05, -0.1])
    _, table = points_and_table(0, LEVELS.rows)
    value = permutohedral_encode(points.to(device), table.to(device), LEVELS.to(device), active=4).cpu()
    steepest = 3 * 2 * float(table.abs().max()) * float(LEVELS.cells.max())  # three steps along edges, two apart
    assert float(value.diff(dim=0).abs().max()) < 2e-5 * steepest
    assert float(value.diff(dim=0).abs().max()) > 1e-5


def test_the_gradient_by_differences(device: torch.device) -> None:
    """Central differences of the kernel's own values, at points within their simplices."""
    points, table = points_and_table(400, LEVELS.rows)
    p, t, levels, h = points.to(device), table.to(device), LEVELS.to(device), 1e-3
    value, vjp = permutohedral_encode_with_vjp(p, t, levels, active=2)
    slope = vjp(torch.ones_like(value)).cpu()
    taps = h * torch.eye(3, device=device)
    ahead, behind = (permutohedral_encode(p[:, None].add(s * taps).view(-1, 3), t, levels, active=2) for s in (1, -1))
    by_difference = ((ahead - behind).sum(1) / (2 * h)).view(-1, 3).cpu()
    close = (by_difference - slope).abs().amax(1) < 0.05
    assert float(close.float().mean()) > 0.8  # the others have a face between their taps


@pytest.mark.parametrize("shift", [1.0, 2 - 2**-23])
def test_rows_of_all_points_are_rows_of_their_level(shift: float, device: torch.device) -> None:
    """At the cube's corners and just beside them, with the least and the largest shift: one row of the table is read
    beyond no level's end, since what is not a number stands in all others."""
    axis = torch.tensor([-1.0, -1 + 1e-7, -0.3, 0.9, 1 - 1e-7, 1.0])
    points = torch.cartesian_prod(axis, axis, axis)
    for resolution in (*range(1, 24), 37, 64, 100):
        levels = PermutohedralLevels.geometric(
            1, base=resolution, top=resolution, log2_rows=24, shift=torch.full((1, 3), shift)
        )
        table = torch.full((3 * levels.rows, 2), torch.nan)
        table[levels.rows : 2 * levels.rows] = 1.0
        levels = PermutohedralLevels(levels.cells, levels.sides, levels.first_row + levels.rows, levels.shift)
        value = permutohedral_encode(points.to(device), table.to(device), levels.to(device), active=1).cpu()
        torch.testing.assert_close(value, torch.ones(len(points), 2), atol=1e-6, rtol=0)


def test_shifts_are_drawn_by_the_seed_and_part_of_the_state() -> None:
    config = PermutohedralConfig(levels=3, base=4, top=16, log2_rows=8)
    x, grids = torch.rand(50, 3) * 2 - 1, []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        grids.append(config.build())
    assert torch.equal(grids[0].shift, grids[1].shift) and not torch.equal(grids[0].shift, grids[2].shift)
    assert not torch.equal(grids[0](x), grids[2](x))
    grids[2].load_state_dict(grids[0].state_dict())
    assert torch.equal(grids[0](x), grids[2](x))
    assert (config.model_copy(update={"shifted": False}).build().shift == 1).all()
