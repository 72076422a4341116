"""The opaque surface, by tracing rays to it."""

from __future__ import annotations

from typing import Literal

from models.rendering.renderers.base import RendererConfig, Source
from models.rendering.renderers.volume import ModelRenderer
from models.rendering.surface import Surface


class SurfaceRendererConfig(RendererConfig):
    """One sample per ray, where it meets the surface; the media behind where it does not."""

    type: Literal["surface"] = "surface"

    def build(self, source: Source) -> ModelRenderer:
        return ModelRenderer(Surface(source.trained()))
