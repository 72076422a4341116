"""The viewer as a whole: an analytic sphere behind a real server, seen by a client that moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.viewer.client import Client
from engine.viewer import remote
from engine.viewer.guard import Guard
from engine.viewer.shown import MESH, SLICE, Shown
from models.rendering.renderers.base import Source
from models.rendering.renderers.volume import VolumeRendererConfig
from tests.engine.viewer.test_guard import free_port
from tests.models.test_surface import CASES, surface_model
from tests.support import browser
from tests.support.made_runs import HELD_OUT, VIEWS, WORLD, ball, ring_cameras

viser = pytest.importorskip("viser")

FRONT = ((0.0, 0.0, -3.0), (1.0, 0.0, 0.0, 0.0))  # looks along z at the sphere
ASIDE = ((0.8, 0.0, -3.0), (1.0, 0.0, 0.0, 0.0))


def shown(folder: Path) -> Shown:
    cameras = ring_cameras()
    train, rest = cameras[torch.arange(VIEWS - HELD_OUT)], cameras[torch.arange(VIEWS - HELD_OUT, VIEWS)]
    model, up = surface_model(*CASES["logistic"]), np.array([0.0, 0.0, 1.0])
    source = Source(folder, torch.device("cpu"), train, WORLD, up, model)
    return Shown(source, VolumeRendererConfig().build(source), ("rgb", "depth", "normal"), ball(), rest)


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from engine.viewer.panel import Panel
    from engine.viewer.server import start_server

    server = start_server("127.0.0.1", free_port(), Guard.of("127.0.0.1", None), "test")
    yield Panel(server, shown(tmp_path_factory.mktemp("run")))
    server.stop()


def middle(picture: np.ndarray) -> np.ndarray:
    """The column with the middle of what is not the background."""
    solid = np.abs(picture.astype(int) - picture[0, 0]).sum(-1) > 60
    return np.asarray(np.flatnonzero(solid.any(0)).mean() / picture.shape[1])


def test_the_picture_follows_the_camera(panel: Any) -> None:
    """From the front the sphere is in the middle; from aside it is where the projection says."""
    with Client(panel.server.get_port()) as client:
        client.look(*FRONT)
        assert middle(client.picture(least_width=96)) == pytest.approx(0.5, abs=0.02)
        client.look(*ASIDE)
        time.sleep(0.2)
        while abs(middle(picture := client.picture(least_width=96)) - 0.5) < 0.02:
            pass
        focal = 0.5 * 64 / np.tan(0.35)
        assert middle(picture) == pytest.approx((48 - focal * 0.8 / 3.0) / 96, abs=0.03)


def test_a_client_gets_cameras_and_the_way_to_look(panel: Any) -> None:
    assert panel.shown.views == ["color", "shape", "normals", "depth", SLICE, MESH]
    assert panel.train_views() == list(range(VIEWS - HELD_OUT)) and len(panel.frusta) == VIEWS
    panel.set_thumbnail(0, np.zeros((4, 6, 3), np.uint8))
    with Client(panel.server.get_port()) as client:
        names = {message.get("name") for message in client.messages(10)}
        assert {"/cameras/train/0", f"/cameras/held_out/{HELD_OUT - 1}"} <= names


@pytest.mark.parametrize("view", ["shape", "normals", "depth", SLICE])
def test_views_are_chosen_for_all(panel: Any, view: str) -> None:
    panel.choose(view="color")
    with Client(panel.server.get_port()) as client:
        client.look(*FRONT)
        before = client.picture(least_width=96).astype(int)
        panel.choose(view=view)
        for _ in range(9):
            if np.abs(client.picture(least_width=96).astype(int) - before).mean() > 5:
                break
        else:
            pytest.fail("the picture stays")
    panel.choose(view="color")


def test_a_mesh_is_sent_when_it_is_looked_at(panel: Any) -> None:
    panel.choose(view=MESH)
    assert panel.mesh is not None and panel.mesh.visible
    with Client(panel.server.get_port()) as client:
        client.look(*FRONT)
        picture = client.picture()
        assert picture.shape == (1, 1, 3) and (picture == 255).all(), "the browser draws the rest"
    panel.choose(view="color")
    assert not panel.mesh.visible


def test_who_goes_leaves_nothing_and_garbage_ends_its_sender_alone(panel: Any) -> None:
    port = panel.server.get_port()
    with Client(port) as stays:
        stays.look(*FRONT)
        stays.picture(least_width=96)
        for i in range(10):
            with Client(port) as client:
                client.look(*FRONT)
                if i % 2:
                    client.socket.send(b"\xff\x00garbage")
        wait_for(lambda: len(panel.server.get_clients()) == 1 and panel.painter.idle)
        stays.look(*ASIDE)
        stays.picture(least_width=96)


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_key_frames_and_crop_box_leave_files_and_commands(
    panel: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from engine.viewer.keyframes import KeyFrame
    from engine.viewer.tools import CropTool, PathTool
    from utils.paths.path_file import read_path

    tool = PathTool(panel, tmp_path)
    window: Any = SimpleNamespace(camera=SimpleNamespace(image_width=321, image_height=200))
    tool.write(window)
    assert "two key frames" in tool.said.content
    for pose in ring_cameras().camera_to_world.double().numpy()[:3]:
        tool.add(KeyFrame(pose, 0.7))
    tool.remove()
    tool.write(window)
    found = read_path(tmp_path / "paths/path_001.json")
    assert len(found.camera_to_world) == 80 and found.size == (320, 200)
    assert f"python render.py {tmp_path} --path {tmp_path}/paths/path_001.json" in capsys.readouterr().out
    crop = CropTool(panel, tmp_path)
    crop.draw()
    crop.draw()
    assert f"python extract_mesh.py {tmp_path} --crop=" in crop.said.content


def test_a_training_is_paused_watched_and_let_go_on(panel: Any, tmp_path: Path) -> None:
    from engine.viewer.tools import LiveTool

    newer = shown(tmp_path)
    tool = LiveTool(panel, tmp_path, lambda: newer)
    assert tool.pause.disabled and "not running" in tool.said.content
    tool.switch()
    assert (tmp_path / remote.PAUSE).exists() and (tmp_path / remote.SAVE).exists() and tool.pause.label == "resume"
    tool.switch()
    assert not (tmp_path / remote.PAUSE).exists() and tool.pause.label == "pause"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/latest").write_text("step_00000007\n")
    tool.refresh()
    tool.switch()
    tool.end()
    assert not (tmp_path / remote.PAUSE).exists(), "who looks no more holds up nobody"
    assert panel.shown is newer and tool.newest == "step_00000007"


@pytest.mark.slow
def test_in_a_browser_the_picture_turns_with_the_mouse(panel: Any) -> None:
    """A minute where a processor draws what a graphics card is made for."""
    with browser.opened(f"http://127.0.0.1:{panel.server.get_port()}", offline=False) as (page, said):
        page.wait_for_timeout(15_000)
        before = page.locator("canvas").first.screenshot(timeout=60_000)
        page.mouse.move(200, 400)
        page.mouse.down()
        page.mouse.move(330, 420, steps=3)
        page.mouse.up()
        page.wait_for_timeout(10_000)
        after = page.locator("canvas").first.screenshot(timeout=60_000)
    assert said == [] and before != after
