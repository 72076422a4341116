"""The volume: all samples along each ray, as in training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from models.model import Model
from models.rendering.frames import Tile, tiles
from models.rendering.renderers.base import Renderer, RendererConfig, Source
from models.rendering.surface import Surface

if TYPE_CHECKING:
    from dataio.cameras import Cameras


class VolumeRendererConfig(RendererConfig):
    """The media along each ray, composed by optical depth."""

    type: Literal["volume"] = "volume"

    def build(self, source: Source) -> ModelRenderer:
        return ModelRenderer(source.trained())


class ModelRenderer(Renderer):
    """Whatever maps rays to a `Rendering`."""

    def __init__(self, model: Model | Surface) -> None:
        self.model = model

    def tiles(self, cameras: Cameras, index: int, *, coarse: int = 1) -> Iterator[Tile]:
        return tiles(self.model, cameras, index, coarse=coarse)
