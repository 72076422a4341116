"""Every lens against the formula of its paper, written out for single points, and against COLMAP and OpenCV."""

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dataio.cameras import Cameras
from dataio.checks.usable import check_cameras
from dataio.formats.colmap import MEANING, _distortion, _intrinsics
from dataio.formats.colmap_model import MODELS, ModelCamera
from dataio.lens import PROJECTIONS, Lens
from tests.support.made_data import ring_poses

WIDTH, HEIGHT = 640, 480
BEND = {
    "SIMPLE_PINHOLE": [], "PINHOLE": [], "SIMPLE_RADIAL": [-0.1], "RADIAL": [-0.1, 0.03],
    "OPENCV": [-0.1, 0.03, 0.002, -0.001], "OPENCV_FISHEYE": [0.03, -0.01, 0.004, -0.001],
    "FULL_OPENCV": [0.06, -0.08, -0.001, 0.0002, 0.01, 0.02, -0.01, 0.003], "FOV": [0.9],
    "SIMPLE_RADIAL_FISHEYE": [0.03], "RADIAL_FISHEYE": [0.03, -0.01],
    "THIN_PRISM_FISHEYE": [0.03, -0.01, 0.001, -0.002, 0.004, -0.001, 0.002, -0.003],
    "RAD_TAN_THIN_PRISM_FISHEYE": [
        0.03, -0.01, 0.004, -0.001, 0.0005, -0.0002, 0.001, -0.002, 0.002, -0.003, 0.001, 0.0004
    ],
    "SIMPLE_DIVISION": [-0.2], "DIVISION": [-0.2], "SIMPLE_FISHEYE": [], "FISHEYE": [], "EUCM": [0.6, 1.1],
    "EQUIRECTANGULAR": [],
}  # fmt: skip


def camera_of(model: str) -> ModelCamera:
    """A camera with strong distortion."""
    if model == "EQUIRECTANGULAR":
        return ModelCamera(model, WIDTH, HEIGHT, (WIDTH, HEIGHT))
    wide = "FISHEYE" in model or model == "EUCM"
    focals = [300.0, 290.0] if wide else [500.0, 490.0]
    return ModelCamera(model, WIDTH, HEIGHT, (*focals[: MEANING[model].focals], 322.0, 238.0, *BEND[model]))


def ours(model: str) -> Cameras:
    """The same camera as we have it, turned and shifted."""
    camera = camera_of(model)
    lens = [MEANING[model].lens]
    return Cameras.make(
        ring_poses(1), _intrinsics(camera), [WIDTH, HEIGHT], distortion=_distortion([camera]), lens=lens
    )


def pixels() -> torch.Tensor:
    u, v = np.meshgrid(np.linspace(0.5, WIDTH - 0.5, 23), np.linspace(0.5, HEIGHT - 0.5, 17))
    return torch.from_numpy(np.stack([u.ravel(), v.ravel()], axis=-1)).float()


def tangential(x: float, y: float, p1: float, p2: float) -> tuple[float, float]:
    r2 = x * x + y * y
    return 2 * p1 * x * y + p2 * (r2 + 2 * x * x), p1 * (r2 + 2 * y * y) + 2 * p2 * x * y


