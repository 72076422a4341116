"""Surface normals of every pixel: in the camera's frame in a file, in the scene's in a batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dataio.cameras import Cameras, Rays
from dataio.pictures import images, numbers
from dataio.pictures.images import Source
from dataio.quantities.base import Array, Quantity
from dataio.views import Views

SCALE = 32767  # stored numbers per one
# Of pictures: shorter is the gray of a pixel without a normal, longer its black or white.
SHORTEST, LONGEST = 0.1, 1.5


class Normal(Quantity):
    """Unit normal in the scene frame, zeros = unknown.

    Files hold it in the camera's frame, OpenCV axes (x right, y down, z forward), pointing towards the camera: a
    picture with n = 2 c / max - 1, or an .npy array [H, W, 3] or [3, H, W], where any length but zero is a direction.
    Stored as three int16 of unit length. Smaller pictures have the normal of the pixel that their depth is of.
    """

    name = "normal"
    frame_keys = ("normal_path", "normal_file_path")
    folder = "normals"
    dtype = np.int16
    channels = 3
    is_direction = True

    def size(self, path: Source) -> tuple[int, int]:
        """(width, height). Raises InputError for what has not three channels."""
        return numbers.size_of(path, 3)

    def read(self, path: Source) -> Array:
        """[H, W, 3] int16 of length `SCALE`, zeros where unknown. Raises InputError."""
        stored = numbers.stored(path, 3)
        result = np.empty(stored.shape, np.int16)
        for rows in images.strips(len(stored)):  # floats take four times the memory of a picture
            result[rows] = _directions(stored[rows])
        return result

    def factor(self, views: Views) -> float:
        """To unit length."""
        return 1 / SCALE

    def of_pixels(self, numbers: Tensor, rays: Rays, cameras: Cameras) -> Tensor:
        """[R, 3] in the frame of the cameras' poses, of unit length or zero, of camera-frame normals [R, 3]."""
        pose = cameras.camera_to_world.index_select(0, rays.camera)
        x, y, z = numbers.split(1, dim=-1)
        turned = pose[:, :, 0] * x + pose[:, :, 1] * y + pose[:, :, 2] * z  # no product may round this
        return turned / torch.linalg.vector_norm(turned, dim=-1, keepdim=True).clamp_min(0.5)


def _directions(stored: Array) -> Array:
    """[H, W, 3] int16 of what a file stores, [H, W, 3] uint8, uint16 or floats."""
    if stored.dtype.kind == "u":
        normal = stored * np.float32(2 / np.iinfo(stored.dtype).max) - 1
        shortest, longest = SHORTEST, LONGEST
    else:
        normal = np.where(np.isfinite(stored).all(-1, keepdims=True), stored, 0).astype(np.float64)
        shortest, longest = 1e-12, np.inf
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    known = (length > shortest) & (length < longest)
    return np.rint(np.where(known, normal / np.where(known, length, 1), 0) * SCALE).astype(np.int16)
