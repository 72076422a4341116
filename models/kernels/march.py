"""The ray sampler: steps along rays through the occupied cells of a grid."""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from models.kernels.launch import launch


def march(
    origins: Tensor, directions: Tensor, *, near: Tensor, far: Tensor, jitter: Tensor, occupied: Tensor, step: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Intervals of length `step` whose mid-points lie in occupied cells.

    origins, directions: [R, 3] float32, unit directions, in the frame of the grid's cube [-1, 1]^3.
    near, far: [R], ray distances; a ray with near >= far is empty. jitter: [R] in [0, 1), shift of the ray's lattice
    of steps. occupied: [N, N, N] uint8 indexed [x, y, z], 1 where samples are wanted; points outside the cube are
    never sampled. step: > 0.

    Returns starts [M] (ray distance at which each interval begins, ascending within a ray), ray_index [M] int32 and
    offsets [R+1] int32: ray r owns the samples offsets[r] .. offsets[r+1]-1. Empty cells are crossed in one step,
    which does not shift the lattice: the result is the lattice near + (k + jitter - 1) * step, filtered. Not
    differentiable. Skipping as in "Instant Neural Graphics Primitives", appendix E.
    """
    rays = len(origins)
    device = origins.device
    inputs = [origins, directions, near, far, jitter, occupied.reshape(-1), int(occupied.shape[0]), float(step)]
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
def _axis_exit(p: float, d: float, n: int):
    """Distance along the ray to the cell's wall ahead on one axis, infinite for a ray parallel to the wall."""
    u = (p * 0.5 + 0.5) * float(n)
    wall = wp.floor(u) + wp.where(d > 0.0, 1.0, 0.0)
    distance = float(1.0e10)
    if wp.abs(d) > 1.0e-9:
        distance = (wall - u) * 2.0 / (float(n) * d)
    return distance


@wp.func
def _next(
    k: int, o: wp.vec3, d: wp.vec3, start: float, end: float, step: float, n: int, occupied: wp.array(dtype=wp.uint8)
):
    """Index of the first lattice interval from k on that is to be sampled, -1 if none is left."""
    result = int(-1)
    while result < 0 and start + (float(k) + 0.5) * step < end:
        p = o + d * (start + (float(k) + 0.5) * step)
        inside = wp.max(wp.max(wp.abs(p[0]), wp.abs(p[1])), wp.abs(p[2])) <= 1.0
        if inside and occupied[(_cell(p[0], n) * n + _cell(p[1], n)) * n + _cell(p[2], n)] != wp.uint8(0):
            result = k
        else:
            ahead = wp.min(wp.min(_axis_exit(p[0], d[0], n), _axis_exit(p[1], d[1], n)), _axis_exit(p[2], d[2], n))
            k += wp.max(1, int(wp.ceil(ahead / step)))
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
    step: float,
    counts: wp.array(dtype=int),
):
    r = first + wp.tid()
    o = wp.vec3(origins[r, 0], origins[r, 1], origins[r, 2])
    d = wp.vec3(directions[r, 0], directions[r, 1], directions[r, 2])
    start = near[r] + (jitter[r] - 1.0) * step
    count = int(0)
    k = _next(wp.where(jitter[r] < 0.5, 1, 0), o, d, start, far[r], step, n, occupied)
    while k >= 0:
        count += 1
        k = _next(k + 1, o, d, start, far[r], step, n, occupied)
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
    step: float,
    offsets: wp.array(dtype=int),
    starts: wp.array(dtype=float),
    ray_index: wp.array(dtype=int),
):
    r = first + wp.tid()
    o = wp.vec3(origins[r, 0], origins[r, 1], origins[r, 2])
    d = wp.vec3(directions[r, 0], directions[r, 1], directions[r, 2])
    start = near[r] + (jitter[r] - 1.0) * step
    k = _next(wp.where(jitter[r] < 0.5, 1, 0), o, d, start, far[r], step, n, occupied)
    for i in range(offsets[r], offsets[r + 1]):
        starts[i] = start + float(k) * step
        ray_index[i] = r
        k = _next(k + 1, o, d, start, far[r], step, n, occupied)