def formula(lens: Lens, point: list[float], bend: list[float]) -> tuple[float, float]:
    """The plane coordinates of one point, as the papers write them."""
    x, y, z = point
    k: list[Any] = [*bend, *[0.0] * (12 - len(bend))]
    u, v = x / z, y / z
    theta = math.atan2(math.hypot(x, y), z)
    a, b = theta * x / math.hypot(x, y), theta * y / math.hypot(x, y)
    if lens == Lens.BROWN:
        r2 = u * u + v * v
        radial = (1 + k[0] * r2 + k[1] * r2**2 + k[4] * r2**3) / (1 + k[5] * r2 + k[6] * r2**2 + k[7] * r2**3)
        shift = tangential(u, v, k[2], k[3])
        return u * radial + shift[0], v * radial + shift[1]
    if lens == Lens.FISHEYE:
        bent = 1 + k[0] * theta**2 + k[1] * theta**4 + k[2] * theta**6 + k[3] * theta**8
        return a * bent, b * bent
    if lens == Lens.THIN_PRISM_FISHEYE:
        r2 = a * a + b * b
        radial = 1 + k[0] * r2 + k[1] * r2**2 + k[4] * r2**3 + k[5] * r2**4
        shift = tangential(a, b, k[2], k[3])
        return a * radial + shift[0] + k[6] * r2, b * radial + shift[1] + k[7] * r2
    if lens == Lens.RADIAL_TANGENTIAL_PRISM_FISHEYE:
        bent = 1 + sum(k[i] * theta ** (2 * i + 2) for i in range(6))
        a, b = a * bent, b * bent
        r2 = a * a + b * b
        shift = tangential(a, b, k[7], k[6])
        return a + shift[0] + k[8] * r2 + k[9] * r2**2, b + shift[1] + k[10] * r2 + k[11] * r2**2
    if lens == Lens.FIELD_OF_VIEW:
        radius = math.hypot(u, v)
        bent = math.atan(2 * radius * math.tan(k[0] / 2)) / k[0]
        return u * bent / radius, v * bent / radius
    if lens == Lens.UNIFIED:
        below = k[0] * math.sqrt(k[1] * (x * x + y * y) + z * z) + (1 - k[0]) * z
        return x / below, y / below
    if lens == Lens.EQUIRECTANGULAR:
        return math.atan2(x, z), math.asin(y / math.sqrt(x * x + y * y + z * z))
    raise AssertionError(lens)


@pytest.mark.parametrize("model", sorted({m.name for m in MODELS} - {"DIVISION", "SIMPLE_DIVISION"}))
def test_projection_is_the_formula(model):
    lens, bend = MEANING[model].lens, _distortion([camera_of(model)])[0]
    random = np.random.default_rng(1)
    points = np.concatenate([random.normal(size=(50, 2)), random.uniform(1.5, 4, (50, 1))], axis=-1)
    coefficients = torch.from_numpy(np.tile(bend, (50, 1)))
    plane = PROJECTIONS[lens].plane(torch.from_numpy(points), coefficients).numpy()
    expected = [formula(lens, point, bend.tolist()) for point in points.tolist()]
    np.testing.assert_allclose(plane, expected, atol=1e-12)


def test_the_division_model_undistorts_by_division():
    plane = torch.tensor([[0.3, -0.4], [0.1, 0.2]], dtype=torch.float64)
    k = torch.full((2, 8), -0.2, dtype=torch.float64)
    ideal = plane / (1 - 0.2 * plane.square().sum(-1, keepdim=True))
    directions = PROJECTIONS[Lens.DIVISION].directions(plane, k)
    torch.testing.assert_close(directions[:, :2] / directions[:, 2:], ideal)
    lifted = torch.cat([ideal, torch.ones(2, 1, dtype=torch.float64)], dim=-1)
    torch.testing.assert_close(PROJECTIONS[Lens.DIVISION].plane(3 * lifted, k), plane)


@pytest.mark.parametrize("model", [m.name for m in MODELS])
def test_rays_and_projection_agree_to_a_thousandth_of_a_pixel(model):
    cameras, grid = ours(model), pixels()
    if model == "EQUIRECTANGULAR":  # at the poles a longitude means little
        grid = grid[(grid[:, 1] - HEIGHT / 2).abs() < 200]
    rays = cameras.rays(torch.zeros(len(grid), dtype=torch.int64), grid)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(len(grid)))
    back, _ = cameras.project(rays.at(torch.full((len(grid),), 2.5)), 0)
    assert (back - grid).abs().max() < 1e-3


@pytest.mark.parametrize("model", [m.name for m in MODELS])
def test_rays_are_those_of_colmap(model):
    pycolmap = pytest.importorskip("pycolmap")
    camera, grid = camera_of(model), pixels()
    theirs = pycolmap.Camera(model=model, width=WIDTH, height=HEIGHT, params=list(camera.parameters))
    rays = ours(model).rays(torch.zeros(len(grid), dtype=torch.int64), grid)
    local = rays.directions.double().numpy() @ ring_poses(1)[0, :3, :3]
    assert np.abs(np.array(theirs.img_from_cam(local)) - grid.numpy()).max() < 1e-3


