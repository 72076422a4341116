"""What rays see, against a plain loop in float64 with torch's own derivatives."""

import pytest
import torch
from torch import Tensor

from models.kernels.rays.sums import composite

COUNTS = {"ragged": [3, 0, 1, 7, 0], "no samples": [0, 0], "no rays": [], "long": [4000, 2], "many": [5] * 3000}


def loop(tau: Tensor, color: Tensor, t: Tensor, gradient: Tensor | None, counts: list[int]) -> tuple[Tensor, Tensor]:
    """The sums, ray by ray; the weights of normals let no derivative through."""
    seen, left, start = [], [], 0
    for count in counts:
        mine = slice(start, start + count)
        start += count
        behind = tau[mine].cumsum(0)
        weight = torch.exp(tau[mine] - behind) * -torch.expm1(-tau[mine])
        normal = torch.zeros(count, 3, dtype=tau.dtype)
        if gradient is not None:
            normal = gradient[mine] / gradient[mine].norm(dim=-1, keepdim=True).clamp_min(1e-12)
        sums = [weight @ color[mine], (weight @ t[mine])[None], weight.detach() @ normal]
        seen.append(torch.cat(sums))
        left.append(torch.exp(-tau[mine].sum()))
    if not counts:
        return color.sum() * tau.new_zeros(0, 7), tau[:0]
    return torch.stack(seen), torch.stack(left)


def inputs(counts: list[int], spare: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    offsets = torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    count = sum(counts) + spare
    tau = torch.rand(count, generator=generator).pow(8) * 6  # mostly thin
    color, gradient = torch.rand(count, 3, generator=generator), torch.randn(count, 3, generator=generator)
    return tau, color, torch.rand(count, generator=generator) + 1, gradient, offsets


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
@pytest.mark.parametrize("normals", [False, True])
def test_sums_and_their_gradients(counts: list[int], normals: bool, device: torch.device) -> None:
    tau, color, t, gradient, offsets = inputs(counts)
    mine = [x.clone().to(device).requires_grad_() for x in (tau, color)]
    way = gradient.to(device) if normals else None
    got = composite(mine[0], mine[1], t.to(device), way, offsets.to(device))
    exact = [x.double().requires_grad_() for x in (tau, color)]
    expected = loop(exact[0], exact[1], t.double(), gradient.double() if normals else None, counts)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.cpu().double(), b, atol=1e-5, rtol=1e-5)
    random = torch.Generator().manual_seed(1)
    weights = torch.randn(len(counts), 7, generator=random), torch.randn(len(counts), generator=random)
    ((got[0] * weights[0].to(device)).sum() + (got[1] * weights[1].to(device)).sum()).backward()
    ((expected[0] * weights[0].double()).sum() + (expected[1] * weights[1].double()).sum()).backward()
    for x, y in zip(mine, exact, strict=True):
        truth = torch.zeros_like(y) if y.grad is None else y.grad
        assert x.grad is not None
        torch.testing.assert_close(x.grad.cpu().double(), truth, atol=2e-5, rtol=1e-5)


def test_what_belongs_to_no_ray_is_not_seen_and_learns_nothing(device: torch.device) -> None:
    tau, color, t, gradient, offsets = (x.to(device) for x in inputs([2, 3], spare=4))
    tau[5:] = torch.nan
    tau.requires_grad_()
    color.requires_grad_()
    seen, left = composite(tau, color, t, gradient, offsets)
    assert seen.isfinite().all() and left.isfinite().all()
    found = torch.autograd.grad(seen.sum() + left.sum(), [tau, color])
    assert all(x.isfinite().all() and not x[5:].any() and x[:5].any() for x in found)


@pytest.mark.parametrize("depth", [1e-7, 1e-4, 9.99e-3, 1.001e-2, 1.0, 80.0])
def test_thin_and_thick_samples_keep_their_digits(depth: float, device: torch.device) -> None:
    tau = torch.full((1,), depth, device=device)
    ones, offsets = torch.ones(1, 3, device=device), torch.tensor([0, 1], dtype=torch.int32, device=device)
    seen, left = composite(tau, ones, torch.ones_like(tau), None, offsets)
    exact = -torch.expm1(-tau.double())
    torch.testing.assert_close(seen[0, :4].double(), exact.expand(4), atol=0, rtol=1e-5)
    torch.testing.assert_close(left.double(), 1 - exact, atol=1e-30, rtol=1e-5)


def test_a_number_that_is_not_finite_is_seen(device: torch.device) -> None:
    tau, color, t, gradient, offsets = (x.to(device) for x in inputs([2, 3]))
    tau[1] = torch.nan
    seen, left = composite(tau, color, t, gradient, offsets)
    assert seen[0].isnan().any() and left[0].isnan() and seen[1].isfinite().all()
