"""Pictures of held-out views on the way."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dataio.scene import Scene
from models.model import Model
from models.rendering.frames import Frame, render_image
from utils.evaluation.image_metrics import psnr
from utils.pictures.images import Picture, color_depth, color_normal, depth_range, side_by_side, to_uint8

HANDFUL = 3  # views
MOST_PIXELS = 200 * 200  # a picture on the way may not cost more than this


def handful(views: NDArray[np.int64]) -> list[int]:
    """The held-out views that are shown at each validation: always the same few, evenly spread over all [V]."""
    return [int(view) for view in views[np.linspace(0, len(views) - 1, min(HANDFUL, len(views))).round().astype(int)]]


def validate(model: Model, scene: Scene, view: int, device: torch.device) -> tuple[Picture, float]:
    """One view of the scene as the model shows it now, in small.

    Returns photograph | rgb | depth | normal side by side, [H, 4 W, 3] uint8, and the PSNR of the rgb picture in dB.
    """
    photograph = scene.images[view]
    shrink = min(1.0, (MOST_PIXELS / (photograph.shape[0] * photograph.shape[1])) ** 0.5)
    frame = render_image(model, scene.cameras.scaled(shrink).to(device), view, photograph=True)
    photograph = resize(photograph, frame.depth.shape)
    return _panel(photograph, frame), float(psnr(frame.color, torch.from_numpy(photograph).float() / 255))


def resize(picture: Picture, shape: tuple[int, ...]) -> Picture:
    """A picture [H, W, 3] uint8 in another (height, width), by area averages."""
    return np.asarray(cv2.resize(picture, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.uint8)


def _panel(photograph: Picture, frame: Frame) -> Picture:
    depth, solid = frame.depth.numpy(), frame.opacity.numpy() > 0.5
    low, high = depth_range(depth, solid)
    colored = [color_depth(depth, solid, low, high), color_normal(frame.normal.numpy(), solid)]
    return side_by_side([photograph, to_uint8(frame.color.numpy()), *colored])
