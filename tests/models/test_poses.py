"""Corrections of camera poses, against matrix exponentials in float64 and finite differences."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from dataio.cameras import Cameras, Rays
from models.poses.base import Poses, cross_matrix, exponential
from models.poses.se3 import Se3Config
from models.poses.so3xr3 import So3xR3Config

KINDS = {"so3xr3": So3xR3Config(), "se3": Se3Config()}
ANGLES = [0.0, 1e-12, 1e-6, 1e-3, 0.1, 0.499, 0.501, 1.0, 3.0, 6.0]


def turns(angle: float) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return angle * torch.nn.functional.normalize(torch.randn(20, 3, generator=g, dtype=torch.float64), dim=-1)


def cameras(count: int = 5) -> Cameras:
    """About a ball, looking anywhere."""
    rotation = Rotation.random(count, random_state=1).as_matrix()
    center = 3 * rotation[:, :, 0]
    pose = torch.cat([torch.from_numpy(x) for x in (rotation, center[:, :, None])], 2)
    return Cameras.make(pose, [30.0, 31.0, 16.0, 12.0], [32, 24])


def moved(name: str, size: float = 0.3) -> Poses:
    poses = KINDS[name].build(5)
    with torch.no_grad():
        poses.correction.copy_(size * torch.randn(5, 6, generator=torch.Generator().manual_seed(2)))
    return poses


def some_rays(of: Cameras) -> Rays:
    g = torch.Generator().manual_seed(3)
    return of.rays(torch.arange(40) % 5, torch.rand(40, 2, generator=g) * 24)


@pytest.mark.parametrize("angle", ANGLES)
def test_exponential_is_that_of_the_matrix(angle: float) -> None:
    w = turns(angle)
    turn, mean = exponential(w)
    torch.testing.assert_close(turn, torch.linalg.matrix_exp(cross_matrix(w)), atol=1e-13, rtol=0)
    torch.testing.assert_close(turn.numpy(), Rotation.from_rotvec(w.numpy()).as_matrix(), atol=1e-13, rtol=0)
    twist = torch.zeros(20, 4, 4, dtype=torch.float64)
    twist[:, :3, :3], twist[:, :3, 3] = cross_matrix(w), torch.ones(3, dtype=torch.float64)
    shift = (mean @ torch.ones(3, 1, dtype=torch.float64))[:, :, 0]
    torch.testing.assert_close(shift, torch.linalg.matrix_exp(twist)[:, :3, 3], atol=1e-13, rtol=0)
    single = exponential(w.float())[0]
    torch.testing.assert_close(single.double(), turn, atol=1e-6, rtol=0)


@pytest.mark.parametrize("angle", ANGLES)
def test_exponential_has_its_gradient_at_zero_too(angle: float) -> None:
    w = turns(angle)[:3].clone().requires_grad_()
    assert torch.autograd.gradcheck(exponential, w, eps=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_nothing_moves_at_first(name: str) -> None:
    rays, poses = some_rays(cameras()), KINDS[name].build(5)
    found = poses(rays)
    assert torch.equal(found.origins, rays.origins) and torch.equal(found.directions, rays.directions)
    assert found.origins.requires_grad and found.near is rays.near and found.camera is rays.camera


@pytest.mark.parametrize("name", KINDS)
def test_refined_cameras_see_the_rays_that_were_trained_on(name: str) -> None:
    given, poses = cameras(), moved(name)
    refined = poses.refined(given)
    found, truth = poses(some_rays(given)), some_rays(refined)
    torch.testing.assert_close(found.origins, truth.origins, atol=2e-6, rtol=0)
    torch.testing.assert_close(found.directions, truth.directions, atol=2e-6, rtol=0)
    axes = refined.camera_to_world[:, :, :3].double()
    torch.testing.assert_close(axes.mT @ axes, torch.eye(3).double().expand(5, 3, 3), atol=3e-7, rtol=0)


def test_a_camera_turns_about_its_center_or_about_the_origin() -> None:
    given = cameras()
    alone, whole = (KINDS[name].build(5) for name in KINDS)
    for poses in (alone, whole):
        with torch.no_grad():
            poses.correction[1, 2] = math.pi / 2  # about z
    turned = given.centers[1] @ torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    torch.testing.assert_close(alone.refined(given).centers, given.centers)
    torch.testing.assert_close(whole.refined(given).centers[1], turned)
    torch.testing.assert_close(whole.refined(given).centers[2:], given.centers[2:])
    torch.testing.assert_close(alone.refined(given).forward, whole.refined(given).forward)


@pytest.mark.parametrize("name", KINDS)
def test_rays_have_their_gradient_in_corrections(name: str) -> None:
    poses, rays = moved(name).double(), some_rays(cameras())
    rays = replace(rays, origins=rays.origins.double(), directions=rays.directions.double())

    def ends(correction: Tensor) -> tuple[Tensor, Tensor]:
        found = torch.func.functional_call(poses, {"correction": correction}, rays)
        return found.origins, found.directions

    assert torch.autograd.gradcheck(ends, poses.correction.detach().clone().requires_grad_())


def test_other_cameras_are_refused() -> None:
    with pytest.raises(ValueError, match="5 cameras: expected 3"):
        KINDS["se3"].build(3).refined(cameras())
