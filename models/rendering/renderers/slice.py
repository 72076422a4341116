"""A plane through the field: its values as colors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.model import Model
from models.rendering.frames import Seen, Tile, tiles_of
from models.rendering.renderers.base import Mode, Renderer, RendererConfig, Source

if TYPE_CHECKING:
    from dataio.cameras import Cameras, Rays

Axis = Literal["x", "y", "z"]
OUTSIDE, INSIDE, LINE = (0.25, 0.55, 0.95), (0.95, 0.55, 0.2), (0.05, 0.05, 0.05)
RANGE = 0.5  # the value, of an sdf in scene units, from which on colors are full
BAND = 0.1  # between two lines of equal value
REACH = 1.0  # the square of the plane that is shown, scene units from the middle


class SliceRendererConfig(RendererConfig):
    """The values on a plane across an axis of the scene: blue outside, orange inside, black at the surface."""

    type: Literal["slice"] = "slice"
    axis: Axis = "z"
    offset: float = Field(0.0, ge=-1, le=1, description="where the plane crosses the axis, scene units")

    @property
    def modes(self) -> tuple[Mode, ...]:
        return ("rgb", "depth")

    def build(self, source: Source) -> SliceRenderer:
        return SliceRenderer(source.trained(), self.axis, self.offset)


class SliceRenderer(Renderer):
    """A square of a plane, seen from both sides, before white."""

    def __init__(self, model: Model, axis: Axis, offset: float) -> None:
        self.model, self.axis, self.offset = model, "xyz".index(axis), offset

    def tiles(self, cameras: Cameras, index: int, *, coarse: int = 1) -> Iterator[Tile]:
        return tiles_of(self.look, cameras, index, coarse=coarse)

    def look(self, rays: Rays) -> Seen:
        """What rays [R] see of the plane."""
        along = rays.directions[:, self.axis]
        t = (self.offset - rays.origins[:, self.axis]) / along
        x = rays.at(t.nan_to_num(0.0, 0.0, 0.0))
        meets = torch.isfinite(t) & (t > rays.near) & (x.abs() <= REACH).all(-1)
        color = torch.ones_like(rays.origins)
        hits = meets.nonzero()[:, 0]
        width = t[hits] * (0.0 if rays.pixel is None else rays.pixel[hits])
        color[hits] = value_colors(self.model.surface_value(x[hits]), width)
        return Seen(color=color, depth=torch.where(meets, t, 0.0), opacity=meets.float())


def value_colors(value: Tensor, width: Tensor) -> Tensor:
    """Values [R] as colors [R, 3] with a black line at zero and gray ones each `BAND`.

    width: [R] of a pixel, in the unit of the values, so that lines are about two pixels wide.
    """
    share = (value.abs() / RANGE).clamp(0.08, 1.0)[:, None]
    side = torch.where(value[:, None] > 0, value.new_tensor(OUTSIDE), value.new_tensor(INSIDE))
    color = 1.0 - share * (1.0 - side)
    nearest = (value / BAND).round() * BAND
    color = torch.where(((value - nearest).abs() < 0.5 * width)[:, None], 0.75 * color, color)
    return torch.where((value.abs() < width.clamp_min(2e-3))[:, None], value.new_tensor(LINE), color)
