"""The cameras along a path, in the scene frame, in the size that is wanted."""

from __future__ import annotations

import numpy as np

from dataio.cameras import Cameras
from dataio.lens import Lens
from dataio.normalize import inverse, moved
from engine.run import Run
from models.rendering.renderers.base import Source
from utils.errors import InputError
from utils.paths.base import CameraPath

LENSES = {"perspective": Lens.BROWN, "fisheye": Lens.FISHEYE, "equirectangular": Lens.EQUIRECTANGULAR}
MOST_PIXELS = 1 << 15  # of a side, as in files of paths


def cameras_along(path: CameraPath, source: Source, run: Run | None) -> Cameras:
    """The cameras [F] of a path, scene frame, on the source's device; photographs' own ones as they are.

    Others are brought from the world into the scene before float32 rounds them.
    """
    if path.views is not None:
        return (source.cameras if run is None else run.cameras)[path.views]
    below = np.broadcast_to([0.0, 0.0, 0.0, 1.0], (len(path), 1, 4))
    poses = moved(np.concatenate([path.camera_to_world, below], axis=1), inverse(source.world_from_scene))
    near = 0.0 if path.anywhere else float(source.cameras.near.median())
    lens = LENSES[path.projection]
    return Cameras.make(poses, path.intrinsics, path.size, lens=lens, near=near).to(source.device)


def resized(cameras: Cameras, size: tuple[int, int] | None, scale: float) -> Cameras:
    """The cameras of pictures of a size, width and height, or of their own times `scale`. Raises InputError."""
    cameras = cameras.scaled(scale) if size is None else cameras.sized(*size)
    if (side := int(cameras.size.max())) > MOST_PIXELS:
        raise InputError(f"--scale: {scale:g} - gives pictures of {side} pixels - expected up to {MOST_PIXELS}")
    return cameras


def one_size(cameras: Cameras) -> bool:
    """Whether all pictures are of one size."""
    return bool((cameras.size == cameras.size[0]).all())
