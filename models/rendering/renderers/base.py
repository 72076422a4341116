"""What every renderer offers, and what it is built from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch

from models.model import Model
from models.rendering.frames import Frame, Tile, frame_of, size_of
from utils.config.parts import Part
from utils.errors import InputError

if TYPE_CHECKING:
    from dataio.cameras import Cameras

Mode = Literal["rgb", "depth", "normal"]
MODES: tuple[Mode, ...] = ("rgb", "depth", "normal")


@dataclass(frozen=True)
class Source:
    """What is shown: of a run, or of an asset, which has no model.

    folder: the run's or the asset's. cameras: the photographs of training, scene frame, on `device`.
    world_from_scene: [4, 4]. up: [3], world frame.
    """

    folder: Path
    device: torch.device
    cameras: Cameras
    world_from_scene: npt.NDArray[np.float64]
    up: npt.NDArray[np.float64]
    model: Model | None = None

    @property
    def meshes(self) -> Path:
        """Where extract_mesh.py puts its meshes."""
        return self.folder / "meshes"

    def trained(self) -> Model:
        """The model; raises InputError where there is none."""
        if self.model is None:
            raise InputError(f"{self.folder}: has no network to render - expected a run folder")
        return self.model


class Renderer:
    """(Cameras, index) -> Frame, as a stream of tiles; cameras in the scene frame, on the source's device."""

    def tiles(self, cameras: Cameras, index: int, *, coarse: int = 1) -> Iterator[Tile]:
        """The image of camera `index`; who stops iterating stops the work. coarse: as of `frames.tiles`."""
        raise TypeError("a renderer defines tiles")

    def __call__(self, cameras: Cameras, index: int) -> Frame:
        """The whole image of camera `index`."""
        return frame_of(self.tiles(cameras, index), *size_of(cameras, index))


class RendererConfig(Part):
    """Turns cameras into frames."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """What its frames show; the rest of a frame is zero."""
        return MODES

    def build(self, source: Source) -> Renderer:
        """Raises InputError where the source lacks what it needs."""
        raise TypeError("a renderer config says how it is built")
