"""The visual hull of masks as a signed distance: where a surface that fits all silhouettes would begin."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataio.cameras import Cameras
from dataio.pictures import images
from dataio.scene import Scene

UInt8 = npt.NDArray[np.uint8]

MASK_SIZE = 512  # larger masks are looked at in this size
BAD_VIEWS = 0.03  # so many views may be wrong about a point
UNSEEN = 0.1  # scene units: distance said of points that most views do not see
CHUNK = 1 << 18


class VisualHull:
    """Points -> signed distance to the hull, positive outside.

    For each view the distance to the silhouette in the picture, as long as it is at the point's depth; the largest
    over the views, but for the few that may be wrong. It is zero on the hull, and not more than the true distance
    around it. Laurentini, "The visual hull concept" (1994).
    """

    def __init__(self, cameras: Cameras, masks: Sequence[UInt8]) -> None:
        """cameras: scene frame, on the CPU. masks: one [H, W] per camera, 255 = object."""
        self.cameras = cameras.scaled(min(1.0, MASK_SIZE / int(cameras.size.max())))
        sizes = [(int(width), int(height)) for width, height in self.cameras.size]
        maps = [_signed_distance(images.resized(masks[i], size)) for i, size in enumerate(sizes)]
        # An empty mask says nothing of the object, and a full one cannot carve.
        self.maps = {view: found for view, found in enumerate(maps) if found.min() < 0 < found.max()}

    def __call__(self, points: Tensor) -> Tensor:
        """[N, 3] scene frame -> [N], scene units; not differentiable. Raises ValueError when no mask says anything."""
        if not self.maps:
            raise ValueError("no mask has an object and a background")
        return torch.cat([self._distance(part) for part in points.split(CHUNK)])

    def _distance(self, points: Tensor) -> Tensor:
        doubted = int(BAD_VIEWS * len(self.maps))
        largest = points.new_full((doubted + 1, len(points)), -torch.inf)
        seen = torch.zeros(len(points), dtype=torch.int32)
        for view, found in self.maps.items():
            pixels, depth = self.cameras.project(points, view)
            size = pixels.new_tensor([found.shape[1], found.shape[0]])
            inside = (depth > 0) & (pixels >= 0).all(-1) & (pixels < size).all(-1)
            place = (2 * torch.nan_to_num(pixels, nan=0.0) / size - 1)[None, None].float()
            sampled = torch.nn.functional.grid_sample(
                found[None, None], place, padding_mode="border", align_corners=False
            )[0, 0, 0]
            focal = float(self.cameras.intrinsics[view, :2].mean())
            distance = torch.where(inside, sampled * depth.float() / focal, -torch.inf)
            largest = torch.cat([largest, distance[None]]).topk(doubted + 1, dim=0).values
            seen += inside
        return torch.where(2 * seen >= len(self.maps), largest[-1], UNSEEN)


def _signed_distance(mask: UInt8) -> Tensor:
    """[H, W] pixels to the silhouette's edge, which runs between pixels; negative within."""
    within = (mask >= 128).astype(np.uint8)
    if within.min() == within.max():
        return torch.zeros(mask.shape)
    outside = cv2.distanceTransform(1 - within, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    inside = cv2.distanceTransform(within, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return torch.from_numpy(np.where(within > 0, 0.5 - inside, outside - 0.5).astype(np.float32))


def hull_of(scene: Scene) -> VisualHull | None:
    """The hull of the training views' masks; None where no mask has an object and a background."""
    if scene.masks is None:
        return None
    train = scene.splits["train"]
    hull = VisualHull(scene.cameras[train], [scene.masks[view] for view in train])
    return hull if hull.maps else None
