"""Patches on planes across photographs, against the same by rays, planes and projections in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dataio.cameras import Cameras
from dataio.lens import Lens
from models.kernels.pixels.ncc import Photographs, plane_ncc
from tests.support.made_data import ring_poses

Compare = Callable[..., tuple[Tensor, Tensor, Tensor]]
Form = Callable[[Tensor, Tensor, Tensor, Tensor, int, Cameras], tuple[Tensor, Tensor, Tensor]]
SIZES = torch.tensor([[60, 44], [52, 60], [48, 50], [64, 40]])
FOCAL = 90.0


def cameras() -> Cameras:
    """Four photographs of other sizes from beside one another."""
    center = SIZES / 2.0
    return Cameras.make(ring_poses(24)[:4], torch.cat([torch.full_like(center, FOCAL), center], 1), SIZES)


def doubles(of: Cameras) -> Cameras:
    return Cameras(*(x.double() if x.is_floating_point() else x for x in vars(of).values() if isinstance(x, Tensor)))


def layout() -> Tensor:
    areas = SIZES.prod(1)
    return torch.column_stack([areas.cumsum(0) - areas, SIZES, torch.arange(4)])


def pictures() -> Tensor:
    """Smooth noise, so that differences of values tell of slopes."""
    torch.manual_seed(3)
    parts = []
    for width, height in SIZES.tolist():
        coarse = torch.rand(1, 1, height // 4, width // 4)
        parts.append(torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False))
    return torch.cat([(255 * part.clamp(0, 1)).flatten() for part in parts]).round().byte()


def inputs(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points [P, 3], normals [P, 3] toward the first photograph, and photographs [P, 4]."""
    generator = torch.Generator().manual_seed(0)
    of = cameras()
    points = 1.6 * torch.rand(count, 3, generator=generator) - 0.8
    view = torch.rand(count, 4, generator=generator).argsort(1)
    toward = of.centers[view[:, 0]] - points
    normal = toward / toward.norm(dim=-1, keepdim=True) + 0.4 * torch.randn(count, 3, generator=generator)
    return points, torch.nn.functional.normalize(normal, dim=-1), view


