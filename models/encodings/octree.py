"""An octree over the cube [-1, 1]^3: its leaves as one row of levels. It knows neither features nor errors.

The finest cells, 2^deepest on each axis, are counted in Morton order: the bits of x, y and z in turn, x first. A node
of level l holds 8^(deepest - l) of them, one after the other, so that the levels of the leaves in this order say where
each lies, and that they fill the cube once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

CHILDREN = 8


@dataclass(frozen=True, eq=False)
class Octree:
    """A partition of the cube into leaves. deepest: the finest level there may be; the root's is 0.

    levels: [K] int64, of the leaves in Morton order.
    """

    deepest: int
    levels: Integers

    @staticmethod
    def uniform(level: int, deepest: int) -> Octree:
        """All 8^level nodes of one level."""
        return Octree(deepest, np.full(CHILDREN**level, level, np.int64))

    @staticmethod
    def of(levels: ArrayLike, deepest: int) -> Octree:
        """The tree of such leaves, [K] integers. Raises ValueError where they do not fill the cube once."""
        tree = Octree(deepest, np.asarray(levels, np.int64))
        known = bool(((tree.levels >= 0) & (tree.levels <= deepest)).all())
        if not known or tree.sizes.sum() != CHILDREN**deepest or (tree.first % tree.sizes).any():
            raise ValueError(f"{len(tree)} leaves of an octree that do not fill the cube once")
        return tree

    def __len__(self) -> int:
        """K, the number of leaves."""
        return len(self.levels)

    @cached_property
    def sizes(self) -> Integers:
        """[K], how many of the finest cells each leaf holds."""
        return CHILDREN ** (self.deepest - self.levels)

    @cached_property
    def first(self) -> Integers:
        """[K], the first of the finest cells of each leaf."""
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def nodes(self) -> Integers:
        """[K], the leaves' numbers among all nodes: level after level from the root, in Morton order."""
        return first_nodes(self.deepest)[self.levels] + self.first // self.sizes

    def half_sides(self) -> Floats:
        """[K], half the side of each leaf, scene units."""
        return np.ldexp(1.0, -self.levels)

    def centers(self) -> Floats:
        """[K, 3], scene frame."""
        corner = morton_places(self.deepest)[self.first] / 2.0 ** (self.deepest - 1) - 1
        return np.asarray(corner + self.half_sides()[:, None])

    def lattice(self) -> Integers:
        """[N, N, N], N = 2^deepest: the leaf in which each of the finest cells lies, indexed by x, y, z."""
        side = 2**self.deepest
        found = np.empty((side, side, side), np.int64)
        found[tuple(morton_places(self.deepest).T)] = np.repeat(np.arange(len(self)), self.sizes)
        return found

    def sums(self, cells: NDArray[np.float64]) -> Floats:
        """[N, N, N] numbers of the finest cells, as of `lattice` -> [K], their sums over each leaf."""
        return np.add.reduceat(cells[tuple(morton_places(self.deepest).T)], self.first)

    def families(self) -> Integers:
        """[G], the first of each eight siblings that are all leaves; the others follow it."""
        level = self.levels
        starts = np.arange(max(len(self) - CHILDREN + 1, 0))
        whole = self.first[starts] % (CHILDREN * self.sizes[starts]) == 0
        alike = (level[starts[:, None] + np.arange(CHILDREN)] == level[starts][:, None]).all(1)
        return starts[whole & alike & (level[starts] > 0)]

    def changed(self, change: NDArray[np.int64]) -> Octree:
        """The tree after each leaf's change [K]: 1 splits it, -1 merges it with its siblings, 0 leaves it as it is.

        Raises ValueError where a leaf of the deepest level is to be split, or not all eight of a family to be merged.
        """
        members = self.families()[:, None] + np.arange(CHILDREN)
        merging = members[(change[members] == -1).all(1)]
        if merging.size != (change == -1).sum() or (self.levels[change == 1] == self.deepest).any():
            raise ValueError("leaves of the deepest level are not split, and only eight siblings are merged")
        count = np.select([change == 1, change == -1], [CHILDREN, 0], 1)
        count[merging[:, 0]] = 1
        return Octree(self.deepest, np.repeat(self.levels + change, count))


def parents(nodes: Integers) -> Integers:
    """[K] numbers of nodes, as of `Octree.nodes` -> [K], of their parents; of the root, -1."""
    return (nodes - 1) // CHILDREN


def children(nodes: Integers) -> Integers:
    """[K] numbers of nodes, as of `Octree.nodes` -> [K, 8], of their children."""
    return CHILDREN * nodes[:, None] + 1 + np.arange(CHILDREN)


@lru_cache
def first_nodes(deepest: int) -> Integers:
    """[deepest + 2], the number of the first node of each level, and of all nodes."""
    return (CHILDREN ** np.arange(deepest + 2) - 1) // (CHILDREN - 1)


@lru_cache
def morton_places(deepest: int) -> Integers:
    """[8^deepest, 3], the place x, y, z of each of the finest cells, in Morton order."""
    code = np.arange(CHILDREN**deepest)
    axes = [sum((code >> (3 * bit + axis) & 1) << bit for bit in range(deepest)) for axis in range(3)]
    return np.stack([np.broadcast_to(axis, code.shape) for axis in axes], 1)
