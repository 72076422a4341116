"""Camera paths by name: so many frames, in their order, exactly through the views that were chosen."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.showing import read_path
from tests.utils.test_camera_paths import TARGET, UP, around
from utils.config.parts import parts
from utils.errors import InputError
from utils.paths.base import CameraPath, PathConfig, Photographs
from utils.paths.camera_paths import look_at
from utils.paths.timing import eased, shares_through

Floats = NDArray[np.float64]
NAMES = [f"folder/r_{i:02d}.png" for i in range(24)]
SPLITS = {"train": np.arange(20), "test": np.array([20, 23])}


def shot() -> Photographs:
    """24 cameras that look at `TARGET`, 4 units from it, 20 of them for training; one rolled, one of another size."""
    azimuth = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    poses = around(azimuth, np.radians(30.0 + 20.0 * np.sin(3.0 * azimuth)))
    poses[7, :, :2] = poses[7, :, :2] @ np.array([[0.6, -0.8], [0.8, 0.6]])  # about its axis
    intrinsics = np.tile([60.0, 60.0, 30.0, 20.0], (24, 1))
    intrinsics[23] *= 2
    size = np.tile([60, 40], (24, 1))
    size[23] *= 2
    return Photographs(poses, intrinsics, size, UP, NAMES, SPLITS)


def path(text: str, frames: int | None) -> CameraPath:
    return read_path(text).cameras(shot(), frames)


def places(found: CameraPath) -> Floats:
    return found.camera_to_world[:, :, 3]


def met(found: CameraPath, views: list[int], *, poses: bool = False) -> list[int]:
    """At which frames the given views are met to 1e-6: their places, or their whole poses."""
    wanted = shot().camera_to_world[views]
    differ = np.abs(found.camera_to_world[:, None] - wanted)[..., slice(None) if poses else slice(3, None)]
    off = differ.max(axis=(2, 3))
    assert off.min(axis=0).max() < 1e-6
    return [int(frame) for frame in off.argmin(axis=0)]


def assert_looks_at_target(found: CameraPath) -> None:
    away = TARGET - places(found)
    ahead = (found.camera_to_world[:, :, 2] * away).sum(1) / np.linalg.norm(away, axis=1)
    assert ahead == pytest.approx(1.0, abs=1e-4)
    assert (found.camera_to_world[:, 2, 1] < 1e-9).all(), "pictures are upright"


MADE = ["spiral", "spherical_spiral", "small_circle", "great_circle", "ellipse", "orbit", "interpolate"]


def test_every_path_is_tested() -> None:
    known = {name for name in parts(PathConfig) if not name.startswith("toy")}
    assert known == {*MADE, "views", "file"}


@pytest.mark.parametrize("frames", [1, 2, 3, 17, 80])
@pytest.mark.parametrize("kind", MADE)
def test_exactly_so_many_rigid_frames(kind: str, frames: int) -> None:
    found = path(kind, frames)
    turn = found.camera_to_world[:, :, :3]
    assert len(found) == frames and np.isfinite(found.camera_to_world).all()
    assert np.abs(turn @ turn.transpose(0, 2, 1) - np.eye(3)).max() < 1e-9 and (np.linalg.det(turn) > 0).all()
    assert found.intrinsics.shape == (frames, 4) and (found.intrinsics == [60.0, 60.0, 30.0, 20.0]).all()
    assert found.size == (60, 40) and found.views is None and found.fps is None
    assert kind == "interpolate" or frames < 3 or np.linalg.norm(np.ptp(places(found), axis=0)) > 1.0


@pytest.mark.parametrize("kind", [name for name in MADE if name not in ("interpolate", "great_circle")])
def test_made_paths_look_at_the_object_from_above(kind: str) -> None:
    assert_looks_at_target(path(kind, 40))


def test_a_number_that_is_not_said_is_80() -> None:
    assert len(path("orbit", None)) == 80


def test_orbit_has_its_height_radius_and_turns() -> None:
    found = path("{type: orbit, height: 3, radius: 2, turns: 0.5}", 10)
    away = places(found) - TARGET
    assert away[:, 2] == pytest.approx(3.0, abs=1e-4)
    assert np.hypot(away[:, 0], away[:, 1]) == pytest.approx(2.0, abs=1e-4)
    azimuth = np.degrees(np.unwrap(np.arctan2(away[:, 1], away[:, 0])))
    assert np.diff(azimuth) == pytest.approx(18.0, abs=1e-2) and azimuth[0] == pytest.approx(0.0, abs=1e-2)
    back = path("{type: orbit, turns: -1, climb: 2, height: 0, center: [0, 0, 0]}", 9)
    azimuth = np.degrees(np.unwrap(np.arctan2(places(back)[:, 1], places(back)[:, 0])))
    assert np.diff(azimuth) == pytest.approx(-40.0) and places(back)[:, 2] == pytest.approx(np.linspace(0, 2, 9))
    default = places(path("orbit", 9)) - TARGET
    assert np.linalg.norm(default, axis=1) == pytest.approx(4.0, abs=0.1)


def test_small_circle_goes_through_three_views_in_their_order() -> None:
    views = [2, 9, 16]
    found = path("{type: small_circle, views: [r_02, folder/r_09.png, 16]}", 31)
    frames = met(found, views)
    assert frames[0] == 0 and frames == sorted(frames)
    a, b, c = shot().camera_to_world[views, :, 3]
    normal = np.cross(b - a, c - a)
    on_plane = (places(found) - a) @ normal / np.linalg.norm(normal)
    assert np.abs(on_plane).max() < 1e-9, "in the plane of the three"
    assert np.linalg.norm(places(found) - TARGET, axis=1) == pytest.approx(4.0), "and on every sphere that they are on"
    step = np.linalg.norm(np.roll(places(found), -1, axis=0) - places(found), axis=1)
    assert step.max() < 1.5 * step.min(), "evenly, and closed"
    reverse = met(path("{type: small_circle, views: [16, 9, 2]}", 31), [16, 9, 2])
    assert reverse[0] == 0 and reverse == sorted(reverse)


def test_great_circle_goes_through_two_views_about_the_center() -> None:
    center = TARGET.tolist()
    found = path(f"{{type: great_circle, views: [3, 8], center: {center}}}", 25)
    frames = met(found, [3, 8])
    assert frames[0] == 0 and frames[1] < 12.5, "the short way first"
    assert np.linalg.norm(places(found) - TARGET, axis=1) == pytest.approx(4.0, abs=1e-9)
    a, b = shot().camera_to_world[[3, 8], :, 3] - TARGET
    assert np.abs((places(found) - TARGET) @ np.cross(a, b)).max() < 1e-9, "in the plane of both and the center"
    assert met(path("{type: great_circle, views: [3, 15], center: [9, 9, 9]}", 25), [3, 15])[0] == 0
    default = path("great_circle", 25)
    assert met(default, [0])[0] == 0


def test_opposite_views_have_the_circle_that_goes_highest() -> None:
    poses = look_at([[2.0, 0, 0], [-2.0, 0, 0]], [0, 0, 0], UP)
    pair = Photographs(poses, np.tile([1.0] * 4, (2, 1)), np.ones((2, 2), np.int64), UP)
    found = read_path("{type: great_circle, views: [0, 1], center: [0, 0, 0]}").cameras(pair, 4)
    assert places(found) == pytest.approx(np.array([[2, 0, 0], [0, 0, 2], [-2, 0, 0], [0, 0, -2]], float), abs=1e-9)


def test_spherical_spiral_winds_from_one_view_to_another() -> None:
    center = TARGET.tolist()
    found = path(f"{{type: spherical_spiral, views: [1, 10], turns: 2, center: {center}}}", 61)
    assert met(found, [1, 10]) == [0, 60]
    away = places(found) - TARGET
    assert np.linalg.norm(away, axis=1) == pytest.approx(4.0)
    azimuth = np.unwrap(np.arctan2(away[:, 1], away[:, 0]))
    elevation = np.arcsin(away[:, 2] / 4.0)
    assert azimuth[-1] - azimuth[0] == pytest.approx(2.0 * np.pi * (2 + 9 / 24))
    slope = np.diff(elevation) / np.diff(azimuth)
    assert slope == pytest.approx(slope[0]), "Archimedes': one in proportion to the other"


def test_ellipse_is_as_wide_as_the_photographs_at_even_speed() -> None:
    azimuth = np.linspace(0.0, 2.0 * np.pi, 40, endpoint=False)
    centers = np.stack([4.0 * np.cos(azimuth), 2.0 * np.sin(azimuth), np.full(40, 1.5)], 1)
    poses = look_at(centers, [0.0, 0.0, 0.0], UP)
    wide = Photographs(poses, np.tile([1.0] * 4, (40, 1)), np.ones((40, 2), np.int64), UP)
    found = read_path("{type: ellipse, center: [0, 0, 0], stretch: 1.5}").cameras(wide, 200)
    long, short = (1.5 * np.percentile(np.abs(centers[:, axis]), 90) for axis in (0, 1))
    x, y, z = places(found).T
    assert (x / long) ** 2 + (y / short) ** 2 == pytest.approx(1.0) and z == pytest.approx(1.5)
    step = np.linalg.norm(np.diff(places(found), axis=0), axis=1)
    assert step == pytest.approx(step.mean(), rel=2e-3)
    high = read_path("{type: ellipse, height: 5}").cameras(wide, 3)
    assert places(high)[:, 2] == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize("easing", ["linear", "in", "out", "in_out"])
@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("frames", [6, 40, 121])
def test_interpolation_meets_every_chosen_pose(easing: str, loop: bool, frames: int) -> None:
    views = [4, 7, 1, 12, 18, 20]
    named = "[4, r_07, 1, 12, 18, r_20.png]"
    found = path(f"{{type: interpolate, views: {named}, easing: {easing}, loop: {str(loop).lower()}}}", frames)
    met_at = met(found, views, poses=True)
    assert len(found) == frames and met_at[0] == 0 and met_at == sorted(met_at)
    assert loop or met_at[-1] == frames - 1
    if frames > 100:
        step = np.linalg.norm(np.diff(found.camera_to_world, axis=0), axis=(1, 2))
        assert step.max() < 8.0 * step.mean(), "no jump"
        assert easing not in ("in", "in_out") or step[0] < 0.3 * step.mean(), "from standing"
        assert easing not in ("out", "in_out") or step[-1] < 0.3 * step.mean(), "to standing"


def test_a_loop_closes_as_smoothly_as_it_goes() -> None:
    found = path("{type: interpolate, views: [0, 4, 8, 12, 16], loop: true}", 200).camera_to_world
    ring = np.concatenate([found, found[:3]])
    bend = np.linalg.norm(np.diff(ring, n=2, axis=0), axis=(1, 2))
    assert bend[-3:].max() < 1.2 * bend[:-3].max()


def test_split_names_are_views() -> None:
    assert met(path("{type: interpolate, views: test}", 9), [20, 23], poses=True) == [0, 8]
    assert len(path("interpolate", 50)) == 50


def test_given_views_are_the_photographs_cameras() -> None:
    found = path("views", None)
    assert found.views is not None and found.views.tolist() == [20, 23]
    assert np.array_equal(found.camera_to_world, shot().camera_to_world[[20, 23]])
    assert np.asarray(found.size).tolist() == [[60, 40], [120, 80]] and found.intrinsics[1, 0] == 120.0
    some = path("{type: views, views: [r_05, 3, folder/r_05.png]}", 3)
    assert some.views is not None and some.views.tolist() == [5, 3, 5]


@pytest.mark.parametrize(
    "text, frames, said",
    [
        ("{type: views, views: r_99}", None, "did you mean"),
        ("{type: views, views: [24]}", None, "below 24"),
        ("views", 3, "--frames: 3 - the path is 2 views"),
        ("{type: interpolate, views: [1, 1]}", 9, "twice in a row"),
        ("{type: interpolate, views: [1, 2, 1], loop: true}", 9, "twice in a row"),
        ("{type: interpolate, views: [1, 2, 3]}", 2, "through 3 views"),
        ("{type: small_circle, views: [1, 2, 3]}", 2, "through 3 views"),
        ("{type: small_circle, views: [1, 2, 1]}", 9, "on a line"),
        ("{type: great_circle, views: [1, 1]}", 9, "at one place"),
        ("{type: small_circle, views: [1, 2]}", 9, "path.views"),
        ("{type: interpolate, loop: true}", 9, "expected views"),
        ("{type: orbit, radius: 0}", 9, "path.radius"),
        ("orbti", 9, "did you mean 'orbit'"),
        ("{type: file}", 9, "path.path"),
    ],
)
def test_wrong_paths_are_one_line(text: str, frames: int | None, said: str) -> None:
    with pytest.raises(InputError) as caught:
        path(text, frames)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_one_photograph_makes_no_path() -> None:
    one = shot()
    alone = Photographs(one.camera_to_world[:1], one.intrinsics[:1], one.size[:1], UP)
    for kind in MADE:
        with pytest.raises(InputError, match="leads past 1 view"):
            read_path(kind).cameras(alone, 5)


def test_a_number_is_no_other_photographs_name() -> None:
    """YAML reads 0001 as 1: where the photograph 0001 is not that of number 1, the number says nothing."""
    one = shot()
    names = ["0001.jpg", "0002.jpg", "0009.jpg"]
    gaps = Photographs(one.camera_to_world[:3], one.intrinsics[:3], one.size[:3], UP, names)
    with pytest.raises(InputError, match=r"views: got 1 - .* is 0002.jpg, but 0001.jpg is called so .* '0001'"):
        gaps.chosen((1,))
    assert gaps.chosen(("0001", "0009.jpg", 0)).tolist() == [0, 2, 0]
    whole = Photographs(one.camera_to_world[:2], one.intrinsics[:2], one.size[:2], UP, ["000.jpg", "001.jpg"])
    assert whole.chosen((1, 0)).tolist() == [1, 0]


def test_a_name_in_two_folders_needs_its_folder() -> None:
    one = shot()
    names = ["a/x.png", "b/x.png"]
    twice = Photographs(one.camera_to_world[:2], one.intrinsics[:2], one.size[:2], UP, names)
    assert twice.chosen(("b/x",)).tolist() == [1]
    with pytest.raises(InputError, match="2 are called so"):
        twice.chosen(("x",))


@pytest.mark.parametrize("easing", ["linear", "in", "out", "in_out"])
def test_keys_are_met_at_whole_frames(easing: Any) -> None:
    share = np.linspace(0.0, 1.0, 11)
    assert eased(share, easing)[[0, -1]].tolist() == [0.0, 1.0] and (np.diff(eased(share, easing)) > 0).all()
    keys = np.array([0.0, 0.001, 0.002, 0.5, 0.9, 1.0])
    for frames, closed in itertools.product((6, 7, 50), (False, True)):
        found = shares_through(keys, frames, closed=closed, easing=easing)
        assert len(found) == frames and (np.diff(found) > 0).all()
        assert set(keys[: len(keys) - closed]) <= set(found.tolist())
    assert shares_through(np.array([0.0, 1.0]), 1, closed=True).tolist() == [0.0]
