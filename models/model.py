"""The whole model: media and a background color; rays to colors, points to surface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.capacity import FIT_EVERY, Capacity
from models.fields.base import Distance
from models.networks.mlp import Mlp
from models.structure import LayoutChange, refreshed
from models.volume import Medium, MediumConfig, Rendering, render_rays
from utils.config.parts import StrictModel
from utils.errors import InputError
from utils.random_stream import normal, uniform

if TYPE_CHECKING:
    from dataio.cameras import Rays

COLORS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


class ModelConfig(StrictModel):
    """A foreground medium, what lies behind it, and the color behind everything."""

    foreground: MediumConfig
    background: MediumConfig | None = None
    background_color: Literal["data", "white", "black"] | tuple[float, float, float] = Field(
        "data", description="data: the color that the images were composited over, else black"
    )

    @model_validator(mode="after")
    def _one_behind_the_other(self) -> ModelConfig:
        if self.background is not None and self.background.bounds == self.foreground.bounds:
            raise ValueError(
                f"background.bounds and foreground.bounds are both {self.background.bounds}: the two would fill the"
                " same stretch of every ray; expected foreground sphere, background outside"
            )
        return self


def _built(config: MediumConfig, name: str) -> Medium:
    try:
        return Medium(config)
    except InputError as error:
        raise InputError(f"model.{name}: {error}") from error


class Model(nn.Module):
    """Media from near to far, and the color behind them. Raises InputError for networks that cannot be built."""

    background_color: Tensor

    def __init__(self, config: ModelConfig, *, data_color: tuple[float, float, float] | None = None) -> None:
        super().__init__()
        self.foreground = _built(config.foreground, "foreground")
        self.background = _built(config.background, "background") if config.background else None
        self.capacity = Capacity(1) if config.background else None  # of the rays that reach the background
        color = config.background_color
        if color == "data":
            color = data_color or COLORS["black"]
        self.register_buffer("background_color", torch.tensor(COLORS[color] if isinstance(color, str) else color))

    @property
    def media(self) -> list[Medium]:
        """Near to far; the surface is in the first."""
        return [self.foreground] + ([self.background] if self.background is not None else [])

    @property
    def absent(self) -> frozenset[str]:
        """Names of the media that this model does without."""
        return frozenset({"background"} if self.background is None else ())

    def forward(self, rays: Rays) -> Rendering:
        return render_rays(rays, self.media, self.background_color, self.capacity)

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""
        for medium in self.media:
            medium.update(progress)

    def refresh(self, step: int, progress: float = 0.0) -> list[LayoutChange]:
        """Change what is due in layout, then bring the samplers' state up to date; returns the changes.

        Called before every training step, after `update` with the same progress, the same on every rank.
        """
        changes = list(refreshed(self, step, progress))
        if step % FIT_EVERY == 0:
            for capacity in (part for part in self.modules() if isinstance(part, Capacity)):
                capacity.fit()
        for medium in self.media:
            medium.sampler.refresh(medium, step)
        return changes

    def initialize(self, shapes: Mapping[str, Callable[[], Distance | None]] | None = None) -> None:
        """Initialize what has no closed form; once, for a new run. shapes: as of `Field.initialize`."""
        for medium in self.media:
            medium.field.initialize(shapes)

    def set_precision(self, *, mixed: bool) -> None:
        """mixed: in training, matrix products in bfloat16: of gradients, and where a field tolerates it of values."""
        for medium in self.media:
            for network in (part for part in medium.field.modules() if isinstance(part, Mlp)):
                network.mixed_vjp = mixed
            for network in medium.field.low_precision_networks():
                network.mixed = mixed

    def surface_value(self, points: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N], zero on the surface, positive outside; scene units for an sdf.

        Differentiable in points and the parameters, once.
        """
        return self.foreground.surface_value(points)

    def gradient(self, points: Tensor) -> Tensor:
        """[*N, 3] gradient of the foreground's value, per scene unit, at points [*N, 3] in the scene frame.

        Differentiable in the parameters, once. Raises TypeError for a field without one.
        """
        gradient = self.foreground.field.gradient(points)
        if gradient is None:
            raise TypeError("this field has no gradient")
        return gradient

    def normal(self, points: Tensor) -> Tensor:
        """[*N, 3] unit vectors out of the object at points [*N, 3] in the scene frame: the direction of the gradient.

        Differentiable in the parameters, once. Raises TypeError for a field without a gradient.
        """
        # The small constant keeps the derivative finite at a gradient of exactly zero.
        gradient = self.gradient(points)
        length = (gradient.square().sum(-1, keepdim=True) + 1e-12).sqrt()
        return self.foreground.opacity.outside_sign * gradient / length

    def random_gradient(self, count: int, device: torch.device) -> Tensor:
        """[N, 3] gradient of the foreground's value at `count` = N points, uniform in the unit ball; see `gradient`."""
        direction = torch.nn.functional.normalize(normal((count, 3), device), dim=-1)
        return self.gradient(direction * uniform((count, 1), device) ** (1 / 3))

    def statistics(self) -> dict[str, float]:
        """Learned scales, for the log."""
        return {k: v for medium in self.media for k, v in medium.opacity.statistics().items()}
