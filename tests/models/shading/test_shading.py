"""From composited channels to color: shapes, closed forms, gradients by finite differences."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from models.shading.base import Shading, ShadingConfig
from models.shading.deferred import Deferred
from utils.config.parts import Choice, discover, parts

discover("models.shading")
CONFIGS = [{"type": "identity"}, {"type": "deferred"}, {"type": "deferred", "features": 7}]


def made(config: dict[str, object]) -> tuple[ShadingConfig, Shading]:
    read: ShadingConfig = TypeAdapter(Choice[ShadingConfig]).validate_python(config)
    torch.manual_seed(0)
    return read, read.build()


def rays(channels: int, count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1)
    return torch.rand(count, channels, generator=g), directions


def test_all_are_found_by_lying_in_the_folder() -> None:
    assert list(parts(ShadingConfig)) == ["deferred", "identity"]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("count", [0, 5])
def test_shapes(config: dict[str, object], count: int) -> None:
    read, shading = made(config)
    features = 0 if config["type"] == "identity" else int(str(config.get("features", 4)))
    assert read.channels == 3 + features
    color = shading(*rays(read.channels, count))
    assert color.shape == (count, 3) and torch.isfinite(color).all()


def test_identity_is_the_sums() -> None:
    read, shading = made({"type": "identity"})
    sums, directions = rays(read.channels)
    assert torch.equal(shading(sums, directions), sums) and not list(shading.parameters())


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_gradients(config: dict[str, object]) -> None:
    read, shading = made(config)
    shading.double()
    sums, directions = (x.double().requires_grad_() for x in rays(read.channels))
    assert torch.autograd.gradcheck(shading, (sums, directions))


def test_parameters_have_gradients_in_float32() -> None:
    """The kernel for small networks, against the same network in float64."""
    read, shading = made({"type": "deferred"})
    given = rays(read.channels, 100)
    loss = shading(*given).square().sum()
    found = torch.autograd.grad(loss, list(shading.parameters()))
    shading.double()
    truth = torch.autograd.grad(shading(*(x.double() for x in given)).square().sum(), list(shading.parameters()))
    for mine, other in zip(found, truth, strict=True):
        torch.testing.assert_close(mine.double(), other, atol=1e-4, rtol=1e-3)


def test_deferred_adds_what_the_network_says() -> None:
    """With weights of zero the residual is the sigmoid of the last bias; features and direction enter by the rest."""
    read, shading = made({"type": "deferred"})
    assert isinstance(shading, Deferred)
    sums, directions = rays(read.channels)
    changed = sums.clone()
    changed[:, 3:] += 0.5
    assert (shading(sums, directions) - shading(changed, directions)).abs().max() > 1e-4
    assert (shading(sums, directions) - shading(sums, -directions)).abs().max() > 1e-4
    last = shading.network.linears()[-1]
    last.set(torch.zeros_like(last.direction), torch.tensor([0.0, 1.0, -20.0]))
    expected = sums[:, :3] + torch.tensor([0.5, 0.7310586, 0.0])
    torch.testing.assert_close(shading(sums, directions), expected, atol=1e-6, rtol=0)


def test_the_published_network() -> None:
    """Two layers of 16; 27 numbers of the direction, 3 of the diffuse color, 4 features."""
    _, shading = made({"type": "deferred"})
    assert isinstance(shading, Deferred)
    assert [tuple(layer.direction.shape) for layer in shading.network.linears()] == [(16, 34), (16, 16), (3, 16)]


@pytest.mark.parametrize("wrong", [{"type": "deferred", "features": 0}, {"type": "phong"}], ids=str)
def test_wrong_keys_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        made(wrong)
