"""The piece of a ray inside its bounds, then steps along it through the occupied cells of a grid."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.runtime.lanes import TYPES
from models.kernels.runtime.launch import lanes, launch, launch_blocks
from models.kernels.runtime.native import Bytes, Floats, Ints, Rows, native_kernel

GRAZING = 1e-3  # half the length of a chord, in radii of the sphere
KEPT_RUNS = 16  # runs of steps per ray that the first pass keeps for the second, which marches on its own beyond them


def clipped(
    origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, *, beyond: bool = False
) -> tuple[Tensor, Tensor]:
    """Near and far [R] of the piece of each ray within [near, far] that lies inside the unit sphere.

    origins, directions: [R, 3] float32, unit directions. near, far: [R]; far may be infinite. A ray that misses the
    sphere becomes empty, far = near. beyond: of the piece behind the sphere, which starts where the ray leaves it, or
    at its point closest to the center where it misses. Differentiable in origins, directions, near and far, once: in
    rays where the sphere bounds the piece, in near and far where these do. A ray that grazes the sphere has no bounded
    derivative there; it is that of the ray that goes `GRAZING` deep into it.
    """
    if torch.is_grad_enabled() and any(x.requires_grad for x in (origins, directions, near, far)):
        return _Clipped.apply(origins, directions, near, far, beyond)
    return _clipped(origins, directions, near, far, beyond)


def _clipped(origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, beyond: bool) -> tuple[Tensor, Tensor]:
    given = [x.contiguous() for x in (origins, directions, near, far)]
    found = torch.empty_like(given[2]), torch.empty_like(given[3])
    launch_blocks(_clip, len(near), [*given, int(beyond), *found], device=near.device, grain=256)
    return found


class _Clipped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, beyond: bool
    ) -> tuple[Tensor, Tensor]:
        found = _clipped(origins, directions, near, far, beyond)
        ctx.save_for_backward(origins, directions, near, far, *found)
        ctx.beyond = beyond
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_near: Tensor, of_far: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        origins, directions, near, far, begin, end = ctx.saved_tensors
        if not ctx.beyond:
            empty = end <= begin  # such an end is the beginning's twin
            of_near, of_far = of_near + of_far * empty, of_far * ~empty
        at_near, at_far = begin > near, (end < far) & (not ctx.beyond)
        by_rays = [
            _moved(origins, directions, grad * where, leaves)
            for grad, where, leaves in ((of_near, at_near, ctx.beyond), (of_far, at_far, True))
        ]
        of_origins, of_directions = (a + b for a, b in zip(*by_rays, strict=True))
        return of_origins, of_directions, of_near * ~at_near, of_far * ~at_far, None


def _moved(origins: Tensor, directions: Tensor, grad: Tensor, leaves: bool) -> tuple[Tensor, Tensor]:
    """Gradients [R, 3] in rays of where they enter or leave the sphere, by that of the distance, grad [R].

    |o + t d| = 1, so dt/do = -p / (p . d) at p = o + t d, and dt/dd is t times that. Of a ray that misses: of the
    distance of its point closest to the center, -(o . d).
    """
    middle = -(origins * directions).sum(-1, keepdim=True)
    chord = 1 - (origins + middle * directions).square().sum(-1, keepdim=True)
    half = chord.clamp_min(GRAZING**2).sqrt() * (1 if leaves else -1)
    hits, t, grad = chord > 0, middle + half, grad[:, None]
    of_origins = -grad * torch.where(hits, (origins + t * directions) / half, directions)
    return of_origins, torch.where(hits, t * of_origins, -grad * origins)


def blocks(occupied: Tensor) -> Tensor:
    """[L, N, N, N] uint8 -> [L, B, B, B], B = N / gcd(N, 8): which blocks of up to 8^3 cells hold an occupied one."""
    levels, cells = occupied.shape[:2]
    side = math.gcd(cells, 8)
    n = cells // side
    return occupied.view(levels, n, side, n, side, n, side).amax((2, 4, 6))


class Marched(NamedTuple):
    """Intervals [M] of R rays: ray r owns offsets[r] .. offsets[r+1]-1; what lies behind offsets[R] is zero."""

    starts: Tensor  # [M] ray distances, ascending within a ray
    ends: Tensor  # [M]
    ray_index: Tensor  # [M] int32
    offsets: Tensor  # [R+1] int32
    total: Tensor  # [] int32, all intervals, beyond the capacity too


def march(
    origins: Tensor,
    directions: Tensor,
    *,
    near: Tensor,
    far: Tensor,
    jitter: Tensor,
    cells: tuple[Tensor, Tensor],
    steps: Tensor,
    capacity: int | None = None,
) -> Marched:
    """Intervals on a lattice of steps whose mid-points lie in occupied cells.

    origins, directions: [R, 3] float32, unit directions, in the frame of the cube [-1, 1]^3. near, far: [R], ray
    distances; far may be infinite, a ray with near >= far is empty. jitter: [R] in [0, 1), shift of the ray's lattice.
    cells: [L, N, N, N] uint8 indexed [level, x, y, z], 1 where samples are wanted, and its `blocks`; level l covers the
    cube [-2^l, 2^l]^3, a point reads the finest level that covers it. Points beyond the last are never sampled. With
    L > 1 N is a multiple of 32. steps: [2] float32 (length, cone), length > 0, cone >= 0: intervals at ray distance t
    are max(length, cone t) long. capacity: the length M of the result; what exceeds it is dropped, the rest is zero.
    None: the number of all intervals, for which the host synchronizes with a GPU.

    Empty blocks and cells are crossed in one step, which does not shift the lattice: the result is the whole lattice,
    filtered. Without a cone it is near + (k + jitter - 1) length.
    Not differentiable. Steps, levels and cones as in "Instant Neural Graphics Primitives", appendix E.
    """
    rays, device, (occupied, coarse) = len(origins), origins.device, cells
    grids = [occupied.reshape(-1), occupied.shape[1], coarse.reshape(-1), coarse.shape[1], len(occupied)]
    per_block = lanes(device)
    blocks_of_rays = -(-rays // per_block)
    found = torch.empty(blocks_of_rays * (2 * KEPT_RUNS + 2) * per_block, dtype=torch.int32, device=device)
    vectors = [x.contiguous() for x in (origins, directions, near, far, jitter)]
    inputs = [*vectors, *grids, steps, KEPT_RUNS, found]
    offsets = torch.zeros(rays + 1, dtype=torch.int32, device=device)
    launch(_count, blocks_of_rays, [*inputs, offsets[1:]], device=device, grain=16)
    offsets.cumsum_(0)
    total = offsets[-1]
    if capacity is None:
        columns = torch.empty(3, int(total), device=device)
    else:
        offsets, columns = offsets.clamp_max(capacity), torch.zeros(3, capacity, device=device)
    starts, ends, ray_index = columns[0], columns[1], columns[2].view(torch.int32)
    launch(_fill, blocks_of_rays, [*inputs, offsets, starts, ends, ray_index], device=device, grain=16)
    return Marched(starts, ends, ray_index, offsets, total)


# Rays of a block, `LANES` of them, and their lattices: interval k of a ray, from `k` on, begins k + shift steps behind
# `near`.
_RAYS = (
    TYPES
    + """
    const float length = steps.data[0], cone = steps.data[1];
    const vi NEVER = 1 << 30;  // a step beyond the end of any ray
    const int count = near.shape[0], start = block * LANES;
    const int rays = count - start < LANES ? count - start : LANES;
    vf o[3], d[3], inverse[3], begin = 0.0f, end = 0.0f, shift = 0.0f;
    for (int axis = 0; axis < 3; ++axis) { o[axis] = 0.0f; d[axis] = 1.0f; }
    for (int l = 0; l < rays; ++l) {
        const size_t r = start + l;
        for (int axis = 0; axis < 3; ++axis) {
            LANE(o[axis], l) = origins.data[3 * r + axis];
            LANE(d[axis], l) = directions.data[3 * r + axis];
        }
        LANE(begin, l) = near.data[r]; LANE(end, l) = far.data[r]; LANE(shift, l) = jitter.data[r] - 1.0f;
    }
    // A ray leaves the cube of the last level for good at `leaves`; one that never enters has none. A ray parallel to
    // a wall never meets it; the sign of the huge number does not matter, walls lie at both sides.
    vf enters = 0.0f, leaves = 1e10f;
    const float last = (float)(1 << (levels - 1));
    for (int axis = 0; axis < 3; ++axis) {
        inverse[axis] = SELECT(ABS(d[axis]) > 1e-9f, 1.0f / d[axis], (vf)1e10f);
        const vf a = (-last - o[axis]) * inverse[axis], b = (last - o[axis]) * inverse[axis];
        enters = VMAX(enters, VMIN(a, b));
        leaves = VMIN(leaves, VMAX(a, b));
    }
    vf forward[3];
    for (int axis = 0; axis < 3; ++axis) forward[axis] = SELECT(inverse[axis] > 0.0f, (vf)1.0f, (vf)0.0f);
    const int powers[2][3] = {{blocks * blocks, blocks, 1}, {n * n, n, 1}};
    end = VMIN(end, SELECT(enters < leaves, leaves, (vf)0.0f));
    // Places of distances t on a lattice that begins at 0: steps of `length`, from length / cone on steps of cone t.
    const float per_step = 1.0f / length, turn = cone > 0.0f ? length / cone : 0.0f;
    #define PLACE(t) SELECT((t) * cone <= length, (t) * per_step, \\
        (1.0f + LOG(VMAX((t) * (cone * per_step), (vf)1.0f))) / cone)
    const vf base = cone > 0.0f ? PLACE(begin) : (vf)0.0f;
    #define DISTANCE(u) (cone == 0.0f ? begin + (u) * length : SELECT((base + (u)) * cone <= 1.0f, \\
        (base + (u)) * length, turn / EXP2(VMIN(1.0f - (base + (u)) * cone, (vf)0.0f) * 1.44269504f)))
    const vf until = VMIN(cone > 0.0f ? PLACE(end) - base : (end - begin) * per_step, (vf)1e9f);
    vi k = SELECT(shift < -0.5f, (vi)1, (vi)0);
