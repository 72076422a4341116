"""What photographs show of points of a surface: pairs of a point and a photograph, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.rendering.visible import Sight, detail

if TYPE_CHECKING:
    from dataio.cameras import Cameras
    from dataio.scene import Scene

OFF = 2.0  # standard deviations from the mean, beyond which a photograph does not count


@dataclass(frozen=True)
class Observed:
    """K pairs of one of `count` points and a photograph that shows it."""

    count: int
    point: Tensor  # [K] int64
    view: Tensor  # [K] int64, number of the photograph
    color: Tensor  # [K, 3] in [0, 1], beyond 1 where a gain was taken off
    weight: Tensor  # [K], from 0

    def among(self, chosen: Tensor) -> Observed:
        """Those of the pairs that are chosen, [K] bool."""
        parts = (part[chosen] for part in (self.point, self.view, self.color, self.weight))
        return Observed(self.count, *parts)

    def evened(self, gains: Tensor) -> Observed:
        """The colors as a photograph of the mean exposure would show them; gains: [views, 3], see `fitted_gains`."""
        return replace(self, color=self.color / gains[self.view])

    def per_point(self, values: Tensor) -> Tensor:
        """Sums [N, *C] over the photographs of each point, of values [K, *C]."""
        return values.new_zeros(self.count, *values.shape[1:]).index_add_(0, self.point, values)

    def mean(self) -> Tensor:
        """[N, 3]: the weighted mean of the colors of each point, zero where none counts."""
        total = self.per_point(self.weight)[:, None]
        return self.per_point(self.color * self.weight[:, None]) / total.clamp_min(1e-30)

    def alike(self) -> Observed:
        """Those of the pairs whose color is not far from the mean of its point."""
        off = (self.color - self.mean()[self.point]).square().sum(-1)
        usual = self.per_point(off * self.weight) / self.per_point(self.weight).clamp_min(1e-30)
        return self.among(off <= OFF**2 * usual[self.point] + 1e-6)


def observed(
    scene: Scene, cameras: Cameras, views: NDArray[np.int64], points: Tensor, sights: Iterable[Sight]
) -> Observed:
    """What the photographs of some views show of points [N, 3], scene frame, where their masks are full.

    cameras: of these views [V], in this order, and sights: of each in turn which points it sees. A picture that looks
    twice as straight, or has twice as many pixels there, weighs twice as much.
    """
    parts = []
    for number, (found, facing) in enumerate(sights):
        pixels, _ = cameras.project(points[found], number)
        color, known = between_pixels(scene, int(views[number]), pixels)
        weight = facing.clamp_min(0) * detail(points[found], cameras, number)
        view = torch.full_like(found, int(views[number]))
        parts.append(tuple(part[known] for part in (found, view, color, weight)))
    return Observed(len(points), *(torch.cat(column) for column in zip(*parts, strict=True)))


def between_pixels(scene: Scene, view: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Colors [N, 3] in [0, 1] of a photograph at image points [N, 2], linear between the four pixels around.

    Also [N] bool: whether these four are all in the picture and wholly in its mask; the color is zero elsewhere.
    """
    image, mask = scene.images[view], None if scene.masks is None else scene.masks[view]
    limit = torch.tensor([image.shape[1], image.shape[0]]) - 1
    low = (pixels - 0.5).floor()
    share = pixels - 0.5 - low
    known = ((low >= 0) & (low < limit)).all(-1)
    color = torch.zeros(len(pixels), 3)
    for weight, place in _corners(low, share):
        x, y = torch.minimum(place.long().clamp_min(0), limit).numpy().T
        color += weight[:, None] * torch.from_numpy(np.asarray(image[y, x])).float() / 255.0
        if mask is not None:
            known &= torch.from_numpy(np.asarray(mask[y, x]) == 255)
    return color * known[:, None], known


def _corners(low: Tensor, share: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight [N] and place [N, 2] of each of the four pixels around; low, share: [N, 2]."""
    for right in (0, 1):
        for down in (0, 1):
            step = torch.tensor([right, down])
            yield torch.where(step == 1, share, 1.0 - share).prod(-1), low + step
