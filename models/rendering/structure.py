"""Grids and trees as pictures: their cells on the three planes through the middle, colored by depth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from models.cells import NOTHING, Cells
from models.structure import structures
from utils.pictures.images import Picture, color_depth
from utils.pictures.sheets import Panel, sheet

SIDE = 256  # pixels
PLANES = {"x = 0": (1, 2), "y = 0": (0, 2), "z = 0": (0, 1)}  # axes to the right and up
LEAST_WIDTH = 4  # pixels of a cell whose borders are drawn
DARKER = 0.6
MIDDLE = 1e-4  # beside the plane on which cells meet, scene units


def pictures_of(model: nn.Module) -> Iterator[tuple[str, Picture]]:
    """Name and picture [H, W, 3] of each part whose cells differ: three planes side by side."""
    device = next(model.buffers()).device
    planes = [points(*axes).to(device) for axes in PLANES.values()]
    for name, part in structures(model):
        found = [part.cells_at(plane) for plane in planes]
        slices = [cells for cells in found if cells is not None]
        if slices:
            deepest = max(int(cells.depth.max()) for cells in slices)
            panels = [Panel(drawn(cells, deepest), text) for cells, text in zip(slices, PLANES, strict=True)]
            yield name, sheet(panels, columns=len(panels))


def points(right: int, up: int) -> Tensor:
    """[S, S, 3] the middles of the pixels of a plane through the middle of the cube; rows from the top."""
    line = (torch.arange(SIDE) + 0.5) * (2 / SIDE) - 1
    found = torch.full((SIDE, SIDE, 3), MIDDLE)
    found[..., right], found[..., up] = line, line.flip(0)[:, None]
    return found


def drawn(cells: Cells, deepest: int) -> Picture:
    """[S, S, 3], each depth up to `deepest` in a color of its own, white where nothing is, borders darker."""
    depth, side = (x.cpu().numpy() for x in (cells.depth, cells.side))
    picture = color_depth(depth.astype(np.float64), depth != NOTHING, -1.0, deepest + 1.0)
    lines = borders(side) & (depth != NOTHING)
    picture[lines] = (picture[lines] * DARKER).astype(np.uint8)
    return picture


def borders(side: np.ndarray) -> np.ndarray:
    """[S, S] bool, where another cell begins on an axis, for cells of side [S, S] scene units that are wide enough."""
    line = (np.arange(SIDE) + 0.5) * (2 / SIDE)
    found = np.zeros(side.shape, bool)
    for axis in (0, 1):
        across = line[::-1, None] if axis == 0 else line[None]
        place = np.floor(across / side)
        found |= np.diff(place, axis=axis, append=np.take(place, [-1], axis)) != 0
    return found & (side * SIDE / 2 >= LEAST_WIDTH)
