"""What a picture can show of a frame, tile by tile: each mode by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.rendering.frames import Frame, Tile
from models.rendering.renderers.base import RendererConfig
from utils.errors import InputError
from utils.pictures.images import Picture, color_depth, color_error, color_normal, shade_normal, to_uint8

SOLID = 0.5  # opacity from which on a ray has a depth and a normal


@dataclass(frozen=True)
class Look:
    """What a mode is made of: a tile of R pixels, or a whole frame, [H, W] in the place of [R].

    along: the directions of its rays, which few modes ask for. truth: [R, 3] the photograph's, uint8. span: depths at
    the colors' ends, scene units.
    """

    tile: Tile | Frame
    along: Callable[[], NDArray[np.float32]]
    truth: Picture | None = None
    span: tuple[float, float] = (0.0, 1.0)

    @cached_property
    def directions(self) -> NDArray[np.float32]:
        """[R, 3] of the rays, scene frame."""
        return self.along()

    @property
    def solid(self) -> NDArray[np.bool_]:
        """[R] where there is something."""
        return self.tile.opacity.numpy() > SOLID


@dataclass(frozen=True)
class Mode:
    """paint: the colors [R, 3] uint8 of a tile's pixels.

    needs: what the renderer must make, "rgb", "depth" or "normal". by: which renderer makes it, None: the chosen one.
    bar: whose span a color bar shows. photograph: whether it is beside one.
    """

    label: str
    paint: Callable[[Look], Picture]
    needs: Literal["rgb", "depth", "normal"] | None = None
    by: Literal["mesh", "wireframe", "photograph"] | None = None
    bar: Literal["depth", "error"] | None = None
    photograph: bool = False


def _array(values: Tensor | None) -> NDArray[Any]:
    assert values is not None
    return values.numpy()


def _error(look: Look) -> Picture:
    assert look.truth is not None
    return color_error(to_uint8(_array(look.tile.color)), look.truth)


def _opacity(look: Look) -> Picture:
    shade = np.rint(look.tile.opacity.numpy().clip(0.0, 1.0) * 255.0).astype(np.uint8)
    return np.repeat(shade[:, None], 3, axis=1)


def _rgb(look: Look) -> Picture:
    return to_uint8(_array(look.tile.color))


def _shape(look: Look) -> Picture:
    return shade_normal(_array(look.tile.normal), look.directions, look.solid)


def _normal(look: Look) -> Picture:
    return color_normal(_array(look.tile.normal), look.solid)


def _depth(look: Look) -> Picture:
    return color_depth(look.tile.depth.numpy(), look.solid, *look.span)


MODES: dict[str, Mode] = {
    "rgb": Mode("color", _rgb, "rgb"),
    "shape": Mode("shape", _shape, "normal"),
    "normal": Mode("normals", _normal, "normal"),
    "depth": Mode("depth", _depth, "depth", bar="depth"),
    "opacity": Mode("opacity", _opacity),
    "mesh": Mode("mesh", _shape, "normal", by="mesh"),
    "wireframe": Mode("wireframe", _rgb, "rgb", by="wireframe"),
    "truth": Mode("photograph", _rgb, "rgb", by="photograph", photograph=True),
    "error": Mode("error", _error, "rgb", bar="error", photograph=True),
}
USUAL = ("rgb", "shape", "normal", "depth")  # where no modes are named


def makable(config: RendererConfig, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """The wanted modes, None: the usual ones that the renderer makes. Raises InputError for others than it makes."""

    def makes(mode: Mode) -> bool:
        return mode.by is not None or mode.needs is None or mode.needs in config.modes

    missing = [name for name in wanted or () if not makes(MODES[name])]
    if missing:
        made = ",".join(name for name, mode in MODES.items() if makes(mode))
        type_ = config.model_dump()["type"]
        raise InputError(f"--modes: the renderer {type_} makes no {missing[0]} - expected some of {made}")
    return wanted or tuple(name for name in USUAL if makes(MODES[name]))
