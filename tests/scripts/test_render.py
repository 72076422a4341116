"""render.py: the cameras of its paths, its options, and all that one command makes."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import bake
import render
from dataio.cameras import Cameras
from engine.rendering.along import cameras_along
from engine.rendering.modes import makable
from engine.rendering.photographs import photographs
from engine.rendering.request import Request, frame_names
from engine.showing import open_shown, photographs_of, read_path, read_renderer, source_of
from tests.models.test_surface import CASES, surface_model
from tests.scripts.test_scripts_out import WORLD, made_up_run
from tests.support.analytic import RADIUS
from utils.errors import InputError
from utils.meshing.mesh import transformed, write_mesh
from utils.paths.base import CameraPath
from utils.paths.path_file import read_path as read_file


def along(run: Any, path: str, frames: int | None = None) -> Cameras:
    """The cameras of a path past a run, scene frame."""
    source = source_of(run)
    return cameras_along(read_path(path).cameras(photographs_of(source, run), frames), source, run)


@pytest.mark.parametrize("path", ["spiral", "interpolate", "orbit"])
def test_path_cameras_have_median_intrinsics(tmp_path: Path, path: str) -> None:
    cameras = along(made_up_run(tmp_path), path, 7)
    assert len(cameras) == 7
    assert cameras.intrinsics.tolist() == [[64.0, 64.0, 30.0, 20.0]] * 7
    assert cameras.size.tolist() == [[60, 40]] * 7
    inward = -(cameras.centers * cameras.forward).sum(1) / cameras.centers.norm(dim=1)
    assert inward.min() > 0.99


def test_lengths_of_a_path_are_world_units(tmp_path: Path) -> None:
    """A world unit is half a scene unit; the cameras look at the scene's center."""
    cameras = along(made_up_run(tmp_path), "{type: orbit, radius: 8, height: 2}", 5)
    assert cameras.centers[:, 2].tolist() == pytest.approx([1.0] * 5, abs=1e-5)
    assert cameras.centers[:, :2].norm(dim=1).tolist() == pytest.approx([4.0] * 5, abs=1e-5)


def test_given_views_are_the_runs_own_cameras(tmp_path: Path) -> None:
    run = made_up_run(tmp_path)
    for path, views in (("views", [9]), ("{type: views, views: [3, view_0]}", [3, 0])):
        cameras = along(run, path)
        assert torch.equal(cameras.camera_to_world, run.cameras.camera_to_world[views])
        assert torch.equal(cameras.intrinsics, run.cameras.intrinsics[views])
    through = along(run, "{type: interpolate, views: [0, 4, 7]}", 33).camera_to_world
    off = (through[:, None] - run.cameras.camera_to_world[[0, 4, 7]]).abs().amax((2, 3))
    assert off.amin(0).max() < 1e-6


def written_path(folder: Path, **changes: Any) -> Path:
    """A path of two cameras in the world, as nerfstudio writes it."""
    matrix = np.eye(4)  # OpenGL axes: looks along -z, y is up
    matrix[:3, 3] = [5.0, -1.0, 9.0]
    camera = {"camera_to_world": matrix.ravel().tolist(), "fov": 90.0, "aspect": 1.5}
    data = {"render_width": 60, "render_height": 40, "fps": 24, "camera_path": [camera, camera]} | changes
    (folder / "path.json").write_text(json.dumps(data))
    return folder / "path.json"


def test_path_file_is_read_in_the_world_frame(tmp_path: Path) -> None:
    cameras = along(made_up_run(tmp_path), str(written_path(tmp_path)))
    assert len(cameras) == 2 and (cameras.near == 0).all(), "the file says how many, and where"
    assert cameras.size.tolist() == [[60, 40]] * 2
    assert cameras.intrinsics[0].tolist() == pytest.approx([20.0, 20.0, 30.0, 20.0]), "vertical field of view"
    pixel, depth = cameras.project(torch.tensor([[0.0, 0.0, 0.0]]), 0)
    assert pixel[0].tolist() == pytest.approx([30.0, 20.0], abs=1e-4), "it looks at the scene's center"
    assert depth.item() == pytest.approx(3.0, abs=1e-5), "six world units are three of the scene"


def test_path_files_of_a_map_keep_their_places(tmp_path: Path) -> None:
    """At UTM coordinates float32 would move a camera by half a meter."""
    run = made_up_run(tmp_path)
    run.world_from_scene = WORLD + np.array([[0, 0, 0, 5e5], [0, 0, 0, 5.6e6], [0] * 4, [0] * 4])
    matrix = np.eye(4)
    matrix[:3, 3] = [500_005.25, 5_599_999.125, 9.0]
    camera = {"camera_to_world": matrix.ravel().tolist(), "fov": 90.0, "aspect": 1.5}
    cameras = along(run, str(written_path(tmp_path, camera_path=[camera])))
    assert cameras.centers[0].tolist() == pytest.approx([0.0625, -0.125, 3.0], abs=1e-6)


