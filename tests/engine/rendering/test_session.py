"""A rendering that is killed, continued and shared makes the bytes of one that was not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dataio.cameras import Cameras
from engine.rendering.modes import MODES
from engine.rendering.outputs import depth_scale
from engine.rendering.painter import Painter, whole_depth_range
from engine.rendering.session import Session
from engine.rendering.work import NAME, Work, digest
from models.rendering.frames import Tile, tiles_of
from models.rendering.renderers.base import Renderer, Source
from tests.models.rendering.test_tiles import sphere_seen
from tests.support.analytic import RADIUS
from tests.support.two_ranks import free_port
from tests.utils.test_checkpoint import exit_code, start_child
from utils.distributed import Ranks, setup
from utils.errors import InputError
from utils.paths.camera_paths import look_at

FRAMES = 6
ONE = Ranks(0, 1, 0, torch.device("cpu"))


class Ball(Renderer):
    """The analytic sphere: depth and opacity; a color that says where a ray goes; normals that point away from it."""

    def tiles(self, cameras: Cameras, index: int, *, coarse: int = 1) -> Iterator[Tile]:
        def look(rays: Any) -> Any:
            seen = sphere_seen(rays)
            points = rays.at(seen.depth) * seen.opacity[:, None]
            return replace(seen, color=0.5 + 0.5 * rays.directions, normal=points / RADIUS)

        return tiles_of(look, cameras, index, coarse=coarse)


class Slow(Ball):
    """A tenth of a second per frame, so that it can be killed on the way."""

    def tiles(self, cameras: Cameras, index: int, *, coarse: int = 1) -> Iterator[Tile]:
        for tile in super().tiles(cameras, index, coarse=coarse):
            time.sleep(0.1)
            yield tile


def cameras(count: int = FRAMES) -> Cameras:
    turn = np.linspace(0.0, 1.0, count)
    poses = look_at(np.stack([2.5 * np.cos(turn), 2.5 * np.sin(turn), 0.5 + turn], 1), [0.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    return Cameras.make(poses, [40.0, 40.0, 24.0, 16.0], [48, 32])


def session(folder: Path, renderer: Renderer, *, known: str = "this", kept: bool = True) -> Session:
    """Two panels and depths of the sphere, into folder/pictures and folder/depths."""
    names = [f"{index:05d}" for index in range(FRAMES)]
    painter = Painter({None: renderer}, cameras(), ("rgb", "depth"), (1.0, 4.0), 2.0, depths=True)
    pictures = Work(folder / "pictures", names, (".png",), known)
    return Session(painter, pictures, Work(folder / "depths", names, (".npy", ".png"), known), 2, 1e-4, "m", kept)


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of a folder that are not hidden."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("unbroken")
    assert session(folder, Ball()).run(ONE, [folder / "out.mp4", folder / "out.gif"], 10.0) == 0
    found = content(folder)
    assert len(found) == 3 * FRAMES + 2 + 1 + 2, "frames, two descriptions, depth.json, a video and a clip"
    return found


def test_a_killed_rendering_ends_with_the_same_bytes(tmp_path: Path, unbroken: dict[str, bytes]) -> None:
    """Killed at any moment, by SIGKILL: what is there is whole, and what is half is dropped."""

    def slowly() -> None:
        session(tmp_path, Slow()).run(ONE, [], 10.0)

    for most in (1, 3):
        child = start_child(slowly)
        while len(list((tmp_path / "pictures").glob("[0-9]*.png"))) < most:
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        assert exit_code(child) == -signal.SIGKILL
    (tmp_path / "pictures" / ".00003.77.tmp.png").write_bytes(b"half")
    there = session(tmp_path, Ball()).run(ONE, [tmp_path / "out.mp4", tmp_path / "out.gif"], 10.0)
    assert 3 <= there < FRAMES, "it went on"
    assert content(tmp_path) == unbroken
    assert not list(tmp_path.rglob("*.tmp.*"))


def test_two_ranks_share_the_frames(tmp_path: Path, unbroken: dict[str, bytes]) -> None:
    port = free_port()

    def rank(number: int) -> None:
        os.environ.update(RANK=str(number), WORLD_SIZE="2", LOCAL_RANK=str(number), MASTER_ADDR="127.0.0.1")
        os.environ["MASTER_PORT"] = str(port)
        mine = session(tmp_path, Ball())
        mine.run(setup("cpu"), [tmp_path / "out.mp4", tmp_path / "out.gif"], 10.0)

    children = [start_child(lambda number=number: rank(number)) for number in (0, 1)]  # type: ignore[misc]
    assert [exit_code(child) for child in children] == [0, 0]
    assert content(tmp_path) == unbroken


def test_a_rank_draws_every_so_manyth_frame(tmp_path: Path) -> None:
    here = session(tmp_path, Ball())
    assert [list(here.missing(rank, 4)) for rank in range(4)] == [[0, 4], [1, 5], [2], [3]]


def test_another_rendering_begins_anew(tmp_path: Path, unbroken: dict[str, bytes]) -> None:
    session(tmp_path, Ball(), known="other").run(ONE, [], 10.0)
    (tmp_path / "pictures" / "00001.png").write_bytes(b"of another one")
    assert session(tmp_path, Ball()).run(ONE, [tmp_path / "out.mp4", tmp_path / "out.gif"], 10.0) == 0
    assert content(tmp_path) == unbroken
    assert session(tmp_path, Ball()).run(ONE, [], 10.0) == FRAMES, "nothing is left to do"


def test_frames_that_only_lead_to_a_video_go(tmp_path: Path) -> None:
    session(tmp_path, Ball(), kept=False).run(ONE, [tmp_path / "out.mp4"], 10.0)
    assert not (tmp_path / "pictures").exists() and (tmp_path / "out.mp4").is_file()
    assert len(list((tmp_path / "depths").glob("*.npy"))) == FRAMES


def test_files_of_others_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "00002.png").write_bytes(b"a photograph")
    with pytest.raises(InputError, match="00002.png: is there"):
        session(tmp_path, Ball()).run(ONE, [], 10.0)
    assert (tmp_path / "pictures" / "00002.png").read_bytes() == b"a photograph"


def test_one_process_per_folder(tmp_path: Path) -> None:
    here = session(tmp_path, Ball())
    lock = here.pictures.lock()
    with pytest.raises(InputError, match="is rendering into this folder"):
        here.run(ONE, [], 10.0)
    lock.release()


def test_depth_files_are_z_depths_in_world_units(unbroken: dict[str, bytes], tmp_path: Path) -> None:
    """The sphere is nearest in the picture's middle: its distance less the radius; a scene unit is two world units."""
    (tmp_path / "x.npy").write_bytes(unbroken["depths/00002.npy"])
    (tmp_path / "x.png").write_bytes(unbroken["depths/00002.png"])
    depth, levels = np.load(tmp_path / "x.npy"), np.asarray(Image.open(tmp_path / "x.png"))
    assert depth.dtype == np.float32 and depth.shape == (32, 48)
    away = float(cameras().centers[2].norm())
    assert depth[15:17, 23:25].mean() == pytest.approx(2.0 * (away - RADIUS), abs=4e-3)
    assert np.abs(levels * 1e-4 - depth).max() <= 0.51e-4 and (depth[0] == 0).all() and (levels[0] == 0).all()
    rays = cameras().rays(torch.full((48 * 32,), 2), cameras().pixel_grid(2))
    seen = sphere_seen(rays)
    local = (rays.at(seen.depth) - cameras().centers[2]) @ cameras().forward[2]
    wanted = torch.where(seen.opacity > 0, 2.0 * local, 0.0).view(32, 48)
    np.testing.assert_allclose(depth, wanted.numpy(), atol=1e-5)


