"""A coarse field that places the samples of a fine one, and learns from the same colors."""

from __future__ import annotations

from dataclasses import replace

import torch

from dataio.batches import RayBatch
from models.losses.base import Step
from models.losses.color import ColorLoss
from models.model import Model, ModelConfig, render_rays
from models.samples import DenseSamples, FieldSample, MediumRendering
from tests.support.analytic import DENSITY_FIELD, FOREGROUND, rays_at_sphere

DENSITY = {"type": "density", "activation": "softplus"}
COARSE = {"field": DENSITY_FIELD, "opacity": DENSITY}
PROPOSED = {"type": "importance", "coarse": 16, "fine": 16, "proposal": COARSE}


def model(sampler: dict[str, object]) -> Model:
    torch.manual_seed(0)
    foreground = {**FOREGROUND, "field": DENSITY_FIELD, "sampler": sampler, "opacity": DENSITY}
    return Model(ModelConfig.model_validate({"foreground": foreground, "background_color": "white"}))


def batch(count: int = 8) -> RayBatch:
    rays = rays_at_sphere(count, spread=0.5)
    return RayBatch(rays, torch.full((count, 3), 0.25))


def test_coarse_and_fine_are_trained_on_the_colors() -> None:
    both, data = model(PROPOSED).train(), batch()
    rendering = both(data.rays)
    assert rendering.proposed is not None and rendering.color.shape == rendering.proposed.shape
    loss = ColorLoss(norm="l2")(Step(rendering, data, both))
    expected = sum((c - data.color).square().mean() for c in (rendering.color, rendering.proposed))
    torch.testing.assert_close(loss, torch.as_tensor(expected))
    loss.backward()
    missing = [name for name, p in both.named_parameters() if p.grad is None]
    assert not missing and any("proposal" in name for name, _ in both.named_parameters())


def test_the_proposal_learns_from_its_own_color_only() -> None:
    both, data = model(PROPOSED).train(), batch()
    (both(data.rays).color - data.color).square().mean().backward()
    assert all(p.grad is None for name, p in both.named_parameters() if "proposal" in name)


def test_no_proposal_when_there_is_nothing_to_learn() -> None:
    data = batch()
    assert model(PROPOSED).eval()(data.rays).proposed is None
    assert model({"type": "importance"}).train()(data.rays).proposed is None


def layer(tau: float, color: float, proposal: MediumRendering | None = None, seen: list[int] | None = None):
    """A medium of one interval, for any rays; writes down how many rays came."""

    def medium(rays) -> MediumRendering:
        if seen is not None:
            seen.append(len(rays))
        samples = DenseSamples.from_edges(rays, torch.tensor([1.0, 2.0]).expand(len(rays), 2))
        colors = torch.full((len(rays), 1, 3), color)
        field = FieldSample(torch.zeros(len(rays), 1), colors)
        return MediumRendering(replace(samples, proposal=proposal), field, colors, torch.full((len(rays), 1), tau))

    return medium


def test_proposals_are_composed_with_what_lies_behind_them() -> None:
    """Coarse light goes through the coarse foreground, then the only background, then meets the color behind."""
    rays, seen = rays_at_sphere(3), [0]
    coarse = layer(0.5, 0.8)(rays)
    media = [layer(30.0, 0.2, proposal=coarse), layer(1.0, 0.6, seen=seen)]
    rendering = render_rays(rays, media, torch.ones(3))
    first, second = torch.exp(torch.tensor(-0.5)), torch.exp(torch.tensor(-1.0))
    expected = (1 - first) * 0.8 + first * ((1 - second) * 0.6 + second)
    assert rendering.proposed is not None
    torch.testing.assert_close(rendering.proposed, expected.expand(3, 3))
    torch.testing.assert_close(rendering.color, torch.full((3, 3), 0.2))
    torch.testing.assert_close(rendering.opacity, torch.ones(3))
    assert seen == [0, 3]  # the fine light ends in the foreground, the coarse does not
