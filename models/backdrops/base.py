"""What every backdrop offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from utils.config.parts import Part

if TYPE_CHECKING:
    from dataio.cameras import Cameras, Rays


class BackdropConfig(Part):
    """The color behind all media, learned."""

    def build(self, cameras: int) -> Backdrop:
        """For so many cameras."""
        raise TypeError("a backdrop config says how it is built")


class Backdrop(nn.Module):
    """Rays -> the color of what lies behind everything else on them."""

    def forward(self, rays: Rays, otherwise: Tensor) -> Tensor:
        """Colors [R, 3] in [0, 1]; where it knows none, `otherwise` [3]. Differentiable in the parameters, once."""
        raise TypeError("a backdrop defines forward")

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""

    def initialize(self, cameras: Cameras) -> None:
        """Take from the cameras of the photographs what it needs of them; once, for a new run."""
