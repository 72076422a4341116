"""The piece of each ray inside the unit sphere, or beyond it."""

from __future__ import annotations

import torch
from torch import Tensor

from models.kernels.runtime.lanes import TYPES, launch_blocks
from models.kernels.runtime.native import Floats, Rows, native_kernel


def clipped(
    origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, *, beyond: bool = False
) -> tuple[Tensor, Tensor]:
    """Near and far [R] of the piece of each ray within [near, far] that lies inside the unit sphere.

    origins, directions: [R, 3] float32, unit directions. near, far: [R]; far may be infinite. A ray that misses the
    sphere becomes empty, far = near. beyond: of the piece behind the sphere, which starts where the ray leaves it, or
    at its point closest to the center where it misses. Not differentiable.
    """
    given = [x.contiguous() for x in (origins, directions, near, far)]
    found = torch.empty_like(given[2]), torch.empty_like(given[3])
    launch_blocks(_clip, len(near), [*given, int(beyond), *found], device=near.device, grain=256)
    return found


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
