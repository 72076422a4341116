"""Networks in tiles against torch in float64: output, gradient at the input, and the gradients of both."""

import pytest
import torch
from torch import Tensor

from models.kernels.networks.mlp import NARROW, mlp, mlp_forward
from models.kernels.runtime.launch import set_own_threads
from models.networks.mlp import Mlp, MlpConfig

Layers = tuple[list[Tensor], list[Tensor]]
TILE, STRIP = 48, 1920  # points of narrow networks


def made(widths: tuple[int, ...], count: int, skip: tuple[int, ...] = ()) -> tuple[Tensor, Layers]:
    """Points and layers; those in `skip` see the points again."""
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, widths[0], generator=generator)
    sides = [(widths[k + 1], widths[k] + (widths[0] if k in skip else 0)) for k in range(len(widths) - 1)]
    weights = [torch.randn(*side, generator=generator) / side[1] ** 0.5 for side in sides]
    return x, (weights, [torch.randn(side[0], generator=generator) for side in sides])


def reference(x: Tensor, layers: Layers, name: str, beta: float) -> Tensor:
    h = x
    for i, (weight, bias) in enumerate(zip(*layers, strict=True)):
        if weight.shape[1] > h.shape[1]:
            h = torch.cat([h, x], -1) / 2**0.5
        h = h @ weight.T + bias
        if i + 1 < len(layers[0]):
            h = torch.relu(h) if name == "relu" else torch.nn.functional.softplus(h, beta=beta, threshold=30)
    return h


def leaves(
    x: Tensor, layers: Layers, dtype: torch.dtype, device: torch.device | None = None
) -> tuple[Tensor, Layers, list[Tensor]]:
    weights, biases = ([part.to(device, dtype, copy=True).requires_grad_() for part in parts] for parts in layers)
    x = x.to(device, dtype, copy=True).requires_grad_()
    return x, (weights, biases), [x, *weights, *biases]


