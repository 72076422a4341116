"""Where rays meet the zero level of values on a lattice."""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from models.kernels.launch import as_warp, launch

MOST_STEPS = 1024


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
    t = torch.empty_like(near)
    lattice = [values.reshape(-1), len(values), float(trust), float(least)]
    vectors = [as_warp(x.contiguous(), dtype=wp.vec3) for x in (origins, directions)]
    launch(_trace, len(near), [*vectors, near, far, *lattice, t], device=near.device)
    return t


@wp.func
def _value(p: wp.vec3, values: wp.array(dtype=float), n: int):
    half = 0.5 * float(n - 1)
    top = float(n - 1)
    x = wp.clamp((p[0] + 1.0) * half, 0.0, top)
    y = wp.clamp((p[1] + 1.0) * half, 0.0, top)
    z = wp.clamp((p[2] + 1.0) * half, 0.0, top)
    i = wp.min(int(x), n - 2)
    j = wp.min(int(y), n - 2)
    k = wp.min(int(z), n - 2)
    fx = x - float(i)
    fy = y - float(j)
    fz = z - float(k)
    a = (i * n + j) * n + k
    b = a + n * n
    v00 = values[a] + fz * (values[a + 1] - values[a])
    v01 = values[a + n] + fz * (values[a + n + 1] - values[a + n])
    v10 = values[b] + fz * (values[b + 1] - values[b])
    v11 = values[b + n] + fz * (values[b + n + 1] - values[b + n])
    v0 = v00 + fy * (v01 - v00)
    v1 = v10 + fy * (v11 - v10)
    return v0 + fx * (v1 - v0)


@wp.kernel(enable_backward=False)
def _trace(
    first: int,
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    near: wp.array(dtype=float),
    far: wp.array(dtype=float),
    values: wp.array(dtype=float),
    n: int,
    trust: float,
    least: float,
    result: wp.array(dtype=float),
):
    r = first + wp.tid()
    o = origins[r]
    d = directions[r]
    end = far[r]
    t = near[r]
    meets = float(wp.inf)
    if t < end:
        value = _value(o + d * t, values, n)
        steps = int(0)
        while steps < MOST_STEPS and t < end:
            ahead = wp.min(t + wp.max(wp.abs(value) * trust, least), end)
            after = _value(o + d * ahead, values, n)
            if value > 0.0 and after <= 0.0:
                meets = _zero(o, d, t, ahead, value, after, values, n)
                steps = MOST_STEPS
            t = ahead
            value = after
            steps += 1
    result[r] = meets


@wp.func
def _zero(
    o: wp.vec3, d: wp.vec3, start: float, end: float, first: float, last: float, values: wp.array(dtype=float), n: int
):
    """The zero between `start` and `end`, with values first > 0 >= last there."""
    low = start
    high = end
    above = first
    below = last
    t = low + (high - low) * above / (above - below)
    for _ in range(3):
        value = _value(o + d * t, values, n)
        if value > 0.0:
            low = t
            above = value
        else:
            high = t
            below = value
        t = low + (high - low) * above / (above - below)
    return t
