"""BlendedMVS and MVSNet's layout: cams/00000000_cam.txt, blended_images/, rendered_depth_maps/.

A camera file holds `extrinsic` with a 4x4 world-to-camera matrix of OpenCV axes, `intrinsic` with a 3x3 matrix,
and a line of depth bounds. MVSNet warps pixels at +0.5, so the principal point is ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from dataio import normalize
from dataio.checks.usable import MOST_COORDINATE, pinhole
from dataio.files import MAX_FRAMES, Float64, files_ending, inside, need_folder, read_words, shown
from dataio.pictures import images
from dataio.scene import DataConfig
from dataio.views import Views
from utils.errors import InputError

SUFFIX = "_cam.txt"
FOLDERS = ("blended_images", "images", "image")


class BlendedMvsData(DataConfig):
    """A scene's folder with cams/ and blended_images/."""

    type: Literal["blendedmvs"] = "blendedmvs"
    priority: ClassVar[int] = -4

    masked: bool = Field(default=False, description="take the pictures whose surroundings are black, _masked.jpg")
    depths: bool = Field(default=False, description="read rendered_depth_maps too")

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """A folder with cams/ and pictures."""
        return (path / "cams").is_dir() and any((path / name).is_dir() for name in FOLDERS)

    def parse(self) -> Views:
        """Read cameras and file names. Raises InputError."""
        root = need_folder(self.path)
        if not self.recognizes(root):
            raise InputError(f"{shown(root)} - no cams/ with blended_images/ beside it")
        files = files_ending(root / "cams", SUFFIX)
        if not 0 < len(files) <= MAX_FRAMES:
            raise InputError(f"{shown(root / 'cams')} - got {len(files)} cameras - expected 1 to {MAX_FRAMES}")
        folder = next(name for name in FOLDERS if (root / name).is_dir())
        stems = [file.name[: -len(SUFFIX)] for file in files]
        ending = "_masked" if self.masked else ""
        paths = [self._picture(root, f"{folder}/{stem}{ending}") for stem in stems]
        cameras = [_read_camera(self._find(root, f"cams/{file.name}")) for file in files]
        sizes = [images.image_size(path) if path.is_file() else (1, 1) for path in paths]
        return Views(
            source=root / "cams",
            names=[path.relative_to(root).as_posix() for path in paths],
            images=paths,
            camera_to_world=np.array([pose for pose, _ in cameras]),
            intrinsics=np.array([intrinsics for _, intrinsics in cameras]),
            size=np.array(sizes, dtype=np.int64),
            depths=[self._depth(root, stem) for stem in stems] if self.depths else None,
            pose_key="extrinsic",
        )

    def _find(self, root: Path, name: str) -> Path:
        return inside(root, name, where=shown(root), allow_outside=self.allow_outside)

    def _picture(self, root: Path, name: str) -> Path:
        return images.named(root, f"{name}.jpg", where=shown(root), allow_outside=self.allow_outside)

    def _depth(self, root: Path, stem: str) -> Path:
        tries = [self._find(root, f"rendered_depth_maps/{stem}{suffix}") for suffix in (".pfm", ".PFM")]
        return next((path for path in tries if path.is_file()), tries[0])


def _read_camera(file: Path) -> tuple[Float64, Float64]:
    """Camera-to-world [4, 4] and fx fy cx cy [4]."""
    words = read_words(file)
    if len(words) < 27 or words[0] != "extrinsic" or words[17] != "intrinsic":
        raise InputError(f"{shown(file)} - expected `extrinsic` with 16 numbers, then `intrinsic` with 9")
    try:
        numbers = np.array([*words[1:17], *words[18:27]], dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{shown(file)} - expected numbers after extrinsic and intrinsic") from error
    world_to_camera, matrix = numbers[:16].reshape(4, 4), numbers[16:].reshape(3, 3)
    intrinsics = pinhole(matrix, shown(file))
    if not (np.abs(numbers) < MOST_COORDINATE).all() or abs(np.linalg.det(world_to_camera)) < 1e-9:
        return np.full((4, 4), np.nan), intrinsics
    return normalize.inverse(world_to_camera), intrinsics
