"""Depth from values on a lattice: one evaluation of the network, then as many large frames as wanted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.bounds.sphere import Sphere
from models.kernels.rays.trace import trace
from models.rendering.frames import Frame
from models.volume import Volume

if TYPE_CHECKING:
    from dataio.cameras import Cameras

SPHERE = Sphere()
BAKED_AT_ONCE = 1 << 16  # points
# Few enough that torch works on them in one thread, and they stay in a core's cache; a GPU wants many.
CHUNK = {"cpu": 1 << 13, "cuda": 1 << 20}


@dataclass(frozen=True)
class Baked:
    """values: [N, N, N] over the cube [-1, 1]^3 of the scene frame, zero on the surface, positive outside.

    trust: see `trace`.
    """

    values: Tensor
    trust: float


@torch.no_grad()
def bake(volume: Volume, resolution: int = 128) -> Baked:
    """The surface of a field on resolution^3 lattice points, at least 2^3; float32, on the field's device."""
    device = next(iter(volume.parameters()), torch.zeros(())).device
    axis = torch.linspace(-1, 1, resolution, device=device)
    values = torch.empty(resolution**3, device=device)
    for part in torch.arange(resolution**3, device=device).split(BAKED_AT_ONCE):
        index = (part // resolution**2, part // resolution % resolution, part % resolution)
        values[part] = volume.surface_value(torch.stack([axis[i] for i in index], -1)).float()
    return Baked(values.view(3 * (resolution,)), 1.0 if volume.opacity.reads_distance else 0.0)


@torch.no_grad()
def render_depth(baked: Baked, cameras: Cameras, index: int) -> Frame:
    """Depth and opacity of the baked surface inside the unit sphere, for camera `index`; the rest is zero.

    cameras: scene frame, on the lattice's device. On a CPU as many threads work as torch may use.
    """
    width, height = (int(x) for x in cameras.size[index])
    device = baked.values.device
    depth = torch.empty(height * width)
    chunk = CHUNK[device.type]

    @torch.no_grad()
    def look(start: int) -> None:
        pixel = torch.arange(start, min(start + chunk, len(depth)), device=device)
        at = torch.stack([pixel % width, pixel // width], -1) + 0.5
        rays = SPHERE.clip(cameras.rays(torch.full_like(pixel, index), at))
        t = trace(
            rays.origins,
            rays.directions,
            near=rays.near,
            far=rays.far,
            values=baked.values,
            trust=baked.trust,
            least=1 / (len(baked.values) - 1),  # half a cell
        )
        depth[start : start + len(pixel)] = torch.where(torch.isfinite(t), t, 0.0).cpu()

    with ThreadPoolExecutor(torch.get_num_threads() if device.type == "cpu" else 1) as pool:
        list(pool.map(look, range(0, len(depth), chunk)))
    image = depth.view(height, width)
    nothing = torch.zeros(()).expand(height, width, 3)
    return Frame(nothing, image, nothing, (image > 0).float())
