"""The kernel of spherical harmonics against SciPy's in float64, and its gradient against automatic differentiation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y
from torch.nn import functional as F

from benchmarks.kernel_cases import baseline
from models.kernels.networks.color_inputs import harmonics


def directions(count: int) -> torch.Tensor:
    torch.manual_seed(0)
    return F.normalize(torch.randn(count, 3, dtype=torch.float64), dim=-1)


def real_harmonics(x: np.ndarray, degree: int) -> np.ndarray:
    """By degree and order, the sign without the Condon-Shortley phase."""
    polar, azimuth = np.arccos(x[:, 2]), np.arctan2(x[:, 1], x[:, 0])
    columns = []
    for n in range(degree + 1):
        for m in range(-n, n + 1):
            value = sph_harm_y(n, abs(m), polar, azimuth) * (-1) ** m
            part = value.real if m >= 0 else value.imag
            columns.append(part if m == 0 else np.sqrt(2) * part)
    return np.stack(columns, -1)


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("count", [0, 1, 16, 1003])
def test_values_are_those_of_scipy(degree: int, count: int, device: torch.device) -> None:
    x = directions(count)
    found = harmonics(x.float().to(device), degree=degree).cpu()
    assert found.shape == (count, (degree + 1) ** 2)
    if count:
        np.testing.assert_allclose(found.numpy(), real_harmonics(x.numpy(), degree), atol=2e-6)


@pytest.mark.parametrize("degree", range(4))
def test_the_gradient_is_that_of_float64(degree: int, device: torch.device) -> None:
    x = directions(333).requires_grad_()
    weight = torch.randn(333, (degree + 1) ** 2, dtype=torch.float64)
    exact = torch.autograd.grad((baseline.harmonics(x, degree=degree) * weight).sum(), x)[0] if degree else x * 0
    single = x.detach().float().to(device).requires_grad_()
    found = torch.autograd.grad((harmonics(single, degree=degree) * weight.float().to(device)).sum(), single)[0].cpu()
    torch.testing.assert_close(found.double(), exact, atol=2e-5, rtol=1e-5)


def test_other_degrees_are_refused() -> None:
    with pytest.raises(ValueError, match="degree 4"):
        harmonics(torch.ones(1, 3), degree=4)
