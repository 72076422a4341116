"""Where masks say that there is nothing: points that lie outside of them in the views that look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dataio.pictures.images import UInt8
from engine.meshes.views import asked_views, corners_of, triangles_of
from models.rendering.visible import who_sees
from utils.errors import InputError

if TYPE_CHECKING:
    import trimesh

    from engine.run import Run

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


def within_masks(run: Run, masks: Masks, mesh: trimesh.Trimesh, cell: float) -> Bools:
    """[V] bool: vertices of a mesh in the scene frame but for those outside of the masks in nearly all training views
    that see them.

    Of a vertex that none sees, such as the back of what is dropped, all views count whose pictures hold it. cell: size
    of the triangles, scene units.
    """
    vertices, normals = corners_of(mesh)
    chosen, cameras = asked_views(run), run.cameras.to("cpu")
    looked, outside = np.zeros((2, 2, len(vertices)), np.int64)  # [2, V]: by who sees them, by whose picture holds them
    sights = who_sees(vertices, normals, triangles_of(mesh), cameras[torch.from_numpy(chosen)], margin=2 * cell)
    for view, (points, _) in zip(chosen.tolist(), sights, strict=True):
        projected = (x.numpy() for x in cameras.project(vertices, view))
        held, inside = mask_at(grown(masks.pictures[view], masks.dilation), *projected)
        looked[0, points.numpy()] += 1
        outside[0, points.numpy()] += ~inside[points.numpy()]
        looked[1] += held
        outside[1] += held & ~inside
    row, every = (looked[0] == 0).astype(np.int64), np.arange(len(vertices))
    return np.asarray((outside < OUTSIDE * looked)[row, every] | (looked[1] == 0))


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
