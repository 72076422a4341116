"""The march against a loop that looks at every step of the lattice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.kernels.rays.march import blocks, march

Float64 = npt.NDArray[np.float64]


def place(t: float, length: float, cone: float) -> float:
    """The integral of 1 / max(length, cone t) from 0 on."""
    turn = length / cone if cone else np.inf
    return t / length if t <= turn else 1 / cone + np.log(t / turn) / cone


def distance(u: float, length: float, cone: float) -> float:
    return u * length if u * cone <= 1 else length / cone * float(np.exp(u * cone - 1))


def march_reference(
    ray: tuple[Float64, Float64, float, float, float], occupied: npt.NDArray[np.uint8], length: float, cone: float
) -> list[tuple[float, float]]:
    """All lattice intervals whose mid-point lies in [near, far) and in an occupied cell, in float64."""
    origin, direction, near, far, jitter = ray
    levels, n = occupied.shape[:2]
    found: list[tuple[float, float]] = []
    far = min(far, float(np.linalg.norm(origin)) + 2.0 * 2 ** (levels - 1))
    k = 0
    while True:
        u = place(near, length, cone) + k + jitter - 1
        start, middle, end = (distance(u + part, length, cone) for part in (0.0, 0.5, 1.0))
        k += 1
        if middle >= far:
            return found
        point = origin + direction * middle
        level = max(0, int(np.ceil(np.log2(max(np.abs(point).max(), 1e-9)))))
        if middle < near or level >= levels:
            continue
        x, y, z = np.minimum(((point / 2**level * 0.5 + 0.5) * n).astype(int), n - 1)
        if occupied[level, x, y, z]:
            found.append((start, end))


def rays(count: int, seed: int, reach: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * 2
    targets = (torch.rand(count, 3, generator=generator) * 1.6 - 0.8) * reach
    return origins, torch.nn.functional.normalize(targets - origins, dim=-1)


def run(
    occupied: torch.Tensor,
    device: torch.device,
    *,
    steps: tuple[float, float] = (0.03, 0.0),
    far: float = 3.4,
    capacity: int | None = None,
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    count = 40
    origins, directions = rays(count, 0, len(occupied))
    ends = torch.full((count,), 0.7), torch.full((count,), far)
    jitter = torch.rand(count, generator=torch.Generator().manual_seed(1))
    got = march(
        *(x.to(device) for x in (origins, directions)),
        near=ends[0].to(device),
        far=ends[1].to(device),
        jitter=jitter.to(device),
        cells=(occupied.to(device), blocks(occupied).to(device)),
        steps=torch.tensor(steps, device=device),
        capacity=capacity,
    )
    return (origins, directions, *ends, jitter), tuple(x.cpu() for x in got)


@pytest.mark.parametrize("steps", [(0.03, 0.0), (0.02, 0.03), (0.03, 1 / 256)])
@pytest.mark.parametrize("levels, far", [(1, 3.4), (1, np.inf), (4, 9.0), (4, np.inf)])
def test_same_steps_as_a_march_without_skipping(
    levels: int, far: float, steps: tuple[float, float], device: torch.device
) -> None:
    n = 16 if levels == 1 else 32
    occupied = (torch.rand(levels, n, n, n, generator=torch.Generator().manual_seed(3)) < 0.1).to(torch.uint8)
    occupied[:, : n // 2, n // 2 :] = 0  # whole blocks are empty
    inputs, (starts, ends, ray_index, offsets, total) = run(occupied, device, steps=steps, far=far)
    exact = [x.double().numpy() for x in inputs]
    differences = 0
    for r in range(len(exact[0])):
        ray = exact[0][r], exact[1][r], float(exact[2][r]), float(exact[3][r]), float(exact[4][r])
        expected = march_reference(ray, occupied.numpy(), *steps)
        part = slice(int(offsets[r]), int(offsets[r + 1]))
        mine = torch.stack([starts[part], ends[part]], -1).double().numpy()
        assert (ray_index[part] == r).all()
        # A mid-point within float32 rounding of a cell's wall may fall on either side.
        differences += abs(len(mine) - len(expected))
        if len(mine) == len(expected) > 0:
            np.testing.assert_allclose(mine, expected, atol=2e-6 if steps[1] == 0 else 1e-4)
    assert differences <= 2 * levels
    assert len(starts) == int(total) > 100


def test_empty_and_full_grids(device: torch.device) -> None:
    empty = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    _, (starts, ends, ray_index, offsets, _) = run(empty, device)
    assert len(starts) == len(ends) == len(ray_index) == 0 and (offsets == 0).all()
    _, (starts, _, _, offsets, _) = run(torch.ones_like(empty), device)
    assert (offsets.diff() > 10).all()


@pytest.mark.parametrize("capacity", [1, 700, 5000])
def test_a_room_cuts_what_comes_last_and_ends_in_zeros(capacity: int, device: torch.device) -> None:
    occupied = torch.ones(1, 8, 8, 8, dtype=torch.uint8)
    _, whole = run(occupied, device)
    _, (*arrays, offsets, total) = run(occupied, device, capacity=capacity)
    assert 700 < int(total) == len(whole[0]) < 5000
    kept = min(capacity, int(total))
    for mine, other in zip(arrays, whole, strict=False):
        assert len(mine) == capacity and torch.equal(mine[:kept], other[:kept]) and not mine[kept:].any()
    assert torch.equal(offsets, whole[3].clamp_max(capacity))


def test_rays_along_an_axis_and_rays_without_extent(device: torch.device) -> None:
    origins = torch.tensor([[-2.0, 0.1, 0.1], [0.0, 0.0, 5.0], [0.0, 0.0, 2.0]], device=device)
    directions = torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0, 0, -1.0]], device=device)
    near = torch.tensor([0.0, 0.0, 1.0], device=device)
    far = torch.tensor([torch.inf, torch.inf, 1.0], device=device)
    occupied = torch.ones(1, 4, 4, 4, dtype=torch.uint8, device=device)
    starts, ends, _, offsets, _ = march(
        origins,
        directions,
        near=near,
        far=far,
        jitter=torch.full_like(near, 0.5),
        cells=(occupied, blocks(occupied)),
        steps=torch.tensor([0.1, 0.0]),
    )
    counts = offsets.diff().tolist()
    assert counts[0] in (20, 21) and counts[1] == 0 and counts[2] == 0
    middle = (starts + ends)[: counts[0]] / 2
    assert middle.min() >= 1.0 - 1e-5 and middle.max() <= 3.0 + 1e-5


def test_a_cone_makes_steps_grow_with_the_distance(device: torch.device) -> None:
    occupied = torch.ones(6, 32, 32, 32, dtype=torch.uint8, device=device)
    start, along = torch.zeros(1, 3, device=device), torch.tensor([[1.0, 0, 0]], device=device)
    starts, ends, *_ = march(
        start,
        along,
        near=torch.tensor([0.5], device=device),
        far=torch.tensor([torch.inf], device=device),
        jitter=torch.tensor([0.5], device=device),
        cells=(occupied, blocks(occupied)),
        steps=torch.tensor([0.02, 0.02]),
    )
    middle, length = (starts + ends) / 2, ends - starts
    torch.testing.assert_close(starts[1:], ends[:-1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(length, (middle * 0.02).clamp_min(0.02), atol=1e-4, rtol=1e-3)
    assert middle[-1] < 32 < middle[-1] * 1.03  # up to the end of the last level
