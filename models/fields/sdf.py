"""Signed distance field: an encoding, a geometry network and a color network (NeuS, VolSDF, UNISURF)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field as Key
from torch import Tensor

from models.capabilities import DataFacts, ValueKind
from models.encodings.base import EncodingConfig
from models.encodings.frequency import FrequencyConfig
from models.fields.base import Distance, Field, FieldConfig
from models.fields.shape_fit import fit_plain, fit_shape
from models.kernels.networks.color_inputs import joined, mirrored
from models.networks.activations import ColorActivationName, to_color
from models.networks.mlp import Mlp, MlpConfig, geometric_initialization, level_initialization
from models.samples import FieldSample
from utils.config.parts import Choice, StrictModel
from utils.config.schedule import ExponentialSchedule, Schedule, constant


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
    """Geometry and appearance in two networks, as IDR has them; the keys that all surface fields share."""

    gives_gradient: ClassVar[bool] = True

    encoding: Choice[EncodingConfig] = FrequencyConfig(levels=6)
    view_encoding: Choice[EncodingConfig] = FrequencyConfig(levels=4)
    view: Literal["direction", "reflection"] = Key(
        "direction", description="what the color network sees of the view: the ray, or the ray mirrored at the surface"
    )
    view_weight: Schedule = Key(
        constant(1.0), description="factor of the encoded view: from 0, what few views see is not explained by the view"
    )
    geometry: MlpConfig = MlpConfig(skip=(4,), activation="softplus", weight_norm=True)
    color: MlpConfig = MlpConfig(layers=4, weight_norm=True)
    color_activation: ColorActivationName = "sigmoid"
    features: int = Key(256, ge=0, le=4096, description="handed from the geometry to the color network")
    init: Literal["sphere", "hull", "ground", "relief"] = Key(
        "sphere",
        description="the surface at first; hull: that of the masks, the sphere where there are none; ground: what"
        " lies below the sparse points is solid, or below z = 0 of the scene without any, for pictures from the air;"
        " relief: what lies behind the sparse points, for pictures from one side, the sphere for others",
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
        if self.init == "sphere" and data.background and data.one_sided():
            yield (
                "these photographs look from one side, where a background may explain the surface away - initialize it"
                " by the sparse points: model.foreground.field.init=relief, or configs/neus_hash_relief.yaml"
            )


class SdfConfig(SurfaceConfig):
    """A signed distance."""

    type: Literal["sdf"] = "sdf"
    value_kind: ClassVar[ValueKind] = "sdf"

    def build(self) -> Sdf:
        return Sdf(self)


class Sdf(Field):
    """value: sdf in scene units; color from position, view, gradient and features.

    The gradient comes from the same pass as the value (`with_gradient`). Published networks: Wang et al., "NeuS"
    (2021), section E.1; color network of Yariv et al., "IDR" (2020).
    """

    view_weight: Tensor
    unit_taps: Tensor | None
    taps: Tensor | None

    def __init__(self, config: SurfaceConfig) -> None:
        super().__init__()
        self.config = config
        self.encoding = config.encoding.build()
        self.view_encoding = config.view_encoding.build()
        self.geometry = Mlp(self.encoding.width, 1 + config.features, config.geometry)
        self.color = Mlp(3 + self.view_encoding.width + 3 + config.features, 3, config.color)
        # An initialization in closed form is known where the network takes the coordinates and its activation is
        # close to a relu.
        self.closed_form = self.encoding.keeps_input and config.geometry.activation in ("softplus", "relu")
        if self.closed_form and config.init == "ground":
            level_initialization(self.geometry, feature_scale=config.feature_scale)
        elif self.closed_form:
            geometric_initialization(
                self.geometry,
                radius=config.radius,
                inside_out=config.inside_out,
                feature_scale=config.feature_scale,
            )
        self.register_buffer("view_weight", torch.ones(()), persistent=False)
        self.weighted = config.view_weight != constant(1.0)
        numerical = config.numerical
        unit = None if numerical is None else _taps(numerical.taps)
        self.register_buffer("unit_taps", unit, persistent=False)
        self.register_buffer("taps", None if unit is None else unit.clone(), persistent=False)
        self.update(0.0)

    def initialize(self, shapes: Mapping[str, Callable[[], Distance | None]] | None = None) -> None:
        config = self.config
        known = (shapes or {}).get(config.init)
        found = known() if known is not None else None
        if found is not None:
            fit_shape(self, found)
        elif not self.closed_form:
            fit_plain(self, ground=config.init == "ground", radius=config.radius, inside_out=config.inside_out)

    def update(self, progress: float) -> None:
        self.encoding.update(progress)
        self.view_weight.fill_(self.config.view_weight(progress))
        if self.config.numerical is not None and self.unit_taps is not None:
            torch.mul(self.unit_taps, self.config.numerical.step(progress), out=self.taps)

    def low_precision_networks(self) -> list[Mlp]:
        return [self.color]

    def value(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N]; see `Field.value`."""
        return self._distance(x)

    def gradient(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N, 3]; see `Field.gradient`."""
        return self._geometry(x)[1]

    def forward(self, x: Tensor, directions: Tensor) -> FieldSample:
        """[*N, 3], [*N, 3] -> value, color and gradient at `*N`; see `Field.forward`."""
        output, gradient = self._geometry(x)
        if self.config.view == "reflection":
            # What gloss shows of things far away is a function of this direction, whatever the surface's shape. As one
            # of the view's own it pulls the surface inward. Verbin et al., "Ref-NeRF" (2022), section 3.1.
            directions = mirrored(directions, gradient)
        view = self.view_encoding(directions)
        if self.weighted:
            view = self.view_weight * view
        value, seen = joined(output, [x, view, gradient])
        return FieldSample(value, to_color(self.color(seen), self.config.color_activation), gradient)

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
        wall = self.config.wall
        if wall is None:
            return output, gradient
        distance = self._walled(x, output[..., 0])
        behind = (distance < output[..., 0])[..., None]
        of_wall = -wall.slope * torch.nn.functional.normalize(x, dim=-1)
        output = torch.cat([distance[..., None], output[..., 1:]], -1)
        return output, torch.where(behind, of_wall, gradient)

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