"""
)
# All rays of the block in lockstep, from cell to cell.
_LOOK = """
    for (;;) {
        const vf place = TO_FLOAT(k) + (shift + 0.5f), middle = DISTANCE(place);  // of the interval
        const vi active = place < until;
        if (!ANY(active)) break;
        vf p[3];
        for (int axis = 0; axis < 3; ++axis) p[axis] = o[axis] + d[axis] * middle;
        const vf most = VMAX(VMAX(ABS(p[0]), ABS(p[1])), ABS(p[2]));
        vi level = 0;
        vf scale = 1.0f, half_side = 1.0f;  // of the point, so that the level's cube is [-1, 1]^3; its inverse
        for (int l = 1; l < levels; ++l) {
            const vi beyond = most > (float)(1 << (l - 1));
            level = SELECT(beyond, (vi)l, level);
            scale = SELECT(beyond, (vf)(1.0f / (float)(1 << l)), scale);
            half_side = SELECT(beyond, (vf)(float)(1 << l), half_side);
        }
        vi at_block = level * (blocks * blocks * blocks), at_cell = level * (n * n * n);
        vf to_block = 1e10f, to_cell = 1e10f;  // to the nearest wall ahead, in sides of a block and of a cell
        for (int axis = 0; axis < 3; ++axis) {
            p[axis] = p[axis] * (scale * 0.5f) + 0.5f;
            const vf u = p[axis] * (float)blocks, v = p[axis] * (float)n;
            at_block += VMAX(VMIN(TO_INT(u), (vi)(blocks - 1)), (vi)0) * powers[0][axis];
            at_cell += VMAX(VMIN(TO_INT(v), (vi)(n - 1)), (vi)0) * powers[1][axis];
            to_block = VMIN(to_block, (FLOOR(u) + forward[axis] - u) * inverse[axis]);
            to_cell = VMIN(to_cell, (FLOOR(v) + forward[axis] - v) * inverse[axis]);
        }
        vi here, around;
        LOOK_UP_BYTES(around, coarse.data, at_block, coarse.shape[0]);
        LOOK_UP_BYTES(here, occupied.data, at_cell, occupied.shape[0]);
        const vi fine = active & (around != 0) & (most <= last);
        const vi hit = fine & (here != 0);
        const vf out = half_side * SELECT(fine, to_cell * (2.0f / (float)n), to_block * (2.0f / (float)blocks));
        const vf ahead = cone > 0.0f ? PLACE(middle + out) - (place + base) : out * per_step;
        const vi run = VMAX(TO_INT(CEIL(VMIN(ahead, until - place))), (vi)1);  // how many have their middles here
"""
_GO_ON = """
        k += SELECT(active, run, (vi)0);
    }