def read(gray: Tensor, view: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Bilinear gray [N] in [0, 1] and whether the photographs reach so far."""
    first, width, height = layout()[view, :3].unbind(-1)
    at = pixels - 0.5
    seen = (at >= 0).all(-1) & (at[:, 0] <= width - 1) & (at[:, 1] <= height - 1)
    at = torch.where(seen[:, None], at, 0.0)
    low = torch.minimum(at.detach().floor().long(), torch.stack([width, height], 1) - 2)
    x, y = (at - low).unbind(-1)
    here = first + low[:, 1] * width + low[:, 0]
    a, b, c, d = (gray[here + step].double() / 255 for step in (0, 1, width, width + 1))
    return (1 - y) * ((1 - x) * a + x * b) + y * ((1 - x) * c + x * d), seen


def twin(
    points: Tensor, normal: Tensor, shift: Tensor, view: Tensor, side: int, of: Cameras
) -> tuple[Tensor, Tensor, Tensor]:
    """ncc [P, S], seen [P, S], deviation [P] through `Cameras.rays` and `Cameras.project`."""
    gray, reach = pictures(), torch.arange(side) - side // 2
    offset = torch.cartesian_prod(reach, reach).to(points.dtype)
    area, (count, photographs) = len(offset), view.shape
    pixel, _ = of.project(points, view[:, 0])
    around = of.rays(view[:, 0].repeat_interleave(area), (pixel[:, None] + offset).flatten(0, 1))
    origin, direction = (x.view(count, area, 3) for x in (around.origins, around.directions))
    steep = (direction * normal[:, None]).sum(-1)
    along = (((points[:, None] - origin) * normal[:, None]).sum(-1) + shift[:, None]) / steep
    patch = origin + along[..., None] * direction
    axis = of.forward[view[:, 0]][:, None]
    depth = ((patch - origin) * axis).sum(-1)
    near = (depth > 0).all(1) & (depth <= 2 * (depth[:, area // 2, None] - shift[:, None])).all(1) & (steep < 0).all(1)
    everywhere = patch[:, None].expand(-1, photographs, -1, -1).flatten(0, 2)
    at, depth = of.project(everywhere, view.flatten().repeat_interleave(area))
    value, seen = read(gray, view.flatten().repeat_interleave(area), at)
    value, seen = value.view(count, photographs, area), (seen & (depth > 0)).view(count, photographs, area).all(-1)
    away = value - value.mean(-1, keepdim=True)
    power = away.square().mean(-1)
    ncc = (away[:, :1] * away[:, 1:]).mean(-1) / (power[:, :1] * power[:, 1:] + 1e-10).sqrt()
    seen = seen[:, 1:] & seen[:, :1] & near[:, None]
    return torch.where(seen, ncc, 0.0), seen, power[:, 0].sqrt()


def by_kernel(
    points: Tensor, normal: Tensor, shift: Tensor, view: Tensor, side: int, of: Cameras, kernel: Compare = plane_ncc
) -> tuple[Tensor, Tensor, Tensor]:
    local = of.near_points(points.repeat_interleave(view.shape[1], 0), view.flatten()).view(*view.shape, 12)
    return kernel(normal, shift, Photographs(pictures(), layout(), view, local), side=side)


@pytest.mark.parametrize("side", [3, 7, 11])
def test_it_is_what_rays_and_projections_say(side: int) -> None:
    points, normal, view = inputs(203)
    zero = torch.zeros(203)
    found = by_kernel(points, normal, zero, view, side, cameras())
    expected = twin(points.double(), normal.double(), zero.double(), view, side, doubles(cameras()))
    same = found[1] == expected[1]
    assert same.float().mean() > 0.995 and 0.3 < expected[1].float().mean() < 0.95  # edges may differ by a digit
    torch.testing.assert_close(found[0][same], expected[0][same].float(), atol=2e-4, rtol=0)
    some = found[1].any(1)
    torch.testing.assert_close(found[2][some], expected[2][some].float(), atol=1e-5, rtol=1e-4)


def test_its_derivatives_are_those_of_the_same_in_float64() -> None:
    points, normal, view = inputs(203)
    moved = 0.01 * torch.randn(203, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(203, 3, generator=torch.Generator().manual_seed(2))
    _, seen, _ = twin(points.double(), normal.double(), moved.double(), view, 7, doubles(cameras()))
    weight = weight * seen
    forms: list[tuple[Form, torch.dtype, Cameras]] = [
        (by_kernel, torch.float32, cameras()), (twin, torch.float64, doubles(cameras()))
    ]
    slopes = []
    for form, dtype, of in forms:
        n, s = (x.to(dtype).requires_grad_() for x in (normal, moved))
        ncc, _, _ = form(points.to(dtype), n, s, view, 7, of)
        slopes.append(torch.autograd.grad((ncc * weight).sum(), [n, s]))
    for mine, true in zip(*slopes, strict=True):
        off = (mine - true).abs() / (true.abs() + 0.1 * true.abs().mean())
        assert true.abs().mean() > 0.1 and off.median() < 1e-4 and off.quantile(0.99) < 0.02


def test_its_derivatives_are_differences_of_its_values() -> None:
    points, normal, view = inputs(203)
    zero = torch.zeros(203)
    n, s = normal.clone().requires_grad_(), zero.clone().requires_grad_()
    ncc, seen, _ = by_kernel(points, n, s, view, 7, cameras())
    slopes = torch.autograd.grad((ncc * seen).sum(), [n, s])
    step = 2e-3
    directions = torch.nn.functional.normalize(torch.randn(203, 3, generator=torch.Generator().manual_seed(2)), dim=-1)
    for way, slope in (((directions, zero), (slopes[0] * directions).sum(-1)), ((0 * directions, zero + 1), slopes[1])):
        ends = [by_kernel(points, normal + d * way[0], zero + d * way[1], view, 7, cameras()) for d in (step, -step)]
        both = ends[0][1] & ends[1][1] & seen
        change = ((ends[0][0] - ends[1][0]) * both).sum(1) / (2 * step)
        alike = (both == seen).all(1)
        off = (change - slope)[alike].abs()
        assert off.median() < 0.02 * change.abs().mean() and off.mean() < 0.05 * change.abs().mean()


def test_no_points_and_what_lies_behind() -> None:
    points, normal, view = inputs(0)
    ncc, seen, deviation = by_kernel(points, normal, torch.zeros(0), view, 5, cameras())
    assert ncc.shape == seen.shape == (0, 3) and deviation.shape == (0,)
    points, normal, view = inputs(20)
    behind = cameras().centers[view[:, 0]] - cameras().forward[view[:, 0]]
    ncc, seen, _ = by_kernel(behind, normal, torch.zeros(20), view, 5, cameras())
    assert not seen.any() and not ncc.any()


@pytest.mark.parametrize("lens", [Lens.BROWN, Lens.FISHEYE, Lens.EQUIRECTANGULAR])
def test_cameras_near_points_are_the_cameras(lens: Lens) -> None:
    """To first order with bent lenses, exactly without."""
    bend = [-0.1, 0.03, 0.002, -0.001, 0, 0, 0, 0]
    focal = [60 / 6.2832, 44 / 3.1416, 0, 0] if lens == Lens.EQUIRECTANGULAR else [90, 92, 30, 22]
    for distortion in (None, bend) if lens == Lens.BROWN else (bend,):
        of = Cameras.make(ring_poses(24)[:4], focal, [60, 44], distortion=distortion, lens=[lens] * 4)
        points, _, view = inputs(50)
        near = of.near_points(points, view[:, 0])
        step = (1e-2 if distortion is None else 1e-3) * torch.randn(50, 3)
        a, b, c = (near[:, 3:].view(-1, 3, 3) @ step[..., None])[..., 0].unbind(-1)
        moved = near[:, :2] + torch.stack([a, b], -1) / (near[:, 2] + c)[:, None]
        expected, _ = of.project(points + step, view[:, 0])
        before, _ = of.project(points, view[:, 0])
        exact = distortion is None
        error = (moved - expected).norm(dim=-1)
        assert error.max() < (1e-3 if exact else 0.01 * float((expected - before).norm(dim=-1).mean()))
