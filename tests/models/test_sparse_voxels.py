"""Sparse voxels: the tree by hand, halving that changes nothing, pruning that keeps what is seen, budgets, states."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.experiment import read_config
from models.encodings.nsvf import NsvfConfig
from models.encodings.sparse_voxels import SparseVoxels
from models.encodings.tree import FREE, LEAF, Tree, checked, first_tree, freed, halved, of_voxels
from models.encodings.voxel_octree import OctreeConfig
from models.model import Model
from tests.support.analytic import rays_at_sphere
from tests.support.sources import ROOT
from utils.meshing.cells import cell_centers

KINDS: dict[str, Any] = {"nsvf": NsvfConfig, "octree": OctreeConfig}
PLENTY = 1 << 20


def made(kind: str, **keys: Any) -> SparseVoxels:
    own = {"levels": 2, "share": 0.3} if kind == "octree" else {}
    settings = {"voxels": 8, "components": 4, "grow": (0.2, 0.4), "budget": 60_000, "initial": 1.0, **own, **keys}
    torch.manual_seed(0)
    return KINDS[kind](**settings).build()


def points(count: int = 500) -> Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(1)) * 2.2 - 1.1


def see_sphere(encoding: SparseVoxels, radius: float = 0.5, thick: float = 0.1) -> Tensor:
    """Samples of weight 1 in all cells that a shell meets, of 0 elsewhere; returns where, [N, N, N] bool."""
    feedback = encoding.feedback
    assert feedback is not None
    n = feedback.resolution
    shell = (cell_centers(n).norm(dim=-1) - radius).abs() < thick
    feedback.own_weight[:] = shell.float()
    feedback.own_error[:] = (shell * (1 + torch.arange(n**3) % 7)).long() << 20
    feedback.own_count[:] = 10
    return shell.view(n, n, n)


def trained_a_little(encoding: SparseVoxels) -> None:
    """Numbers of any size in all rows that are in use."""
    used = int(encoding.used[1])
    with torch.no_grad():
        encoding.table[:used] += torch.randn(
            used, encoding.table.shape[1], generator=torch.Generator().manual_seed(used)
        )


def test_a_tree_by_hand() -> None:
    """Two voxels on each axis, the first halved: of its 27 corners eight have all the voxels around them."""
    tree = halved(first_tree(2), torch.tensor([0]), PLENTY)
    assert tree.children.tolist() == [8, *[LEAF] * 15] and len(tree.corners) == 16
    (_, coarse), (voxels, fine) = tree.levels()
    assert coarse.tolist()[:3] == [[0, 0, 0], [0, 0, 1], [0, 1, 0]] and voxels.tolist() == list(range(8, 16))
    assert fine.tolist() == [list(bits) for bits in itertools.product((0, 1), repeat=3)]
    at = (fine[:, None] + fine).view(-1, 3)  # of the children's corners
    own = tree.corners[8:].flatten() >= 0
    assert torch.equal(own, (at < 2).all(-1)) and tree.rows == 27 + 8
    places = {tuple(place): row for place, row in zip(at.tolist(), tree.corners[8:].flatten().tolist(), strict=True)}
    assert sorted(row for row in places.values() if row >= 0) == list(range(27, 35))


def test_a_tree_that_is_halved_everywhere_shares_all_corners() -> None:
    tree = first_tree(3)
    for side in (6, 12):
        before = tree.rows
        tree = halved(tree, tree.leaves, PLENTY)
        assert tree.rows == before + (side + 1) ** 3 and len(tree.leaves) == side**3 and (tree.corners >= 0).all()


def test_corners_between_voxels_get_their_row_when_the_last_is_halved() -> None:
    whole = halved(first_tree(2), torch.arange(8), PLENTY)
    tree = first_tree(2)
    for voxel in range(8):
        tree = halved(tree, torch.tensor([voxel]), PLENTY)
    assert tree.rows == whole.rows == 27 + 125 and (tree.corners >= 0).all()
    short = halved(first_tree(2), torch.arange(8), 27 + 100)
    assert short.rows == 27 + 100 and (short.corners < 0).any() and short.corners.max() == 126


def test_numbers_of_voxels_from_a_grid() -> None:
    tree = halved(halved(first_tree(2), torch.tensor([0]), PLENTY), torch.tensor([15]), PLENTY)
    grid = torch.arange(64.0).view(4, 4, 4)
    assert of_voxels(tree, grid, "sum")[:8].tolist() == [grid[2 * x : 2 * x + 2, 2 * y : 2 * y + 2, 2 * z : 2 * z + 2]
        .sum().item() for x, y, z in itertools.product((0, 1), repeat=3)]  # fmt: skip
    assert of_voxels(tree, grid, "largest")[8:16].tolist() == grid[:2, :2, :2].flatten().tolist()
    assert of_voxels(tree, grid, "largest")[16:].tolist() == [grid[1, 1, 1].item()] * 8
    assert of_voxels(tree, grid, "sum")[16:].sum() == grid[1, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_halving_changes_no_feature_and_what_is_added_is_continuous(kind: str) -> None:
    encoding, x = made(kind, octaves=1), points()
    for progress in (0.2, 0.4):
        see_sphere(encoding)
        trained_a_little(encoding)
        before, pull = encoding.with_vjp(x)
        pulled = pull(torch.ones_like(before))
        assert encoding.refresh(progress) and not encoding.refresh(progress)
        after, pull = encoding.with_vjp(x)
        assert torch.equal(after, before) and torch.equal(pull(torch.ones_like(after)), pulled)
    trained_a_little(encoding)
    near = encoding(x + 1e-5) - encoding(x)  # across the walls of voxels too: no jump
    assert near[:, 3:7].abs().max() < 1e-2 and encoding(x)[:, 3:7].std() > 1
    assert "voxels that are not free" in encoding.latest_change()


@pytest.mark.parametrize("kind", KINDS)
def test_pruning_keeps_a_sphere_and_halves_nothing_else(kind: str) -> None:
    encoding = made(kind, **{"share": 1.0} if kind == "octree" else {})
    for progress in (0.2, 0.4):
        shell, before = see_sphere(encoding), encoding.tree()
        encoding.refresh(progress)
        leaves, after = before.leaves, encoding.tree().children
        seen = of_voxels(before, shell.long(), "largest")[leaves] > 0
        assert 0.1 < seen.float().mean() < 0.9
        assert torch.equal(after[leaves] >= 0, seen) and torch.equal(after[leaves] == FREE, ~seen)


def test_pruning_alone_is_no_change_and_unseen_space_is_not_pruned() -> None:
    encoding = made("nsvf", prune=(0.1,))
    assert not encoding.refresh(0.1) and encoding.generation == 1  # nothing was rendered: nothing is known
    assert (encoding.tree().children == LEAF).all()
    encoding = made("nsvf", prune=(0.1,))
    see_sphere(encoding)
    assert not encoding.refresh(0.1) and (encoding.tree().children == FREE).any()
    assert encoding.feedback is not None and not encoding.feedback.read().count.any()


def test_the_octree_halves_the_voxels_of_the_largest_error() -> None:
    encoding = made("octree", voxels=4, grow=(0.5,), levels=1, share=0.1)
    feedback = encoding.feedback
    assert feedback is not None and feedback.resolution == 4
    feedback.own_weight.fill_(1.0)
    feedback.own_count.fill_(1)
    feedback.own_error[:] = torch.arange(64) % 60
    encoding.refresh(0.5)
    assert (encoding.tree().children >= 0).nonzero()[:, 0].tolist() == list(range(54, 60))  # 6 of 64


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [8**3 + 8, 1000, 5000])
def test_the_budget_is_never_exceeded(kind: str, budget: int) -> None:
    encoding, x = made(kind, budget=budget), points(50)
    for progress in (0.2, 0.4):
        see_sphere(encoding, thick=0.3)
        before = encoding(x)
        encoding.refresh(progress)
        tree = encoding.tree()
        assert 8**3 < len(tree.children) <= budget and tree.rows <= len(encoding.table)
        assert torch.equal(encoding(x), before)
    assert len(tree.children) > budget - 8 or budget == 5000


def test_rows_that_are_not_in_use_get_no_gradient() -> None:
    encoding = made("octree")
    see_sphere(encoding)
    encoding.refresh(0.2)
    encoding(points(4000)).sin().sum().backward()
    used, grad = int(encoding.used[1]), encoding.table.grad
    assert grad is not None and (grad[used:] == 0).all() and (encoding.table[used:] == 0).all()
    assert (grad[9**3 : used] != 0).any(-1).float().mean() > 0.5


def test_voxels_outside_of_a_box_are_never_halved() -> None:
    encoding = made("nsvf", voxels=4, grow=(0.5,))
    encoding.cover(torch.tensor([-0.6, -0.4, -1.0]), torch.tensor([0.4, 0.4, 0.1]))
    encoding.refresh(0.5)
    halved_ones = (encoding.tree().children[: 4**3] >= 0).view(4, 4, 4)
    expected = torch.zeros(4, 4, 4, dtype=torch.bool)
    expected[:3, 1:3, :3] = True
    assert torch.equal(halved_ones, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_layout_is_that_of_the_state(kind: str) -> None:
    encoding, x = made(kind), points()
    see_sphere(encoding)
    encoding.refresh(0.3)
    trained_a_little(encoding)
    other = made(kind)
    other.load_state_dict(encoding.state_dict())
    assert other.generation == 1 and torch.equal(other(x), encoding(x))
    for one in (encoding, other):
        see_sphere(one, radius=0.7)
        assert not one.refresh(0.3) and one.refresh(0.6)
    assert all(torch.equal(a, b) for a, b in zip(encoding.buffers(), other.buffers(), strict=True))


def spoiled(change: str) -> dict[str, Tensor]:
    encoding = made("nsvf")
    see_sphere(encoding)
    encoding.refresh(0.3)
    state = encoding.state_dict()
    parent = int((encoding.first_child >= 0).nonzero()[0])
    if change == "a circle":
        state["first_child"][state["first_child"][parent]] = 8**3
    elif change == "beyond":
        state["first_child"][parent] = 1 << 30
    elif change == "a row":
        state["corners"][3, 3] = len(encoding.table)
    elif change == "a count":
        state["used"][0] += 1
    else:
        state["used"][0] = 1 << 40
    return state


@pytest.mark.parametrize("change", ["a circle", "beyond", "a row", "a count", "a large count"])
def test_a_state_that_leads_astray_is_refused(change: str) -> None:
    with pytest.raises(ValueError, match=r"octree|expected"):
        made("nsvf").load_state_dict(spoiled(change))


def test_a_tree_is_its_own_check() -> None:
    tree = halved(first_tree(2), torch.tensor([3]), PLENTY)
    assert checked(tree) is tree and checked(freed(tree, torch.ones(16, dtype=torch.bool))).leaves.tolist() == []
    wrong: list[Tree] = [replace(tree, children=tree.children - 2), replace(tree, corners=tree.corners - 5)]
    for one in wrong:
        with pytest.raises(ValueError, match="an octree"):
            checked(one)


@pytest.mark.parametrize(
    "kind, keys, words",
    [
        ("nsvf", {"grow": (0.2,), "prune": (0.2, 0.3)}, "`prune` should name other progresses than `grow`"),
        ("octree", {"budget": 515}, "a budget of 515; expected more than the 512 voxels at first"),
        ("octree", {"levels": 12}, "expected 1/4096"),
        ("octree", {"components": 512, "budget": 1 << 24}, "numbers; expected at most"),
    ],
)
def test_what_cannot_be_is_refused(kind: str, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        made(kind, **keys)


@pytest.mark.parametrize("opacity", ["density", "sdf", "occupancy"])
def test_no_pixel_changes(opacity: str) -> None:
    """Of a model of each kind of field, with large numbers at the corners."""
    encoding = "model.foreground.field.encoding={type: octree, voxels: 8, components: 4, grow: [0.2, 0.4], levels: 2}"
    config = {"density": "nerf_hash", "sdf": "neus_hash", "occupancy": "unisurf_hash"}[opacity]
    torch.manual_seed(0)
    model = Model(read_config(ROOT / f"configs/{config}.yaml", [encoding]).model).eval()
    own: Any = model.foreground.field
    rays = rays_at_sphere(100, spread=0.5)
    with torch.no_grad():
        model.update(0.3)
        before = model(rays)
        for progress in (0.25, 0.5):
            see_sphere(own.encoding)
            changes = model.refresh(1, progress)
            assert [change.name for change in changes] == ["foreground.field.encoding"]
            after = model(rays)
            assert before.color.std() > 1e-3 and before.opacity.std() > 1e-3
            torch.testing.assert_close(after.color, before.color, atol=1e-5, rtol=0)
            torch.testing.assert_close(after.opacity, before.opacity, atol=1e-5, rtol=0)