"""


def _walk(begin: str, emit: str) -> str:
    """The way of a block of rays through the grids.

    begin: what comes first; it may move `k`. emit: what becomes of intervals k .. k + run - 1 of the rays in `hit`.
    """
    return _RAYS + begin + _LOOK + emit + _GO_ON


# What the first pass found, for the second: per block of rays the first `most_runs` runs of each ray, as `k` and `run`,
# then the `k` of the first run beyond them, and the number of its runs.
@native_kernel(
    _walk(
        """
    vi total = 0, runs = 0, ray = 0, more = NEVER;
    for (int l = 0; l < LANES; ++l) LANE(ray, l) = l;
    int* kept = found.data + (size_t)block * (2 * most_runs + 2) * LANES;
""",
        """
        const vi fits = hit & (runs < most_runs), at = runs * (int)(2 * LANES) + ray;
        STORE_WHERE(fits, kept, at, k);
        STORE_WHERE(fits, kept, at + (int)LANES, run);
        more = SELECT(hit & (runs == most_runs), k, more);
        runs += SELECT(hit, (vi)1, (vi)0);
        total += SELECT(hit, run, (vi)0);
""",
    )
    + """
    ((vi*)kept)[2 * most_runs] = more;
    ((vi*)kept)[2 * most_runs + 1] = runs;
    for (int l = 0; l < rays; ++l) counts.data[start + l] = LANE(total, l);
