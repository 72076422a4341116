"""The logistic optical depth in one kernel, against plain torch in float64 and its own derivatives."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels.rays.logistic import estimated_optical_depth, optical_depth


def reference(leaves: list[Tensor], directions: Tensor, t: list[Tensor], anneal: float) -> Tensor:
    value, gradient, s = leaves
    cosine = (gradient * directions).sum(-1)
    slope = -(F.relu(-cosine) * anneal + F.relu(0.5 - 0.5 * cosine) * (1 - anneal))
    before, after = value + slope * (t[0] - t[1]), value + slope * (t[2] - t[1])
    return F.relu(F.logsigmoid(s * before) - F.logsigmoid(s * after))


def inputs(shape: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Value, gradient and direction; begin, point and end of intervals."""
    g = torch.Generator().manual_seed(3)
    gradient, directions = (torch.randn(*shape, 3, generator=g) for _ in range(2))
    t0 = torch.rand(shape, generator=g)
    t = t0 + 0.05 * torch.rand(shape, generator=g)
    given = [0.1 * torch.randn(shape, generator=g), gradient, F.normalize(directions, dim=-1)]
    return given, [t0, t, t + 0.05 * torch.rand(shape, generator=g)]


@pytest.mark.parametrize("shape", [(0,), (1,), (37,), (4000,), (5, 9)])
@pytest.mark.parametrize("anneal", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("sharpness", [3.0, 200.0])
def test_depth_and_its_gradients(
    shape: tuple[int, ...], anneal: float, sharpness: float, device: torch.device
) -> None:
    (value, gradient, directions), t = inputs(shape)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    given = value, gradient, torch.tensor(sharpness), directions
    exact = [x.double().requires_grad_() for x in given]
    expected = reference(exact[:3], exact[3], [x.double() for x in t], anneal)
    wanted = torch.autograd.grad((expected * weight.double()).sum(), exact)

    mine = [x.to(device).requires_grad_() for x in given]
    t0, at, t1 = (x.to(device) for x in t)
    found = optical_depth(mine[0], mine[1], mine[3], (t0, at, t1), mine[2], torch.tensor(anneal, device=device))
    grads = torch.autograd.grad((found * weight.to(device)).sum(), mine)
    torch.testing.assert_close(found.cpu().double(), expected.detach(), atol=1e-6 * sharpness, rtol=1e-5)
    for own, truth in zip(grads, wanted, strict=True):
        scale = max(1.0, float(truth.abs().max())) if truth.numel() else 1.0
        torch.testing.assert_close(own.cpu().double(), truth, atol=2e-5 * scale, rtol=1e-4)


def test_far_outside_little_is_lost_and_all_its_digits_are_there(device: torch.device) -> None:
    before, after, s = (torch.tensor(x, device=device) for x in ([0.1, 0.05], [0.09, 0.04], 200.0))
    a, b = before.double() * 200, after.double() * 200
    truth = torch.log1p(torch.exp(-b)) - torch.log1p(torch.exp(-a))
    torch.testing.assert_close(estimated_optical_depth(before, after, s).double(), truth, atol=0, rtol=1e-5)


def test_deep_inside_it_is_the_way_times_the_slope(device: torch.device) -> None:
    before, after, s = (torch.tensor(x, device=device) for x in ([-0.5, -2.0], [-0.75, -2.5], 400.0))
    torch.testing.assert_close(estimated_optical_depth(before, after, s).cpu(), torch.tensor([100.0, 200.0]))
    assert not estimated_optical_depth(after, before, s).any()


def test_a_number_that_is_not_finite_is_seen(device: torch.device) -> None:
    (value, gradient, directions), (t0, t, t1) = ([x.to(device) for x in part] for part in inputs((40,)))
    value[3] = torch.nan
    one = torch.ones((), device=device)
    tau = optical_depth(value, gradient, directions, (t0, t, t1), 50 * one, one)
    assert tau[3].isnan() and tau.isfinite().sum() == 39
    assert estimated_optical_depth(value, t, one)[3].isnan()
    assert estimated_optical_depth(t, value, one)[3].isnan()


def test_floats_of_another_size_are_refused(device: torch.device) -> None:
    with pytest.raises(TypeError, match="torch.float64: expected one of .*torch.float32"):
        one = torch.ones(2, device=device)
        estimated_optical_depth(one.double(), one, torch.ones((), device=device))
