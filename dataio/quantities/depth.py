"""Measured depth: along the optical axis in a file, along the ray in a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from dataio.cameras import Cameras, Rays
from dataio.files import shown
from dataio.pictures import images
from dataio.pictures.images import Source
from dataio.pictures.packed import Packed
from dataio.pictures.registration import registered
from dataio.quantities.base import Array, Photograph, Quantity
from dataio.views import Views
from utils.errors import InputError


class Depth(Quantity):
    """Distance along the ray in scene units, 0 = unknown; stored as z depth, as uint16 where all files have that.

    `Views.depth_unit` is the length of a stored number. Where another camera took it (`Views.depth_camera`), it is
    brought into the color camera first.
    """

    name = "depth"
    frame_keys = ("depth_file_path",)
    is_length = True

    def size(self, path: Source) -> tuple[int, int] | None:
        """(width, height) of a picture; other files tell when they are read."""
        return None if isinstance(path, Packed) or not images.is_picture(path) else images.image_size(path)

    def check(self, path: Source, picture: Source, views: Views) -> None:
        """Raises InputError for another size than the picture's, unless another camera took it."""
        if views.depth_camera is None:
            super().check(path, picture, views)

    def read(self, path: Source) -> Array:
        """z depth [H, W], uint16 or float32, 0 = unknown. Raises InputError."""
        return images.stored_depth(path)

    def stored_as(self, views: Views) -> np.dtype[Any]:
        """uint16 where all files have that, else float32."""
        short = all(images.depth_is_short(path) for path in views.files[self.name])
        return np.dtype(np.uint16 if short else np.float32)

    def of_view(self, views: Views, view: int, photograph: Photograph) -> Array:
        """The stored z depth [H, W] of each color pixel, also where another camera took it."""
        camera = views.depth_camera
        if camera is None:
            return super().of_view(views, view, photograph)
        path = views.files[self.name][view]
        depth = self.read(path)
        if depth.shape != camera.size[::-1]:
            got, expected = f"{depth.shape[1]} x {depth.shape[0]}", f"{camera.size[0]} x {camera.size[1]}"
            raise InputError(f"{shown(path)} - got {got} pixels - expected {expected} as the other depths have")
        unit, size = np.float32(views.depth_unit), photograph.color.shape[1::-1]
        seen = registered(depth.astype(np.float32) * unit, camera, views.intrinsics[view], size) / unit
        if depth.dtype == np.uint16:
            return np.where(seen < images.NO_DEPTH, np.rint(seen), 0).astype(np.uint16)
        return seen

    def factor(self, views: Views) -> float:
        """World units per stored number."""
        return views.depth_unit

    def of_pixels(self, numbers: Tensor, rays: Rays, cameras: Cameras) -> Tensor:
        """[R] distance along the rays, of z depth [R]; scene units."""
        cosine = (rays.directions * cameras.forward[rays.camera]).sum(-1)
        return numbers / cosine

    def known(self, values: Tensor) -> Tensor:
        """[R] 1 where a depth [R] was measured."""
        return (values > 0).float()
