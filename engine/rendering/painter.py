"""Frames as sheets of panels, painted tile by tile: memory does not grow with the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dataio.cameras import Cameras
from dataio.lens import Lens
from engine.rendering.modes import MODES, SOLID, Look
from models.rendering.frames import size_of, through
from models.rendering.renderers.base import Renderer
from utils.pictures.images import WORST_ERROR, Picture, depth_range
from utils.pictures.sheets import Panel
from utils.pictures.spool import Spool

SMALL = 64.0  # pixels of the longer side, where depths are looked at first
LOOKED_AT = 16  # frames of those


@dataclass(frozen=True)
class Painted:
    """A frame: its panels, and z depth [H, W] float32 in units that are shown, where that is wanted."""

    panels: list[Panel]
    depth: Spool | None = None


@dataclass(frozen=True)
class Painter:
    """Paints the frames of cameras.

    renderers: by name, None the chosen one; those that the modes need. span: depths at the colors' ends, scene units;
    unit: the size of one of these in those that are shown. truth: the photograph [H, W, 3] of a frame in its size.
    depths: whether depths are kept too.
    """

    renderers: Mapping[str | None, Renderer]
    cameras: Cameras
    modes: tuple[str, ...]
    span: tuple[float, float] = (0.0, 1.0)
    unit: float = 1.0
    truth: Callable[[int], Picture] | None = None
    depths: bool = False

    def __call__(self, index: int) -> Painted:
        """The frame of camera `index`."""
        width, height = size_of(self.cameras, index)
        spools = {name: Spool(height, width, (3,), np.uint8) for name in self.modes}
        depth = Spool(height, width, (), np.float32) if self.depths else None
        off = 0.0
        for by in dict.fromkeys([MODES[name].by for name in self.modes] + [None] * self.depths):
            mine = [name for name in self.modes if MODES[name].by == by]
            for look in self._looks(by, index):
                for name in mine:
                    spools[name].append(MODES[name].paint(look))
                if by is None and depth is not None:
                    depth.append(self._z_depth(look, index))
                off += squared_error(look) if "error" in mine else 0.0
        quality = -10.0 * np.log10(max(off / (3 * width * height), 1e-10))
        return Painted([self._panel(name, spools[name], quality) for name in self.modes], depth)

    def _looks(self, by: str | None, index: int) -> Iterator[Look]:
        """What the modes of a renderer see, tile by tile in the order of the pixels."""
        truth = None if self.truth is None else self.truth(index).reshape(-1, 3)
        for tile in self.renderers[by].tiles(self.cameras, index):
            photograph = None if truth is None else truth[tile.pixels.numpy()]
            yield Look(tile, partial(self._directions, index, tile.pixels), photograph, self.span)

    def _directions(self, index: int, pixels: Tensor) -> NDArray[np.float32]:
        width, _ = size_of(self.cameras, index)
        return through(self.cameras, index, pixels.to(self.cameras.size.device), width).directions.cpu().numpy()

    def _z_depth(self, look: Look, index: int) -> NDArray[np.float32]:
        """[R] along the optical axis (of a panorama along the ray), 0 where nothing is."""
        along = look.tile.depth.numpy() * self.unit
        if int(self.cameras.lens[index]) != Lens.EQUIRECTANGULAR:
            along = along * (look.directions @ self.cameras.forward[index].cpu().numpy())
        return np.where(look.solid, along, 0.0).astype(np.float32)

    def _panel(self, name: str, picture: Spool, quality: float) -> Panel:
        mode = MODES[name]
        spans = {"depth": (self.span[0] * self.unit, self.span[1] * self.unit), "error": (0.0, WORST_ERROR)}
        label = f"{mode.label} {quality:.2f} dB" if name == "error" else mode.label
        return Panel(picture, label, spans.get(mode.bar or ""))


def squared_error(look: Look) -> float:
    """The sum over pixels and channels of the squared difference from the photograph, colors in [0, 1]."""
    assert look.truth is not None and look.tile.color is not None
    return float(((look.tile.color.double().numpy() - look.truth / 255.0) ** 2).sum())


def whole_depth_range(renderer: Renderer, cameras: Cameras) -> tuple[float, float]:
    """One range of depth for all frames, scene units, from every few of them in small."""
    small = cameras.scaled(min(1.0, SMALL / float(cameras.size.max())))
    some = np.unique(np.linspace(0, len(cameras) - 1, LOOKED_AT).round().astype(int))
    frames = [renderer(small, int(index)) for index in some]
    depth = np.concatenate([frame.depth.numpy().ravel() for frame in frames])
    solid = np.concatenate([frame.opacity.numpy().ravel() > SOLID for frame in frames])
    return depth_range(depth, solid)
