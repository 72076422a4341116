"""What becomes of a ray's sums, and how far that is from the photograph, against plain torch in float64."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels.rays.composed import composed
from models.kernels.rays.distances import NORMS, Norm, cross_entropy, distance

LEAST = 1e-3


def plain_composed(sums: Tensor, transmittance: Tensor, background: Tensor) -> list[Tensor]:
    opacity = 1 - transmittance
    behind = F.pad(background, (0, sums.shape[1] - 7))
    depth = torch.where(opacity > LEAST, sums[:, -4] / opacity.clamp_min(LEAST), 0.0)
    return [sums[:, :-4] + transmittance[:, None] * behind, opacity, depth]


@pytest.mark.parametrize("rays", [0, 1, 300])
@pytest.mark.parametrize("channels", [2, 3, 5])
@pytest.mark.parametrize("of_all", [True, False])
@pytest.mark.parametrize("used", [(0,), (1, 2), (0, 1, 2)])
def test_composed(rays: int, channels: int, of_all: bool, used: tuple[int, ...], device: torch.device) -> None:
    g = torch.Generator().manual_seed(4)
    transmittance = torch.rand(rays, generator=g)
    transmittance[::5] = 1.0  # nothing was met
    background = torch.rand(*(() if of_all else (rays,)), 3, generator=g)
    given = [torch.rand(rays, channels + 4, generator=g), transmittance, background]
    exact = [x.double().requires_grad_() for x in given]
    mine = [x.to(device).requires_grad_() for x in given]
    truth, found = plain_composed(*exact), composed(mine[0], mine[1], mine[2], least=LEAST)
    for own, other in zip(found, truth, strict=True):
        torch.testing.assert_close(own.cpu().double(), other, atol=1e-6, rtol=1e-6)
    weights = [torch.randn(x.shape, generator=g) for x in truth]
    by = [weights[i] for i in used]
    wanted = torch.autograd.grad([truth[i] for i in used], exact, [x.double() for x in by], allow_unused=True)
    got = torch.autograd.grad([found[i] for i in used], mine, [x.to(device) for x in by])
    for one, own, other in zip(exact, got, wanted, strict=True):
        other = torch.zeros_like(one) if other is None else other
        torch.testing.assert_close(own.cpu().double(), other, atol=1e-4, rtol=1e-5)


def plain_distance(values: Tensor, target: Tensor, norm: Norm) -> Tensor:
    if norm == "huber":
        return (F.huber_loss(values, target, reduction="none", delta=0.1) / 0.1).mean(-1)
    return (F.l1_loss if norm == "l1" else F.mse_loss)(values, target, reduction="none").mean(-1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (400, 3)])
def test_distance(norm: Norm, shape: tuple[int, int], device: torch.device) -> None:
    g = torch.Generator().manual_seed(5)
    values, target, weight = torch.rand(shape, generator=g), torch.rand(shape, generator=g), torch.randn(shape[0])
    values[::7] = target[::7]
    exact, mine = values.double().requires_grad_(), values.to(device).requires_grad_()
    truth = plain_distance(exact, target.double(), norm)
    found = distance(mine, target.to(device), norm)
    torch.testing.assert_close(found.cpu().double(), truth, atol=1e-7, rtol=1e-5)
    (wanted,) = torch.autograd.grad((truth * weight.double()).sum(), exact)
    (got,) = torch.autograd.grad((found * weight.to(device)).sum(), mine)
    torch.testing.assert_close(got.cpu().double(), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rays", [0, 1, 400])
def test_cross_entropy(rays: int, device: torch.device) -> None:
    g = torch.Generator().manual_seed(6)
    opacity, mask, weight = torch.rand(rays, generator=g), torch.rand(rays, generator=g), torch.randn(rays)
    opacity[::6], opacity[1::6] = 0.0, 1.0  # which are cut
    exact, mine = opacity.double().requires_grad_(), opacity.to(device).requires_grad_()
    truth = F.binary_cross_entropy(exact.clamp(0.01, 0.99), mask.double(), reduction="none")
    found = cross_entropy(mine, mask.to(device), 0.01)
    torch.testing.assert_close(found.cpu().double(), truth, atol=1e-6, rtol=1e-5)
    (wanted,) = torch.autograd.grad((truth * weight.double()).sum(), exact)
    (got,) = torch.autograd.grad((found * weight.to(device)).sum(), mine)
    torch.testing.assert_close(got.cpu().double(), wanted, atol=1e-4, rtol=1e-4)


def test_what_is_no_number_stays_none(device: torch.device) -> None:
    bad, good = torch.tensor([torch.nan], device=device), torch.tensor([0.5], device=device)
    assert cross_entropy(bad, good, 0.01).isnan().all() and cross_entropy(good, bad, 0.01).isnan().all()
    for norm in NORMS:
        assert distance(bad[:, None], good[:, None], norm).isnan().all()
