"""Blocks of a surface joined to one mesh as they come: vertices on their seams, and pieces that reach across them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Welded:
    """A block of V vertices and F faces, of which K vertices are new; both are sorted by their label.

    A label is a connected part of one block; `Welder.pieces` says which labels are one piece.
    """

    rows: Indices  # [K] of the block's vertices: the new ones, which are numbered on from the last block's
    faces: Indices  # [F, 3] vertices as they are numbered in the whole mesh
    row_labels: Indices  # [K]
    face_labels: Indices  # [F]
    order: Indices  # [F] which of the block's faces each is


class Welder:
    """Numbers the vertices of blocks, the same on either side of a seam.

    Blocks come in the order of their place, x slowest; what no later block can touch is forgotten, so that memory
    holds the seams of one slab of blocks. resolution: lattice points along an axis.
    """

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution
        self.count = 0
        self.open = np.zeros((3, 0), np.int64)  # edge, number and label of the vertices on seams, by edge
        self.parents: list[int] = []

    def add(self, vertices: Floats, faces: Indices, low: Indices, high: Indices) -> Welded:
        """The next block: vertices [V, 3] in lattice index units, faces [F, 3], its first and last lattice index [3].

        Vertices without a face are left out.
        """
        used, corners = np.unique(faces, return_inverse=True)
        edges, first, again = np.unique(lattice_edges(vertices[used], self.resolution), True, True)
        corners, rows = again.reshape(-1)[corners].reshape(-1, 3), used[first]
        labels = components(corners, len(edges)) + len(self.parents)
        self.parents.extend(range(len(self.parents), int(labels.max()) + 1))
        numbers = self._numbers(edges, labels)
        fresh = np.flatnonzero(numbers < 0)
        fresh = fresh[np.argsort(labels[fresh], kind="stable")]
        numbers[fresh] = self.count + np.arange(len(fresh))
        self.count += len(fresh)
        self._remember(np.stack([edges, numbers, labels]), (vertices[rows] == high).any(1), int(low[0]))
        order = np.argsort(labels[corners[:, 0]], kind="stable")
        corners = corners[order]
        return Welded(rows[fresh], numbers[corners], labels[fresh], labels[corners[:, 0]], order)

    def pieces(self) -> Indices:
        """[L] a number for each label, the same for the labels of one piece."""
        return np.array([self._root(label) for label in range(len(self.parents))], np.int64)

    def _numbers(self, edges: Indices, labels: Indices) -> Indices:
        """[V] the numbers of vertices that an earlier block has, else -1; joins the labels that meet there."""
        place = np.minimum(np.searchsorted(self.open[0], edges), max(self.open.shape[1] - 1, 0))
        known = self.open[0, place] == edges if self.open.shape[1] else np.zeros(len(edges), bool)
        pairs = np.stack([labels[known], self.open[2, place[known]]], -1)
        for one, other in np.unique(pairs, axis=0).tolist():
            self.parents[self._root(one)] = self._root(other)
        numbers = np.full(len(edges), -1)
        numbers[known] = self.open[1, place[known]]
        return numbers

    def _remember(self, columns: Indices, on_seam: NDArray[np.bool_], least: int) -> None:
        """Keep vertices on the far sides of a block, [3, V], and of the others those that later blocks can touch."""
        kept = self.open[:, self.open[0] >= least * self.resolution**2 * 4]
        both = np.concatenate([kept, columns[:, on_seam]], axis=1)
        _, first = np.unique(both[0], return_index=True)
        self.open = both[:, first]

    def _root(self, label: int) -> int:
        while self.parents[label] != label:
            self.parents[label] = self.parents[self.parents[label]]
            label = self.parents[label]
        return label


def components(faces: Indices, count: int) -> Indices:
    """[V] the number, from 0, of the connected part of each of `count` vertices."""
    ends = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_matrix((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), (count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def lattice_edges(vertices: Floats, resolution: int) -> Indices:
    """A number [V] for the lattice edge on which each vertex [V, 3] lies (or for the cell, when it lies within one).

    vertices: in lattice index units. Numbers grow with x first.
    """
    nearest = np.rint(vertices)
    off = np.abs(vertices - nearest)
    axis = off.argmax(1)
    rows = np.arange(len(vertices))
    lower = nearest.astype(np.int64)
    lower[rows, axis] = np.floor(vertices[rows, axis]).astype(np.int64)
    # scikit-image may put a vertex into the middle of a cell, one at most
    within = np.partition(off, 1, axis=1)[:, 1] > 1e-4
    lower[within] = np.floor(vertices[within]).astype(np.int64)
    kind = np.where(within, 3, axis)
    return ((lower[:, 0] * resolution + lower[:, 1]) * resolution + lower[:, 2]) * 4 + kind
