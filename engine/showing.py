"""What is shown and by which renderer: a run by any, an asset by its own."""

from __future__ import annotations

from pathlib import Path

from engine.run import Run
from models.rendering.asset import Asset, is_asset
from models.rendering.renderers.base import Renderer, RendererConfig, Source
from models.rendering.renderers.volume import VolumeRendererConfig
from utils.config.loading import from_command_line
from utils.config.parts import Choice, StrictModel, discover
from utils.distributed import choose_device
from utils.errors import InputError

discover("models.rendering.renderers")  # a renderer is found by lying in its folder


class ShowingConfig(StrictModel):
    """How a run is shown."""

    renderer: Choice[RendererConfig] = VolumeRendererConfig()


def read_renderer(text: str | None) -> RendererConfig:
    """A renderer's config from its name, or from a YAML mapping with its `type`; None: the volume.

    Raises InputError for an unknown one, and for wrong keys.
    """
    if text is None:
        return VolumeRendererConfig()
    key = "renderer" if text.lstrip().startswith("{") else "renderer.type"
    return from_command_line([f"{key}={text}"], ShowingConfig).renderer


def source_of(run: Run) -> Source:
    """What renderers and paths need of a run."""
    cameras = run.cameras[run.splits["train"]]
    return Source(run.folder, run.device, cameras, run.world_from_scene, run.up, run.model)


def open_shown(path: str | Path, renderer: RendererConfig | None, device: str = "auto") -> tuple[Source, Renderer]:
    """A run folder or a checkpoint with a renderer (None: the volume), or an asset with its own.

    Raises InputError for what cannot be opened, and for an asset with another renderer.
    """
    if is_asset(path):
        if renderer is not None:
            raise InputError(f"--renderer: {path} is an asset, which says how it is rendered - expected no renderer")
        asset, on = Asset.open(path), choose_device(device)
        return asset.source(Path(path), on), asset.renderer(on)
    source = source_of(Run.open(path, device=device))
    return source, (renderer or VolumeRendererConfig()).build(source)