@pytest.mark.parametrize(
    "changes, key",
    [
        ({"camera_path": []}, "camera_path"),
        ({"camera_path": [{"fov": 50.0}]}, "camera_to_world"),
        ({"camera_path": [{"camera_to_world": [0.0] * 16, "fov": 50.0}]}, "rotation"),
        ({"camera_path": [{"camera_to_world": np.eye(4).ravel().tolist(), "fov": 180.0}]}, "fov"),
        ({"camera_path": [{"camera_to_world": np.eye(4).ravel().tolist(), "fov": 10**399}]}, "fov"),
        ({"camera_path": [{"camera_to_world": np.eye(4).ravel().tolist(), "fov": 1e-300}]}, "fov"),
        ({"camera_path": [{"camera_to_world": [10**399] * 16, "fov": 50.0}]}, "camera_to_world"),
        ({"camera_path": [{"camera_to_world": [1e200] * 16, "fov": 50.0}]}, "rotation"),
        ({"camera_path": [{"camera_to_world": (np.eye(4) + np.eye(4, k=3) * 1e300).ravel().tolist(), "fov": 50.0}]},
         "rotation"),
        ({"camera_path": [{"camera_to_world": (np.eye(4) + np.eye(4, k=-3)).ravel().tolist(), "fov": 50.0}]},
         "rotation"),
        ({"render_width": 0}, "render_width"),
        ({"render_width": 10**399}, "render_width"),
        ({"render_width": True}, "render_width"),
        ({"render_height": float("nan")}, "render_height"),
    ],
)
def test_wrong_path_files_are_named(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError, match=key) as caught:
        read_file(written_path(tmp_path, **changes))
    assert "path.json" in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value).removeprefix(str(tmp_path))) < 150


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, "\x00"])
def test_broken_path_files_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "path.json").write_text(content)
    with pytest.raises(InputError, match=r"path\.json"):
        read_file(tmp_path / "path.json")
    with pytest.raises(InputError, match="missing"):
        read_file(tmp_path / "missing.json")


@pytest.mark.parametrize(
    "size, count, expected", [((200, 200), 4, (316, 316)), ((1600, 1200), 4, (632, 474)), ((601, 800), 1, (601, 800))]
)
def test_cameras_of_a_video_are_enlarged_or_made_small(
    size: tuple[int, int], count: int, expected: tuple[int, int]
) -> None:
    """Two rows of 316 lines with captions are 720, of 474 they are 1080."""
    made = CameraPath(np.eye(4)[None, :3], np.array([[100.0, 100.0, 50.0, 50.0]]), size)
    cameras = Cameras.make(made.camera_to_world, made.intrinsics, size)
    asked = Request(("rgb", "shape", "normal", "depth")[:count], [Path("x.mp4")], columns=2)
    assert tuple(asked.sized(cameras, made)[0].size[0].tolist()) == expected
    own = asked.sized(cameras, replace(made, anywhere=True))[0]
    assert tuple(own.size[0].tolist()) == size, "a path file says its size"
    large = replace(asked, size=(4032, 3024)).sized(cameras, made)[0]
    assert large.size.tolist() == [[4032, 3024]]
    with pytest.raises(InputError, match="--scale: 100 - gives pictures of"):
        replace(asked, scale=100.0).sized(cameras.scaled(4.0), made)


def test_shape_is_made_of_normals() -> None:
    assert makable(read_renderer(None), None) == ("rgb", "shape", "normal", "depth")
    assert makable(read_renderer("lattice"), None) == ("shape", "normal", "depth")
    with pytest.raises(InputError, match="no shape - expected some of depth"):
        makable(read_renderer("{type: lattice, normals: false}"), ("shape",))


@pytest.mark.parametrize(
    "given, expected",
    [
        ([], None),
        (["--surface"], "surface"),
        (["--renderer", "mesh"], "mesh"),
        (["--surface", "--baked", "--modes", "depth"], "{type: lattice, normals: false}"),
    ],
)
def test_options_that_stand_for_a_renderer(given: list[str], expected: str | None) -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--surface", "--baked"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--renderer")
    parser.add_argument("--modes", type=render.modes)
    text = render.named_renderer(parser.parse_args(given))
    assert text == expected
    assert makable(read_renderer(text), None)


def test_a_run_is_baked_and_shown_without_it(tmp_path: Path) -> None:
    """The frame of the sphere from the folder alone: the middle ray meets it, and its path is that of the run."""
    run = made_up_run(tmp_path)
    run.model = surface_model(*CASES["logistic"])
    asset = bake.baked_asset(run, 48)
    asset.write(tmp_path / "asset")
    source, renderer, none = open_shown(tmp_path / "asset", None, "cpu")
    assert none is None
    path = read_path("spiral").cameras(photographs_of(source, None), 5)
    assert torch.equal(cameras_along(path, source, None).camera_to_world, along(run, "spiral", 5).camera_to_world)
    frame = renderer(source.cameras, 0)
    distance = float(source.cameras.centers[0].norm())
    assert frame.depth[20, 30].item() == pytest.approx(distance - RADIUS, abs=0.01)
    with pytest.raises(InputError, match="is an asset"):
        open_shown(tmp_path / "asset", read_renderer("surface"), "cpu")
    beside = read_renderer("asset").build(source_of(run))(source.cameras, 0)
    assert torch.equal(beside.color, frame.color)
    run.world_from_scene = np.eye(4)
    with pytest.raises(InputError, match="scene frame"):
        read_renderer("asset").build(source_of(run))


