"""The training photographs as a loss sees them: which ones look at a point, and what color they have there."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dataio.pictures.pictures import Pictures
from utils.errors import InputError

if TYPE_CHECKING:
    from dataio.scene import Scene


class SourceViews:
    """Photographs of the training split on a device, to be looked into at points of the scene frame."""

    def __init__(self, scene: Scene, device: torch.device | str, *, least: int = 1) -> None:
        """Raises InputError for fewer than `least` photographs beside the one that a ray is of."""
        self.views = scene.splits["train"]
        if len(self.views) <= least:
            raise InputError(f"data - got {len(self.views)} training views - expected {least + 1} for losses on views")
        self.cameras = scene.cameras.to(device)
        pictures = Pictures.of(scene.images)
        self._pixels = torch.from_numpy(np.ascontiguousarray(pictures.flat)).to(device)
        self._start = torch.from_numpy(pictures.start[:-1]).to(device)
        # Of each photograph its first pixel, width, height and camera.
        cameras = torch.arange(len(self.cameras), device=device)
        self.layout = torch.column_stack([self._start, self.cameras.size, cameras])
        self._train = torch.from_numpy(self.views).to(device)
        self._corners = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]).to(device)  # column, row
        centers = self.cameras.centers[self._train]
        toward = self.cameras.forward[self._train]
        apart = torch.cdist(self.cameras.centers, centers)
        turned = 1 - self.cameras.forward @ toward.T
        # Photographs of much the same, seen from beside: near in position and direction, but another one.
        order = apart / apart.mean().clamp_min(1e-12) + turned
        order[self._train, torch.arange(len(self._train), device=order.device)] = torch.inf
        self._nearest = self._train[order.argsort(1)]

    def beside(self, camera: Tensor, count: int) -> Tensor:
        """[R] int64 cameras -> [R, K], K = `count`, the training photographs that lie nearest, none of them itself."""
        return self._nearest[camera, :count]

    def colors(self, points: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        """Colors [N, 3] in [0, 1] that views [N] int64 have where they see points [N, 3], scene frame, and whether they
        see them, [N] bool: in front and within the picture. Bilinear; differentiable in points.
        """
        pixel, depth = self.cameras.project(points, view)
        size = self.cameras.size[view]
        at = pixel - 0.5
        seen = (depth > 0) & (at >= 0).all(-1) & (at <= size - 1).all(-1)
        at = torch.where(seen[:, None], at, torch.zeros_like(at))
        low = torch.minimum(at.detach().floor().long(), (size - 2).clamp_min(0))
        share = at - low
        color = points.new_zeros(len(points), 3)
        for step in self._corners:
            corner = torch.minimum(low + step, size - 1)
            place = self._start[view] + corner[:, 1] * size[:, 0] + corner[:, 0]
            weight = torch.where(step > 0, share, 1 - share).prod(-1)
            color = color + weight[:, None] * self._pixels[place].float() / 255
        return color, seen

    @cached_property
    def gray(self) -> Tensor:
        """[M] uint8, the mean of the channels of all pixels, photograph by photograph, row by row."""
        return torch.cat([part.float().mean(1).round().byte() for part in self._pixels.split(1 << 20)])
