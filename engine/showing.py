"""What is shown, by which renderer and along which path: a run by any, an asset by its own."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataio.normalize import moved
from engine.early import part_override
from engine.run import Run
from models.rendering.asset import Asset, is_asset
from models.rendering.renderers.base import Renderer, RendererConfig, Source
from models.rendering.renderers.volume import VolumeRendererConfig
from utils.config.loading import from_command_line
from utils.config.parts import Choice, StrictModel, discover
from utils.distributed import choose_device
from utils.errors import InputError
from utils.paths.base import PathConfig, Photographs
from utils.paths.kinds.file import FilePath
from utils.paths.kinds.spiral import SpiralPath

for package in ("models.rendering.renderers", "utils.paths.kinds"):
    discover(package)  # a renderer, and a path, is found by lying in its folder


class ShowingConfig(StrictModel):
    """How a run is shown."""

    renderer: Choice[RendererConfig] = VolumeRendererConfig()
    path: Choice[PathConfig] = SpiralPath()


class Shown(NamedTuple):
    """What is shown and what shows it. run: None for an asset."""

    source: Source
    renderer: Renderer
    run: Run | None


def read_renderer(text: str | None) -> RendererConfig:
    """A renderer's config from its name, or from a YAML mapping with its `type`; None: the volume.

    Raises InputError for an unknown one, and for wrong keys.
    """
    if text is None:
        return VolumeRendererConfig()
    return from_command_line([part_override(text, "renderer")], ShowingConfig).renderer


def read_path(text: str) -> PathConfig:
    """A camera path from its name, from a YAML mapping with its `type`, or from a .json file. Raises InputError."""
    if text.lower().endswith(".json") and not text.lstrip().startswith("{"):
        return FilePath(path=Path(text).expanduser())
    return from_command_line([part_override(text, "path")], ShowingConfig).path


def source_of(run: Run) -> Source:
    """What renderers and paths need of a run."""
    cameras = run.cameras[run.splits["train"]]
    return Source(run.folder, run.device, cameras, run.world_from_scene, run.up, run.model)


def photographs_of(source: Source, run: Run | None) -> Photographs:
    """What camera paths are made from, world frame: all views of a run, or the training views that an asset has."""
    cameras = (source.cameras if run is None else run.cameras).to("cpu")
    below = np.broadcast_to([0.0, 0.0, 0.0, 1.0], (len(cameras), 1, 4))
    poses = np.concatenate([cameras.camera_to_world.double().numpy(), below], axis=1)
    return Photographs(
        camera_to_world=moved(poses, source.world_from_scene)[:, :3],
        intrinsics=cameras.intrinsics.double().numpy(),
        size=cameras.size.numpy(),
        up=source.up,
        names=[] if run is None else run.names,
        splits={"train": np.arange(len(cameras))} if run is None else run.splits,
    )


def open_shown(path: str | Path, renderer: RendererConfig | None, device: str = "auto") -> Shown:
    """A run folder or a checkpoint with a renderer (None: the volume), or an asset with its own.

    Raises InputError for what cannot be opened, and for an asset with another renderer.
    """
    if is_asset(path):
        if renderer is not None:
            raise InputError(f"--renderer: {path} is an asset, which says how it is rendered - expected no renderer")
        asset, on = Asset.open(path), choose_device(device)
        return Shown(asset.source(Path(path), on), asset.renderer(on), None)
    run = Run.open(path, device=device)
    source = source_of(run)
    return Shown(source, (renderer or VolumeRendererConfig()).build(source), run)
