"""Where masks say that there is nothing: points that lie outside of them in the views that look at them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dataio.pictures.images import UInt8
from engine.meshes.views import asked_views, corners_of
from utils.errors import InputError

if TYPE_CHECKING:
    import trimesh

    from dataio.cameras import Cameras
    from engine.run import Run
    from models.rendering.visible import Sight

Bools = NDArray[np.bool_]
OUTSIDE = 0.9  # of the views that look at a point: so many have it outside of their masks where it is dropped


@dataclass(frozen=True)
class Masks:
    """Masks [H, W] of all views of a run, 255 on the object, and by how many pixels they are grown."""

    pictures: Sequence[UInt8]
    dilation: int


def masks_of(run: Run, dilation: int) -> Masks:
    """The masks of a run's data. Raises InputError where they have none, or cannot be read."""
    masks = run.load_scene().masks
    if masks is None:
        raise InputError(f"--masks: {run.config.data.path} - the run reads no masks of its data - expected some")
    return Masks(masks, dilation)


class MaskTally:
    """Of the vertices of a mesh: how many training views look at them, and how many of these have them outside of their
    masks.
    """

    def __init__(self, run: Run, masks: Masks, mesh: trimesh.Trimesh) -> None:
        self.run, self.masks, self.vertices = run, masks, corners_of(mesh)[0]
        # [2, V]: by who sees them, by whose picture holds them
        self.looked, self.outside = np.zeros((2, 2, len(self.vertices)), np.int64)

    def counted(self, sights: Iterable[Sight]) -> Iterator[Sight]:
        """What the asked views see of the mesh, passed on as it is and counted on the way; see `sights_of`."""
        cameras = self.run.cameras.to("cpu")
        for view, sight in zip(asked_views(self.run).tolist(), sights, strict=True):
            self._count(view, cameras, sight[0].numpy())
            yield sight

    def _count(self, view: int, cameras: Cameras, seen: NDArray[np.int64]) -> None:
        projected = (x.numpy() for x in cameras.project(self.vertices, view))
        held, inside = mask_at(grown(self.masks.pictures[view], self.masks.dilation), *projected)
        self.looked[0, seen] += 1
        self.outside[0, seen] += ~inside[seen]
        self.looked[1] += held
        self.outside[1] += held & ~inside

    def within(self) -> Bools:
        """[V] bool: vertices but for those outside of the masks in nearly all training views that see them.

        Of a vertex that none sees, such as the back of what is dropped, all views count whose pictures hold it.
        """
        row, every = (self.looked[0] == 0).astype(np.int64), np.arange(len(self.vertices))
        return np.asarray((self.outside < OUTSIDE * self.looked)[row, every] | (self.looked[1] == 0))


def grown(mask: UInt8, radius: int) -> Bools:
    """A mask [H, W], 255 on the object, grown by a disk of `radius` pixels."""
    reach = np.arange(-radius, radius + 1)
    disk = (reach[:, None] ** 2 + reach**2 <= radius**2).astype(np.uint8)
    return np.asarray(cv2.dilate((np.asarray(mask) > 127).astype(np.uint8), disk) > 0)


def mask_at(mask: Bools, pixel: NDArray[np.floating], depth: NDArray[np.floating]) -> tuple[Bools, Bools]:
    """[N] whether the picture of a mask [H, W] holds points at pixels [N, 2], and [N] whether the mask does.

    depth: [N], positive before the camera.
    """
    height, width = mask.shape
    column, row = np.floor(np.nan_to_num(pixel, nan=-1.0).clip(-1, 2**30)).astype(np.int64).T
    held = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    found = np.zeros(len(pixel), dtype=bool)
    found[held] = mask[row[held], column[held]]
    return held, found
