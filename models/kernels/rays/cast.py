"""Where rays meet the triangles of a mesh."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import warp as wp
from torch import Tensor

from models.kernels.runtime.launch import launch
from models.kernels.runtime.native import Floats, Ints, Rows


class Triangles:
    """Triangles with a hierarchy of boxes around them, on the device of their vertices.

    vertices: [V, 3] float32. faces: [F, 3] int32, indices of vertices.
    """

    def __init__(self, vertices: Tensor, faces: Tensor) -> None:
        points, indices = wp.from_torch(vertices.contiguous(), dtype=wp.vec3), wp.from_torch(faces.reshape(-1))
        with self._on_torch_stream(vertices.device):
            self.mesh = wp.Mesh(points=points, indices=indices)  # keeps the arrays, and they the tensors

    @staticmethod
    def _on_torch_stream(device: torch.device) -> Any:
        """Within, what Warp does on a GPU comes after what torch does there."""
        if device.type != "cuda":
            return nullcontext()
        return wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(device)))

    def cast(self, origins: Tensor, directions: Tensor, *, near: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The first triangle that each ray meets from `near` on, whichever side it shows.

        origins, directions: [R, 3] float32, unit directions, in the frame of the vertices. near: [R].
        Returns the distance t [R], infinite for a miss, the triangle's number [R] int32, -1 for a miss, and the
        barycentric coordinates [R, 3] of the point on it, in the order of its vertices. Not differentiable.
        """
        t = torch.full_like(near, torch.inf)  # for rays that miss nothing is written
        face = torch.full_like(near, -1, dtype=torch.int32)
        share = torch.zeros_like(origins)
        rays = [x.contiguous() for x in (origins, directions, near)]
        launch(_cast, len(near), [self.mesh.id, *rays, t, face, share], device=near.device, grain=256)
        return t, face, share


@wp.kernel(enable_backward=False)
def _cast(
    item: int, mesh: wp.uint64, origins: Rows, directions: Rows, near: Floats, t: Floats, face: Ints, share: Rows,
):
    i = item + wp.tid()
    along = wp.vec3(directions[i, 0], directions[i, 1], directions[i, 2])
    start = wp.vec3(origins[i, 0], origins[i, 1], origins[i, 2]) + near[i] * along
    found = wp.mesh_query_ray(mesh, start, along, wp.inf)
    if found.result:
        t[i] = near[i] + found.t
        face[i] = found.face
        share[i, 0] = found.u
        share[i, 1] = found.v
        share[i, 2] = 1.0 - found.u - found.v
