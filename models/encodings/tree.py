"""An octree over the cube [-1, 1]^3: which voxels there are, which are halved, and who shares a corner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

LEAF, FREE = -1, -2  # instead of children: a voxel that may be halved, and one that never will be
NO_ROW = -1
_EIGHT = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)])  # x, y, z of children and corners


@dataclass(frozen=True)
class Tree:
    """V voxels, of which the first side^3 fill the cube, in the order x, y, z, and the others halve earlier ones.

    children: [V] int64, the first of a voxel's eight, which follow one another, or `LEAF`, or `FREE`. corners: [V, 8]
    int64, rows of a table, or `NO_ROW`. Children and corners are in the order of the bits x, y, z. rows: so many are
    in use. All on a CPU.

    What a finer voxel holds is added to what the coarser ones around it say. So a corner has a row only where all the
    voxels around it are there: the sum is continuous everywhere, and halving a voxel adds rows of zeros alone.
    """

    side: int
    children: Tensor
    corners: Tensor
    rows: int

    @property
    def leaves(self) -> Tensor:
        """[L] int64, the voxels that may be halved."""
        return (self.children == LEAF).nonzero()[:, 0]

    def levels(self) -> Iterator[tuple[Tensor, Tensor]]:
        """From the coarsest on the voxels of each depth [K] int64, and their places [K, 3] int64 on each axis."""
        axis = torch.arange(self.side)
        voxels, place = torch.arange(self.side**3), torch.cartesian_prod(axis, axis, axis)
        while len(voxels):
            yield voxels, place
            halved = self.children[voxels] >= 0
            place = (2 * place[halved, None] + _EIGHT).view(-1, 3)
            voxels = (self.children[voxels][halved, None] + torch.arange(8)).view(-1)


def first_tree(side: int) -> Tree:
    """side^3 voxels that may be halved, and a row for each of their corners."""
    tree = Tree(side, torch.full((side**3,), LEAF), torch.full((side**3, 8), NO_ROW), 0)
    return joined(tree, (side + 1) ** 3)


def halved(tree: Tree, voxels: Tensor, most_rows: int) -> Tree:
    """The tree in which `voxels` [K] int64, all of them leaves, have children. most_rows: of the table.

    Corners beyond these rows have none: the voxels there go on as one.
    """
    first, children = len(tree.children), tree.children.clone()
    children[voxels] = first + 8 * torch.arange(len(voxels))
    new = 8 * len(voxels)
    children = torch.cat([children, torch.full((new,), LEAF)])
    corners = torch.cat([tree.corners, torch.full((new, 8), NO_ROW)])
    found = replace(tree, children=children, corners=corners)
    return joined(found, most_rows) if new else found


def joined(tree: Tree, most_rows: int) -> Tree:
    """Rows for all corners that have none although all voxels of their depth around them are there."""
    corners, rows = tree.corners.clone(), tree.rows
    for depth, (voxels, place) in enumerate(tree.levels()):
        if (corners[voxels] != NO_ROW).all():
            continue
        side = tree.side << depth
        unique, index, count = _keys(place, side).unique(return_inverse=True, return_counts=True)
        row = torch.full((len(unique),), NO_ROW)
        row.scatter_reduce_(0, index.view(-1), corners[voxels].view(-1), "amax")
        missing = ((row == NO_ROW) & (count == _around(unique, side))).nonzero()[: most_rows - rows, 0]
        row[missing] = rows + torch.arange(len(missing))
        rows += len(missing)
        corners[voxels] = row[index]
    return replace(tree, corners=corners, rows=rows)


def _keys(place: Tensor, side: int) -> Tensor:
    """[K, 3] places of voxels, `side` of them on each axis -> [K, 8] int64, which corner of the lattice is which."""
    x, y, z = (place[:, None] + _EIGHT).unbind(-1)
    return (x * (side + 1) + y) * (side + 1) + z


def _around(key: Tensor, side: int) -> Tensor:
    """[N] keys of corners -> [N] how many voxels of the cube are around them: eight, or fewer on its faces."""
    count, across = torch.ones_like(key), side + 1
    for axis in (key // across**2, key // across % across, key % across):
        count *= 2 - ((axis == 0) | (axis == side)).long()
    return count


def freed(tree: Tree, free: Tensor) -> Tree:
    """The tree in which the leaves where free [V] bool is true are never halved."""
    return replace(tree, children=torch.where(free & (tree.children == LEAF), FREE, tree.children))


def of_voxels(tree: Tree, grid: Tensor, how: Literal["largest", "sum"]) -> Tensor:
    """[V] the largest number of grid [N, N, N], indexed by x, y, z, in each voxel, or the sum of those in it.

    N is `side` times a power of two. A voxel finer than the grid has the number around it, or its share of that.
    """
    found = grid.new_zeros(len(tree.children))
    for depth, (voxels, place) in enumerate(tree.levels()):
        x, y, z = place.unbind(-1)
        by = len(grid) // (tree.side << depth)
        if by == 0:
            finer = (tree.side << depth) // len(grid)
            around = grid[x // finer, y // finer, z // finer]
            found[voxels] = around if how == "largest" else around / finer**3
            continue
        cells = grid.unfold(0, by, by).unfold(1, by, by).unfold(2, by, by).flatten(3)
        found[voxels] = (cells.amax(-1) if how == "largest" else cells.sum(-1))[x, y, z]
    return found


def leaves_at(tree: Tree, x: Tensor) -> tuple[Tensor, Tensor]:
    """The voxels without children [*N] int64 that points [*N, 3] of the cube [-1, 1]^3 lie in, and their depths [*N].
    """
    side = tree.side
    place = ((x + 1) * (side / 2)).long().clamp(0, side - 1)
    voxel, depth = (place[..., 0] * side + place[..., 1]) * side + place[..., 2], torch.zeros(x.shape[:-1]).long()
    while (halved := tree.children[voxel] >= 0).any():
        depth += halved
        cells = side * 2.0**depth
        bits = ((x + 1) * (cells[..., None] / 2)).long().clamp_max(cells.long()[..., None] - 1) & 1
        child = bits[..., 0] * 4 + bits[..., 1] * 2 + bits[..., 2]
        voxel = torch.where(halved, tree.children[voxel] + child, voxel)
    return voxel, depth


def checked(tree: Tree) -> Tree:
    """The tree itself. Raises ValueError for one that leads astray, as of a file that was tampered with."""
    children, count = tree.children, len(tree.children)
    parents = (children >= 0).nonzero()[:, 0]
    expected = tree.side**3 + 8 * torch.arange(len(parents))
    if (children < FREE).any() or not torch.equal(children[parents].sort().values, expected):
        raise ValueError(f"an octree of {count:,} voxels whose children are not eight new ones of each that has any")
    if count != tree.side**3 + 8 * len(parents) or (children[parents] <= parents).any():
        raise ValueError(f"an octree of {count:,} voxels - expected {tree.side**3 + 8 * len(parents):,}")
    if ((tree.corners < NO_ROW) | (tree.corners >= tree.rows)).any():
        raise ValueError(f"an octree whose corners are beyond its {tree.rows:,} rows")
    return tree
