"""What every sampler promises: sorted, in bounds, safe on empty rays; and where each one puts its samples."""

import math

import pytest
import torch

from dataio.cameras import Rays
from models.opacities.base import OpacityConfig
from models.opacities.laplace import LaplaceConfig
from models.opacities.occupancy import OccupancyConfig
from models.samplers.base import Sampler, SamplerConfig
from models.samplers.error_bound import ErrorBoundConfig, error_bound
from models.samplers.importance import ImportanceConfig
from models.samplers.inverse_cdf import sample_pdf
from models.samplers.inverse_radius import InverseRadiusConfig
from models.samplers.neus import NeusSamplerConfig
from models.samplers.occupancy_grid import OccupancyGrid, OccupancyGridConfig
from models.samplers.root_finding import RootFindingConfig, first_surface
from models.samplers.stratified import StratifiedConfig
from models.samples import PackedSamples, Points, RaySamples
from tests.support.analytic import SphereMedium, clip, hit_distance, rays_at_sphere, sphere_medium
from utils.config.parts import parts

SAMPLERS: dict[str, tuple[SamplerConfig, str]] = {
    "neus": (NeusSamplerConfig(), "sphere"),
    "stratified": (StratifiedConfig(), "sphere"),
    "error_bound": (ErrorBoundConfig(), "sphere"),
    "root_finding": (RootFindingConfig(interval=0.2), "sphere"),
    "importance": (ImportanceConfig(coarse=32, fine=32), "sphere"),
    "inverse_radius": (InverseRadiusConfig(), "outside"),
    "occupancy_grid": (OccupancyGridConfig(resolution=32, prune=False), "sphere"),
    "occupancy_grid, pruned": (OccupancyGridConfig(resolution=32), "sphere"),
}


def sampled(name: str, rays: Rays, *, training: bool = False) -> RaySamples:
    config, bounds = SAMPLERS[name]
    sampler: Sampler = config.build().train(training)
    medium = sphere_medium()
    sampler.refresh(medium, 0)
    return sampler(clip(rays, bounds), medium)


def per_ray(samples: RaySamples, values: torch.Tensor) -> list[torch.Tensor]:
    if isinstance(samples, PackedSamples):
        edges = samples.offsets.tolist()
        return [values[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return list(values)


def test_every_part_of_the_folder_is_tested_here() -> None:
    from engine import experiment  # noqa: F401  (discovers the parts)

    assert set(parts(SamplerConfig).values()) == {type(config) for config, _ in SAMPLERS.values()}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", SAMPLERS)
def test_sorted_and_in_bounds(name: str, training: bool) -> None:
    torch.manual_seed(0)
    rays = rays_at_sphere(64, spread=1.2)
    samples = sampled(name, rays, training=training)
    clipped = clip(rays, SAMPLERS[name][1])
    assert (samples.t1 >= samples.t0).all() and (samples.length >= 0).all()
    assert ((samples.t >= samples.t0 - 1e-4) & (samples.t <= samples.t1 + 1e-4)).all()
    slack = 0.05  # half a step of jitter, and the last section of NeuS
    for r, t in enumerate(per_ray(samples, samples.t)):
        assert (t.diff() >= -1e-6).all()
        if len(t):
            assert t.min() >= clipped.near[r] - slack and t.max() <= clipped.far[r] + slack


@pytest.mark.parametrize("name", SAMPLERS)
def test_evaluation_is_a_function_of_the_rays(name: str) -> None:
    rays = rays_at_sphere(16)
    torch.manual_seed(1)
    first = sampled(name, rays)
    torch.manual_seed(2)
    assert torch.equal(first.t, sampled(name, rays).t)


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_rays_and_rays_that_miss(name: str) -> None:
    assert sampled(name, rays_at_sphere(4)[:0]).t.numel() == 0
    away = rays_at_sphere(8)
    away = Rays(away.origins, -away.directions, away.near, away.far, away.camera)
    samples = sampled(name, away)
    if SAMPLERS[name][1] == "sphere":
        assert samples.total(samples.length).abs().max() < 1e-6
    else:
        assert torch.isfinite(samples.t).all() and (samples.positions.norm(dim=-1) >= 1 - 1e-4).all()


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"stratified", "inverse_radius"}))
def test_samples_lie_at_the_surface(name: str) -> None:
    """Every ray that hits the sphere well has its densest samples at the hit."""
    rays = rays_at_sphere(200, spread=0.6)
    hit = hit_distance(rays)
    samples = sampled(name, rays)
    for r, t in enumerate(per_ray(samples, samples.t)):
        if torch.isfinite(hit[r]):
            assert (t - hit[r]).abs().min() < 0.03


