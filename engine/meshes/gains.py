"""How much brighter a photograph is than what all have in common, of each of its channels: exposure and tint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import trimesh
from torch import Tensor

from engine.meshes.observed import Observed, observed
from engine.meshes.views import triangles_of
from models.rendering.visible import who_sees

if TYPE_CHECKING:
    from dataio.scene import Scene
    from engine.run import Run

POINTS, PAIRS = 20_000, 4_000_000  # of the surface at the most; of them and a photograph
ROUNDS = 30
NOISE = 3 * (2 / 255) ** 2  # squared distance of colors: that much is off without a reason
PRIOR = 0.01  # of what the mean photograph shows: that much speaks for a gain of 1


@torch.no_grad()
def photograph_gains(run: Run, scene: Scene, mesh: trimesh.Trimesh, margin: float) -> Tensor:
    """[views, 3]: `fitted_gains` of the training photographs from places on a mesh, scene frame; 1 of all others.

    margin: how far before its places the mesh may be met, scene units.
    """
    views = np.asarray(run.splits["train"])
    places, face = trimesh.sample.sample_surface(mesh, min(POINTS, PAIRS // len(views) + 1), seed=0)
    points, normals = (torch.from_numpy(np.array(x, np.float32)) for x in (places, mesh.face_normals[face]))
    cameras = run.cameras.to("cpu")
    chosen = cameras[torch.from_numpy(views)]
    sights = who_sees(points, normals, triangles_of(mesh), chosen, margin=margin)
    return fitted_gains(observed(scene, chosen, views, points, sights), len(cameras))


def fitted_gains(seen: Observed, views: int) -> Tensor:
    """[views, 3]: gains g that make what photographs show of the same points most alike, each color being g times one
    that its point has; 1 of a photograph that shares no point.

    By alternating least squares, in which a pair counts the less the farther it is off, as gloss and shadow are. The
    mean exposure is the one that is nearest to the photographs as they are. Source: Brown and Lowe 2007, section 6,
    with colors of points instead of overlaps.
    """
    seen = _shared(seen)
    gains, weight = torch.ones(views, 3), seen.weight
    for _ in range(ROUNDS if len(seen.point) else 0):
        color = _common_colors(seen, gains, weight)
        off = (seen.color - gains[seen.view] * color).square().sum(-1)
        usual = (off * seen.weight).sum() / seen.weight.sum()
        weight = seen.weight / (1.0 + off / (2.0 * usual.clamp_min(NOISE)))
        both, own = weight[:, None] * seen.color * color, weight[:, None] * color.square()
        gains = _per_view(both, own, seen.view, views) * own.sum(0) / both.sum(0).clamp_min(1e-30)
    return gains


def _shared(seen: Observed) -> Observed:
    """The pairs that count, of points of which there are two or more."""
    seen = seen.among(seen.weight > 0)
    return seen.among(seen.per_point(torch.ones_like(seen.weight))[seen.point] > 1)


def _common_colors(seen: Observed, gains: Tensor, weight: Tensor) -> Tensor:
    """[K, 3]: of each pair the color of its point at the mean exposure; weight: [K]."""
    gain = gains[seen.view]
    both = seen.per_point(weight[:, None] * gain * seen.color)
    return (both / seen.per_point(weight[:, None] * gain.square()).clamp_min(1e-30))[seen.point]


def _per_view(both: Tensor, own: Tensor, view: Tensor, views: int) -> Tensor:
    """[views, 3]: the ratio of the sums of two [K, 3] over the pairs of each view, drawn a little toward 1."""
    sums = [values.new_zeros(views, 3).index_add_(0, view, values) for values in (both, own)]
    prior = (PRIOR * own.sum(0) / len(view.unique())).clamp_min(1e-30)
    return (sums[0] + prior) / (sums[1] + prior)
