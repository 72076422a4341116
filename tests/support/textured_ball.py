"""Photographs of a ball with noise on it, in closed form: truth for what compares photographs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from benchmarks.surroundings import noise
from dataio.cameras import Cameras
from dataio.formats.procedural import ProceduralData
from dataio.pictures.pictures import Pictures
from dataio.scene import Scene
from tests.support.made_data import ring_poses

RADIUS, FOCAL = 0.6, 300.0
WAVES = 24  # of the noise per unit


def textured_ball(count: int, size: int) -> tuple[Cameras, list[np.ndarray]]:
    """A ring of views at distance 3.2 around the origin, square pictures of a ball before gray."""
    cameras = Cameras.make(ring_poses(count), [FOCAL, FOCAL, size / 2, size / 2], [size, size])
    pictures = []
    for view in range(count):
        rays = cameras.rays(torch.full((size * size,), view), cameras.pixel_grid(view))
        origin, direction = rays.origins.double().numpy(), rays.directions.double().numpy()
        along = -(origin * direction).sum(-1)
        under = RADIUS**2 - (origin**2).sum(-1) + along**2
        at = origin + (along - np.sqrt(np.maximum(under, 0)))[:, None] * direction
        shade = sum(noise(WAVES * at[:, axes], seed) for seed, axes in enumerate(([0, 1], [1, 2], [2, 0]))) / 3
        gray = np.where(under > 0, shade, 0.5)
        pictures.append(np.repeat((255 * gray).round().astype(np.uint8).reshape(size, size, 1), 3, -1))
    return cameras, pictures


def scene_of_ball(count: int, size: int) -> Scene:
    """The same as a scene whose frame is that of the ball; all views are for training."""
    cameras, pictures = textured_ball(count, size)
    plain = ProceduralData(views=2, test_views=0, size=8, masks="off").load()
    splits = {"train": np.arange(count), "test": np.arange(0)}
    names = [f"{view}" for view in range(count)]
    return replace(plain, cameras=cameras, images=Pictures.of(pictures), splits=splits, names=names)
