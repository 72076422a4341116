"""The surface from values on a lattice, which are read from the network once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from torch import Tensor

from models.rendering.baked import Baked, bake, look
from models.rendering.frames import Tile, tiles_of
from models.rendering.renderers.base import Mode, Renderer, RendererConfig, Source

if TYPE_CHECKING:
    from dataio.cameras import Cameras


class LatticeRendererConfig(RendererConfig):
    """Depth and normals without the network, once it was asked for resolution^3 values."""

    type: Literal["lattice"] = "lattice"
    resolution: int = Field(128, ge=8, le=1024, description="lattice points per side of the cube [-1, 1]^3")
    normals: bool = Field(True, description="without them a frame of depth is made faster, in less memory")

    @property
    def modes(self) -> tuple[Mode, ...]:
        return ("depth", "normal") if self.normals else ("depth",)

    def build(self, source: Source) -> LatticeRenderer:
        return LatticeRenderer(bake(source.trained().foreground, self.resolution), normals=self.normals)


class LatticeRenderer(Renderer):
    """The surface of a lattice; with its colors, where it has some, over a background color [3]."""

    def __init__(self, baked: Baked, *, normals: bool = True, background: Tensor | None = None) -> None:
        self.baked, self.normals, self.background = baked, normals, background

    def tiles(self, cameras: Cameras, index: int, *, coarse: int = 1) -> Iterator[Tile]:
        seen = partial(look, baked=self.baked, normals=self.normals, background=self.background)
        return tiles_of(seen, cameras, index, coarse=coarse)
