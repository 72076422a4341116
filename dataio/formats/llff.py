"""LLFF's layout: poses_bounds.npy and the pictures in the order of their names.

Each row holds a 3x5 matrix, row by row, and the nearest and farthest depth. The matrix is camera-to-world with
the axes down, right, backwards; its last column is height, width and focal length of the full-size pictures.
The principal point is the middle, so that it does not matter from where pixels are counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from dataio import normalize
from dataio.checks.usable import MOST_COORDINATE
from dataio.files import Float64, inside, need_folder, read_array, shown
from dataio.formats import picture_folders
from dataio.pictures import images
from dataio.scene import DataConfig, Scene, assemble
from dataio.views import Views
from utils.errors import InputError

FILE = "poses_bounds.npy"
COLUMNS = 17
# Axes closer together than this mean resultant length are a forward-facing capture.
PARALLEL = 0.9


class LlffData(DataConfig):
    """A folder with poses_bounds.npy and images/."""

    type: Literal["llff"] = "llff"
    priority: ClassVar[int] = -3  # a COLMAP model beside it has the lens too

    images: str | None = Field(
        default=None, description="folder of the pictures, in data.path or absolute; default: images or images_N"
    )

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """A folder with poses_bounds.npy."""
        return (path / FILE).is_file()

    def parse(self) -> Views:
        """Read poses and file names. Raises InputError."""
        return self._parse()[0]

    def load(self) -> Scene:
        """The scene; pictures that lie there in a smaller size already are not divided by `downscale` again."""
        views, done = self._parse()
        return assemble(self.model_copy(update={"downscale": max(1, self.downscale // done)}), views)

    def _parse(self) -> tuple[Views, int]:
        root = need_folder(self.path)
        file = inside(root, FILE, where=shown(root), allow_outside=self.allow_outside)
        where = shown(file)
        table = read_array(file, (None, COLUMNS))
        base = root / Path(self.images or "images").expanduser()
        limits = picture_folders.Limits(allow_outside=self.allow_outside, named=self.images is not None)
        folder, done = picture_folders.listed(base, where=where, downscale=self.downscale, limits=limits)
        listed = images.pictures_in(folder)
        paths = [inside(folder, path.name, where=where, allow_outside=self.allow_outside) for path in listed]
        if len(paths) != len(table):
            raise InputError(f"{where} - got {len(table)} poses - {shown(folder)} has {len(paths)} pictures")
        matrices = table[:, :15].reshape(-1, 3, 5)
        size, intrinsics = _calibration(matrices[:, :, 4], where)
        fitted = picture_folders.fitted(intrinsics, size, paths, where=where)
        poses = np.tile(np.eye(4), (len(table), 1, 1))
        down, right, back, center = (matrices[:, :, i] for i in range(4))
        poses[:, :3] = np.stack([right, down, -back, center], axis=-1)
        return Views(
            source=file,
            names=[path.name for path in paths],
            images=paths,
            camera_to_world=poses,
            intrinsics=fitted.intrinsics,
            size=fitted.size,
            world_from_scene=_seen_region(poses, intrinsics, size, table[:, 15:]),
            pose_key="pose",
        ), done


def _calibration(columns: Float64, where: str) -> tuple[np.ndarray, Float64]:
    """Sizes [C, 2] and intrinsics [C, 4] of the rows' height, width, focal length."""
    height, width, focal = columns.T
    sides = columns[:, :2]
    wrong = ~(np.isfinite(columns).all(axis=-1) & ((sides >= 1) & (sides < 2**31)).all(axis=-1))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(f"{where}: row {row} - got height, width, focal {columns[row].tolist()} - expected pixels")
    size = np.stack([width, height], axis=-1).round().astype(np.int64)
    return size, np.stack([focal, focal, width / 2, height / 2], axis=-1)


def _seen_region(poses: Float64, intrinsics: Float64, size: np.ndarray, bounds: Float64) -> Float64 | None:
    """The sphere around what forward-facing cameras see; None for others, where the axes tell it.

    It holds the middles and corners of the pictures from the nearest depth to the one in the middle of the
    disparities, which is where such scenes have their objects.
    """
    forward = poses[:, :3, 2]
    usual = (np.abs(poses) < MOST_COORDINATE).all() and (bounds < MOST_COORDINATE).all()
    sound = usual and (bounds[:, 0] > 0).all() and (bounds[:, 1] > bounds[:, 0]).all() and (intrinsics > 0).all()
    if not (sound and np.linalg.norm(forward.mean(axis=0)) > PARALLEL):
        return None
    near, far = np.percentile(bounds[:, 0], 10), np.percentile(bounds[:, 1], 90)
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [0.5, 0.5]])[None] * size[:, None]
    plane = (corners - intrinsics[:, None, 2:]) / intrinsics[:, None, :2]
    rays = np.concatenate([plane, np.ones_like(plane[..., :1])], axis=-1)
    rays = np.einsum("cij,cpj->cpi", poses[:, :3, :3], rays)
    depths = np.array([near, 2 / (1 / near + 1 / far)])
    points = poses[:, None, None, :3, 3] + depths[None, None, :, None] * rays[:, :, None]
    return normalize.similarity(*normalize.bounding_sphere(points.reshape(-1, 3)))
