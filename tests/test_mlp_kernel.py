"""The network without a graph against torch in float64."""

import pytest
import torch

from models.kernels.mlp import mlp_forward


def reference(x: torch.Tensor, weights: list[torch.Tensor], biases: list[torch.Tensor], name: str) -> torch.Tensor:
    h = x.double()
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        h = h @ weight.double().T + bias.double()
        if i + 1 < len(weights):
            h = torch.relu(h) if name == "relu" else torch.nn.functional.softplus(h, beta=100)
    return h


@pytest.mark.parametrize("count", [0, 1, 16, 333])
@pytest.mark.parametrize("widths", [(27, 64, 16), (3, 128, 9, 1), (40, 2), (128, 128, 128)])
@pytest.mark.parametrize("name", ["relu", "softplus"])
def test_agrees_with_torch(count: int, widths: tuple[int, ...], name: str, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, widths[0], generator=generator)
    sides = list(zip(widths[1:], widths[:-1], strict=True))
    weights = [torch.randn(*side, generator=generator) / side[1] ** 0.5 for side in sides]
    biases = [torch.randn(side[0], generator=generator) for side in sides]
    got = mlp_forward(
        x.to(device), [w.to(device) for w in weights], [b.to(device) for b in biases], activation=name, beta=100.0
    )
    torch.testing.assert_close(got.cpu().double(), reference(x, weights, biases, name), atol=2e-5, rtol=1e-5)


def test_softplus_far_from_and_near_the_bend() -> None:
    x = torch.tensor([[-80.0], [-0.5], [-0.01], [-1e-6], [0.0], [1e-6], [0.02], [3.0], [1e6]])
    one = [torch.ones(1, 1)] * 2
    got = mlp_forward(x, one, [torch.zeros(1)] * 2, activation="softplus", beta=100.0)
    truth = torch.nn.functional.softplus(x.double(), beta=100)
    torch.testing.assert_close(got.double(), truth, atol=2e-9, rtol=3e-7)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of"):
        mlp_forward(torch.zeros(1, 1), [torch.zeros(1, 1)], [torch.zeros(1)], activation="tanh", beta=1.0)