def for_one(device: torch.device, widths: tuple[int, ...]) -> tuple[int, ...]:
    """As wide as the device's kernels take a network."""
    return widths if device.type == "cpu" else tuple(min(width, NARROW // 2) for width in widths)


@pytest.mark.parametrize("count", [0, 1, 16, TILE, 333])
@pytest.mark.parametrize("widths", [(27, 64, 16), (3, 128, 9, 1), (40, 2), (128, 128, 128), (39, 300, 257, 5)])
@pytest.mark.parametrize("skip", [(), (1,)])
@pytest.mark.parametrize("name", ["relu", "softplus"])
def test_output(device: torch.device, count: int, widths: tuple[int, ...], skip: tuple[int, ...], name: str) -> None:
    x, layers = made(for_one(device, widths), count, skip)
    truth = reference(x.double(), ([w.double() for w in layers[0]], [b.double() for b in layers[1]]), name, 100.0)
    x, layers, _ = leaves(x, layers, torch.float32, device)
    with torch.no_grad():
        without_graph = mlp_forward(x, *layers, activation=name, beta=100.0)
    for got in (
        without_graph,
        mlp(x, *layers, activation=name, beta=100.0)[0],
        mlp(x, *layers, activation=name, beta=100.0, channel=len(layers[1][-1]) - 1)[0],
    ):
        torch.testing.assert_close(got.double().cpu(), truth, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [1, TILE + 1, STRIP, 2 * STRIP + 5])
@pytest.mark.parametrize(
    "widths, skip",
    [
        ((27, 64, 16), ()),
        ((5, 33, 100, 7, 4), ()),
        ((5, 33, 100, 7, 4), (1, 3)),
        ((30, 64, 64, 3), (2,)),
        ((3, 2), ()),
        ((20, 150, 217, 4), (1,)),
    ],
)
@pytest.mark.parametrize("name, channel", [("relu", None), ("softplus", None), ("softplus", 1), ("relu", 0)])
def test_gradients(
    device: torch.device, count: int, widths: tuple[int, ...], skip: tuple[int, ...], name: str, channel: int | None
) -> None:
    """Of the output and of a channel's gradient at the input, in the input and in all parameters."""
    widths = for_one(device, widths)
    x, layers = made(widths, count, skip)
    at, theirs, truths = leaves(x, layers, torch.float64)
    generator = torch.Generator().manual_seed(1)
    wanted = [torch.randn(count, widths[-1], generator=generator), torch.randn(count, widths[0], generator=generator)]
    out = reference(at, theirs, name, 10.0)
    results = [out]
    if channel is not None:
        results += torch.autograd.grad(out[:, channel].sum(), at, create_graph=True)
    truth = torch.autograd.grad(results, truths, [want.double() for want in wanted[: len(results)]])
    at, mine, own = leaves(x, layers, torch.float32, device)
    found = [part for part in mlp(at, *mine, activation=name, beta=10.0, channel=channel) if part is not None]
    for got, result in zip(found, results, strict=True):
        torch.testing.assert_close(got.double().cpu(), result, atol=1e-5, rtol=1e-5)
    grads = torch.autograd.grad(found, own, [want.to(device) for want in wanted[: len(found)]])
    for got, true in zip(grads, truth, strict=True):
        torch.testing.assert_close(got.double().cpu(), true, atol=2e-6 * float(true.abs().max()) + 1e-6, rtol=1e-4)


def test_a_loss_on_the_gradient_alone() -> None:
    """The output's own path is left out: the biases of the last layer get nothing."""
    x, layers = made((4, 20, 3), 100)
    at, theirs, truths = leaves(x, layers, torch.float64)
    slope = torch.autograd.grad(reference(at, theirs, "softplus", 10.0)[:, 2].sum(), at, create_graph=True)[0]
    truth = torch.autograd.grad(slope.square().sum(), truths, allow_unused=True)
    at, mine, own = leaves(x, layers, torch.float32)
    found = mlp(at, *mine, activation="softplus", beta=10.0, channel=2)[1]
    assert found is not None
    got = torch.autograd.grad(found.square().sum(), own)
    assert truth[-1] is None and not got[-1].any()
    for a, b in zip(got[:-1], truth[:-1], strict=True):
        assert b is not None
        torch.testing.assert_close(a.double(), b, atol=1e-4, rtol=1e-4)


def test_an_input_without_a_gradient_and_threads() -> None:
    x, layers = made((30, 64, 3), 3 * STRIP)
    found = []
    for threads in (1, 2):
        set_own_threads(threads)
        _, mine, own = leaves(x, layers, torch.float32)
        found.append(torch.autograd.grad(mlp(x, *mine, activation="relu", beta=1.0)[0].sin().sum(), own[1:]))
    set_own_threads(1)
    for alone, shared in zip(*found, strict=True):
        torch.testing.assert_close(shared, alone, atol=0, rtol=0)


def test_softplus_far_from_and_near_the_bend() -> None:
    x = torch.tensor([[-80.0], [-0.5], [-0.01], [-1e-6], [0.0], [1e-6], [0.02], [3.0], [1e6]])
    one = [torch.ones(1, 1)] * 2
    got = mlp_forward(x, one, [torch.zeros(1)] * 2, activation="softplus", beta=100.0)
    truth = torch.nn.functional.softplus(x.double(), beta=100)
    torch.testing.assert_close(got.double(), truth, atol=2e-9, rtol=3e-7)


@pytest.mark.parametrize("skip", [(), (1, 2)])
@pytest.mark.parametrize("weight_norm", [False, True])
def test_a_network_takes_the_kernel_or_torch_to_the_same_end(skip: tuple[int, ...], weight_norm: bool) -> None:
    torch.manual_seed(0)
    config = MlpConfig(layers=3, width=16, skip=skip, activation="softplus", weight_norm=weight_norm)
    small = Mlp(5, 4, config)
    x = torch.randn(6, 7, 5, requires_grad=True)
    parameters, results = [x, *small.parameters()], []
    for by_kernel in (True, False):
        small.widest = 21 if by_kernel else 1000
        output, gradient = small.with_gradient(x, 0)
        loss = output.sin().sum() + gradient.square().sum() + small(x).cos().sum()
        results.append([output, gradient, *torch.autograd.grad(loss, parameters)])
        assert small.without_graph(x, 2).shape == (6, 7, 2)
    for mine, usual in zip(*results, strict=True):
        torch.testing.assert_close(mine, usual, atol=2e-5, rtol=1e-4)


def test_an_unknown_activation_is_refused() -> None:
    for form in (mlp_forward, mlp):
        with pytest.raises(ValueError, match="expected one of"):
            form(torch.zeros(1, 1), [torch.zeros(1, 1)], [torch.zeros(1)], activation="tanh", beta=1.0)
