"""Pictures of held-out views on the way."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dataio.pictures.images import resized
from dataio.scene import Scene
from dataio.views import evenly_chosen
from models.model import Model
from models.rendering.frames import Frame, render_image
from utils.evaluation.image_metrics import psnr
from utils.pictures.images import WORST_ERROR, Picture, color_depth, color_error, color_normal, depth_range, to_uint8
from utils.pictures.sheets import Panel, sheet

HANDFUL = 3  # views
MOST_PIXELS = 200 * 200  # a picture on the way may not cost more than this


def handful(views: NDArray[np.int64], count: int = HANDFUL) -> list[int]:
    """The views that are shown at each validation: always the same few, evenly spread over all [V]."""
    return [int(view) for view in views[evenly_chosen(len(views), count)]]


def training_psnr(model: Model, scene: Scene, device: torch.device) -> float:
    """Mean PSNR of training views, dB, as many and shown as the held-out ones, whose PSNR should be near to it."""
    shown = handful(scene.splits["train"], len(handful(scene.splits["test"])))
    return sum(_shown(model, scene, view, device)[2] for view in shown) / len(shown)


def validate(model: Model, scene: Scene, view: int, device: torch.device, *, step: int) -> tuple[Picture, float]:
    """One view of the scene as the model shows it now, after so many steps, in small.

    Returns photograph | rgb | error | depth | normal side by side with captions, [H, W, 3] uint8, and the PSNR of the
    rgb picture in dB.
    """
    frame, photograph, quality = _shown(model, scene, view, device)
    unit = float(np.cbrt(np.linalg.det(scene.world_from_scene[:3, :3])))
    rendered = to_uint8(frame.color.numpy())
    shown = Panel(photograph, scene.names[view]), Panel(rendered, f"step {step}, {quality:.2f} dB")
    return sheet([*shown, _error(rendered, photograph), *_geometry(frame, unit)], columns=5), quality


def _shown(model: Model, scene: Scene, view: int, device: torch.device) -> tuple[Frame, Picture, float]:
    """A view in small, its photograph [H, W, 3] uint8 in the same size, and the PSNR of its colors, dB."""
    photograph = scene.images[view]
    shrink = min(1.0, (MOST_PIXELS / (photograph.shape[0] * photograph.shape[1])) ** 0.5)
    frame = render_image(model, scene.cameras.scaled(shrink).to(device), view, photograph=True)
    height, width = frame.depth.shape
    photograph = np.array(resized(photograph, (width, height)))
    return frame, photograph, float(psnr(frame.color, torch.from_numpy(photograph).float() / 255))


def _error(rendered: Picture, photograph: Picture) -> Panel:
    """How far a rendering [H, W, 3] is from the photograph, pixel by pixel: the root mean square of its channels."""
    return Panel(color_error(rendered, photograph), "error", (0.0, WORST_ERROR))


def _geometry(frame: Frame, unit: float) -> list[Panel]:
    """Depth and normals. unit: the size of a scene unit in those that the color bar counts in."""
    depth, solid = frame.depth.numpy(), frame.opacity.numpy() > 0.5
    low, high = depth_range(depth, solid)
    return [
        Panel(color_depth(depth, solid, low, high), "depth", (low * unit, high * unit)),
        Panel(color_normal(frame.normal.numpy(), solid), "normals"),
    ]
