"""An asset in the scene of a run: what was baked, beside the run that it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from models.rendering.asset import Asset
from models.rendering.renderers.base import RendererConfig, Source
from models.rendering.renderers.lattice import LatticeRenderer
from utils.errors import InputError


class AssetRendererConfig(RendererConfig):
    """What an asset says that it is rendered by; an asset's own folder needs no renderer to be named."""

    type: Literal["asset"] = "asset"
    path: Path | None = Field(None, description="the folder; default RUN/asset")

    def build(self, source: Source) -> LatticeRenderer:
        path = self.path or source.folder / "asset"
        asset = Asset.open(path)
        if not np.allclose(asset.world_from_scene, source.world_from_scene, rtol=1e-5, atol=1e-8):
            raise InputError(f"{path}: its scene frame is not that of {source.folder} - expected an asset of this run")
        return asset.renderer(source.device)