def test_steps_of_depth_are_round_and_reach_far_enough() -> None:
    for farthest, step in ((6.5535, 1e-4), (6.554, 2e-4), (1.0, 2e-5), (3276.75, 5e-2), (3.0, 5e-5)):
        assert depth_scale(farthest) == pytest.approx(step) and depth_scale(farthest) * 65535 >= farthest * (1 - 1e-6)


def test_the_digest_knows_what_frames_depend_on(tmp_path: Path) -> None:
    source = Source(tmp_path, torch.device("cpu"), cameras(), np.eye(4), np.array([0.0, 0.0, 1.0]))
    (tmp_path / "mesh").write_bytes(b"1")

    def of(count: int, said: str) -> str:
        return digest(source, cameras(count), [said], [tmp_path / "mesh"])

    known = of(6, "rgb")
    assert of(6, "rgb") == known and len({known, of(1, "rgb"), of(5, "rgb"), of(6, "depth")}) == 4
    (tmp_path / "mesh").write_bytes(b"2")
    assert of(6, "rgb") != known


def test_a_damaged_description_is_no_rendering(tmp_path: Path) -> None:
    session(tmp_path, Ball()).run(ONE, [], 10.0)
    for damaged in ("", "[]", '{"frames": 5}'):
        (tmp_path / "pictures" / NAME).write_text(damaged)
        with pytest.raises(InputError, match="no frame that"):
            session(tmp_path, Ball()).run(ONE, [], 10.0)


