"""PLY, binary, part by part: trimesh writes float32 alone, which holds no coordinates of a map, and all at once.

A part of the vertices and a part of the faces are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.meshing.scales import Floats

TYPES = {"<f4": "float", "<f8": "double", "u1": "uchar"}


@dataclass(frozen=True)
class VertexRows:
    """Some vertices of a mesh: positions [V, 3], unit normals [V, 3], colors [V, 4] (RGBA) or None, alike for all."""

    vertices: Floats
    normals: NDArray[np.floating]
    colors: NDArray[np.uint8] | None


def write_ply(
    path: Path,
    vertices: Iterable[VertexRows],
    faces: Iterable[NDArray[np.integer]],
    counts: tuple[int, int],
    *,
    double: bool,
) -> None:
    """Write vertices and faces, each [F, 3], little-endian; without faces a cloud of points.

    counts: of all vertices and all faces. double: positions are doubles, where float32 would move them by more than a
    millionth of the mesh's size. Raises OSError, and ValueError where there are no vertices or not as many as said.
    """
    parts = iter(vertices)
    first = next(parts, None)
    if first is None:
        raise ValueError("vertices expected, got none")
    columns = [*_named("x y z", "<f8" if double else "<f4"), *_named("nx ny nz", "<f4")]
    if first.colors is not None:
        columns += _named("red green blue alpha", "u1")
    written = [0, 0]
    with path.open("wb") as file:
        file.write(_header(columns, *counts))
        for rows in chain([first], parts):
            file.write(_table(rows, columns).tobytes())
            written[0] += len(rows.vertices)
        for corners in faces:
            file.write(_corners(corners).tobytes())
            written[1] += len(corners)
    if tuple(written) != counts:
        raise ValueError(f"{counts} vertices and faces expected, got {written}")


def _table(rows: VertexRows, columns: list[tuple[str, str]]) -> NDArray[Any]:
    blocks = [rows.vertices, rows.normals, *([] if rows.colors is None else [rows.colors])]
    table = np.empty(len(rows.vertices), np.dtype(columns))
    for (name, _), column in zip(columns, (column for block in blocks for column in block.T), strict=True):
        table[name] = column
    return table


def _corners(faces: NDArray[np.integer]) -> NDArray[Any]:
    corners = np.empty(len(faces), np.dtype([("count", "u1"), ("index", "<i4", 3)]))
    corners["count"], corners["index"] = 3, faces
    return corners


def _named(names: str, kind: str) -> list[tuple[str, str]]:
    return [(name, kind) for name in names.split()]


def _header(columns: list[tuple[str, str]], vertices: int, faces: int) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {vertices}"]
    lines += [f"property {TYPES[kind]} {name}" for name, kind in columns]
    if faces:
        lines += [f"element face {faces}", "property list uchar int vertex_indices"]
    return "\n".join([*lines, "end_header", ""]).encode()
