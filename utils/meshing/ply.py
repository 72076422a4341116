"""PLY, binary: trimesh writes positions as float32 alone, which holds no coordinates of a map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.meshing.scales import Floats, float32_offset

TYPES = {"<f4": "float", "<f8": "double", "u1": "uchar"}


def write_ply(
    path: Path, vertices: Floats, faces: NDArray[np.integer], normals: Floats, colors: NDArray[np.uint8] | None
) -> None:
    """Write vertices [V, 3] with normals [V, 3] and colors [V, 4] (RGBA), and faces [F, 3], little-endian.

    Positions are doubles where float32 would move them by more than a millionth of the mesh's size, floats otherwise.
    Raises OSError.
    """
    position = "<f8" if float32_offset(vertices).any() else "<f4"
    columns = [*_named("x y z", position), *_named("nx ny nz", "<f4")]
    values: list[NDArray[Any]] = [vertices, normals]
    if colors is not None:
        columns += _named("red green blue alpha", "u1")
        values.append(colors)
    table = np.empty(len(vertices), np.dtype(columns))
    for (name, _), column in zip(columns, (column for block in values for column in block.T), strict=True):
        table[name] = column
    corners = np.empty(len(faces), np.dtype([("count", "u1"), ("index", "<i4", 3)]))
    corners["count"], corners["index"] = 3, faces
    path.write_bytes(_header(columns, len(table), len(corners)) + table.tobytes() + corners.tobytes())


def _named(names: str, kind: str) -> list[tuple[str, str]]:
    return [(name, kind) for name in names.split()]


def _header(columns: list[tuple[str, str]], vertices: int, faces: int) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {vertices}"]
    lines += [f"property {TYPES[kind]} {name}" for name, kind in columns]
    lines += [f"element face {faces}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(lines).encode()
