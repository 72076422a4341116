"""The surface from values and colors on a lattice: the network is evaluated once, for as many frames as wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from models.bounds.sphere import Sphere
from models.kernels.rays.trace import trace
from models.rendering.frames import Frame, Seen, frame_of, size_of, tiles_of
from models.rendering.surface import LEAST_STEP, SHADED, shade_points, slope_at
from models.volume import Volume

if TYPE_CHECKING:
    from dataio.cameras import Cameras, Rays

SPHERE = Sphere()
BAKED_AT_ONCE = 1 << 16  # points


@dataclass(frozen=True)
class Baked:
    """values: [N, N, N] over the cube [-1, 1]^3 of the scene frame, zero on the surface, positive outside.

    trust: see `trace`. colors: [N, N, N, 3] uint8, of the surface seen along its normal, at the corners of the cells
    that it goes through; None: not baked.
    """

    values: Tensor
    trust: float
    colors: Tensor | None = None

    def to(self, device: torch.device) -> Baked:
        """The same lattice on another device, values in float32."""
        colors = None if self.colors is None else self.colors.to(device)
        return Baked(self.values.to(device, torch.float32), self.trust, colors)

    def in_halves(self) -> Baked:
        """The same lattice with values in float16, the largest ones cut."""
        most = torch.finfo(torch.float16).max
        return replace(self, values=self.values.clamp(-most, most).half())

    def near_surface(self) -> Tensor:
        """[N, N, N] bool: the lattice points with a neighbor, also across an edge or a corner, on the other side."""
        outside = (self.values > 0).float()[None, None]
        most, least = (sign * F.max_pool3d(sign * outside, 3, stride=1, padding=1) for sign in (1, -1))
        return (most != least)[0, 0]


@torch.no_grad()
def bake(volume: Volume, resolution: int = 128) -> Baked:
    """The surface of a field on resolution^3 lattice points, at least 2^3; float32, on the field's device."""
    device = next(iter(volume.parameters()), torch.zeros(())).device
    values = torch.empty(resolution**3, device=device)
    for part in torch.arange(resolution**3, device=device).split(BAKED_AT_ONCE):
        values[part] = volume.surface_value(lattice_points(part, resolution)).float()
    return Baked(values.view(3 * (resolution,)), 1.0 if volume.opacity.reads_distance else 0.0)


def lattice_points(index: Tensor, resolution: int) -> Tensor:
    """[P, 3] scene frame: the lattice points of numbers index [P], (x N + y) N + z."""
    axis = torch.linspace(-1, 1, resolution, device=index.device)
    place = (index // resolution**2, index // resolution % resolution, index % resolution)
    return torch.stack([axis[i] for i in place], -1)


@torch.no_grad()
def with_colors(baked: Baked, volume: Volume) -> Baked:
    """The lattice with the colors of the field's surface, seen along its normal, in the cells around it.

    A lattice point beside the surface has the color of the surface point that it is moved to: along the gradient, by
    the value over its slope, twice; at most by two cells. The other points are black, and are never read.
    """
    resolution = len(baked.values)
    colors = torch.zeros(resolution**3, 3, dtype=torch.uint8, device=baked.values.device)
    near = baked.near_surface().flatten().nonzero()[:, 0]
    for part in near.split(SHADED[near.device.type]):
        points = lattice_points(part, resolution)
        for _ in range(2):
            points = points + _towards_surface(points, volume, most=4 / (resolution - 1))
        inward = -F.normalize(slope_at(points, volume), dim=-1)
        color, _ = shade_points(points, inward, volume)
        colors[part] = (color.clamp(0, 1) * 255).round().to(torch.uint8)
    return replace(baked, colors=colors.view(*3 * (resolution,), 3))


def _towards_surface(points: Tensor, volume: Volume, most: float) -> Tensor:
    """[P, 3] a step of Newton's method along the gradient, at most so long; scene units."""
    slope = slope_at(points, volume) / (2 * LEAST_STEP)
    steep = slope.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    return -(volume.surface_value(points)[:, None] / steep).clamp(-most, most) * slope / steep


def look(rays: Rays, baked: Baked, *, normals: bool = True, background: Tensor | None = None) -> Seen:
    """What rays [R] see of the baked surface inside the unit sphere; baked in float32, on the rays' device.

    normals: whether to compute them, from central differences over two cells. background: [3], the color behind a
    lattice with colors.
    """
    rays = SPHERE.clip(rays)
    t = trace(
        rays.origins,
        rays.directions,
        near=rays.near,
        far=rays.far,
        values=baked.values,
        trust=baked.trust,
        least=1 / (len(baked.values) - 1),  # half a cell
    )
    meets = torch.isfinite(t)
    depth, opacity = torch.where(meets, t, 0.0), meets.float()
    if not normals and baked.colors is None:
        return Seen(depth=depth, opacity=opacity)
    hits = meets.nonzero()[:, 0]
    points = rays.origins[hits] + t[hits, None] * rays.directions[hits]
    color = normal = None
    if baked.colors is not None:
        behind = torch.zeros(3, device=t.device) if background is None else background
        color = behind.repeat(len(t), 1).index_copy(0, hits, interpolated(baked.colors, points) / 255)
    if normals:
        slope = _lattice_slope(baked.values, points)
        normal = torch.zeros_like(rays.origins).index_copy(0, hits, F.normalize(slope, dim=-1))
    return Seen(depth=depth, opacity=opacity, color=color, normal=normal)


def interpolated(lattice: Tensor, points: Tensor) -> Tensor:
    """[P, C] float32 at points [P, 3], scene frame: linear in each axis between the points of a lattice [N, N, N, C].

    Points outside the cube [-1, 1]^3 take the value of the nearest point on it.
    """
    n, rows = len(lattice), lattice.reshape(-1, lattice.shape[-1])
    place = ((points + 1) * ((n - 1) / 2)).clamp(0, n - 1)
    cell = place.long().clamp_max(n - 2)
    upper = place - cell
    first, shares = (cell[:, 0] * n + cell[:, 1]) * n + cell[:, 2], (1 - upper, upper)
    total = points.new_zeros(len(points), rows.shape[1])
    for x, y, z in product((0, 1), repeat=3):
        weight = shares[x][:, 0] * shares[y][:, 1] * shares[z][:, 2]
        total += weight[:, None] * rows[first + (x * n + y) * n + z]
    return total


def _lattice_slope(values: Tensor, points: Tensor) -> Tensor:
    """[P, 3] central differences of interpolated values [N, N, N], a cell to each side: smooth across the cells."""
    aside = 2 / (len(values) - 1) * torch.eye(3, device=points.device)
    lattice = values[..., None]
    return torch.cat([interpolated(lattice, points + d) - interpolated(lattice, points - d) for d in aside], -1)


def render_depth(baked: Baked, cameras: Cameras, index: int) -> Frame:
    """Depth and opacity of the baked surface inside the unit sphere, for camera `index`; the rest is zero.

    cameras: scene frame, on the lattice's device. On a CPU as many threads work as torch may use.
    """
    stream = tiles_of(partial(look, baked=baked, normals=False), cameras, index)
    return frame_of(stream, *size_of(cameras, index))
