"""The data doctor: each fault is found where it was made, and nowhere else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dataio.checks import camera_checks, doctor_page, photo_checks
from dataio.checks.doctor import admit, examine
from dataio.checks.epipolar import MISTAKES, Pair, agreement, epipolar_findings, scene_poses
from dataio.checks.findings import Finding, Patient, of_neighbors, unusual
from dataio.formats.scannet import ScannetData
from dataio.formats.transforms import TransformsData
from dataio.views import Tracks
from tests.conftest import shared_data
from tests.support import made_rgbd
from tests.support.made_data import opengl
from tests.support.made_photos import COUNT, DISTANCE, FOCAL, SIZE, Photos, surface
from tests.support.sources import ROOT


def patient(photos: Photos, folder: Path, **keys) -> Patient:
    return admit(TransformsData(path=str(photos.write(folder)), holdout=0, **keys))


def names(findings) -> set[str]:
    return {finding.check for finding in findings}


@pytest.mark.parametrize("masks", [True, False])
def test_a_sound_set_has_no_findings(tmp_path, masks) -> None:
    photos = Photos(masks=masks)
    photos.points = surface()
    report = examine(TransformsData(path=str(photos.write(tmp_path)), holdout=0))
    assert [finding.line() for finding in report.findings] == []
    assert len(report.agreement.pairs) >= 8 and report.agreement.error < 0.5
    assert list(report.lines())[-1] == "0 errors, 0 warnings, 0 notes"


# --- poses -------------------------------------------------------------------------------------------------------


def inverted(matrices):
    return np.linalg.inv(matrices)


def transposed(matrices):
    result = matrices.copy()
    result[:, :3, :3] = matrices[:, :3, :3].transpose(0, 2, 1)
    return result


def shifts(matrices):
    result = matrices.copy()
    result[:, :3, 3] = np.linalg.inv(matrices)[:, :3, 3]
    return result


@pytest.mark.parametrize(
    ("spoil", "fix"),
    [
        (lambda p: p, "multiply the second and third column"),
        (lambda p: inverted(opengl(p)), "invert every pose"),
        (lambda p: inverted(p), "invert every pose"),
        (lambda p: transposed(opengl(p)), "transpose"),
        (lambda p: transposed(p), "transpose"),
        (lambda p: shifts(opengl(p)), "-R t"),
        (lambda p: shifts(p), "-R t"),
    ],
    ids=["OpenCV", "inverse", "inverse OpenCV", "transpose", "transpose OpenCV", "shift", "shift OpenCV"],
)
def test_wrong_conventions_are_named(tmp_path, spoil: Callable, fix: str) -> None:
    photos = Photos(masks=False)
    photos.matrices = spoil(photos.poses)
    sick = patient(photos, tmp_path)
    (found,) = epipolar_findings(sick, agreement(sick))
    assert found.severity == "error" and found.check == "convention" and fix in found.fix


def test_every_mistake_undoes_something_else() -> None:
    poses = Photos().poses
    undone = [mistake.undone(poses) for mistake in MISTAKES if mistake.focal == 1]
    for one in undone:
        assert sum(np.allclose(one, other) for other in [poses, *undone]) == 1


def test_a_wrong_focal_length(tmp_path) -> None:
    photos = Photos(masks=False)
    photos.top |= {"fl_x": 0.5 * FOCAL, "fl_y": 0.5 * FOCAL}
    sick = patient(photos, tmp_path)
    found = agreement(sick)
    wrong = [float(np.median(pair.error(scene_poses(sick)))) for pair in found.pairs]
    right = [float(np.median(pair.error(scene_poses(sick), 2.0))) for pair in found.pairs]
    assert np.median(right) < 0.5 < np.median(wrong)


def test_poses_of_other_photographs(tmp_path) -> None:
    photos = Photos(masks=False)
    photos.poses = photos.poses[np.random.default_rng(1).permutation(COUNT)]
    sick = patient(photos, tmp_path)
    (found,) = epipolar_findings(sick, agreement(sick))
    assert found.check == "poses" and found.severity == "warning" and "prepare.py" in found.fix


def test_a_recorder_keeps_its_poses(tmp_path) -> None:
    """Its depth is in their units: what is found anew from the photographs would fit no depth."""
    photos = Photos(masks=False)
    photos.poses = photos.poses[np.random.default_rng(1).permutation(COUNT)]
    folder = photos.write(tmp_path / "data")
    content = json.loads((folder / "transforms.json").read_text("utf-8"))
    for view, frame in enumerate(content["frames"]):
        frame["depth_file_path"] = f"{view}.npy"
        np.save(folder / f"{view}.npy", np.full((SIZE, SIZE), 3.0, np.float32))
    (folder / "transforms.json").write_text(json.dumps(content), "utf-8")
    sick = admit(TransformsData(path=str(folder)))
    (found,) = epipolar_findings(sick, agreement(sick))
    assert found.check == "poses" and "prepare.py" not in found.fix and "model.poses.type=so3xr3" in found.fix


def test_a_room_needs_no_sides_and_no_middle(tmp_path) -> None:
    made_rgbd.scannet(tmp_path)
    found = list(camera_checks.camera_findings(admit(ScannetData(path=str(tmp_path)))))
    assert not {"coverage", "look elsewhere", "cameras inside"} & {finding.check for finding in found}


def test_a_single_wrong_pose(tmp_path) -> None:
    photos = Photos(masks=False)
    turn, _ = cv2.Rodrigues(np.array([0.0, 0.0, 0.2]))
    photos.poses[5, :3, :3] = photos.poses[5, :3, :3] @ turn
    sick = patient(photos, tmp_path)
    (found,) = epipolar_findings(sick, agreement(sick))
    assert found.check == "single poses" and 5 in found.views and len(found.views) <= 4


def test_nothing_to_match(tmp_path) -> None:
    photos = Photos(masks=False)
    photos.colors = [np.full_like(color, 128) for color in photos.colors]
    sick = patient(photos, tmp_path)
    (found,) = epipolar_findings(sick, agreement(sick))
    assert found.check == "matches" and found.severity == "note"


def test_the_epipolar_distance_is_that_of_the_line() -> None:
    """Two cameras one unit apart along x: the lines are rows, the distance is the difference of rows."""
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, 0, 3] = 1
    plane = np.array([[[0.1, 0.2], [-0.1, 0.2]], [[0.3, 0.0], [0.1, 0.03]], [[0.0, 0.0], [0.5, 0.0]]])
    pair = Pair(0, 1, plane, plane, focal=100.0)
    np.testing.assert_allclose(pair.error(poses), [0, 3, 0], atol=1e-9)
    np.testing.assert_allclose(pair.error(poses, 2.0), [0, 3, 0], atol=1e-9)
    assert pair.in_front(poses) == pytest.approx(2 / 3)  # the third moves the wrong way


# --- photographs -------------------------------------------------------------------------------------------------


def checks_of(photos: Photos, folder: Path) -> tuple[Patient, list[Finding]]:
    sick = patient(photos, folder)
    numbers = photo_checks.sharpness(sick), photo_checks.brightness(sick)
    return sick, [*camera_checks.camera_findings(sick), *photo_checks.photo_findings(sick, *numbers)]


def test_blur(tmp_path) -> None:
    photos = Photos()
    photos.colors[6] = cv2.GaussianBlur(photos.colors[6], (0, 0), 2.5).astype(np.uint8)
    _, (found,) = checks_of(photos, tmp_path)
    assert found.check == "blur" and found.views == (6,) and "images/006.png" in found.fix


@pytest.mark.parametrize("factor", [0.5, 1.9])
def test_exposure(tmp_path, factor) -> None:
    photos = Photos()
    photos.colors[3] = (photos.colors[3] * factor).clip(0, 255).astype(np.uint8)
    _, found = checks_of(photos, tmp_path)
    assert [f.views for f in found if f.check == "exposure"] == [(3,)]
    assert names(found) <= {"exposure", "blur"}  # a dark picture has less contrast too


def test_the_same_photograph_twice(tmp_path) -> None:
    photos = Photos(masks=False)
    photos.colors[9] = photos.colors[2].copy()
    _, (found,) = checks_of(photos, tmp_path / "a")
    assert found.check == "duplicate photographs" and found.views == (2, 9) and found.severity == "error"
    photos.poses[9] = photos.poses[2]
    _, both = checks_of(photos, tmp_path / "b")
    assert names(both) == {"duplicate photographs", "duplicate poses"}
    assert {finding.severity for finding in both} == {"warning"}


def test_the_same_pose_twice(tmp_path) -> None:
    photos = Photos()
    photos.poses[9] = photos.poses[8]
    _, (found,) = checks_of(photos, tmp_path)
    assert found.check == "duplicate poses" and found.views == (8, 9)


def test_inverted_masks(tmp_path) -> None:
    photos = Photos()
    assert photos.masks is not None
    photos.masks = [255 - mask for mask in photos.masks]
    sick = patient(photos, tmp_path)
    (found,) = photo_checks.masks(sick)
    assert found.check == "mask polarity" and found.severity == "error"


def test_blank_masks_and_cut_objects(tmp_path) -> None:
    photos = Photos()
    assert photos.masks is not None
    photos.masks[1][:] = 0
    photos.masks[4][:] = 255
    photos.masks[7][:, : SIZE // 2] = 255
    sick = patient(photos, tmp_path)
    found = {finding.check: finding for finding in photo_checks.masks(sick)}
    assert found["blank masks"].views == (1, 4) and found["cut objects"].views == (7,) and len(found) == 2


# --- cameras -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("top", "check"),
    [
        ({"cx": 0.2 * SIZE}, "principal point"),
        ({"cx": SIZE / 2 - 0.5, "cy": SIZE / 2 - 0.5}, "half pixel"),
        ({"fl_x": 0.2 * SIZE, "fl_y": 0.2 * SIZE}, "field of view"),
        ({"fl_y": 1.3 * FOCAL}, "stretched pixels"),
    ],
)
def test_lenses(tmp_path, top, check) -> None:
    photos = Photos()
    photos.top |= top
    assert names(camera_checks.lenses(patient(photos, tmp_path))) == {check}


def test_swapped_principal_points(tmp_path) -> None:
    photos = Photos(masks=False)
    photos.colors = [np.ascontiguousarray(color[:120]) for color in photos.colors]
    photos.top |= {"cx": 60.0, "cy": 110.0}
    (found,) = camera_checks.lenses(patient(photos, tmp_path))
    assert found.severity == "error" and "exchange" in found.fix


def test_few_views(tmp_path) -> None:
    for keep, severity in ((2, "error"), (8, "warning")):
        photos = Photos(masks=False)
        photos.colors, photos.poses = photos.colors[:keep], photos.poses[:keep]
        sick = patient(photos, tmp_path / severity)
        (found,) = camera_checks.number_of_views(sick)
        assert found.severity == severity and found.text.startswith(f"{keep} views")


def test_cameras_in_the_sphere(tmp_path) -> None:
    sick = patient(Photos(), tmp_path / "a", center=(0.0, 0.0, 0.0), radius=5.0)
    (found,) = camera_checks.places(sick)
    assert found.check == "cameras inside" and found.severity == "warning" and len(found.views) == COUNT
    assert float(found.fix.split("=")[1]) == pytest.approx(0.8 * DISTANCE, rel=0.07)
    (found,) = camera_checks.places(patient(Photos(masks=False), tmp_path / "b", radius=5.0))
    assert found.severity == "note"


def test_a_sphere_elsewhere(tmp_path) -> None:
    sick = patient(Photos(), tmp_path, center=(0.0, 0.0, 30.0), radius=1.0)
    assert "look elsewhere" in names(camera_checks.places(sick))
    assert names(camera_checks.coverage_findings(sick)) == {"coverage"}


def test_coverage_counts_views(tmp_path) -> None:
    seen = camera_checks.coverage(patient(Photos(), tmp_path / "a"))
    assert seen.max() <= COUNT and (seen >= 3).mean() > 0.6
    photos = Photos(masks=False)
    photos.poses[:] = photos.poses[0]
    photos.poses[:, 2, 3] += np.linspace(0, 0.1, COUNT)  # all from one side
    sick = patient(photos, tmp_path / "b")
    assert names(camera_checks.coverage_findings(sick)) == {"coverage"}


def test_near_and_points_outside(tmp_path) -> None:
    photos = Photos(masks=False)
    photos.points = surface()
    sick = patient(photos, tmp_path / "a", near=4.0, radius=1.0, center=(0.0, 0.0, 0.0))
    (found,) = camera_checks.near_and_far(sick)
    low, high = camera_checks.point_depths(sick)
    assert found.check == "near" and 2 < low < high < 4.5
    assert float(found.fix.split("=")[1]) == pytest.approx(low / 2, rel=0.1)
    sick = patient(photos, tmp_path / "b", radius=0.1, center=(0.0, 0.0, 0.0))
    assert names(camera_checks.near_and_far(sick)) == {"points outside"}


def test_reprojection(tmp_path) -> None:
    photos = Photos(masks=False)
    photos.points = surface(60)
    sick = patient(photos, tmp_path)
    assert sick.views.points is not None and not list(camera_checks.points_off(sick))
    point, view = (index.reshape(-1) for index in np.mgrid[:60, :COUNT])
    pixel = sick.views.cameras(np.eye(4)).project(
        torch.from_numpy(sick.views.points[point]).float(), torch.from_numpy(view)
    )
    tracks = Tracks(point, view, pixel[0].double().numpy())
    for wrong, expected in ((np.zeros(COUNT), []), (np.arange(COUNT) == 3, ["warning"]), (np.ones(COUNT), ["error"])):
        moved = replace(tracks, pixel=tracks.pixel + 9 * wrong[view, None])
        found = list(camera_checks.points_off(replace(sick, views=replace(sick.views, tracks=moved))))
        assert [finding.severity for finding in found] == expected
        assert not found or expected == ["error"] or found[0].views == (3,)


def test_huge_and_distant_worlds(tmp_path) -> None:
    photos = Photos()
    photos.poses[:, :3, 3] *= 1e6
    (found,) = camera_checks.size_of_world(patient(photos, tmp_path / "a"))
    assert found.check == "scale"
    photos = Photos()
    photos.poses[:, :3, 3] += 1e6
    (found,) = camera_checks.size_of_world(patient(photos, tmp_path / "b"))
    assert found.check == "far from the origin"


def test_statistics(tmp_path) -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    assert unusual(values, floor=0.1)[2] == 0 and unusual(values, floor=0.1)[4] == pytest.approx(97 / 1.4826)
    assert unusual(np.ones(4), floor=0.1).tolist() == [0, 0, 0, 0]
    same = of_neighbors(patient(Photos(), tmp_path), np.ones(COUNT))
    assert same.tolist() == [0] * COUNT


# --- the page and the command ------------------------------------------------------------------------------------


def test_the_page_is_self_contained_and_escaped(tmp_path) -> None:
    photos = Photos()
    photos.colors[3] = photos.colors[3] // 3
    folder = photos.write(tmp_path / "<script>alert(1)</script> & \x1b[31m")
    page = doctor_page.page(examine(TransformsData(path=str(folder))))
    assert "<script" not in page and "\x1b" not in page and "&lt;script&gt;" in page
    links = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^">)]{0,20})', page)
    assert links and all(link.startswith("data:image/") for link in links)
    assert "exposure" in page and page.count("<img") >= COUNT + 3 and page.count("<svg") == 1
    assert len(page) < 4_000_000


def test_the_outline_touches_the_sphere() -> None:
    center = np.array([3.0, -2.0, 1.0])
    ring = doctor_page.outline(center)
    np.testing.assert_allclose(np.linalg.norm(ring, axis=1), 1)
    np.testing.assert_allclose(((ring - center) * ring).sum(axis=1), 0, atol=1e-12)
    assert len(doctor_page.outline(center / 10)) == 0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "prepare.py", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_the_command(tmp_path) -> None:
    photos = Photos()
    photos.top["cx"] = 0.2 * SIZE
    folder = str(photos.write(tmp_path / "data"))
    done = run("--check", folder, "data.holdout=0", "--out", str(tmp_path / "page.html"))
    assert done.returncode == 0 and "principal point" in done.stdout and "Traceback" not in done.stderr
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")
    for wrong in (["--check", str(tmp_path / "nothing")], ["--check", folder, "data.holdot=1"]):
        done = run(*wrong)
        assert done.returncode == 2 and "error:" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["synthetic/figure", "dtu_scan65"])
def test_real_sets_agree_with_their_poses(name) -> None:
    from dataio.recognition import AutoData

    sick = admit(AutoData(path=str(shared_data(name))).resolve())
    found = agreement(sick)
    assert found.error < 0.3 and not list(epipolar_findings(sick, found))
