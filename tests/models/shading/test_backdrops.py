"""What stands still before the cameras: the same color in the same place of every photograph."""

from __future__ import annotations

import pytest
import torch

from dataio.cameras import Cameras, Rays
from dataio.formats.procedural import ProceduralData
from models.backdrops.base import BackdropConfig
from models.backdrops.camera_frame import CameraFrame, CameraFrameConfig
from models.model import Model, ModelConfig
from models.rendering.frames import render_image
from utils.config.parts import discover, parts

discover("models.backdrops")
PLAIN = torch.tensor([0.25, 0.5, 0.75])
EMPTY = {  # a foreground that no ray hits anything in
    "bounds": "sphere",
    "sampler": {"type": "stratified", "samples": 4},
    "opacity": {"type": "density", "activation": "relu"},
    "field": {"type": "radiance", "density": {"layers": 1, "width": 8}, "features": 4, "initial_value": -100.0},
    "appearance": {"type": "mlp", "network": {"layers": 1, "width": 8}},
}


def scene_and_backdrop() -> tuple[Cameras, CameraFrame]:
    scene = ProceduralData(views=6, test_views=2, size=16).load()
    torch.manual_seed(0)
    backdrop = CameraFrameConfig().build(len(scene.cameras))
    with torch.no_grad():
        backdrop.encoding.get_parameter("table").uniform_(-1, 1)
    backdrop.initialize(scene.cameras)
    return scene.cameras, backdrop


def seen(cameras: Cameras, camera: int) -> Rays:
    pixels = cameras.pixel_grid(camera)
    return cameras.rays(torch.full((len(pixels),), camera), pixels)


def test_all_are_found_by_lying_in_the_folder() -> None:
    assert list(parts(BackdropConfig)) == ["camera_frame"]


def test_every_camera_sees_the_same_picture() -> None:
    cameras, backdrop = scene_and_backdrop()
    first, other = (backdrop(seen(cameras, camera), PLAIN) for camera in (0, 4))
    assert first.shape == (256, 3) and first.std(0).min() > 0.01
    torch.testing.assert_close(other, first, atol=2e-3, rtol=0)


def test_a_camera_without_a_photograph_sees_the_color_behind() -> None:
    cameras, backdrop = scene_and_backdrop()
    rays = seen(cameras, 1)
    rays.camera.fill_(-1)
    assert torch.equal(backdrop(rays, PLAIN), PLAIN.expand(256, 3))


def test_it_lies_behind_what_is_transparent_and_learns() -> None:
    scene = ProceduralData(views=6, test_views=2, size=16).load()
    torch.manual_seed(0)
    model = Model(
        ModelConfig.model_validate({"foreground": EMPTY, "backdrop": "camera_frame"}), cameras=len(scene.cameras)
    )
    model.initialize(scene)
    rays = seen(scene.cameras, 2)
    color = model(rays).color
    assert model.backdrop is not None
    torch.testing.assert_close(color, model.backdrop(rays, PLAIN))
    color.sum().backward()
    gradient = model.backdrop.get_parameter("encoding.table").grad
    assert gradient is not None and gradient.abs().max() > 0
    shown = render_image(model.eval(), scene.cameras, 2, photograph=True).color
    torch.testing.assert_close(shown.reshape(-1, 3), color.detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("key", ["backdrop", "poses"])
def test_a_model_without_it_names_it_as_absent(key: str) -> None:
    assert key in Model(ModelConfig.model_validate({"foreground": EMPTY})).absent
