"""Key frames set in the viewer, as a camera path that render.py renders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline

from utils.paths.path_file import CameraPath, write_path

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class KeyFrame:
    """A pose [3, 4], scene frame, OpenCV axes, and its vertical field of view in radians."""

    pose: Floats
    fov: float


def path_through(keys: list[KeyFrame], frames: int, size: tuple[int, int], world_from_scene: Floats) -> CameraPath:
    """`frames` cameras in world units, evenly spaced in time, the first and the last key frame at the ends.

    size: width and height. Positions and fields of view follow a cubic spline, orientations a rotation spline. With as
    many frames as the keys have steps between them, or a multiple, and one more, the path goes through each key. Raises
    ValueError for fewer than two keys or frames.
    """
    if len(keys) < 2 or frames < 2:
        raise ValueError(f"at least 2 key frames and 2 frames expected, got {len(keys)} and {frames}")
    knots, at = np.arange(len(keys), dtype=np.float64), np.linspace(0.0, len(keys) - 1.0, frames)
    poses = np.stack([key.pose for key in keys])
    values = np.column_stack([poses[:, :, 3], [key.fov for key in keys]])
    path = CubicSpline(knots, values, bc_type="natural")(at)
    turns = RotationSpline(knots, Rotation.from_matrix(poses[:, :, :3]))(at).as_matrix()
    scale = np.cbrt(np.linalg.det(world_from_scene[:3, :3]))
    turns = world_from_scene[:3, :3] / scale @ turns
    centers = path[:, :3] @ world_from_scene[:3, :3].T + world_from_scene[:3, 3]
    focal = 0.5 * size[1] / np.tan(0.5 * path[:, 3])
    middle = np.tile(np.array(size) / 2.0, (frames, 1))
    pose = np.concatenate([turns, centers[:, :, None]], axis=2)
    return CameraPath(pose, np.column_stack([focal, focal, middle]), size)


def write_next(folder: Path, path: CameraPath, fps: float) -> Path:
    """Write a path under the next free number, `folder`/path_001.json; returns its place. Raises StorageError."""
    number = 1
    while (folder / f"path_{number:03d}.json").exists():
        number += 1
    place = folder / f"path_{number:03d}.json"
    write_path(place, path, fps=fps)
    return place
