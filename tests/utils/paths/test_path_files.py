"""Camera paths of nerfstudio: key frames, times, camera types, and the frame of its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.showing import read_path as chosen_path
from tests.utils.paths.test_kinds import shot
from utils.errors import InputError
from utils.paths.base import CameraPath
from utils.paths.nerfstudio_frame import NAME
from utils.paths.path_file import read_file, read_path, write_path

# A quarter turn about z, then a shift, then half the size: p' = 0.5 (turn p + shift).
TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
FRAME = {"transform": np.column_stack([TURN, [1.0, 2.0, 3.0]]).tolist(), "scale": 0.5}


def matrix(*place: float) -> list[float]:
    found = np.eye(4)
    found[:3, 3] = place
    return found.ravel().tolist()


def written(folder: Path, **changes: Any) -> Path:
    keys = [{"matrix": matrix(x, 0, 9), "fov": fov, "aspect": 1.5} for x, fov in ((0, 60.0), (3, 40.0))]
    cameras = [{"camera_to_world": matrix(i, 0, 9), "fov": 60.0, "aspect": 1.5} for i in range(4)]
    data = {
        "camera_type": "perspective", "render_width": 60, "render_height": 40, "fps": 24, "seconds": 0.5,
        "is_cycle": False, "keyframes": keys, "camera_path": cameras, **changes,
    }  # fmt: skip
    (folder / "path.json").write_text(json.dumps(data))
    return folder / "path.json"


def along(file: Path, frames: int | None) -> CameraPath:
    return chosen_path(str(file)).cameras(shot(), frames)


def test_the_files_own_cameras_and_time(tmp_path: Path) -> None:
    found = along(written(tmp_path), None)
    assert found.camera_to_world[:, :, 3].tolist() == [[i, 0, 9] for i in range(4)]
    assert found.fps == 8.0, "as nerfstudio plays it: 4 cameras in 0.5 seconds"
    assert along(written(tmp_path), 4).fps == 8.0
    assert along(written(tmp_path, seconds=None), None).fps == 24.0
    assert along(written(tmp_path, seconds=None, fps=None), None).fps is None


def test_key_frames_are_met_with_their_field_of_view(tmp_path: Path) -> None:
    found = along(written(tmp_path), 7)
    assert found.camera_to_world[[0, -1], 0, 3] == pytest.approx([0.0, 3.0], abs=1e-9) and len(found) == 7
    focal = 20.0 / np.tan(np.radians([30.0, 20.0]))
    assert found.intrinsics[[0, -1], 0] == pytest.approx(focal)
    assert found.intrinsics[3, 1] == pytest.approx(np.sqrt(focal.prod())), "in proportion between"
    alone = along(written(tmp_path, camera_path=[]), None)
    assert len(alone) == 12 and alone.fps == 24.0, "fps times seconds"
    assert len(along(written(tmp_path, camera_path=[], seconds=None), None)) == 80
    ring = along(written(tmp_path, is_cycle=True), 6).camera_to_world[:, 0, 3]
    assert ring[[0, 3]] == pytest.approx([0.0, 3.0], abs=1e-9) and ring[5] < 3.0


def test_camera_types(tmp_path: Path) -> None:
    fisheye, round_about = (along(written(tmp_path, camera_type=t), None) for t in ("FISHEYE", "equirectangular"))
    assert fisheye.projection == "fisheye" and fisheye.intrinsics[0, 0] == pytest.approx(20.0 / np.tan(np.radians(30)))
    assert round_about.projection == "equirectangular"
    assert round_about.intrinsics[0] == pytest.approx([60 / (2 * np.pi), 40 / np.pi, 30.0, 20.0])


def test_the_frame_of_nerfstudios_data_is_undone(tmp_path: Path) -> None:
    """A world point that is before a camera in nerfstudio's frame is before the same camera in the world."""
    (tmp_path / NAME).write_text(json.dumps(FRAME))
    found = read_path(written(tmp_path)).camera_to_world[1]
    point = np.array([4.0, -5.0, 6.0])
    theirs = 0.5 * (TURN @ point + [1.0, 2.0, 3.0])
    local = (theirs - [1.0, 0.0, 9.0]) * [1.0, -1.0, -1.0]  # OpenGL axes to OpenCV's
    assert found[:, :3].T @ (point - found[:, 3]) == pytest.approx(local / 0.5)


@pytest.mark.parametrize("beside", [False, True])
def test_what_is_written_comes_back(tmp_path: Path, beside: bool) -> None:
    if beside:
        (tmp_path / NAME).write_text(json.dumps(FRAME))
    orbit = chosen_path("orbit").cameras(shot(), 30)
    write_path(tmp_path / "out.json", orbit, fps=15.0)
    found = read_file(tmp_path / "out.json")
    assert found.cameras is not None and found.keys is not None
    assert found.cameras.camera_to_world == pytest.approx(orbit.camera_to_world, abs=1e-9)
    assert found.cameras.intrinsics == pytest.approx(orbit.intrinsics) and found.cameras.size == (60, 40)
    assert found.fps == 15.0 and found.seconds == 2.0 and len(found.keys) == 24
    text = json.loads((tmp_path / "out.json").read_text())
    assert text["camera_type"] == "perspective"
    assert text["keyframes"][0]["matrix"] == text["camera_path"][0]["camera_to_world"]
    world = np.vstack([orbit.camera_to_world[0], [0, 0, 0, 1]]) @ np.diag([1, -1, -1, 1])
    assert (np.array(text["camera_path"][0]["camera_to_world"]) == pytest.approx(world.ravel())) is not beside


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"camera_type": "vr180"}, "camera_type"),
        ({"camera_type": 5}, "camera_type"),
        ({"fps": 0}, "fps"),
        ({"seconds": -1}, "seconds"),
        ({"fps": "fast"}, "fps"),
        ({"keyframes": [{"fov": 50.0}]}, "keyframes[0]"),
        ({"keyframes": 5}, "keyframes"),
        ({"keyframes": [], "camera_path": None}, "camera_path"),
        ({"keyframes": [], "camera_path": [], "seconds": 1e6, "fps": 1000}, "camera_path"),
        ({"camera_path": [], "seconds": 1e6, "fps": 1000}, "fps and seconds"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        along(written(tmp_path, **changes), None)
    assert said in str(caught.value) and "path.json" in str(caught.value) and "\n" not in str(caught.value)


def test_more_frames_need_key_frames(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no two key frames"):
        along(written(tmp_path, keyframes=[]), 9)


NO_SIZE, FLAT = json.dumps({**FRAME, "scale": 0}), json.dumps({**FRAME, "transform": [[0] * 4] * 3})


@pytest.mark.parametrize("content", ["[]", "{", '{"scale": 1}', NO_SIZE, FLAT])
def test_a_wrong_frame_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with pytest.raises(InputError, match=NAME):
        read_path(written(tmp_path))
