"""Mirrored directions and off-unit gradients against plain torch in float64, with its derivatives."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels.networks.color_inputs import mirrored, off_unit


def plain_mirrored(directions: Tensor, gradient: Tensor) -> Tensor:
    square = gradient.square().sum(-1, keepdim=True) + 1e-12
    return directions - 2 * (directions * gradient).sum(-1, keepdim=True) / square * gradient


def plain_off_unit(gradient: Tensor) -> Tensor:
    return ((gradient.square().sum(-1) + 1e-12).sqrt() - 1).square()


def inputs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    directions, gradient, weight = (torch.randn(*shape, 3, generator=g) for _ in range(3))
    return F.normalize(directions, dim=-1), gradient, weight


@pytest.mark.parametrize("shape", [(0,), (1,), (35,), (3000,), (7, 5)])
def test_mirrored(shape: tuple[int, ...], device: torch.device) -> None:
    directions, gradient, weight = inputs(shape)
    exact, mine = gradient.double().requires_grad_(), gradient.to(device).requires_grad_()
    truth, found = plain_mirrored(directions.double(), exact), mirrored(directions.to(device), mine)
    torch.testing.assert_close(found.cpu().double(), truth.detach(), atol=1e-5, rtol=1e-5)
    (wanted,) = torch.autograd.grad((truth * weight.double()).sum(), exact)
    (got,) = torch.autograd.grad((found * weight.to(device)).sum(), mine)
    way = directions.double().requires_grad_()
    mine_way = directions.to(device).requires_grad_()
    truth, found = plain_mirrored(way, gradient.double()), mirrored(mine_way, gradient.to(device))
    (by_way,) = torch.autograd.grad((truth * weight.double()).sum(), way)
    (found_by_way,) = torch.autograd.grad((found * weight.to(device)).sum(), mine_way)
    torch.testing.assert_close(found_by_way.cpu().double(), by_way, atol=2e-5, rtol=1e-4)
    size = gradient.norm(dim=-1, keepdim=True).double()  # short gradients turn quickly
    torch.testing.assert_close(got.cpu().double() * size, wanted * size, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(0,), (1,), (35,), (3000,), (7, 5)])
def test_off_unit(shape: tuple[int, ...], device: torch.device) -> None:
    _, gradient, weight = inputs(shape)
    exact, mine = gradient.double().requires_grad_(), gradient.to(device).requires_grad_()
    truth, found = plain_off_unit(exact), off_unit(mine)
    torch.testing.assert_close(found.cpu().double(), truth.detach(), atol=1e-5, rtol=1e-5)
    (wanted,) = torch.autograd.grad((truth * weight[..., 0].double()).sum(), exact)
    (got,) = torch.autograd.grad((found * weight[..., 0].to(device)).sum(), mine)
    torch.testing.assert_close(got.cpu().double(), wanted, atol=1e-5, rtol=1e-5)


def test_nothing_is_infinite_where_the_gradient_is_zero(device: torch.device) -> None:
    gradient = torch.zeros(20, 3, device=device, requires_grad=True)
    directions = inputs((20,))[0].to(device)
    assert torch.equal(mirrored(directions, gradient), directions)
    for found in (mirrored(directions, gradient), off_unit(gradient)):
        (grad,) = torch.autograd.grad(found.sum(), gradient)
        assert grad.isfinite().all()
    torch.testing.assert_close(off_unit(gradient).cpu(), torch.ones(20), atol=1e-5, rtol=0)
