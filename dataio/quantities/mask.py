"""Where the object is: from a file of its own or the alpha of the picture."""

from __future__ import annotations

from torch import Tensor

from dataio.cameras import Cameras, Rays
from dataio.pictures import images
from dataio.pictures.images import Source
from dataio.quantities.base import Array, Photograph, Quantity
from dataio.views import Views


class Mask(Quantity):
    """0 to 1, 1 = object; stored as 0 to 255. Smaller pictures have means over areas."""

    name = "mask"
    frame_keys = ("mask_path",)

    def read(self, path: Source) -> Array:
        """[H, W] uint8. Raises InputError."""
        return images.read_mask(path)

    def of_view(self, views: Views, view: int, photograph: Photograph) -> Array:
        """[H, W] uint8 of the view's file; of its alpha where no view has a file."""
        if views.masks is None and photograph.alpha is not None:
            return photograph.alpha
        return super().of_view(views, view, photograph)

    def resized(self, numbers: Array, size: tuple[int, int]) -> Array:
        """[H, W] at another (width, height), averaged over areas."""
        return images.resized(numbers, size)

    def of_pixels(self, numbers: Tensor, rays: Rays, cameras: Cameras) -> Tensor:
        """[R] in [0, 1] of numbers [R]."""
        return numbers.float() / 255

    def known(self, values: Tensor) -> Tensor:
        """[R]: the mask [R] itself, so that its sum is that of the mask."""
        return values
