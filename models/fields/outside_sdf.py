"""A surface beyond the unit sphere: walls, ground and sky as what ends every ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field as Key
from torch import Tensor

from models.capabilities import OUTSIDE, SDF, Offer
from models.fields.outside import in_shell
from models.fields.sdf import Sdf, SurfaceConfig
from models.inits.base import Distance
from models.kernels.networks.color_inputs import split
from models.samples import FieldSample, Points

if TYPE_CHECKING:
    from dataio.scene import Scene


class OutsideSdfConfig(SurfaceConfig):
    """A signed distance beyond the unit sphere, in the contracted ball; its samples come without a gradient."""

    type: Literal["outside_sdf"] = "outside_sdf"
    value_kind: ClassVar[Offer] = SDF
    covers: ClassVar[frozenset[Offer]] = frozenset({OUTSIDE})
    offers: ClassVar[frozenset[Offer]] = frozenset()
    radius: float = Key(0.9, gt=0, lt=1, description="of the sphere around everything, contracted: 0.9 is 5 radii away")
    inside_out: bool = Key(True, description="whether the cameras are inside the surface")

    def build(self) -> OutsideSdf:
        return OutsideSdf(self)


class OutsideSdf(Sdf):
    """value: distance to the surface in the contracted ball, where all beyond the unit sphere lies between 1/2 and 1.

    The coordinates are those of a grid in `Outside`. A signed distance there has a gradient of length one there, as in
    Yariv et al., "BakedSDF" (2023), section 3.1; a surface at radius r that is off by e is off by e / (2 r^2) there.
    """

    has_gradient = False

    def _shape_in(self, scene: Scene) -> Distance | None:
        return self.config.init.beyond(scene)

    def value(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N]; see `Field.value`."""
        return self._distance(in_shell(x))

    def own_gradient(self, x: Tensor) -> Tensor:
        """[*N, 3], in the contracted ball, of what is learned: without the wall; see `Field.own_gradient`."""
        return self._geometry(in_shell(x))[1]

    def gradient(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N, 3], beyond the unit sphere; see `Field.gradient`."""
        # The transposed Jacobian of a(r) x with a = (1 - 1 / (2r)) / r.
        own, r = super().gradient(in_shell(x)), x.norm(dim=-1, keepdim=True).clamp_min(1.0)
        along = (own * x).sum(-1, keepdim=True)
        return (1 - 0.5 / r) / r * own + (1 / r - 1) / r**3 * along * x

    def forward(self, at: Points) -> FieldSample:
        """Value and features [*N, F] at points `*N`; see `Field.forward`."""
        x = in_shell(at.x)
        value, features = split(self.geometry(self.encoding(x)))
        return FieldSample(self._walled(x, value), features)
