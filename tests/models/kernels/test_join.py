"""Parts of a row side by side: torch's own concatenation, number by number, and its gradients."""

import pytest
import torch
from torch import Tensor

from models.kernels.networks.color_inputs import joined, split

WIDTHS = {"all": (16, 3, 16, 3), "one": (5, 27), "none": (9,), "no features": (1, 3, 2), "wide": (257, 3, 40, 3)}


def both(output: Tensor, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    value, features = split(output)
    return value, joined(features, parts)


def plain(output: Tensor, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    return output[..., 0], torch.cat([*parts, output[..., 1:]], -1)


@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS.keys())
@pytest.mark.parametrize("shape", [(0,), (1,), (16,), (33,), (1000,), (3, 7)])
def test_as_torch_does_it(widths: tuple[int, ...], shape: tuple[int, ...], device: torch.device) -> None:
    g = torch.Generator().manual_seed(4)
    output, *parts = (torch.randn(*shape, width, generator=g) for width in widths)
    mine, theirs = ([x.to(device).requires_grad_() for x in (output, *parts)] for _ in range(2))
    found, truth = both(mine[0], mine[1:]), plain(theirs[0], theirs[1:])
    weights = [torch.randn(x.shape, generator=g).to(device) for x in truth]
    assert all(torch.equal(a, b) for a, b in zip(found, truth, strict=True))
    for some in ([0, 1], [0], [1]):
        got, wanted = (
            torch.autograd.grad([of[i] for i in some], leaves, [weights[i] for i in some], retain_graph=True,
                                allow_unused=True)
            for of, leaves in ((found, mine), (truth, theirs))
        )  # fmt: skip
        for a, b in zip(got, wanted, strict=True):
            assert (a is None and b is None) or torch.equal(a, torch.zeros_like(a) if b is None else b)


def test_what_needs_no_gradient_gets_none(device: torch.device) -> None:
    output, x = torch.randn(20, 4, device=device, requires_grad=True), torch.randn(20, 3, device=device)
    value, seen = both(output, [x, x.clone().requires_grad_()])
    (value.sum() + (2 * seen).sum()).backward()
    assert output.grad is not None and x.grad is None
    assert (output.grad == torch.tensor([1.0, 2, 2, 2], device=device)).all()
    with pytest.raises(ValueError, match="at most 3"):
        joined(output, [x] * 4)


def test_features_that_stand_alone_are_as_good(device: torch.device) -> None:
    """Of any layout: a slice of wider rows, rows of their own, a transposed array."""
    wide = torch.randn(37, 9, device=device)
    for features in (wide[:, 2:7], wide[:, 1:6].contiguous(), wide.t()[:7].t(), wide[:, 1:].view(37, 8)):
        assert torch.equal(joined(features, [wide[:, :3]]), torch.cat([wide[:, :3], features], -1))
