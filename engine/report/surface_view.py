"""The surface and the cameras as numbers that `surface_view.js` draws in a page."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from dataio.cameras import Cameras
from utils.meshing.mesh import vertex_colors

SCRIPT = Path(__file__).with_suffix(".js")
MOST_FACES = 150_000  # about 3 MB of the page
MOST_CELLS, LEAST_CELLS = 512, 4  # per side, of the lattice that vertices are joined on
GRAY = 180
FRUSTUM = 0.12  # depth of a drawn camera, scene units
AROUND, ABOVE = 0.25, 0.8  # lengths of the mean direction back to the cameras, across up and along it
TRAIN, HELD_OUT = (36, 68, 102), (238, 153, 0)
EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1))
Floats = NDArray[np.float64]


def surface_view(mesh: trimesh.Trimesh | None, cameras: Cameras, held_out: NDArray[np.int64], up: Floats) -> str:
    """A canvas with all that its script needs; what is drawn is turned by dragging.

    mesh: scene frame, or None. cameras: C of them, scene frame. held_out: [H] indices. up: [3], scene frame.
    """
    lines = _encoded(camera_lines(cameras, held_out), "<f4")
    found = {"up": up.tolist(), "from": seen_from(cameras, up).tolist(), "lines": lines}
    if mesh is not None:
        found |= _mesh_numbers(coarser(mesh, MOST_FACES))
    numbers = json.dumps(found).replace("<", "\\u003c")
    data = f'<script type="application/json" id="surface-numbers">{numbers}</script>'
    return f'<canvas id="surface" width="900" height="560"></canvas>{data}'


def seen_from(cameras: Cameras, up: Floats) -> Floats:
    """[3], of length one: where what C cameras look at is shown from at first, so that it is not its back.

    The mean direction back to the cameras; where they stand all around, that of the first. up: [3], of length one.
    """
    back = -cameras.camera_to_world[:, :, 2].double().numpy()
    mean = back.mean(0)
    level = np.linalg.norm(mean - (mean @ up) * up)
    found = mean if level > AROUND or abs(mean @ up) > ABOVE else back[0]
    return np.asarray(found / max(float(np.linalg.norm(found)), 1e-12))


def _mesh_numbers(mesh: trimesh.Trimesh) -> dict[str, object]:
    """Vertices in 16 bits between the corners of their box, colors in 8, faces."""
    vertices, own = np.asarray(mesh.vertices, np.float64), vertex_colors(mesh)
    low, high = vertices.min(0), vertices.max(0)
    share = (vertices - low) / np.maximum(high - low, 1e-12)
    colors = np.full((len(vertices), 3), GRAY, np.uint8) if own is None else own[:, :3]
    return {
        "low": low.tolist(),
        "high": high.tolist(),
        "vertices": _encoded(np.rint(share * 65535.0), "<u2"),
        "colors": _encoded(colors, "u1"),
        "faces": _encoded(np.asarray(mesh.faces), "<u4"),
    }


def _encoded(values: NDArray[np.generic], kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode()


def camera_lines(cameras: Cameras, held_out: NDArray[np.int64]) -> NDArray[np.float32]:
    """The edges of the cameras' pyramids, [L, 2, 6]: ends as position and color in [0, 1], in the cameras' frame."""
    pose = cameras.camera_to_world.double().numpy()
    focal, size = cameras.intrinsics[:, :2].double().numpy(), cameras.size.double().numpy()
    half = 0.5 * FRUSTUM * size / focal
    corners = np.stack([np.zeros((len(pose), 3)), *(_corner(half, x, y) for x, y in _AROUND)], 1)
    points = corners @ pose[:, :, :3].transpose(0, 2, 1) + pose[:, None, :, 3]
    color = np.tile(np.array(TRAIN) / 255.0, (len(pose), 1))
    color[held_out] = np.array(HELD_OUT) / 255.0
    ends = points[:, EDGES].reshape(-1, 2, 3)
    shades = np.repeat(color, len(EDGES), axis=0)[:, None].repeat(2, 1)
    return np.concatenate([ends, shades], -1).astype(np.float32)


_AROUND = ((-1, -1), (1, -1), (1, 1), (-1, 1))


def _corner(half: Floats, x: int, y: int) -> Floats:
    return np.column_stack([x * half[:, 0], y * half[:, 1], np.full(len(half), FRUSTUM)])


def coarser(mesh: trimesh.Trimesh, most: int) -> trimesh.Trimesh:
    """A mesh with at most so many faces: vertices in a cell of a lattice become one, at their mean, in its color.

    For looking at: thin parts may close. A mesh that is small enough stays as it is.
    """
    cells = MOST_CELLS
    found = mesh
    while len(found.faces) > most and cells >= LEAST_CELLS:
        found = _joined(mesh, cells)
        cells = int(cells / 1.3)
    return found


def _joined(mesh: trimesh.Trimesh, cells: int) -> trimesh.Trimesh:
    vertices, own = np.asarray(mesh.vertices, np.float64), vertex_colors(mesh)
    low, reach = vertices.min(0), float(np.ptp(vertices, axis=0).max())
    place = np.minimum((vertices - low) / max(reach, 1e-30) * cells, cells - 1).astype(np.int64)
    _, number, count = np.unique(place @ [1, cells, cells**2], return_inverse=True, return_counts=True)
    faces = number[mesh.faces]
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    joined = trimesh.Trimesh(_means(vertices, number, count), faces[whole], process=False)
    if own is not None:
        shades = np.rint(_means(own.astype(np.float64), number, count)).astype(np.uint8)
        joined.visual = trimesh.visual.ColorVisuals(joined, vertex_colors=shades)
    return joined


def _means(values: Floats, number: NDArray[np.int64], count: NDArray[np.int64]) -> Floats:
    """Means of the rows [V, K] of each number, [N, K]."""
    sums = [np.bincount(number, weights=column, minlength=len(count)) for column in values.T]
    return np.stack(sums, 1) / count[:, None]