def test_panels_show_the_modes(tmp_path: Path) -> None:
    """Each mode of the middle pixel and of a corner, worked out by hand."""
    along = cameras(1)
    names = ("rgb", "shape", "normal", "depth", "opacity", "error", "truth")
    truth = np.full((32, 48, 3), 51, np.uint8)

    class Photograph(Ball):
        def tiles(self, cameras: Cameras, index: int, *, coarse: int = 1) -> Iterator[Tile]:
            for tile in super().tiles(cameras, index, coarse=coarse):
                yield replace(tile, color=torch.full((len(tile.pixels), 3), 0.2))

    renderers = {None: Ball(), "photograph": Photograph()}
    painter = Painter(renderers, along, names, (1.0, 3.0), 10.0, lambda index: truth)
    panels = dict(zip(names, painter(0).panels, strict=True))
    picture = {name: panel.picture[0:32] for name, panel in panels.items()}
    direction = along.forward[0].numpy()
    middle = (16, 24)
    assert np.abs(picture["rgb"][middle].astype(int) - np.rint(255 * (0.5 + 0.5 * direction))).max() <= 2
    assert (np.abs(picture["shape"][middle].astype(int) - round(255 * 0.9)) <= 1).all()
    off = picture["normal"][middle].astype(int) - 255 * (0.5 - 0.5 * direction)
    assert (np.abs(off) <= 7).all(), "half a pixel aside"
    assert (picture["opacity"][middle] == 255).all() and (picture["opacity"][0, 0] == 0).all()
    assert all((picture[name][0, 0] == 255).all() for name in ("shape", "normal", "depth")), "empty is white"
    assert (picture["truth"] == 51).all()
    assert panels["depth"].span == (10.0, 30.0) and panels["error"].span == (0.0, 0.25) and panels["rgb"].span is None
    color = picture["rgb"].astype(np.float64)
    assert panels["error"].caption.startswith("error ") and panels["error"].caption.endswith(" dB")
    quality = float(panels["error"].caption.split()[1])
    assert quality == pytest.approx(-10 * np.log10(((color - 51) ** 2).mean() / 255**2), abs=0.05)
    assert [panel.caption for panel in panels.values()][:5] == ["color", "shape", "normals", "depth", "opacity"]
    assert {"mesh", "wireframe", *names} == set(MODES)


def test_one_range_of_depth_for_all_frames() -> None:
    low, high = whole_depth_range(Ball(), cameras())
    distance = cameras().centers.norm(dim=1)
    assert low < float(distance.min()) - RADIUS + 0.02 and high > float(distance.max()) - RADIUS
