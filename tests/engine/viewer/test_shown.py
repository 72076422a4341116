"""What the viewer shows and writes: depth before a camera, a mesh alone, key frames as a path, a crop box."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

import view
from dataio.cameras import Cameras
from engine.viewer.keyframes import KeyFrame, path_through, write_next
from engine.viewer.shown import MESH, NOTHING, depth_along_axis, glb_of, open_mesh, picture_of
from models.rendering.frames import Frame, Tile
from models.rendering.renderers.base import Renderer
from tests.support.made_runs import WORLD, ball, ring_cameras
from utils.errors import InputError
from utils.meshing.glb import read_glb
from utils.meshing.mesh import FORMATS, vertex_colors, write_mesh
from utils.paths.path_file import read_path


def test_a_mesh_alone_is_moved_into_its_unit_sphere(tmp_path: Path) -> None:
    write_mesh(tmp_path / "ball.ply", ball().apply_transform(WORLD))
    shown = open_mesh(tmp_path / "ball.ply")
    assert shown.views == [MESH] and shown.renderer is None and shown.mesh is not None
    assert np.abs(shown.mesh.bounds) == pytest.approx(1 / 3**0.5, abs=1e-6), "the corners of its box lie on the sphere"
    world = shown.source.world_from_scene
    assert world[:3, 3] == pytest.approx(WORLD[:3, 3], abs=1e-6) and world[0, 0] == pytest.approx(3**0.5, abs=1e-6)


def test_a_browser_gets_the_axes_and_colors_of_a_mesh(tmp_path: Path) -> None:
    (tmp_path / "mesh.glb").write_bytes(glb_of(ball()))
    mesh, colors, _ = read_glb(tmp_path / "mesh.glb")
    own = vertex_colors(ball())
    assert own is not None and colors is not None and np.abs(colors.astype(int) - own).max() <= 1
    assert np.allclose(mesh.vertices, ball().vertices, atol=1e-6)


def test_depth_is_measured_along_the_axis() -> None:
    """At 60 degrees from it half of the distance; what is nothing is far away."""
    opacity = torch.tensor([[1.0, 1.0, 0.2]])
    frame = Frame(torch.zeros(1, 3, 3), torch.tensor([[2.0, 2.0, 2.0]]), torch.zeros(1, 3, 3), opacity)
    ways = np.array([[[0.0, 0, 1], [0.75**0.5, 0, 0.5], [0, 0, 1]]], np.float32)
    found = depth_along_axis(frame, ways, np.array([0.0, 0, 1], np.float32))
    assert found[0].tolist() == pytest.approx([2.0, 1.0, NOTHING])


@pytest.mark.parametrize("name, pixel", [("color", 51), ("normals", 128), ("shape", 230)])
def test_views_of_a_frame(name: str, pixel: int) -> None:
    normal = torch.tensor([[[0.0, 0.0, -1.0]]])
    frame = Frame(torch.full((1, 1, 3), 0.2), torch.ones(1, 1), normal, torch.ones(1, 1))
    assert abs(int(picture_of(name, frame, np.array([[[0, 0, 1.0]]], np.float32))[0, 0, 0]) - pixel) <= 1


def test_a_path_goes_through_its_key_frames(tmp_path: Path) -> None:
    """Of three keys nine frames: the first, the fifth and the last are they, in the world; render.py reads them."""
    poses = ring_cameras().camera_to_world.double().numpy()[:3]
    keys = [KeyFrame(pose, fov) for pose, fov in zip(poses, (0.5, 0.6, 0.8), strict=True)]
    place = write_next(tmp_path / "paths", path_through(keys, 9, (640, 480), WORLD), 20.0)
    assert write_next(tmp_path / "paths", path_through(keys, 2, (640, 480), WORLD), 20.0).name == "path_002.json"
    found = read_path(place)
    assert found.size == (640, 480) and len(found.camera_to_world) == 9
    for frame, key in ((0, keys[0]), (4, keys[1]), (8, keys[2])):
        pose = found.camera_to_world[frame]
        assert pose[:, 3] == pytest.approx(WORLD[:3, :3] @ key.pose[:, 3] + WORLD[:3, 3], abs=1e-6)
        assert pose[:, :3] == pytest.approx(WORLD[:3, :3] / 2 @ key.pose[:, :3], abs=1e-6)
        assert found.intrinsics[frame, 1] == pytest.approx(240 / np.tan(key.fov / 2), rel=1e-6)
    data = json.loads(place.read_text())
    assert data["fps"] == 20.0 and data["seconds"] == 0.45
    with pytest.raises(ValueError, match="2 key frames"):
        path_through(keys[:1], 9, (640, 480), WORLD)


def test_a_crop_box_is_said_in_the_world() -> None:
    """The frame turns by 90 degrees and doubles: x of the world is 5 - 2 y of the scene."""
    pytest.importorskip("viser")
    from engine.viewer.tools import crop_command

    low, high = np.array([-0.1, 0.2, 0.0]), np.array([0.3, 0.4, 0.5])
    said = crop_command(Path("runs/a b"), low, high, WORLD)
    assert said == "python extract_mesh.py 'runs/a b' --crop=4.2,-1.2,3,4.6,-0.4,4"


class Slow(Renderer):
    """A thousand rays a second, but for the first picture, which takes longer."""

    made = 0

    def tiles(self, cameras: Cameras, index: int, *, coarse: int = 1) -> Iterator[Tile]:
        count = int(cameras.size[index].prod())
        time.sleep(count / 1000 + (0.3 if self.made == 0 else 0))
        self.made += 1
        yield Tile(pixels=torch.arange(count), step=1, depth=torch.ones(count), opacity=torch.ones(count))


def test_a_viewer_knows_how_fast_it_renders_before_anybody_looks() -> None:
    """A picture of 32 x 21, of cameras with 60 x 40, before which one was compiled."""
    cameras: Any = SimpleNamespace(source=SimpleNamespace(cameras=ring_cameras()), renderer=Slow())
    rate = view.warm_up(cameras)
    assert rate is not None and 400 < rate <= 1000 and cameras.renderer.made == 2
    assert view.warm_up(SimpleNamespace(renderer=None)) is None  # type: ignore[arg-type]


def test_photographs_are_read_after_the_first_picture(capsys: pytest.CaptureFixture[str]) -> None:
    read: list[str] = []

    def load_scene() -> Any:
        read.append("now")
        raise InputError("data: no such folder")

    panel: Any = SimpleNamespace(painted=threading.Event(), shown=SimpleNamespace(run=SimpleNamespace()))
    panel.shown.run.load_scene = load_scene
    reading = threading.Thread(target=view.show_photographs, args=(panel,))
    reading.start()
    time.sleep(0.05)
    assert read == []
    panel.painted.set()
    reading.join(20)
    assert read == ["now"] and "no photographs in the cameras: data: no such folder" in capsys.readouterr().out


def test_places_to_look_from(tmp_path: Path) -> None:
    assert "ssh -L 7007:127.0.0.1:7007 " in view.places("127.0.0.1", 7007, None)
    assert view.places("::", 7007, "abc").startswith("http://[::]:7007/?token=abc\n")
    for suffix in FORMATS:
        path = tmp_path / f"x{suffix}"
        with pytest.raises(InputError, match="no such file"):
            view.folder_of(str(path), None, threading.Event())
        trimesh.creation.box().export(path)
        assert view.folder_of(str(path), None, threading.Event()) == tmp_path
