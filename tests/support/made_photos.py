"""A sound data set with real texture, made up, for tests that spoil one thing in it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import trimesh
from PIL import Image
from scipy.ndimage import map_coordinates

from dataio.cameras import Cameras
from tests.support.made_data import opengl, write

COUNT, SIZE = 20, 220
RADIUS, DISTANCE, VIEW_WIDTH = 0.8, 3.2, 2.1
FOCAL = SIZE * DISTANCE / VIEW_WIDTH
GRAIN = 24  # cells of the texture per side of a cube around the ball


@cache
def poses() -> npt.NDArray[np.float64]:
    """[COUNT,4,4] camera-to-world, OpenCV axes: two uneven rings around the ball, looking nearly at its center.

    On an even ring wrong conventions may look like one another.
    """
    turn = np.linspace(0, 2 * np.pi, COUNT, endpoint=False)
    up = np.where(np.arange(COUNT) % 2, 0.2, 0.4)
    around = np.stack([np.cos(turn) * np.cos(up), np.sin(turn) * np.cos(up), np.sin(up)], axis=1)
    random = np.random.default_rng(2)
    centers = around * random.uniform(0.94, 1.06, (COUNT, 1)) * DISTANCE
    result = np.tile(np.eye(4), (COUNT, 1, 1))
    for pose, center in zip(result, centers, strict=True):
        back = center - random.uniform(-0.08, 0.08, 3)
        back /= np.linalg.norm(back)
        right = np.cross([0.0, random.uniform(-0.1, 0.1), 1.0], back)
        right /= np.linalg.norm(right)
        pose[:3, :3] = np.stack([right, np.cross(right, back), -back], axis=-1)
        pose[:3, 3] = center
    return result


@cache
def pictures() -> tuple[list[npt.NDArray[np.uint8]], list[npt.NDArray[np.uint8]]]:
    """Colors and masks of all views: a ball with a texture of its own before gray."""
    texture = np.random.default_rng(0).integers(0, 256, (GRAIN, GRAIN, GRAIN, 3)).astype(np.float64)
    cameras = Cameras.make(poses(), [FOCAL, FOCAL, SIZE / 2, SIZE / 2], [SIZE, SIZE])
    seen = [_look(cameras, view, texture) for view in range(COUNT)]
    return [color for color, _ in seen], [mask for _, mask in seen]


def _look(cameras: Cameras, view: int, texture: npt.NDArray[np.float64]) -> tuple[Any, Any]:
    pixels = cameras.pixel_grid(view)
    rays = cameras.rays(torch.full((len(pixels),), view), pixels)
    origins, directions = rays.origins.double().numpy(), rays.directions.double().numpy()
    middle = -(origins * directions).sum(axis=1)
    square = middle**2 - (origins**2).sum(axis=1) + RADIUS**2
    hit = square > 0
    points = origins[hit] + (middle[hit] - np.sqrt(square[hit]))[:, None] * directions[hit]
    place = (points.T + 1) / 2 * (GRAIN - 1)
    color = np.full((SIZE * SIZE, 3), 128, dtype=np.uint8)
    color[hit] = np.stack([map_coordinates(texture[..., i], place, order=1) for i in range(3)], axis=1)
    mask = np.where(hit, np.uint8(255), np.uint8(0))
    return color.reshape(SIZE, SIZE, 3), mask.reshape(SIZE, SIZE)


def surface(count: int = 400) -> npt.NDArray[np.float64]:
    """Points on the ball."""
    points = np.random.default_rng(0).normal(size=(count, 3))
    return RADIUS * points / np.linalg.norm(points, axis=1, keepdims=True)


class Photos:
    """What will be written; a test changes it first."""

    def __init__(self, *, masks: bool = True) -> None:
        colors, solid = pictures()
        self.colors = [color.copy() for color in colors]
        self.masks = [mask.copy() for mask in solid] if masks else None
        self.poses = poses().copy()  # OpenCV axes
        self.matrices: npt.NDArray[np.float64] | None = None  # as the file has them, when not made of the poses
        self.points: npt.NDArray[np.float64] | None = None
        self.top: dict[str, Any] = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": SIZE / 2, "cy": SIZE / 2}

    def write(self, folder: Path) -> Path:
        """Write transforms.json and what it names; returns the folder."""
        (folder / "images").mkdir(parents=True)
        matrices = opengl(self.poses) if self.matrices is None else self.matrices
        frames = []
        for view, (color, matrix) in enumerate(zip(self.colors, matrices, strict=True)):
            name = f"images/{view:03d}.png"
            Image.fromarray(color).save(folder / name, compress_level=1)
            frames.append({"file_path": name, "transform_matrix": matrix.tolist()})
            if self.masks is not None:
                Image.fromarray(self.masks[view]).save(folder / f"mask{view:03d}.png")
                frames[-1]["mask_path"] = f"mask{view:03d}.png"
        if self.points is not None:
            trimesh.PointCloud(self.points).export(folder / "points.ply")
            self.top["ply_file_path"] = "points.ply"
        write(folder / "transforms.json", {**self.top, "frames": frames})
        return folder
