"""What all bounds offer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from models.capabilities import INSIDE, Offer
from utils.config.parts import Part

if TYPE_CHECKING:
    from dataio.cameras import Rays


class BoundsConfig(Part):
    """The region of space that a medium fills. region: where it lies, which fields and samplers have to cover."""

    region: ClassVar[Offer] = INSIDE
    meets_outside: ClassVar[bool] = False  # whether it ends where bounds beyond the unit sphere begin

    def build(self) -> Bounds:
        raise TypeError("a bounds config says how it is built")


class Bounds(nn.Module):
    """Rays -> their piece within; points -> the coordinates at which a field is evaluated."""

    contracts: bool = False  # whether `contract` changes anything
    cuts: bool = False  # whether parts of the unit sphere lie outside, where there is no surface then

    def clip(self, rays: Rays) -> Rays:
        """The rays with near and far of their piece within; one that misses becomes empty, far = near.

        Differentiable in origins and directions, once, unless the bounds say otherwise.
        """
        raise TypeError("bounds define clip")

    def contains(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N] bool. Not differentiable."""
        raise TypeError("bounds define contains")

    def contract(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N, 3] in the cube [-1, 1]^3 that encodings cover. Differentiable in x."""
        return x
