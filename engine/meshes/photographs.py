"""Colors of a mesh as photographed: of each vertex, the mean of the pixels that show what is around it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.meshes.views import triangles_of
from utils.errors import InputError

if TYPE_CHECKING:
    import trimesh

    from dataio.cameras import Rays
    from dataio.scene import Scene
    from engine.run import Run

PIXELS = 1 << 22  # of all photographs together, at the most
UNLIKE = 0.3  # a channel of a pixel is farther from what the model has there: the photograph shows something else


def photographs_of(run: Run) -> Scene | None:
    """The photographs whose colors a run's mesh should have.

    None, with a line, where they cannot be read; None where the run has learned what is peculiar to each of them, such
    as its exposure: the field knows what they have in common.
    """
    if any(medium.per_image is not None for medium in run.model.media):
        return None
    try:
        return run.load_scene()
    except InputError as error:
        print(f"note: colors are those of the field, not of the photographs: {error}", file=sys.stderr)
        return None


@torch.no_grad()
def colors_as_photographed(
    run: Run, scene: Scene, mesh: trimesh.Trimesh, colors: npt.NDArray[np.float32], gains: Tensor
) -> npt.NDArray[np.float32]:
    """[V, 3] in [0, 1]: colors [V, 3] of a mesh, moved by the mean of how the training photographs differ from them.

    A pixel whose ray meets the mesh differs from its color there, between three vertices, and counts for each of these
    by its share; it does not count where it is not wholly within the mask, nor where it shows something else than the
    model. Vertices that no pixel shows keep their color. mesh: scene frame, as the scene is. gains: [views, 3], by
    which the photographs are divided, see `fitted_gains`.
    """
    triangles, corners = triangles_of(mesh), torch.from_numpy(np.array(mesh.faces, np.int64))
    own = torch.from_numpy(colors)
    off, weight = torch.zeros_like(own), torch.zeros(len(own))
    for view in (int(view) for view in scene.splits["train"]):
        rays, photographed = _pixels(scene, view, PIXELS // len(scene.splits["train"]))
        photographed = photographed / gains[view]
        t, face, share = triangles.cast(rays.origins, rays.directions, near=rays.near)
        hits = torch.isfinite(t).nonzero()[:, 0]
        hits = hits[_alike(run, rays[hits], t[hits], photographed[hits])]
        around, share = corners[face[hits].long()], share[hits]
        differ = photographed[hits] - (own[around] * share[..., None]).sum(1)
        off.index_add_(0, around.flatten(), (share[..., None] * differ[:, None]).flatten(0, 1))
        weight.index_add_(0, around.flatten(), share.flatten())
    return np.asarray((own + off / weight.clamp_min(1e-9)[:, None]).clamp(0, 1).numpy())


def _pixels(scene: Scene, view: int, most: int) -> tuple[Rays, Tensor]:
    """Rays [R] through pixels of a photograph, wholly within its mask and so many at most; their colors [R, 3]."""
    grid = scene.cameras.pixel_grid(view)
    chosen = torch.arange(len(grid))
    if scene.masks is not None:
        chosen = chosen[torch.from_numpy(np.array(scene.masks[view])).flatten() == 255]
    if len(chosen) > most:
        order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(view))
        chosen = chosen[order[:most].sort().values]
    color = torch.from_numpy(np.array(scene.images[view])).view(-1, 3)[chosen]
    return scene.cameras.rays(torch.full_like(chosen, view), grid[chosen]), color.float() / 255


def _alike(run: Run, rays: Rays, t: Tensor, photographed: Tensor) -> Tensor:
    """[R] bool: whether photographed colors [R, 3] are about what the model has at distances t [R] along rays [R]."""
    modelled = run.surface_color(rays.at(t), rays.directions)
    return (modelled - photographed).abs().amax(-1) < UNLIKE
