"""Features of an octree against PyTorch in float64: values, input gradient, and the gradients of both."""

import itertools

import pytest
import torch
from torch import Tensor

from models.encodings.tree import Tree, first_tree, halved
from models.kernels.encodings.tree import Voxels, tree_features, tree_features_with_vjp
from models.kernels.runtime.launch import set_threads
from tests.support.second_order import check_pullback, check_values

SIDE, WIDTHS = 2, (1, 4, 8, 32)


def made_tree() -> Tree:
    """Three sizes of voxels: five of the eight are halved, and those at a corner of the cube once more."""
    tree = halved(first_tree(SIDE), torch.tensor([0, 1, 4, 5, 7]), 10_000)
    return halved(tree, tree.leaves[-20:], 10_000)


def made(width: int) -> tuple[Tree, Tensor]:
    tree = made_tree()
    assert len(tree.children) == 8 + 8 * 5 + 8 * 20
    assert 27 < tree.rows < tree.corners.numel() / 4 and (tree.corners == -1).any()
    return tree, torch.randn(tree.rows, width, generator=torch.Generator().manual_seed(1))


def on(tree: Tree, device: torch.device) -> Voxels:
    children, corners = (x.to(device, torch.int32) for x in (tree.children, tree.corners))
    return Voxels(children, corners, tree.side)


def places(count: int) -> Tensor:
    return 2.2 * (torch.rand(count, 3, generator=torch.Generator().manual_seed(2)) - 0.5)


def reference(points: Tensor, table: Tensor, tree: Tree, lead: int = 0) -> Tensor:
    """Size by size: the voxel that a point lies in is the one at its place, trilinear in its corners."""
    u, value = (points * 0.5 + 0.5).clamp(0, 1), torch.zeros(len(points), table.shape[1], dtype=points.dtype)
    for depth, (voxels, place) in enumerate(tree.levels()):
        side = tree.side << depth
        whole = (u.detach() * side).long().clamp_max(side - 1)
        within, which = (whole[:, None] == place).all(-1).nonzero(as_tuple=True)
        part, rows = u[within] * side - place[which], tree.corners[voxels[which]]
        for corner, bits in enumerate(itertools.product((0, 1), repeat=3)):
            weight = torch.where(torch.tensor(bits) == 1, part, 1 - part).prod(-1) * (rows[:, corner] >= 0)
            value = value.index_add(0, within, weight[:, None] * table[rows[:, corner]])
    return torch.cat([points[:, :lead], value], 1)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count, lead", [(0, 3), (1, 0), (203, 3)])
def test_values_and_gradients(width: int, count: int, lead: int, device: torch.device) -> None:
    (tree, table), points = made(width), places(count)
    check_values(
        lambda p, t: tree_features(p, t, on(tree, device), lead=lead),
        lambda p, t: reference(p, t, tree, lead),
        points,
        table,
        device,
        values=(1e-5, 1e-5),
        gradients=2e-4,
    )


@pytest.mark.parametrize("width", [1, 4, 24])
@pytest.mark.parametrize("count, lead", [(0, 0), (1, 3), (203, 3)])
def test_pullback_and_its_gradients(width: int, count: int, lead: int, device: torch.device) -> None:
    """The double backward of an eikonal loss: gradients of the input gradient in table, points and weights."""
    (tree, table), points = made(width), places(count)
    check_pullback(
        lambda p, t: tree_features_with_vjp(p, t, on(tree, device), lead=lead),
        lambda p, t: reference(p, t, tree, lead),
        points,
        table,
        device,
    )


def test_beyond_the_cube_nothing_changes(device: torch.device) -> None:
    tree, table = made(16)
    points = torch.tensor([[1.5, 0.2, -0.3], [0.1, -2.0, 0.4], [torch.nan, 0.1, 0.2]])
    value, vjp = tree_features_with_vjp(points.to(device), table.to(device), on(tree, device))
    gradient = vjp(torch.ones_like(value)).cpu()
    assert torch.isfinite(value).all()  # a point that is no number is somewhere, and reads nothing else
    assert gradient[0, 0] == 0 and gradient[1, 1] == 0 and gradient[0, 1] != 0 and gradient[1, 2] != 0


def test_threads_do_not_change_the_sums() -> None:
    (tree, table), points = made(32), places(6000)
    results = []
    try:
        for threads in (1, 2):
            set_threads(threads)
            t = table.clone().requires_grad_()
            value, vjp = tree_features_with_vjp(points, t, on(tree, torch.device("cpu")))
            slope = vjp(value.cos())
            results.append(torch.autograd.grad(value.sin().sum() + slope.sin().sum(), t)[0])
    finally:
        set_threads(1)
    assert torch.equal(*results)
