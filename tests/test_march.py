"""The march against a loop that looks at every step of the lattice."""

import numpy as np
import torch

from models.kernels.march import blocks, march


def march_reference(origin, direction, near, far, jitter, occupied, step):
    """Starts of all lattice steps whose mid-point lies in [near, far) and in an occupied cell, in float64."""
    n = occupied.shape[0]
    starts: list[float] = []
    k = 0
    while True:
        start = near + (k + jitter - 1) * step
        middle = start + step / 2
        k += 1
        if middle >= far:
            return starts
        point = origin + direction * middle
        if middle < near or np.abs(point).max() > 1:
            continue
        x, y, z = np.minimum(((point * 0.5 + 0.5) * n).astype(int), n - 1)
        if occupied[x, y, z]:
            starts.append(start)


def rays(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * 2
    targets = torch.rand(count, 3, generator=generator) * 1.6 - 0.8
    return origins, torch.nn.functional.normalize(targets - origins, dim=-1)


def run(occupied: torch.Tensor, device: torch.device, *, count: int = 40, step: float = 0.03, seed: int = 0):
    origins, directions = rays(count, seed)
    near, far = torch.full((count,), 0.7), torch.full((count,), 3.4)
    jitter = torch.rand(count, generator=torch.Generator().manual_seed(seed + 1))
    got = march(
        *(x.to(device) for x in (origins, directions)),
        near=near.to(device),
        far=far.to(device),
        jitter=jitter.to(device),
        occupied=occupied.to(device),
        coarse=blocks(occupied).to(device),
        step=step,
    )
    return (origins, directions, near, far, jitter), tuple(x.cpu() for x in got)


def test_same_steps_as_a_march_without_skipping(device: torch.device) -> None:
    occupied = (torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(3)) < 0.1).to(torch.uint8)
    occupied[:8, 8:] = 0  # whole blocks are empty
    inputs, (starts, ray_index, offsets) = run(occupied, device)
    origins, directions, near, far, jitter = (x.double().numpy() for x in inputs)
    differences = 0
    for r in range(len(origins)):
        expected = march_reference(origins[r], directions[r], near[r], far[r], jitter[r], occupied.numpy(), 0.03)
        mine = starts[offsets[r] : offsets[r + 1]].double().numpy()
        assert (ray_index[offsets[r] : offsets[r + 1]] == r).all()
        # A mid-point within float32 rounding of a cell's wall may fall on either side.
        differences += abs(len(mine) - len(expected))
        if len(mine) == len(expected):
            np.testing.assert_allclose(mine, expected, atol=2e-6)
    assert differences <= 2
    assert len(starts) > 200


def test_empty_and_full_grids(device: torch.device) -> None:
    empty = torch.zeros(8, 8, 8, dtype=torch.uint8)
    _, (starts, ray_index, offsets) = run(empty, device)
    assert len(starts) == len(ray_index) == 0 and (offsets == 0).all()
    _, (starts, _, offsets) = run(torch.ones_like(empty), device)
    assert (offsets.diff() > 10).all()


def test_rays_along_an_axis_and_rays_without_extent(device: torch.device) -> None:
    origins = torch.tensor([[-2.0, 0.1, 0.1], [0.0, 0.0, 5.0], [0.0, 0.0, 2.0]], device=device)
    directions = torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0, 0, -1.0]], device=device)
    near = torch.tensor([0.0, 0.0, 1.0], device=device)
    far = torch.tensor([torch.inf, 9.0, 1.0], device=device)
    occupied = torch.ones(4, 4, 4, dtype=torch.uint8, device=device)
    far = far.clamp_max(10.0)
    starts, _, offsets = march(
        origins,
        directions,
        near=near,
        far=far,
        jitter=torch.full_like(near, 0.5),
        occupied=occupied,
        coarse=blocks(occupied),
        step=0.1,
    )
    counts = offsets.diff().tolist()
    assert counts[0] in (20, 21) and counts[1] == 0 and counts[2] == 0
    middle = starts[: counts[0]] + 0.05
    assert middle.min() >= 1.0 - 1e-5 and middle.max() <= 3.0 + 1e-5