def test_what_is_far_aside_is_not_in_the_picture():
    """r (1 + k r^2) with k = -0.1 turns back at r = 1.83 and is zero again at r = 3.16; the picture ends at r = 0.9."""
    bend = [-0.1] + 7 * [0.0]
    cameras = Cameras.make(np.eye(4)[None], [500.0, 500.0, 320.0, 240.0], [WIDTH, HEIGHT], distortion=bend)
    aside = torch.tensor([0.6, 1.5, 2.0, 2.9, 3.1, 3.3, 4.0, 20.0])
    for turn in np.linspace(0, 2 * np.pi, 9):
        way = torch.stack([np.cos(turn) * aside, np.sin(turn) * aside, torch.ones(8)], dim=-1).float()
        pixels, depth = cameras.project(way, 0)
        radius = (pixels - torch.tensor([320.0, 240.0])).norm(dim=-1) / 500
        assert (depth > 0).all() and (radius[1:] > 0.9).all()
        torch.testing.assert_close(radius[:2], aside[:2] * (1 - 0.1 * aside[:2] ** 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("model", ["SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"])
def test_perspective_models_are_those_of_opencv(model):
    camera, grid = camera_of(model), pixels()
    rays = ours(model).rays(torch.zeros(len(grid), dtype=torch.int64), grid)
    local = rays.directions.double().numpy() @ ring_poses(1)[0, :3, :3]
    fx, fy, cx, cy = _intrinsics(camera)
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    seen, _ = cv2.projectPoints(local, np.zeros(3), np.zeros(3), matrix, _distortion([camera])[0])
    assert np.abs(seen[:, 0] - grid.numpy()).max() < 1e-3


def test_all_lenses_in_one_set():
    kinds = [m.name for m in MODELS]
    cameras = Cameras.make(
        np.tile(ring_poses(1), (len(kinds), 1, 1)),
        [_intrinsics(camera_of(kind)) for kind in kinds],
        [WIDTH, HEIGHT],
        distortion=_distortion([camera_of(kind) for kind in kinds]),
        lens=[MEANING[kind].lens for kind in kinds],
    )
    pixel = torch.tensor([[70.5, 400.5]])
    for view, kind in enumerate(kinds):
        direction = cameras.rays(torch.tensor([view]), pixel).directions
        alone = ours(kind).rays(torch.tensor([0]), pixel).directions
        torch.testing.assert_close(direction, alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("model", [m.name for m in MODELS])
def test_gradients_to_pixels_and_coefficients(model):
    lens = MEANING[model].lens
    bend = torch.from_numpy(np.tile(_distortion([camera_of(model)])[0], (2, 1))).requires_grad_()
    plane = torch.tensor([[0.2, -0.1], [-0.3, 0.25]], dtype=torch.float64, requires_grad=True)
    points = torch.tensor([[0.2, -0.1, 1.1], [-0.3, 0.4, 0.9]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(PROJECTIONS[lens].directions, (plane, bend), atol=1e-5)
    assert torch.autograd.gradcheck(PROJECTIONS[lens].plane, (points, bend), atol=1e-5)


@pytest.mark.parametrize("lens", list(Lens))
def test_a_lens_that_is_not_used_gives_finite_gradients(lens):
    plane = torch.tensor([[0.0, 0.0], [2.0, -3.0], [50.0, 0.1]], requires_grad=True)
    bend = torch.zeros(3, 12)
    PROJECTIONS[lens].directions(plane, bend).square().sum().backward()
    assert plane.grad is not None and torch.isfinite(plane.grad).all()


@pytest.mark.parametrize("model", [m.name for m in MODELS])
def test_sound_lenses_pass_the_checks(model):
    camera = camera_of(model)
    poses, size = ring_poses(4), np.tile([WIDTH, HEIGHT], (4, 1))
    kept = check_cameras(
        poses, np.tile(_intrinsics(camera), (4, 1)), size, list("abcd"), where="f",
        distortion=_distortion([camera] * 4), lens=np.full(4, MEANING[model].lens),
    )  # fmt: skip
    assert kept.all()


@pytest.mark.parametrize(("lens", "bend"), [(Lens.FISHEYE, -9.0), (Lens.FIELD_OF_VIEW, 50.0)])
def test_a_lens_without_directions_is_refused(lens, bend, capsys):
    coefficients = np.zeros((10, 8))
    coefficients[0, 0] = bend
    kept = check_cameras(
        ring_poses(10), np.tile([300.0, 300, 320, 240], (10, 1)), np.tile([WIDTH, HEIGHT], (10, 1)),
        [f"v{i}" for i in range(10)], where="f", distortion=coefficients, lens=np.full(10, lens),
    )  # fmt: skip
    assert kept.tolist() == [False] + [True] * 9 and "folds" in capsys.readouterr().err
