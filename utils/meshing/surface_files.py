"""A surface that need not fit into memory: its vertices and faces in files, from the lattice's blocks to a PLY."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.files import replacing
from utils.meshing.lattice import Piece
from utils.meshing.mesh import Keep, kept_pieces
from utils.meshing.ply import VertexRows, write_ply
from utils.meshing.scales import Floats, float32_offset

ROWS = 1 << 16  # that are in memory at a time
TYPES = {"vertices": np.float64, "normals": np.float32, "faces": np.int64}

Colors = Callable[[Floats, Floats], NDArray[np.uint8]]


class SurfaceFiles:
    """The pieces of `lattice_surface` (with normals), in a folder that is there and can be deleted afterwards.

    In memory are a few numbers for each label, which counts on through the files: of its vertices, its faces, and the
    faces' area. `keep` chooses what of it there is.
    """

    def __init__(self, folder: Path) -> None:
        self.files = {name: folder / name for name in TYPES}
        self.counts = np.zeros((2, 0), np.int64)  # vertices and faces of each label
        self.area = np.zeros(0)
        self.kept = np.zeros(0, bool)

    def take(self, pieces: Iterator[Piece]) -> None:
        """Write all that comes. Raises OSError."""
        found: list[tuple[NDArray[np.int64], Floats]] = []
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("wb")) for path in self.files.values()]
            for piece in pieces:
                columns = (piece.vertices, piece.normals, piece.welded.faces)
                for file, kind, rows in zip(files, TYPES.values(), columns, strict=True):
                    file.write(np.ascontiguousarray(rows, kind).tobytes())
                found.append(_sums(piece))
        if found:
            self.counts = np.concatenate([counts for counts, _ in found], axis=1)
            self.area = np.concatenate([area for _, area in found])
        self.kept = np.ones(len(self.area), bool)

    def keep(self, pieces: NDArray[np.int64], keep: Keep, most: int | None) -> int:
        """Drop small pieces, by the piece of each label [L] (`Welder.pieces`), and say how many; see `kept_pieces`."""
        _, piece = np.unique(pieces, return_inverse=True)
        kept = kept_pieces(np.bincount(piece, weights=self.area), keep, most)
        self.kept = kept[piece]
        return int(len(kept) - kept.sum())

    @property
    def size(self) -> tuple[int, int]:
        """How many vertices and faces are kept."""
        vertices, faces = (int(count) for count in self.counts[:, self.kept].sum(1))
        return vertices, faces

    def vertices(self) -> Iterator[tuple[Floats, Floats]]:
        """The vertices [N, 3] that are kept, and their normals [N, 3], part by part."""
        for start, rows in self._chosen(self.counts[0]):
            normals = self._read("normals", start, len(rows))
            yield self._read("vertices", start, len(rows))[rows], normals[rows].astype(np.float64)

    def faces(self) -> Iterator[NDArray[np.int64]]:
        """The faces [N, 3] that are kept, which count the kept vertices, part by part."""
        ends = np.cumsum(self.counts[0])
        gone = np.cumsum(np.where(self.kept, 0, self.counts[0]))  # up to the end of each label
        for start, rows in self._chosen(self.counts[1]):
            faces = self._read("faces", start, len(rows))[rows]
            yield faces - gone[np.searchsorted(ends, faces, side="right")]

    def write_ply(self, path: Path, similarity: Floats, colors: Colors | None) -> None:
        """Write what is kept, whole or not at all, moved by a similarity [4, 4] that does not mirror.

        colors: vertices [N, 3] and normals [N, 3] as they are here -> RGBA [N, 4]. Raises StorageError where the disk
        refuses.
        """
        turn = similarity[:3, :3] / np.cbrt(np.linalg.det(similarity[:3, :3]))

        def moved(points: Floats) -> Floats:
            return np.asarray(points @ similarity[:3, :3].T + similarity[:3, 3])

        def rows() -> Iterator[VertexRows]:
            for points, normals in self.vertices():
                yield VertexRows(moved(points), normals @ turn.T, colors and colors(points, normals))

        bounds = [f(moved(points), axis=0) for points, _ in self.vertices() for f in (np.min, np.max)]
        double = bool(float32_offset(np.array(bounds)).any())
        with replacing(path) as temporary:
            write_ply(temporary, rows(), self.faces(), self.size, double=double)

    def _chosen(self, counts: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Where each part of a file begins, and which of its rows are kept; parts without any are passed over."""
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        for start in range(0, total, ROWS):
            rows = np.arange(start, min(start + ROWS, total))
            kept = self.kept[np.searchsorted(ends, rows, side="right")]
            if kept.any():
                yield start, kept

    def _read(self, name: str, start: int, count: int) -> NDArray[Any]:
        """[count, 3] rows of a file."""
        kind = np.dtype(TYPES[name])
        return np.fromfile(self.files[name], kind, 3 * count, offset=3 * start * kind.itemsize).reshape(-1, 3)


def _sums(piece: Piece) -> tuple[NDArray[np.int64], Floats]:
    """How many vertices and faces each label of a block has, [2, L], and their area [L]."""
    faces, vertices = piece.welded.face_labels, piece.welded.row_labels
    first = int(faces[0])
    count = int(faces[-1]) - first + 1
    counts = [np.bincount(labels - first, minlength=count) for labels in (vertices, faces)]
    return np.stack(counts), np.bincount(faces - first, piece.areas, count).astype(np.float64)
