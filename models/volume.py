"""A volume is what fills space: a field, its appearance and an opacity; a medium is a volume within bounds, sampled.

NeRF, NeRF++, NeuS, VolSDF and UNISURF differ in how a value becomes optical depth and in where they sample; nothing
here asks which one it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from models.appearance.base import AppearanceConfig
from models.appearance.mlp import MlpAppearanceConfig
from models.bounds.base import BoundsConfig
from models.capabilities import misfits_of_medium, misfits_of_volume, refuse
from models.fields.base import FieldConfig
from models.networks.mlp import Mlp
from models.opacities.base import OpacityConfig
from models.samplers.base import SamplerConfig
from models.samples import FieldSample, MediumRendering, Points, RaySamples
from utils.config.parts import Choice, StrictModel

if TYPE_CHECKING:
    from dataio.cameras import Rays


LEAST_OUTSIDE = 1e-3  # the surface's value outside of bounds is at least this


class VolumeConfig(StrictModel):
    """A field, its appearance and an opacity."""

    field: Choice[FieldConfig]
    appearance: Choice[AppearanceConfig] = MlpAppearanceConfig()
    opacity: Choice[OpacityConfig]

    @model_validator(mode="after")
    def _volume_fits(self) -> Self:
        refuse(misfits_of_volume(self.field, self.appearance, self.opacity))
        return self


class MediumConfig(VolumeConfig):
    """Bounds on every ray, a sampler, and the volume within: field, appearance and opacity."""

    bounds: Choice[BoundsConfig]
    sampler: Choice[SamplerConfig]

    @model_validator(mode="after")
    def _medium_fits(self) -> Self:
        refuse(misfits_of_medium(self.bounds, self.field, self.sampler))
        return self


class Volume(nn.Module):
    """A field, an appearance and an opacity: values at points, and renderings of samples along rays."""

    def __init__(self, config: VolumeConfig, cameras: int = 0) -> None:
        """cameras: how many took the photographs, for what is learned of each of them."""
        super().__init__()
        self.field = config.field.build()
        self.per_image = config.appearance.per_image.build(cameras) if config.appearance.per_image else None
        features = self.field.features + (self.per_image.width if self.per_image else 0)
        self.appearance = config.appearance.build(features, gradient=self.field.has_gradient)
        self.field.reset_parameters()
        self.opacity = config.opacity.build()
        self.contract: Callable[[Tensor], Tensor] = _same  # what bounds do to points before a field sees them
        self.shade: Callable[[Tensor, Tensor], Tensor] = _unshaded  # what a model does to the composited color of a ray

    def value(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N] field value. Differentiable in x and the parameters, once."""
        return self.field.value(self.contract(x))

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        """[*N] field values -> [*N] bool: whether points within `reach` may matter to a ray; see `Opacity.occupied`."""
        return self.opacity.occupied(value, reach)

    def estimated_optical_depth(self, value: Tensor, samples: RaySamples) -> Tensor:
        """[*N] from field values [*N]; see `Opacity.estimated_optical_depth`."""
        return self.opacity.estimated_optical_depth(value, samples)

    @property
    def has_width(self) -> bool:
        """Whether `width` is known; does not synchronize with a GPU, as reading it does."""
        return self.opacity.has_width

    def width(self) -> float | None:
        """Distance in scene units over which the opacity rises at the surface; None where it has no such scale."""
        return self.opacity.width()

    def surface_value(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N], zero on the surface, positive outside; scene units for an sdf.

        Differentiable in x and the parameters, once.
        """
        return (self.value(x) - self.opacity.surface_level) * self.opacity.outside_sign

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""
        self.field.update(progress)
        self.appearance.update(progress)
        self.opacity.update(progress)

    def low_precision_networks(self) -> list[Mlp]:
        """The networks whose matrix products may be rounded to bfloat16 in training: never those of a distance."""
        colors = [part for part in self.appearance.modules() if isinstance(part, Mlp)]
        return [*self.field.low_precision_networks(), *colors]

    def look(self, at: Points) -> tuple[FieldSample, Tensor]:
        """The field at points `*N`, and their colors [*N, C]; at.x: scene frame.

        Differentiable in the parameters, once, and in x and directions as far as the parts are.
        """
        at = replace(at, x=self.contract(at.x))
        found = self.field(at)
        features, normal = found.features, found.gradient
        if normal is not None and self.opacity.outside_sign < 0:
            normal = -normal
        if self.per_image is None:
            return found, self.appearance(at, features, normal)
        color = self.appearance(at, self.per_image.features(features, at), normal)
        return found, self.per_image.color(color, at)

    def shaded(self, at: Points) -> tuple[FieldSample, Tensor]:
        """As `look`, at points of an opaque surface [N], with the colors [N, 3] of rays that end there."""
        found, color = self.look(at)
        return found, self.shade(color, at.directions)

    def render(self, samples: RaySamples) -> MediumRendering:
        """Evaluate field, appearance and opacity at samples."""
        field, color = self.look(Points(samples.positions, samples.directions, samples))
        tau = self.opacity.optical_depth(field, samples)
        return MediumRendering(samples, field, color, tau, outward=self.opacity.outside_sign)


def _same(x: Tensor) -> Tensor:
    return x


def _unshaded(color: Tensor, directions: Tensor) -> Tensor:
    return color


class Medium(Volume):
    """Bounds, a sampler and a volume: the foreground, the background."""

    def __init__(self, config: MediumConfig, cameras: int = 0) -> None:
        super().__init__(config, cameras)
        self.bounds = config.bounds.build()
        self.sampler = config.sampler.build()
        if self.bounds.contracts:
            for volume in (part for part in self.modules() if isinstance(part, Volume)):
                volume.contract = self.bounds.contract  # a proposal's too

    def update(self, progress: float) -> None:
        super().update(progress)
        self.sampler.update(progress)

    def surface_value(self, x: Tensor) -> Tensor:
        """As `Volume.surface_value` within the bounds; outside of them positive, so that there is no surface."""
        value = super().surface_value(x)
        if not self.bounds.cuts:
            return value
        return torch.where(self.bounds.contains(x), value, value.abs().clamp_min(LEAST_OUTSIDE))

    def forward(self, rays: Rays) -> MediumRendering:
        return self.render(self.sampler(self.bounds.clip(rays), self))