def rendered(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """render.py with these words, in this process."""
    monkeypatch.setattr(sys, "argv", ["render.py", *map(str, words)])
    assert render.main() == 0


def test_one_command_makes_all_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    run = made_up_run(tmp_path)
    run.model = surface_model(*CASES["logistic"])
    bake.baked_asset(run, 24).write(tmp_path / "asset")
    ball = trimesh.creation.icosphere(subdivisions=1, radius=RADIUS)
    write_mesh(tmp_path / "asset/meshes/mesh.ply", transformed(ball, WORLD))
    outs = [word for name in ("x.mp4", "x.gif", "x.webp", "frames") for word in ("--out", tmp_path / name)]
    asked = ["--frames", 3, "--size", "40x30", "--columns", 1, "--modes", "rgb,depth,mesh,wireframe"]
    kept = ["--depth", tmp_path / "depth", "--save-path", tmp_path / "path.json"]
    rendered(monkeypatch, tmp_path / "asset", *outs, *asked, *kept)
    sheet = np.asarray(Image.open(tmp_path / "frames/00002.png"))
    assert sheet.shape == (4 * (16 + 30 + 2) + 2, 40 + 2 * 2, 3), "stacked"
    assert len(list((tmp_path / "depth").glob("*.npy"))) == 3 and (tmp_path / "depth/depth.json").is_file()
    assert all((tmp_path / f"x.{suffix}").stat().st_size > 500 for suffix in ("mp4", "gif", "webp"))
    assert "44 x 194, 3 frames, 0.1 s, rgb, depth, mesh, wireframe" in capsys.readouterr().out
    rendered(monkeypatch, tmp_path / "asset", *outs, *asked, *kept)
    assert "3 of them were there" in capsys.readouterr().out
    again = ["--path", tmp_path / "path.json", "--size", "40x30", "--columns", 1, "--modes", "rgb,depth,mesh,wireframe"]
    rendered(monkeypatch, tmp_path / "asset", *again, "--out", tmp_path / "again")
    other = np.asarray(Image.open(tmp_path / "again/00002.png")).astype(int)
    assert np.abs(other - sheet).mean() < 1.0, "the path that was kept is the path"
    rendered(monkeypatch, tmp_path / "asset", "--path", "orbit", "--frames", 9, "--preview")
    preview = np.asarray(Image.open(tmp_path / "asset/videos/orbit_preview.png")).astype(int)
    assert (np.ptp(preview, axis=2) > 80).sum() > 500, "a colored path"
    assert ((np.ptp(preview, axis=2) == 0) & (preview[..., 0] > 60) & (preview[..., 0] < 230)).sum() > 5000, "a surface"


def test_given_views_stand_beside_their_photographs(tmp_path: Path) -> None:
    """Without a photograph, or in another shape than it has, that is one line; of another size it is made smaller."""
    run = made_up_run(tmp_path)
    picture = np.full((40, 60, 3), 77, np.uint8)
    run.load_scene = lambda: SimpleNamespace(images=[picture] * 10)
    cameras, views = along(run, "views"), np.array([9])
    found = photographs(run, views, cameras)
    small = found.picture(cameras.scaled(0.5), 0)
    assert found.picture(cameras, 0) is picture and small.shape == (20, 30, 3) and (small == 77).all()
    tiles = list(found.tiles(cameras, 0))
    assert sum(len(tile.pixels) for tile in tiles) == 2400
    assert tiles[0].color is not None and torch.equal(tiles[0].color, torch.full((2400, 3), 77.0) / 255)
    with pytest.raises(InputError, match="30x30 - view_9 has 60x40"):
        photographs(run, views, cameras.sized(30, 30))
    with pytest.raises(InputError, match="expected a run and --path views"):
        photographs(run, None, cameras)


def test_frames_of_views_are_called_as_their_photographs() -> None:
    def names(known: list[str], views: list[int] | None) -> list[str]:
        shown = cast(Any, SimpleNamespace(run=SimpleNamespace(names=known)))
        index = None if views is None else np.array(views)
        path = CameraPath(np.zeros((2, 3, 4)), np.zeros((2, 4)), (1, 1), views=index)
        return frame_names(shown, path)

    assert names(["a/x.png", "a/y.png", "b/x.png"], [0, 1]) == ["x", "y"]
    assert names(["a/x.png", "a/y.png", "b/x.png"], [0, 2]) == ["a_x", "b_x"]
    assert names(["a/x.png", "a/y.png"], [0, 0]) == names(["x", "y"], None) == ["00000", "00001"]
