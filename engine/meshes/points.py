"""Colors of points of a surface: what the photographs that show them best have in common, else those of the field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.meshes.photographs import UNLIKE
from engine.meshes.views import field_colors, triangles_of
from models.rendering.visible import detail, seen_by
from utils.pictures.images import to_uint8

if TYPE_CHECKING:
    import trimesh

    from dataio.cameras import Cameras
    from dataio.scene import Scene
    from engine.run import Run

AT_ONCE = 1 << 17  # points
MOST_VIEWS = 256  # that are asked, evenly chosen
BEST = 8  # photographs per point
FIELD = 3  # views along which the field is asked
OFF = 2.0  # standard deviations from the mean, beyond which a photograph does not count


class PointColors:
    """The colors of points on or near a mesh, any number of them in constant memory.

    scene: of the photographs, None to ask the field alone. mesh: scene frame; what may stand before a point. margin:
    how far the points may lie behind it, scene units.
    """

    def __init__(self, run: Run, scene: Scene | None, mesh: trimesh.Trimesh, margin: float) -> None:
        self.run, self.scene, self.margin = run, scene, margin
        self.triangles = triangles_of(mesh)
        train = run.splits["train"]
        self.views = train[np.unique(np.linspace(0, len(train) - 1, min(MOST_VIEWS, len(train))).round().astype(int))]
        self.cameras = run.cameras.to("cpu")[torch.from_numpy(self.views)]

    def __call__(self, points: NDArray[np.floating], normals: NDArray[np.floating]) -> NDArray[np.uint8]:
        """[N, 3] of points [N, 3], scene frame, with outward normals [N, 3]."""
        found = [self._part(points[i : i + AT_ONCE], normals[i : i + AT_ONCE]) for i in range(0, len(points), AT_ONCE)]
        return np.concatenate(found) if found else np.zeros((0, 3), np.uint8)

    @torch.no_grad()
    def _part(self, points: NDArray[np.floating], normals: NDArray[np.floating]) -> NDArray[np.uint8]:
        x, along = (torch.from_numpy(np.array(part, np.float32)) for part in (points, normals))
        best = seen_by(x, along, self.triangles, self.cameras, margin=self.margin, best=BEST, by_detail=True).best
        own = self._of_field(x, along, best[:, :FIELD])
        if self.scene is None:
            return to_uint8(own.numpy())
        colors, weight = self._photographed(self.scene, x, along, best)
        weight = torch.where((colors - own[:, None]).abs().amax(-1) < UNLIKE, weight, 0.0)
        return to_uint8(torch.where(weight.sum(1, keepdim=True) > 0, robust_mean(colors, weight), own).numpy())

    def _of_field(self, x: Tensor, along: Tensor, best: Tensor) -> Tensor:
        """[N, 3] on the CPU."""
        numbers = torch.from_numpy(np.append(self.views, -1))
        given = (part.to(self.run.device) for part in (x, along, numbers[best]))
        return field_colors(self.run, *given).cpu()

    def _photographed(self, scene: Scene, x: Tensor, along: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        """[N, B, 3] in [0, 1] and weights [N, B] of points [N, 3] in the pictures of their best [N, B] cameras.

        A picture that looks twice as straight, or has twice as many pixels there, counts twice as much.
        """
        colors, weight = x.new_zeros(*best.shape, 3), x.new_zeros(best.shape)
        for number, view in enumerate(self.views.tolist()):
            row, column = (best == number).nonzero(as_tuple=True)
            pixels, _ = self.cameras.project(x[row], number)
            colors[row, column], known = between_pixels(scene, view, pixels)
            weight[row, column] = known * _straightness(x[row], along[row], self.cameras, number)
        return colors, weight


def _straightness(x: Tensor, along: Tensor, cameras: Cameras, view: int) -> Tensor:
    """[N] the weight of a camera's picture of points [N, 3] with normals [N, 3]."""
    toward = torch.nn.functional.normalize(cameras.centers[view] - x, dim=-1)
    cosine = (toward * torch.nn.functional.normalize(along, dim=-1)).sum(-1)
    return cosine.clamp_min(0) * detail(x, cameras, view)


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


def robust_mean(colors: Tensor, weight: Tensor) -> Tensor:
    """[N, 3]: the weighted mean of colors [N, B, 3] without those that are far from it; weight: [N, B], from 0."""
    mean = _mean(colors, weight)
    off = (colors - mean[:, None]).square().sum(-1)
    usual = (off * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1e-30)
    return _mean(colors, torch.where(off <= OFF**2 * usual + 1e-6, weight, 0.0))


def _mean(colors: Tensor, weight: Tensor) -> Tensor:
    return (colors * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp_min(1e-30)
