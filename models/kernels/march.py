"""The ray sampler: steps along rays through the occupied cells of a grid."""

from __future__ import annotations

import math

import torch
import warp as wp
from torch import Tensor

from models.kernels.launch import launch


def blocks(occupied: Tensor) -> Tensor:
    """Which blocks of up to 8^3 cells hold an occupied one: [L, N, N, N] uint8 -> [L, B, B, B], B = N / gcd(N, 8)."""
    levels, cells = occupied.shape[:2]
    side = math.gcd(cells, 8)
    n = cells // side
    return occupied.view(levels, n, side, n, side, n, side).amax((2, 4, 6))


def march(
    origins: Tensor,
    directions: Tensor,
    *,
    near: Tensor,
    far: Tensor,
    jitter: Tensor,
    occupied: Tensor,
    coarse: Tensor,
    steps: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Intervals on a lattice of steps whose mid-points lie in occupied cells.

    origins, directions: [R, 3] float32, unit directions, in the frame of the cube [-1, 1]^3. near, far: [R], ray
    distances; far may be infinite, a ray with near >= far is empty. jitter: [R] in [0, 1), shift of the ray's lattice.
    occupied: [L, N, N, N] uint8 indexed [level, x, y, z], 1 where samples are wanted; level l covers the cube
    [-2^l, 2^l]^3, and a point asks the finest level that covers it. Points beyond the last are never sampled. With
    L > 1 N is a multiple of 32. coarse: `blocks(occupied)`. steps: (length, cone), length > 0, cone >= 0: intervals
    at ray distance t are max(length, cone t) long.

    Returns starts and ends [M] (ray distances, ascending within a ray), ray_index [M] int32 and offsets [R+1] int32:
    ray r owns the samples offsets[r] .. offsets[r+1]-1. Empty blocks and cells are crossed in one step, which does not
    shift the lattice: the result is the whole lattice, filtered. Without a cone it is near + (k + jitter - 1) length.
    Not differentiable. Skipping, levels and cones as in "Instant Neural Graphics Primitives", appendix E.
    """
    rays, device = len(origins), origins.device
    length, cone = steps
    grids = [occupied.reshape(-1), occupied.shape[1], coarse.reshape(-1), coarse.shape[1], len(occupied)]
    inputs = [origins, directions, near, far, jitter, *grids, float(length), float(cone)]
    counts = torch.zeros(rays, dtype=torch.int32, device=device)
    launch(_count, rays, [*inputs, counts], device=device)
    offsets = torch.zeros(rays + 1, dtype=torch.int32, device=device)
    torch.cumsum(counts, 0, dtype=torch.int32, out=offsets[1:])
    samples = int(offsets[-1])
    starts, ends = torch.empty(2, samples, device=device)
    ray_index = torch.empty(samples, dtype=torch.int32, device=device)
    launch(_fill, rays, [*inputs, offsets, starts, ends, ray_index], device=device)
    return starts, ends, ray_index, offsets


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
def _at(level: int, p: wp.vec3, n: int):
    return ((level * n + _cell(p[0], n)) * n + _cell(p[1], n)) * n + _cell(p[2], n)


@wp.func
def _leaves(o: wp.vec3, inverse: wp.vec3, side: float):
    """Distance at which a ray leaves the cube [-side, side]^3 for good, 0 where it never enters. inverse: 1 / d."""
    first = float(0.0)
    last = float(1.0e10)
    for axis in range(3):
        a = (-side - o[axis]) * inverse[axis]
        b = (side - o[axis]) * inverse[axis]
        first = wp.max(first, wp.min(a, b))
        last = wp.min(last, wp.max(a, b))
    return wp.where(first < last, last, 0.0)


@wp.func
def _place(t: float, length: float, cone: float):
    """Number of the step at distance t of a lattice that begins at 0: steps of `length`, from there on of cone t."""
    even = t * cone
    if even <= length:
        return t / length
    return (1.0 + wp.log(even / length)) / cone


@wp.func
def _distance(u: float, near: float, length: float, cone: float):
    """Distance at place u of a ray's own lattice, which is 0 at `near`."""
    if cone == 0.0:
        return near + u * length
    place = u + _place(near, length, cone)
    if place * cone <= 1.0:
        return place * length
    return length / cone * wp.exp(place * cone - 1.0)


@wp.struct
class _Ray:
    """A ray and its lattice: interval k, from `first` on, begins k + shift steps behind `near`. inverse: 1 / d."""

    o: wp.vec3
    d: wp.vec3
    inverse: wp.vec3
    near: float
    end: float
    shift: float
    first: int


@wp.func
def _ray(
    r: int,
    origins: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    near: wp.array(dtype=float),
    far: wp.array(dtype=float),
    jitter: wp.array(dtype=float),
    levels: int,
):
    ray = _Ray()
    ray.o = wp.vec3(origins[r, 0], origins[r, 1], origins[r, 2])
    ray.d = wp.vec3(directions[r, 0], directions[r, 1], directions[r, 2])
    ray.inverse = wp.vec3(_inverse(ray.d[0]), _inverse(ray.d[1]), _inverse(ray.d[2]))
    ray.near = near[r]
    ray.end = wp.min(far[r], _leaves(ray.o, ray.inverse, wp.pow(2.0, float(levels - 1))))
    ray.shift = jitter[r] - 1.0
    ray.first = wp.where(jitter[r] < 0.5, 1, 0)
    return ray


@wp.func
def _next(
    k: int,
    ray: _Ray,
    occupied: wp.array(dtype=wp.uint8),
    n: int,
    coarse: wp.array(dtype=wp.uint8),
    blocks: int,
    levels: int,
    length: float,
    cone: float,
):
    """Index of the first lattice interval from k on that is to be sampled, -1 if none is left."""
    result = int(-1)
    middle = _distance(float(k) + ray.shift + 0.5, ray.near, length, cone)
    while result < 0 and middle < ray.end:
        p = ray.o + ray.d * middle
        most = wp.max(wp.max(wp.abs(p[0]), wp.abs(p[1])), wp.abs(p[2]))
        level = int(0)
        scale = float(1.0)  # of the point, so that the level's cube is [-1, 1]^3
        while most * scale > 1.0 and level < levels - 1:
            level += 1
            scale *= 0.5
        q = p * scale
        cells = blocks  # of the grid whose cell is crossed
        if most * scale <= 1.0 and coarse[_at(level, q, blocks)] != wp.uint8(0):
            cells = n
            if occupied[_at(level, q, n)] != wp.uint8(0):
                result = k
        if result < 0:
            out = _exit(q, ray.inverse, cells) / scale
            ahead = out / length
            if cone > 0.0:
                ahead = _place(middle + out, length, cone) - _place(middle, length, cone)
            k += wp.max(1, int(wp.ceil(wp.min(ahead, 1.0e9))))
            middle = _distance(float(k) + ray.shift + 0.5, ray.near, length, cone)
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
    levels: int,
    length: float,
    cone: float,
    counts: wp.array(dtype=int),
):
    r = first + wp.tid()
    ray = _ray(r, origins, directions, near, far, jitter, levels)
    count = int(0)
    k = _next(ray.first, ray, occupied, n, coarse, blocks, levels, length, cone)
    while k >= 0:
        count += 1
        k = _next(k + 1, ray, occupied, n, coarse, blocks, levels, length, cone)
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
    levels: int,
    length: float,
    cone: float,
    offsets: wp.array(dtype=int),
    starts: wp.array(dtype=float),
    ends: wp.array(dtype=float),
    ray_index: wp.array(dtype=int),
):
    r = first + wp.tid()
    ray = _ray(r, origins, directions, near, far, jitter, levels)
    k = _next(ray.first, ray, occupied, n, coarse, blocks, levels, length, cone)
    for i in range(offsets[r], offsets[r + 1]):
        starts[i] = _distance(float(k) + ray.shift, ray.near, length, cone)
        ends[i] = _distance(float(k) + ray.shift + 1.0, ray.near, length, cone)
        ray_index[i] = r
        k = _next(k + 1, ray, occupied, n, coarse, blocks, levels, length, cone)
