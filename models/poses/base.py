"""Cameras that move while the model is trained: a correction of each pose, learned by the colors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from utils.config.parts import Part

if TYPE_CHECKING:
    from dataio.cameras import Cameras, Rays

SMALL, TERMS = 0.25, 7  # square of the angle below which a series is summed, and its terms: all digits of float64


class PosesConfig(Part):
    """How the poses of cameras are corrected."""

    def build(self, cameras: int) -> Poses:
        """Corrections of so many cameras, zero at first."""
        raise TypeError("a poses config says how it is built")


class Poses(nn.Module):
    """Rays of cameras as they are given -> rays of the cameras as they are learned to be.

    correction: [C, 6] per camera a rotation vector (radians) and a translation (scene units), in the axes of the scene
    frame. Only cameras whose rays are trained on learn; those of held-out views stay as they are.
    """

    turns_centers: ClassVar[bool]  # about the scene's origin; otherwise a camera turns about its own center

    def __init__(self, cameras: int) -> None:
        super().__init__()
        self.correction = nn.Parameter(torch.zeros(cameras, 6))

    def motion(self, correction: Tensor) -> tuple[Tensor, Tensor]:
        """[C, 6] -> rotations [C, 3, 3] and shifts [C, 3], scene units. Differentiable in correction."""
        raise TypeError("poses define motion")

    def forward(self, rays: Rays) -> Rays:
        """The rays, moved; `rays.camera` says whose they are. Near and far stay as they are.

        Differentiable in the corrections, and in origins and directions.
        """
        turn, shift = (x.index_select(0, rays.camera) for x in self.motion(self.correction))
        directions = (turn * rays.directions[:, None]).sum(-1)
        origins = (turn * rays.origins[:, None]).sum(-1) if self.turns_centers else rays.origins
        return replace(rays, origins=origins + shift, directions=directions)

    def turns(self, camera: Tensor) -> Tensor:
        """[R, 3, 3] rotations of cameras [R] int64 from where they were given. Differentiable in the corrections."""
        return self.motion(self.correction)[0].index_select(0, camera)

    @torch.no_grad()
    def refined(self, cameras: Cameras) -> Cameras:
        """The cameras [C] as they are learned to be, scene frame; computed in double precision.

        Raises ValueError for another number of cameras.
        """
        if len(cameras) != len(self.correction):
            raise ValueError(f"{len(cameras)} cameras: expected {len(self.correction)}, which were corrected")
        pose = cameras.camera_to_world.double()
        turn, shift = self.motion(self.correction.to(pose))
        center = turn @ pose[:, :, 3:] if self.turns_centers else pose[:, :, 3:]
        refined = torch.cat([turn @ pose[:, :, :3], center + shift[:, :, None]], -1)
        return replace(cameras, camera_to_world=refined.to(cameras.camera_to_world.dtype))


def cross_matrix(vectors: Tensor) -> Tensor:
    """[N, 3] -> [N, 3, 3], the matrices that multiply as the cross product from the left. Differentiable."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)


def exponential(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Of rotation vectors w [N, 3], radians: exp([w]x) [N, 3, 3], and the mean of exp(s [w]x) over s in [0, 1].

    The second leads the translation of a twist to that of its exponential. Differentiable in turns, at zero too.
    Source: Murray, Li and Sastry, "A Mathematical Introduction to Robotic Manipulation" (1994), eqs. 2.14 and 2.36.
    """
    square = turns.square().sum(-1)[:, None, None]
    small = square < SMALL
    # Of each branch the other's numbers get a harmless value: a gradient of infinity times zero is none.
    angle, low = torch.where(small, 1.0, square).sqrt(), torch.where(small, square, 0.0)
    sine = torch.where(small, _series(low, 1), torch.sin(angle) / angle)
    cosine = torch.where(small, _series(low, 2), 2 * (torch.sin(angle / 2) / angle).square())
    rest = torch.where(small, _series(low, 3), (angle - torch.sin(angle)) / angle**3)
    cross = cross_matrix(turns)
    twice, one = cross @ cross, torch.eye(3, dtype=turns.dtype, device=turns.device)
    return one + sine * cross + cosine * twice, one + cosine * cross + rest * twice


def _series(square: Tensor, first: int) -> Tensor:
    """The sum over k of (-square)^k / (2 k + first)!, [N, 1, 1] -> [N, 1, 1]. Differentiable."""
    total = torch.zeros_like(square)
    for k in reversed(range(TERMS)):
        total = 1 / math.factorial(2 * k + first) - square * total
    return total
