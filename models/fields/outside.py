"""Fields beyond the unit sphere, on the inverted sphere of NeRF++."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from models.capabilities import OUTSIDE, Offer
from models.fields.radiance import Radiance, RadianceConfig


class OutsideConfig(RadianceConfig):
    """A radiance field on (x/r, 1/r) or, for encodings of three dimensions, on the contracted ball."""

    type: Literal["outside"] = "outside"
    covers: ClassVar[frozenset[Offer]] = frozenset({OUTSIDE})

    def build(self) -> Outside:
        return Outside(self)


class Outside(Radiance):
    """value: raw density. Points inside the unit sphere are moved onto it.

    An encoding that takes four dimensions gets (x/r, 1/r), as in Zhang et al., "NeRF++" (2020), section 4. There x/r
    is found by turning the point where the ray leaves the sphere; the point at distance t is the same, and finite
    at every radius that a sampler reaches. A grid covers three dimensions only: it gets (1 - 1/(2r)) x/r, the outside
    of the sphere brought into the shell between radius 1/2 and 1 (Barron et al., "Mip-NeRF 360" (2022), eq. 10,
    halved).
    """

    def __init__(self, config: OutsideConfig) -> None:
        inverted = config.encoding.any_dimensions
        super().__init__(config, config.encoding.build(dimensions=4 if inverted else 3))
        self.inverted = inverted

    def coordinates(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N, 4] or, contracted, [*N, 3]; see `Radiance.coordinates`. Differentiable in x."""
        if not self.inverted:
            return in_shell(x)
        inverse = 1 / x.norm(dim=-1, keepdim=True).clamp_min(1.0)
        return torch.cat([torch.nn.functional.normalize(x, dim=-1), inverse], -1)


def in_shell(x: Tensor) -> Tensor:
    """[*N, 3] scene frame -> [*N, 3] of norms in [1/2, 1), (1 - 1/(2r)) x/r; points inside the unit sphere as if on it.

    Differentiable in x.
    """
    inverse = 1 / x.norm(dim=-1, keepdim=True).clamp_min(1.0)
    return (1 - 0.5 * inverse) * torch.nn.functional.normalize(x, dim=-1)
