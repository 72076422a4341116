"""Where rays meet the zero level of values on a lattice."""

from __future__ import annotations

import torch
from torch import Tensor

from models.kernels.runtime.lanes import TYPES
from models.kernels.runtime.launch import launch
from models.kernels.runtime.native import Floats, Rows, native_kernel

MOST_STEPS = 1024
CHUNK = 512  # rays that a CPU's lanes share


def trace(
    origins: Tensor, directions: Tensor, *, near: Tensor, far: Tensor, values: Tensor, trust: float, least: float
) -> Tensor:
    """Distance at which each ray first goes from positive to negative, infinite where it does not.

    origins, directions: [R, 3] float32, unit directions, in the frame of the lattice's cube [-1, 1]^3. near, far: [R].
    values: [N, N, N] float32 indexed [x, y, z], at points from -1 to 1 that are 2 / (N - 1) apart, linear in each
    axis between them; points outside the cube take the value of the nearest point on it. A step is |value| * trust
    long, trust in [0, 1] (0 where values are no distances), and at least `least` > 0.

    Returns t [R]. A ray that starts inside has to come out first; one that takes more than MOST_STEPS steps misses.
    Within the step in which the sign changes the zero is found by the secant. Not differentiable.
    """
    t = torch.full_like(near, torch.inf)  # for rays that miss nothing is written
    chunk = CHUNK if near.device.type == "cpu" else 1
    rays = [x.contiguous() for x in (origins, directions, near, far)]
    inputs = [chunk, *rays, values.reshape(-1), len(values), float(trust), float(least), MOST_STEPS, t]
    launch(_trace, -(-len(near) // chunk), inputs, device=near.device, grain=4)
    return t


@native_kernel(
    TYPES
    + """
    const int begin = item * chunk, stop = begin + chunk < near.shape[0] ? begin + chunk : near.shape[0];
    const float half = 0.5f * (float)(n - 1), top = (float)(n - 1);
    const vf zero = 0.0f;
    // Rays on their way, one per lane; a lane whose ray has ended takes the next. `left`: values left to the secant.
    vi ray = -1, fresh = 0, left = 0, steps = 0;
    vf t = zero, value = zero, behind = zero, below = zero;
    // Each lane's ray, in memory, since single lanes of a register are slow to fill: origin, direction, far and near.
    alignas(4 * LANES) float brought[8][LANES] = {};
    alignas(4 * LANES) int rays[LANES];
    #undef BROUGHT
    #define BROUGHT(k) *(const vf*)brought[k]
    int next = begin;
    for (int round = 0;; ++round) {
        const vi empty = ray < 0;
        if (next < stop && (round % 4 == 0 || !ANY(ray >= 0)) && ANY(empty)) {
            *(vi*)rays = ray;
            for (int l = 0; l < LANES && next < stop; ++l)
                if (rays[l] < 0) {
                    for (int axis = 0; axis < 3; ++axis) {
                        brought[axis][l] = origins.data[3 * (size_t)next + axis];
                        brought[3 + axis][l] = directions.data[3 * (size_t)next + axis];
                    }
                    brought[6][l] = far.data[next]; brought[7][l] = near.data[next];
                    rays[l] = next++;
                }
            ray = *(const vi*)rays;
            fresh = SELECT(empty, (vi)1, (vi)0);
            left = SELECT(empty, (vi)0, left); steps = SELECT(empty, (vi)0, steps);
            t = SELECT(empty, BROUGHT(7), t);
        }
        if (!ANY(ray >= 0)) break;
        const vf end = BROUGHT(6);
        const vi refines = left > 0, first = fresh > 0;
        const vf ahead = VMIN(t + VMAX(ABS(value) * trust, (vf)least), end);
        const vf at = SELECT(refines, t + (behind - t) * value / (value - below), SELECT(first, t, ahead));
        vi cell[3];
        vf f[3];
        for (int axis = 0; axis < 3; ++axis) {
            f[axis] = VMIN(VMAX((FMA(BROUGHT(3 + axis), at, BROUGHT(axis)) + 1.0f) * half, zero), (vf)top);
            cell[axis] = VMIN(TO_INT(f[axis]), (vi)(n - 2));
            f[axis] -= TO_FLOAT(cell[axis]);
        }
        const vi corner = (cell[0] * n + cell[1]) * n + cell[2];
        vf column[4];
        for (int c = 0; c < 4; ++c) {
            vf lower, upper;
            const float* from = values.data + (c & 2 ? n * n : 0) + (c & 1 ? n : 0);
            GATHER_PAIRS(lower, upper, from, corner, 1);
            column[c] = FMA(f[2], upper - lower, lower);
        }
        const vf v0 = FMA(f[1], column[1] - column[0], column[0]), v1 = FMA(f[1], column[3] - column[2], column[2]);
        const vf found = FMA(f[0], v1 - v0, v0);
        const vi outside = found > 0.0f;
        const vi enters = (refines == 0) & (first == 0) & (value > 0.0f) & (outside == 0);
        const vi moves = SELECT(refines, outside, enters == 0);  // of the two ends of a step, the one in front
        behind = SELECT(moves, behind, at);
        below = SELECT(moves, below, found);
        t = SELECT(moves, at, t);
        value = SELECT(moves, found, value);
        steps += SELECT(refines | first, (vi)0, (vi)1);
        left = SELECT(enters, (vi)3, SELECT(refines, left - 1, left));
        fresh = 0;
        const vi met = refines & (left == 0);
        const vi missed = (refines == 0) & (enters == 0) & ((t >= end) | (steps >= most));
        const vi hit = met & (ray >= 0);
        if (ANY(hit)) {
            const vf meets = t + (behind - t) * value / (value - below);
            STORE_WHERE(hit, result.data, ray, meets);
        }
        ray = SELECT(met | missed, (vi)-1, ray);
    }
"""
)
def _trace(
    item: int, chunk: int, origins: Rows, directions: Rows, near: Floats, far: Floats, values: Floats, n: int,
    trust: float, least: float, most: int, result: Floats,
): ...
