"""The ray sampler: steps along rays through the occupied cells of a grid."""

from __future__ import annotations

import math

import torch
import warp as wp
from torch import Tensor

from models.kernels.launch import launch


def blocks(occupied: Tensor) -> Tensor:
    """Which blocks of up to 8^3 cells hold an occupied one: [N, N, N] uint8 -> [B, B, B] uint8, B = N / gcd(N, 8)."""
    side = math.gcd(len(occupied), 8)
    n = len(occupied) // side
    return occupied.view(n, side, n, side, n, side).amax((1, 3, 5))


def march(
    origins: Tensor,
    directions: Tensor,
    *,
    near: Tensor,
    far: Tensor,
    jitter: Tensor,
    occupied: Tensor,
    coarse: Tensor,
    step: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Intervals of length `step` whose mid-points lie in occupied cells.

    origins, directions: [R, 3] float32, unit directions, in the frame of the grid's cube [-1, 1]^3.
    near, far: [R], ray distances; a ray with near >= far is empty. jitter: [R] in [0, 1), shift of the ray's lattice
    of steps. occupied: [N, N, N] uint8 indexed [x, y, z], 1 where samples are wanted; points outside the cube are
    never sampled. coarse: `blocks(occupied)`. step: > 0.

    Returns starts [M] (ray distance at which each interval begins, ascending within a ray), ray_index [M] int32 and
    offsets [R+1] int32: ray r owns the samples offsets[r] .. offsets[r+1]-1. Empty blocks and cells are crossed in
    one step, which does not shift the lattice: the result is the lattice near + (k + jitter - 1) * step, filtered. Not
    differentiable. Skipping as in "Instant Neural Graphics Primitives", appendix E.
    """
    rays = len(origins)
    device = origins.device
    grids = [occupied.reshape(-1), len(occupied), coarse.reshape(-1), len(coarse)]
    inputs = [origins, directions, near, far, jitter, *grids, float(step)]
    counts = torch.zeros(rays, dtype=torch.int32, device=device)
    launch(_count, rays, [*inputs, counts], device=device)
    offsets = torch.zeros(rays + 1, dtype=torch.int32, device=device)
    torch.cumsum(counts, 0, dtype=torch.int32, out=offsets[1:])
    samples = int(offsets[-1])
    starts = torch.empty(samples, device=device)
    ray_index = torch.empty(samples, dtype=torch.int32, device=device)
    launch(_fill, rays, [*inputs, offsets, starts, ray_index], device=device)
    return starts, ray_index, offsets


@wp.func
def _cell(p: float, n: int):
    return wp.clamp(int(wp.floor((p * 0.5 + 0.5) * float(n))), 0, n - 1)


@wp.func
def _exit(p: wp.vec3, inverse: wp.vec3, n: int):
    """Distance along the ray to the nearest wall ahead of the cell that holds p. inverse: 1 / direction."""
    distance = float(1.0e10)
    for axis in range(3):
        u = (p[axis] * 0.5 + 0.5) * float(n)
        wall = wp.floor(u) + wp.where(inverse[axis] > 0.0, 1.0, 0.0)
        distance = wp.min(distance, (wall - u) * (2.0 / float(n)) * inverse[axis])
    return distance


@wp.func
def _inverse(d: float):
    # A ray parallel to a wall never meets it; the sign of the huge number does not matter, walls lie at both sides.
    return wp.where(wp.abs(d) > 1.0e-9, 1.0 / d, 1.0e10)


@wp.func
def _at(p: wp.vec3, n: int):
    return (_cell(p[0], n) * n + _cell(p[1], n)) * n + _cell(p[2], n)


@wp.func
def _next(
    k: int,
    o: wp.vec3,
    d: wp.vec3,
    start: float,
    end: float,
    step: float,
    n: int,
    occupied: wp.array(dtype=wp.uint8),
    blocks: int,
    coarse: wp.array(dtype=wp.uint8),
):
    """Index of the first lattice interval from k on that is to be sampled, -1 if none is left."""
    result = int(-1)
    inverse = wp.vec3(_inverse(d[0]), _inverse(d[1]), _inverse(d[2]))
    while result < 0 and start + (float(k) + 0.5) * step < end:
        p = o + d * (start + (float(k) + 0.5) * step)
        inside = wp.max(wp.max(wp.abs(p[0]), wp.abs(p[1])), wp.abs(p[2])) <= 1.0
        cells = blocks  # of the grid whose cell is crossed
        if inside and coarse[_at(p, blocks)] != wp.uint8(0):
            cells = n
            if occupied[_at(p, n)] != wp.uint8(0):
                result = k
        if result < 0:
            k += wp.max(1, int(wp.ceil(_exit(p, inverse, cells) / step)))
    return result


@wp.kernel(enable_backward=False)
def _count(
    first: int,
    origins: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    near: wp.array(dtype=float),
    far: wp.array(dtype=float),
    jitter: wp.array(dtype=float),
    occupied: wp.array(dtype=wp.uint8),
    n: int,
    coarse: wp.array(dtype=wp.uint8),
    blocks: int,
    step: float,
    counts: wp.array(dtype=int),
):
    r = first + wp.tid()
    o = wp.vec3(origins[r, 0], origins[r, 1], origins[r, 2])
    d = wp.vec3(directions[r, 0], directions[r, 1], directions[r, 2])
    start = near[r] + (jitter[r] - 1.0) * step
    count = int(0)
    k = _next(wp.where(jitter[r] < 0.5, 1, 0), o, d, start, far[r], step, n, occupied, blocks, coarse)
    while k >= 0:
        count += 1
        k = _next(k + 1, o, d, start, far[r], step, n, occupied, blocks, coarse)
    counts[r] = count


@wp.kernel(enable_backward=False)
def _fill(
    first: int,
    origins: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    near: wp.array(dtype=float),
    far: wp.array(dtype=float),
    jitter: wp.array(dtype=float),
    occupied: wp.array(dtype=wp.uint8),
    n: int,
    coarse: wp.array(dtype=wp.uint8),
    blocks: int,
    step: float,
    offsets: wp.array(dtype=int),
    starts: wp.array(dtype=float),
    ray_index: wp.array(dtype=int),
):
    r = first + wp.tid()
    o = wp.vec3(origins[r, 0], origins[r, 1], origins[r, 2])
    d = wp.vec3(directions[r, 0], directions[r, 1], directions[r, 2])
    start = near[r] + (jitter[r] - 1.0) * step
    k = _next(wp.where(jitter[r] < 0.5, 1, 0), o, d, start, far[r], step, n, occupied, blocks, coarse)
    for i in range(offsets[r], offsets[r + 1]):
        starts[i] = start + float(k) * step
        ray_index[i] = r
        k = _next(k + 1, o, d, start, far[r], step, n, occupied, blocks, coarse)
