"""Softplus and its slope against float64, and their common gradient against automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from models.kernels.networks.softplus import softplus_backward, softplus_forward


def inputs(count: int) -> torch.Tensor:
    torch.manual_seed(0)
    x = torch.randn(count) * 0.05
    x[:5] = torch.tensor([0.0, -0.0, 5.0, -5.0, 1e-30])
    return x


@pytest.mark.parametrize("count", [5, 16, 1000, 4096 * 5])
def test_value_and_slope_are_those_of_float64(count: int) -> None:
    x = inputs(count)
    value, slope = softplus_forward(x, beta=100.0)
    exact = F.softplus(x.double(), beta=100, threshold=1e9)
    torch.testing.assert_close(value.double(), exact, atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(slope.double(), torch.sigmoid(100 * x.double()), atol=1e-6, rtol=0)


def test_the_backward_is_that_of_both_outputs() -> None:
    x = inputs(777).double().requires_grad_()
    to_value, to_slope = torch.randn(777).double(), torch.randn(777).double()
    both = [F.softplus(x, beta=100, threshold=1e9), torch.sigmoid(100 * x)]
    (exact,) = torch.autograd.grad(both, x, [to_value, to_slope])
    _, slope = softplus_forward(x.detach().float(), beta=100.0)
    found = softplus_backward(slope, to_value.float(), to_slope.float(), beta=100.0)
    torch.testing.assert_close(found.double(), exact, atol=2e-5, rtol=1e-4)


def test_any_shape_and_layout_will_do() -> None:
    x = inputs(60).reshape(6, 10)
    value, slope = softplus_forward(x.T, beta=100.0)
    assert value.shape == slope.shape == (10, 6)
    torch.testing.assert_close(value.T, softplus_forward(x, beta=100.0)[0])
    grad = torch.randn(10, 6)
    torch.testing.assert_close(
        softplus_backward(slope, grad, grad.T.contiguous().T, beta=100.0),
        softplus_backward(slope.contiguous(), grad, grad, beta=100.0),
    )