"""
)
def _count(
    block: int, origins: Rows, directions: Rows, near: Floats, far: Floats, jitter: Floats, occupied: Bytes, n: int,
    coarse: Bytes, blocks: int, levels: int, steps: Floats, most_runs: int, found: Ints, counts: Ints,
): ...


_EMIT = """
        const vi hits = VMIN(SELECT(hit, run, (vi)0), (int)starts.shape[0] - next);  // within the capacity
        for (int step = 0;; ++step) {
            const vi more = step < hits;
            if (!ANY(more)) break;
            const vf begins = TO_FLOAT(k + step) + shift;
            const vf from = DISTANCE(begins), to = DISTANCE(begins + 1.0f);
            STORE_WHERE(more, starts.data, next + step, from);
            STORE_WHERE(more, ends.data, next + step, to);
            STORE_WHERE(more, ray_index.data, next + step, ray);
        }
        next += hits;
"""


@native_kernel(
    _walk(
        """
    vi next = 0, ray = 0;
    for (int l = 0; l < rays; ++l) { LANE(next, l) = offsets.data[start + l]; LANE(ray, l) = start + l; }
    const vi* kept = (const vi*)found.data + (size_t)block * (2 * most_runs + 2);
    const vi runs = kept[2 * most_runs + 1];
    for (int i = 0; i < most_runs; ++i) {
        const vi hit = i < runs, run = kept[2 * i + 1];
        if (!ANY(hit)) break;
        k = kept[2 * i];
"""
        + _EMIT
        + """
    }
    k = kept[2 * most_runs];
""",
        _EMIT,
    )
)
def _fill(
    block: int, origins: Rows, directions: Rows, near: Floats, far: Floats, jitter: Floats, occupied: Bytes, n: int,
    coarse: Bytes, blocks: int, levels: int, steps: Floats, most_runs: int, found: Ints, offsets: Ints, starts: Floats,
    ends: Floats, ray_index: Ints,
): ...


@native_kernel(
    TYPES
    + """
    BLOCK_OF(near);
    vf x, y, z, dx, dy, dz, from, to;
    LOAD3(x, y, z, origins.data + 3 * start, end);
    LOAD3(dx, dy, dz, directions.data + 3 * start, end);
    LOAD_BLOCK(from, near.data + start, end);
    LOAD_BLOCK(to, far.data + start, end);
    const vf middle = -(x * dx + y * dy + z * dz), zero = 0.0f;
    x += middle * dx; y += middle * dy; z += middle * dz;
    const vf half = ROOT(VMAX(1.0f - (x * x + y * y + z * z), zero));
    if (beyond) {
        from = VMAX(from, middle + half);
    } else {
        from = VMAX(from, middle - half);
        to = VMAX(VMIN(to, middle + half), from);
    }
    STORE_BLOCK(clipped_near.data + start, from, end);
    STORE_BLOCK(clipped_far.data + start, to, end);
"""
)
def _clip(
    block: int, origins: Rows, directions: Rows, near: Floats, far: Floats, beyond: int, clipped_near: Floats,
    clipped_far: Floats,
): ...