def test_pruning_keeps_what_is_seen() -> None:
    """The pruned samples hold all but a thousandth of every ray's weight, in far fewer samples."""
    rays = rays_at_sphere(300)
    medium = sphere_medium(s=100.0)
    weights = []
    counts = []
    for prune in (False, True):
        sampler = OccupancyGridConfig(resolution=32, prune=prune).build().eval()
        sampler.refresh(medium, 0)
        samples = sampler(clip(rays, "sphere"), medium)
        field = medium.field(Points(samples.positions, samples.directions))
        tau = medium.opacity.optical_depth(field, samples)
        weights.append(1 - torch.exp(-samples.total(tau)))
        counts.append(samples.t.numel())
    assert (weights[0] - weights[1]).abs().max() < 0.02
    assert counts[1] < 0.6 * counts[0]


def test_values_behind_the_first_surface_are_not_asked_for_and_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ray that has lost its light ends at the first gap: the same samples from fewer values."""
    rays, medium = clip(rays_at_sphere(300), "sphere"), sphere_medium(s=400.0)
    value, asked = medium.value, 0

    def counted(x: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += len(x)
        return value(x)

    def all_of_them(_: OccupancyGrid, samples: PackedSamples, *rest: object) -> tuple[torch.Tensor, torch.Tensor]:
        return value(samples.positions), torch.ones(len(samples.t), dtype=torch.bool)

    sampler = OccupancyGridConfig(resolution=32).build().eval()
    sampler.refresh(medium, 0)
    monkeypatch.setattr(medium, "value", counted)
    mine = sampler(rays, medium)
    monkeypatch.setattr(OccupancyGrid, "_values", all_of_them)
    other = sampler(rays, medium)
    assert torch.equal(mine.offsets, other.offsets) and torch.equal(mine.t, other.t)
    sampler.config = sampler.config.model_copy(update={"prune": False})
    assert 0 < asked < 0.75 * len(sampler(rays, medium).t)


def test_before_gap_by_hand() -> None:
    rays = rays_at_sphere(3)
    starts = torch.tensor([0.0, 0.1, 0.5, 0.6, 1.0, 2.0, 2.1])
    offsets = torch.tensor([0, 4, 4, 7], dtype=torch.int32)
    index = torch.tensor([0, 0, 0, 0, 2, 2, 2])
    samples = PackedSamples.from_intervals(rays, starts, starts + 0.1, ray_index=index, offsets=offsets)
    assert samples.before_gap().tolist() == [True, True, False, False, True, False, False]


def test_inverse_radius_edges_are_even_in_one_over_r() -> None:
    rays = clip(rays_at_sphere(20), "outside")
    samples = InverseRadiusConfig(samples=8, reach=100.0).build().eval()(rays, sphere_medium())
    edges = torch.cat([samples.t0, samples.t1[:, -1:]], 1)
    inverse = 1 / rays.at(edges).norm(dim=-1)
    even = (inverse[:, -1:] - inverse[:, :1]).expand(-1, 8) / 8
    torch.testing.assert_close(inverse.diff(), even, atol=2e-5, rtol=1e-3)
    torch.testing.assert_close(inverse[:, 0], torch.ones(20), atol=1e-4, rtol=0)
    torch.testing.assert_close(inverse[:, -1], torch.full((20,), 0.01), atol=1e-5, rtol=1e-2)
    torch.testing.assert_close(samples.length, -inverse.diff(), atol=1e-5, rtol=1e-3)


def test_inverse_cdf_against_numbers_worked_by_hand() -> None:
    edges = torch.tensor([[0.0, 1.0, 2.0, 4.0]])
    samples = sample_pdf(edges, torch.tensor([[1.0, 0.0, 3.0]]), 4)
    # Quantiles 1/8, 3/8, 5/8, 7/8 of a histogram with 1/4 in [0, 1] and 3/4 in [2, 4].
    torch.testing.assert_close(samples, torch.tensor([[0.5, 2 + 1 / 3, 3.0, 3 + 2 / 3]]), atol=1e-3, rtol=0)


def test_the_grid_follows_the_field_and_costs_a_share_of_its_cells() -> None:
    medium = sphere_medium(s=1000.0)
    sampler = OccupancyGridConfig(resolution=16, every=2, share=4).build()
    sampler.refresh(medium, 0)
    center = (torch.arange(16) + 0.5) / 8 - 1
    radius = torch.stack(torch.meshgrid(center, center, center, indexing="ij"), -1).norm(dim=-1)
    occupied = sampler.occupied.bool()
    assert occupied[(radius - 0.6).abs() < 3**0.5 / 16].all()
    assert not occupied[(radius - 0.6).abs() > 3**0.5 / 16 + 0.02].any()
    before = medium.asked
    sampler.refresh(medium, 1)
    assert medium.asked == before
    sampler.refresh(medium, 2)
    assert medium.asked == before + 16**3 // 4


def test_the_step_survives_a_checkpoint() -> None:
    sampler = OccupancyGridConfig(resolution=8).build()
    sampler.refresh(sphere_medium(s=100.0), 0)
    other = OccupancyGridConfig(resolution=8).build()
    other.load_state_dict(sampler.state_dict())
    assert float(other.steps[0]) == float(sampler.steps[0]) != OccupancyGridConfig().step[1]
    assert torch.equal(other.occupied, sampler.occupied)


SHAPES = {
    "sphere": lambda x: x.norm(dim=-1) - 0.6,
    "box": lambda x: (x.abs() - 0.4).clamp_min(0).norm(dim=-1) + (x.abs() - 0.4).amax(-1).clamp_max(0),
    "slab": lambda x: x[..., 2].abs() - 0.02,
    "two spheres": lambda x: torch.minimum((x - 0.3).norm(dim=-1) - 0.3, (x + 0.3).norm(dim=-1) - 0.2),
}


def laplace_density(sdf: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    far = 0.5 * torch.exp(-sdf.abs() / beta)
    return torch.where(sdf >= 0, far, 1 - far) / beta


@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_of_the_opacity_is_within_the_bound_of_volsdf(shape: str) -> None:
    """2,500 rays of random intervals and beta through each of four exact sdfs: 10,000 in all.

    The truth is the integral of the density by 32 mid-points in each interval, in float64.
    """
    g = torch.Generator().manual_seed(len(shape))
    rays = clip(rays_at_sphere(2500, seed=len(shape)), "sphere")
    share = torch.rand(2500, 49, generator=g).double().sort(1).values
    t = rays.near.double()[:, None] + share * (rays.far - rays.near).double()[:, None]
    beta = 10 ** (-2.5 + 2 * torch.rand(2500, 1, generator=g).double())
    origin, direction = rays.origins.double()[:, None], rays.directions.double()[:, None]
    delta = t.diff(dim=1)
    exact = torch.zeros_like(delta)
    for part in torch.arange(2500).split(250):
        fine = t[part, :-1, None] + (torch.arange(32) + 0.5) / 32 * delta[part, :, None]
        points = origin[part, None] + fine[..., None] * direction[part, None]
        density = laplace_density(SHAPES[shape](points), beta[part, None])
        exact[part] = (density.mean(-1) * delta[part]).cumsum(1)
    sdf = SHAPES[shape](origin + t[..., None] * direction)
    estimate = (laplace_density(sdf[:, :-1], beta) * delta).cumsum(1)
    wrong = (torch.exp(-exact) - torch.exp(-estimate)).abs().amax(1)
    bound = error_bound(t, sdf, beta).amax(1)
    assert (wrong <= bound + 1e-5).all()
    assert (bound < 0.5).float().mean() > 0.05 and (bound > 0.5).float().mean() > 0.05


def test_error_bound_stops_early_where_beta_is_large_and_ends_sharp_where_it_is_small() -> None:
    rays = clip(rays_at_sphere(100, spread=0.5), "sphere")
    asked = []
    for width in (0.1, 0.01, 1e-3):
        medium = sphere_medium(s=1 / width)
        ErrorBoundConfig().build().eval()(rays, medium)
        asked.append(medium.asked / 100)
    assert asked[0] <= 129 + 1 and asked[0] < asked[1] < asked[2] <= 129 + 5 * 128


@pytest.mark.parametrize("opacity", [LaplaceConfig(), OccupancyConfig(), OccupancyConfig(scale=-1.0)])
def test_root_finding_meets_the_sphere(opacity: OpacityConfig) -> None:
    rays = clip(rays_at_sphere(2000, spread=1.1), "sphere")
    found = first_surface(rays, SphereMedium(opacity.build()), 256, 8)
    hit = hit_distance(rays)
    clear = torch.isfinite(hit) & (rays.at(hit.float().nan_to_num(posinf=0.0)).mul(rays.directions).sum(-1) < -0.02)
    assert torch.isinf(found[torch.isinf(hit)]).all()
    assert clear.sum() > 500 and torch.isfinite(found[clear]).all()
    assert (found.double() - hit)[clear].abs().max() < 1e-4


def test_root_finding_where_larger_values_are_inside_and_from_within() -> None:
    class Logits(SphereMedium):
        def value(self, x: torch.Tensor) -> torch.Tensor:
            return torch.expm1(-3 * super().value(x))

    rays = clip(rays_at_sphere(500, spread=0.5), "sphere")
    found = first_surface(rays, Logits(OccupancyConfig(scale=1.0).build()), 256, 8)
    assert (found.double() - hit_distance(rays)).abs().max() < 1e-4
    within = Rays(rays.origins * 0.1, rays.directions, rays.near, rays.far, rays.camera)
    assert torch.isinf(first_surface(clip(within, "sphere"), sphere_medium(), 256, 8)).all()


def test_the_interval_shrinks_with_the_run_to_its_floor() -> None:
    """After a third of UNISURF's 450,000 steps its half is 2 exp(-2.25); at the end it is the floor of 0.1."""
    rays = clip(rays_at_sphere(100, spread=0.5), "sphere")
    hit = hit_distance(rays).float()[:, None]
    sampler = RootFindingConfig().build().eval()
    for progress, half in ((0.0, 2.0), (1 / 3, 2 * math.exp(-2.25)), (1.0, 0.1)):
        sampler.update(progress)
        assert sampler.interval == pytest.approx(half)
        samples = sampler(rays, sphere_medium())
        assert samples.t.shape == (100, 96)
        low, high = torch.maximum(rays.near[:, None], hit - half), torch.minimum(rays.far[:, None], hit + half)
        torch.testing.assert_close(samples.t0[:, 32:33], low, atol=1e-4, rtol=0)
        torch.testing.assert_close(samples.t1[:, -1:], high, atol=1e-4, rtol=0)
        torch.testing.assert_close(samples.t0[:, 0], rays.near)


@pytest.mark.parametrize("name", ["stratified", "root_finding"])
def test_training_draws_one_sample_in_each_interval(name: str) -> None:
    torch.manual_seed(0)
    samples = sampled(name, rays_at_sphere(400, spread=0.5), training=True)
    share = ((samples.t - samples.t0) / samples.length)[samples.length > 1e-3]
    assert share.min() < 0.01 and share.max() > 0.99 and share.mean() == pytest.approx(0.5, abs=0.01)
