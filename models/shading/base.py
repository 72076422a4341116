"""What every shading offers."""

from __future__ import annotations

from torch import Tensor, nn

from utils.config.parts import Part


class ShadingConfig(Part):
    """Turns what is composited along a ray into a color."""

    @property
    def channels(self) -> int:
        """Of the composited color: how many numbers a field gives at each sample, all of them in [0, 1]."""
        return 3

    def build(self) -> Shading:
        raise TypeError("a shading config says how it is built")


class Shading(nn.Module):
    """(sums, directions) -> color."""

    def forward(self, sums: Tensor, directions: Tensor) -> Tensor:
        """[R, C] sums over a ray's samples, each weighted, and [R, 3] unit directions, scene frame -> [R, 3] color.

        Differentiable in sums, directions and the parameters, once.
        """
        raise TypeError("a shading defines forward")

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""
