"""Signed distance field: an encoding and a geometry network (NeuS, VolSDF, UNISURF)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field as Key
from torch import Tensor

from models.capabilities import GRADIENT, SDF, SURFACE, DataFacts, Offer
from models.encodings.base import EncodingConfig
from models.encodings.frequency import FrequencyConfig
from models.fields.base import Field, FieldConfig
from models.fields.shape_fit import fit_plain, fit_shape
from models.inits.base import Ball, Distance, InitConfig
from models.inits.sphere import SphereInit
from models.kernels.networks.color_inputs import split
from models.networks.mlp import Mlp, MlpConfig
from models.samples import FieldSample, Points
from utils.config.parts import Choice, StrictModel
from utils.config.schedule import ExponentialSchedule, Schedule

if TYPE_CHECKING:
    from dataio.scene import Scene


class NumericalGradient(StrictModel):
    """Differences of values instead of the derivative: no detail finer than the step bends the surface."""

    taps: Literal[4, 6] = Key(6, description="values per gradient: the corners of a tetrahedron, or both ways per axis")
    step: Schedule = Key(
        ExponentialSchedule(start=1 / 32, end=1 / 1024), description="distance of the taps, scene units"
    )


class Wall(StrictModel):
    """A sphere seen from inside that ends every ray: min(sdf, slope (radius - |x|)). All cameras are inside it."""

    radius: float = Key(0.97, gt=0, lt=1, description="scene units")
    slope: float = Key(20.0, gt=0, description="with 1 the surface that is looked for touches the wall")


class SurfaceConfig(FieldConfig):
    """Encoding and geometry network; the keys that all surface fields share."""

    offers: ClassVar[frozenset[Offer]] = frozenset({GRADIENT, SURFACE})

    encoding: Choice[EncodingConfig] = FrequencyConfig(levels=6)
    geometry: MlpConfig = MlpConfig(skip=(4,), activation="softplus", weight_norm=True)
    features: int = Key(256, ge=0, le=4096, description="handed from the geometry network to the appearance")
    init: Choice[InitConfig] = Key(
        SphereInit(),
        description="the surface at first: sphere; hull: that of the masks, the sphere where there are none; ground:"
        " what lies below the sparse points is solid, or below z = 0 of the scene without any, for pictures from the"
        " air; relief: what lies behind the sparse points, for pictures from one side, the sphere for others; points:"
        " what lies behind the sparse points, for pictures from any side",
    )
    radius: float = Key(0.5, gt=0, lt=1, description="radius of the sphere")
    inside_out: bool = Key(False, description="true for rooms: the cameras are inside the surface")
    feature_scale: float = Key(0.0, ge=0, description="initial weights of all inputs but the coordinates, times this")
    numerical: NumericalGradient | None = Key(None, description="take the gradient by differences")
    wall: Wall | None = Key(None, description="a surface around everything, for photographs without masks")

    def warnings(self, data: DataFacts) -> Iterator[str]:
        if self.inside_out:
            return  # the surface is around everything
        yield from super().warnings(data)
        if not self.init.from_data and data.background and data.one_sided():
            yield (
                "these photographs look from one side, where a background may explain the surface away - initialize it"
                f" by the sparse points: model.foreground.field.init=relief, or {data.suited()}"
            )


class SdfConfig(SurfaceConfig):
    """A signed distance."""

    type: Literal["sdf"] = "sdf"
    value_kind: ClassVar[Offer] = SDF

    def build(self) -> Sdf:
        return Sdf(self)


class Sdf(Field):
    """value: sdf in scene units.

    The gradient comes from the same pass as the value (`with_gradient`). Published networks: Wang et al., "NeuS"
    (2021), section E.1.
    """

    has_gradient = True
    unit_taps: Tensor | None
    taps: Tensor | None

    def __init__(self, config: SurfaceConfig) -> None:
        super().__init__()
        self.config, self.features = config, config.features
        self.encoding = config.encoding.build()
        self.geometry = Mlp(self.encoding.width, 1 + config.features, config.geometry)
        # An initialization in closed form is known where the network takes the coordinates and its activation is
        # close to a relu.
        self.closed_form = self.encoding.keeps_input and config.geometry.activation in ("softplus", "relu")
        self.ball = Ball(config.radius, config.inside_out, config.feature_scale)
        numerical = config.numerical
        unit = None if numerical is None else _taps(numerical.taps)
        self.register_buffer("unit_taps", unit, persistent=False)
        self.register_buffer("taps", None if unit is None else unit.clone(), persistent=False)
        self.update(0.0)

    def reset_parameters(self) -> None:
        if self.closed_form:
            self.config.init.closed_form(self.geometry, self.ball)

    def initialize(self, scene: Scene | None = None) -> None:
        found = None if scene is None else self._shape_in(scene)
        if found is not None:
            fit_shape(self, found)
        elif not self.closed_form:
            fit_plain(self, self.config.init.plain(self.ball))

    def _shape_in(self, scene: Scene) -> Distance | None:
        """The distance to be fitted to, in the coordinates that the encoding sees; None where the data know none."""
        return self.config.init.distance(scene)

    def update(self, progress: float) -> None:
        self.encoding.update(progress)
        if self.config.numerical is not None and self.unit_taps is not None:
            torch.mul(self.unit_taps, self.config.numerical.step(progress), out=self.taps)

    def kept(self) -> int:
        """See `Field.kept`; by differences, those of the taps too."""
        if self.unit_taps is None:
            return super().kept()
        return (1 + len(self.unit_taps)) * self.geometry.kept()

    def value(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N]; see `Field.value`."""
        return self._distance(x)

    def gradient(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N, 3]; see `Field.gradient`."""
        output, gradient = self._geometry(x)
        return gradient if self.config.wall is None else self._at_wall(x, output[..., 0], gradient)[1]

    def forward(self, at: Points) -> FieldSample:
        """Value, features [*N, F] and gradient at points `*N`; see `Field.forward`."""
        output, gradient = self._geometry(at.x)
        value, features = split(output)
        if self.config.wall is not None:
            value, gradient = self._at_wall(at.x, value, gradient)
        return FieldSample(value, features, gradient)

    def _distance(self, x: Tensor) -> Tensor:
        encoded = self.encoding(x)
        output = self.geometry(encoded) if torch.is_grad_enabled() else self.geometry.without_graph(encoded, 1)
        return self._walled(x, output[..., 0])

    def _geometry(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[distance, features] and the gradient of the distance."""
        if self.taps is not None:
            output = self.geometry(self.encoding(x))
            gradient = self._differences(x, self.taps)
        else:
            encoded, encoding_vjp = self.encoding.with_vjp(x)
            output, at_features = self.geometry.with_gradient(encoded, 0)
            gradient = encoding_vjp(at_features)
        return output, gradient

    def _at_wall(self, x: Tensor, distance: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Distance and gradient where the wall is nearer than the surface, and as they are elsewhere."""
        assert self.config.wall is not None
        walled = self._walled(x, distance)
        of_wall = -self.config.wall.slope * torch.nn.functional.normalize(x, dim=-1)
        return walled, torch.where((walled < distance)[..., None], of_wall, gradient)

    def _walled(self, x: Tensor, distance: Tensor) -> Tensor:
        wall = self.config.wall
        return distance if wall is None else torch.minimum(distance, wall.slope * (wall.radius - x.norm(dim=-1)))

    def _differences(self, x: Tensor, taps: Tensor) -> Tensor:
        """Gradient [*N, 3] from values at taps [K, 3] around x. Li et al., "Neuralangelo" (2023), eq. 5."""
        around = self.geometry(self.encoding(x[..., None, :] + taps))[..., 0]
        return around @ taps * (3 / taps.square().sum())  # sum over k of d_k d_k^T = (sum |d_k|^2 / 3) I


def _taps(count: int) -> Tensor:
    """Unit directions [count, 3], both ways along each axis or to the corners of a tetrahedron."""
    if count == 6:
        return torch.cat([torch.eye(3), -torch.eye(3)])
    return torch.tensor([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]]) / math.sqrt(3)
