"""Each opacity against the alpha that its paper prints, in float64; what a kernel computes in float32."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dataio.cameras import Rays
from models.opacities.base import Opacity
from models.opacities.density import SURFACE_DENSITY, DensityConfig
from models.opacities.laplace import LaplaceConfig
from models.opacities.logistic import LogisticConfig
from models.opacities.occupancy import OccupancyConfig
from models.samples import DenseSamples, FieldSample


def profile(count: int = 200, seed: int = 0) -> tuple[FieldSample, DenseSamples]:
    """Random sdf profiles: values, gradients and intervals that no real ray need have."""
    g = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1).double()
    zero, one = torch.zeros(count).double(), torch.ones(count).double()
    rays = Rays(torch.zeros(count, 3).double(), unit, zero, one, torch.zeros(count, dtype=torch.long))
    edges = torch.rand(count, 33, generator=g).double().sort(1).values
    samples = DenseSamples.from_edges(rays, edges)
    value = torch.randn(count, 32, generator=g).double() * 0.2
    gradient = torch.randn(count, 32, 3, generator=g).double()
    return FieldSample(value, value[..., None].expand(-1, -1, 3), gradient), samples


def in_single(sample: FieldSample, samples: DenseSamples) -> tuple[FieldSample, DenseSamples]:
    """As a kernel has them."""
    assert sample.gradient is not None
    rays = replace(samples.rays, origins=samples.rays.origins.float(), directions=samples.rays.directions.float())
    edges = torch.cat([samples.t0, samples.t1[:, -1:]], 1).float()
    single = FieldSample(sample.value.float(), sample.features.float(), sample.gradient.float())
    return single, DenseSamples.from_edges(rays, edges)


def neus_alpha(sample: FieldSample, samples: DenseSamples, s: float, anneal: float) -> Tensor:
    """Wang et al., "NeuS", eq. 13 with the section's slope as in its code, without its 1e-5."""
    assert sample.gradient is not None
    cosine = (samples.directions * sample.gradient).sum(-1)
    slope = -(torch.relu(0.5 - 0.5 * cosine) * (1 - anneal) + torch.relu(-cosine) * anneal)
    before, after = sample.value - slope * samples.length / 2, sample.value + slope * samples.length / 2
    cdf_before, cdf_after = torch.sigmoid(before * s), torch.sigmoid(after * s)
    return ((cdf_before - cdf_after) / cdf_before).clamp(0, 1)


@pytest.mark.parametrize("s", [5.0, 64.0, 300.0])
@pytest.mark.parametrize("anneal", [0.0, 0.3, 1.0])
def test_logistic_is_the_alpha_of_neus(s: float, anneal: float) -> None:
    opacity = LogisticConfig(initial_s=s, anneal=anneal).build()
    sample, samples = profile()
    s = float(opacity.s.detach())  # as rounded by the parameter
    alpha = -torch.expm1(-opacity.optical_depth(*in_single(sample, samples)).double())
    truth = neus_alpha(sample, samples, s, anneal)
    sound = (sample.value * s).abs() < 30  # beyond, the printed form divides 0 by 0
    assert sound.float().mean() > 0.3
    torch.testing.assert_close(alpha[sound], truth[sound], atol=2e-5, rtol=1e-6)


ACTIVATIONS = {
    "relu": torch.relu,
    "softplus": lambda x: torch.log1p(torch.exp(x)),
    "abs": torch.abs,
    "exp": torch.exp,
    "leaky_relu": torch.relu,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_density_is_the_alpha_of_nerf(name: str) -> None:
    sample, samples = profile()
    tau = DensityConfig(activation=name).build().optical_depth(sample, samples)
    truth = 1 - torch.exp(-ACTIVATIONS[name](sample.value) * samples.length)
    torch.testing.assert_close(-torch.expm1(-tau), truth, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("shift", [-4.6, 0.0, 3.0])
def test_a_density_of_voxels_is_the_alpha_of_dvgo(shift: float) -> None:
    """Sun et al., "DVGO", eqs. 4 and 5 as its code has them: 1 - (1 + exp(V + b))^(-d), d counted in voxels."""
    voxel, (sample, samples) = 0.0125, profile()
    raw = replace(sample, value=sample.value * 20 + shift)
    opacity = DensityConfig(scale=1 / voxel).build()
    truth = 1 - (1 + torch.exp(raw.value)) ** (-samples.length / voxel)
    torch.testing.assert_close(-torch.expm1(-opacity.optical_depth(raw, samples)), truth, atol=1e-12, rtol=1e-7)
    torch.testing.assert_close(opacity.estimated_optical_depth(raw.value, samples), opacity.optical_depth(raw, samples))
    assert opacity.occupied(raw.value, voxel).sum() > DensityConfig().build().occupied(raw.value, voxel).sum()


@pytest.mark.parametrize("activation", ["softplus", "exp", "relu"])
@pytest.mark.parametrize("scale", [1.0, 25.0, 80.0])
def test_the_surface_of_a_density_does_not_depend_on_its_unit(activation: str, scale: float) -> None:
    """It lies where the density per scene unit is 10; that of a plain softplus, where it always lay, at a raw 10."""
    opacity = DensityConfig.model_validate({"activation": activation, "scale": scale}).build()
    level = torch.tensor([opacity.surface_level])
    assert opacity.density(level).item() == pytest.approx(SURFACE_DENSITY, rel=1e-4)


@pytest.mark.parametrize("beta", [0.5, 0.1, 0.01])
def test_laplace_is_the_alpha_of_volsdf(beta: float) -> None:
    """Yariv et al., "VolSDF", eqs. 2 and 3, by the two branches of the printed CDF."""
    opacity = LaplaceConfig(initial_beta=beta).build().double()
    sample, samples = profile()
    beta, f = float(opacity.beta.detach()), sample.value
    cdf = torch.where(f >= 0, 0.5 * torch.exp(-f.abs() / beta), 1 - 0.5 * torch.exp(-f.abs() / beta))
    alpha = -torch.expm1(-opacity.optical_depth(sample, samples))
    torch.testing.assert_close(alpha, 1 - torch.exp(-cdf / beta * samples.length), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [-10.0, 1.0])
def test_occupancy_is_the_alpha_of_unisurf(scale: float) -> None:
    """Oechsle et al., "UNISURF", eq. 6: the occupancy itself, sigmoid(-10 f) for its networks."""
    sample, samples = profile()
    opacity = OccupancyConfig(scale=scale).build()
    alpha = -torch.expm1(-opacity.optical_depth(sample, samples))
    torch.testing.assert_close(alpha, torch.sigmoid(scale * sample.value), atol=1e-6, rtol=0)
    assert opacity.outside_sign == (1 if scale < 0 else -1)


def test_beta_has_a_floor_and_a_schedule() -> None:
    opacity = LaplaceConfig(
        initial_beta=0.2, floor=1e-3, most_beta={"type": "linear", "start": 1.0, "end": 0.05}
    ).build()
    assert opacity.statistics()["beta"] == pytest.approx(0.2)
    opacity.update(1.0)
    assert opacity.width() == pytest.approx(0.05)
    with torch.no_grad():
        opacity.b.fill_(0.0)
    assert opacity.width() == pytest.approx(1e-3)


def all_opacities() -> dict[str, Opacity]:
    density = {f"density {a}": DensityConfig(activation=a).build() for a in (*ACTIVATIONS, "rrelu")}
    others = {"laplace": LaplaceConfig().build(), "occupancy": OccupancyConfig().build()}
    return {"logistic": LogisticConfig().build(), **others, **density}


@pytest.mark.parametrize("name", all_opacities())
def test_optical_depth_is_never_negative_and_zero_for_nothing(name: str) -> None:
    opacity = all_opacities()[name]
    sample, samples = in_single(*profile())
    assert (opacity.optical_depth(sample, samples) >= 0).all()
    empty = DenseSamples.from_edges(samples.rays, torch.ones(len(samples.rays), 33))
    assert opacity.optical_depth(sample, empty).abs().max() == 0


@pytest.mark.parametrize("name", sorted(set(all_opacities()) - {"logistic"}))  # whose kernel has a test of its own
def test_gradients(name: str) -> None:
    opacity = all_opacities()[name].double().eval()
    sample, samples = profile(count=3, seed=4)

    def tau(value: Tensor, gradient: Tensor) -> Tensor:
        return opacity.optical_depth(FieldSample(value, sample.features, gradient), samples)

    assert sample.gradient is not None
    leaves = (sample.value.clone().requires_grad_(), sample.gradient.clone().requires_grad_())
    assert torch.autograd.gradcheck(tau, leaves, atol=1e-4)


@pytest.mark.parametrize("degrees", [0, 20, 40, 60, 80])
def test_neus_weights_peak_at_a_plane(degrees: float) -> None:
    """Unbiased: along a ray that meets a plane at a slope, the weight is largest where the sdf is zero."""
    cosine = torch.cos(torch.deg2rad(torch.tensor(float(degrees))))
    hit = 0.6180339
    edges = torch.linspace(0, 1, 2001)[None]
    normal = torch.tensor([0.0, 0.0, -1.0])
    direction = torch.stack([torch.sqrt(1 - cosine**2), torch.zeros_like(cosine), cosine])[None]
    rays = Rays(torch.zeros(1, 3), direction, torch.zeros(1), torch.ones(1), torch.zeros(1).long())
    samples = DenseSamples.from_edges(rays, edges)
    sdf = (hit - samples.t) * cosine
    opacity = LogisticConfig(initial_s=200.0).build()
    gradient = normal.expand(1, 2000, 3)
    tau = opacity.optical_depth(FieldSample(sdf, gradient, gradient), samples)
    weight = torch.exp(-samples.exclusive_sum(tau)) * -torch.expm1(-tau)
    assert abs(samples.t[0, weight.argmax()].item() - hit) < 1e-3
    assert weight.sum().item() == pytest.approx(1.0, abs=1e-3)


def test_the_grid_of_a_density_leaves_out_what_is_negligible() -> None:
    """Laplace: a ray through all that is not `occupied`, outside, loses less than a percent of its light."""
    opacity = LaplaceConfig(initial_beta=0.02).build().double()
    sdf = torch.linspace(0.5, -0.5, 4001, dtype=torch.float64)
    left_out = ~opacity.occupied(sdf, 0.0)
    assert opacity.density(sdf[left_out & (sdf > 0)]).sum() * (sdf[0] - sdf[1]) < 0.01
    kept = opacity.density(sdf[~left_out]).sum() * (sdf[0] - sdf[1])
    assert torch.exp(-kept) < 0.01  # what is left out inside lies in the dark
    occupancy = OccupancyConfig().build()
    assert occupancy.occupied(sdf, 0.0)[sdf < 0.5].all() and not occupancy.occupied(sdf + 0.6, 0.0)[0]


def test_what_the_grid_leaves_out_is_negligible() -> None:
    """A ray through all that is not `occupied` loses less than a percent of its light."""
    opacity = LogisticConfig(initial_s=100.0).build().double()
    sdf = torch.linspace(0.5, -0.5, 4001, dtype=torch.float64)
    left_out = ~opacity.occupied(sdf, 0.0) & (sdf > 0)
    light = torch.nn.functional.logsigmoid(opacity.s * sdf)
    lost = torch.relu(light[:-1] - light[1:])[left_out[:-1]].sum()
    assert lost < 0.01


def test_an_occupancy_sharpens_with_the_run() -> None:
    config = OccupancyConfig.model_validate({"scale": -60, "sharpen": {"type": "exponential", "start": 1, "end": 15}})
    opacity = config.build()
    assert opacity.width() == pytest.approx(1 / 60)
    opacity.update(1.0)
    assert opacity.scale == pytest.approx(-900) and opacity.width() == pytest.approx(1 / 900)
    assert OccupancyConfig(scale=10).build().width() is None  # how steep a logit is, nobody knows


def test_probe_sees_what_the_samples_see() -> None:
    """On a plane met head-on the estimate from values alone is the optical depth from mid-point to mid-point."""
    edges = torch.linspace(0, 1, 401)[None]
    rays = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0, 1]]), torch.zeros(1), torch.ones(1), torch.zeros(1).long())
    samples = DenseSamples.from_edges(rays, edges)
    opacity = LogisticConfig(initial_s=50.0).build()
    sdf, s = 0.5 - samples.t, opacity.s.detach().double()
    through = torch.exp(-opacity.estimated_optical_depth(sdf, samples).double().sum())
    truth = torch.sigmoid(s * sdf[0, -1].double()) / torch.sigmoid(s * sdf[0, 0].double())
    torch.testing.assert_close(through, truth, atol=1e-15, rtol=1e-3)


@pytest.mark.parametrize("beta", [0.5, 0.02, 1e-3])
def test_laplace_on_a_linear_interval_is_the_integral_of_the_density(beta: float) -> None:
    """Against the sum over 20,000 parts of each interval, and its gradients against finite differences."""
    opacity = LaplaceConfig(initial_beta=beta, interval="linear").build().double()
    sample, samples = profile(count=20)
    assert sample.gradient is not None
    slope = (sample.gradient * samples.directions).sum(-1)
    part = (torch.arange(20_000).double() + 0.5) / 20_000
    at = samples.t0[..., None] + part * samples.length[..., None] - samples.t[..., None]
    density = opacity.density(sample.value[..., None] + slope[..., None] * at).mean(-1)
    truth = density * samples.length
    found = opacity.optical_depth(sample, samples)
    torch.testing.assert_close(found, truth, atol=1e-4, rtol=1e-4)

    def of(value: Tensor, gradient: Tensor) -> Tensor:
        return opacity.optical_depth(FieldSample(value, sample.features, gradient), samples)

    sample, samples = profile(count=2)
    assert sample.gradient is not None
    inputs = [x.clone().requires_grad_() for x in (sample.value, sample.gradient)]
    assert torch.autograd.gradcheck(of, inputs, eps=1e-7, atol=1e-4, rtol=1e-3)


def test_laplace_that_hardly_changes_is_that_of_the_middle() -> None:
    """Rays along the surface, where a quotient of differences would have no digits left."""
    linear, constant = (LaplaceConfig(initial_beta=0.01, interval=how).build() for how in ("linear", "constant"))
    sample, samples = profile(count=20)
    assert sample.gradient is not None
    flat = FieldSample(sample.value.float(), sample.features, 1e-6 * sample.gradient.float())
    found, truth = (opacity.optical_depth(flat, samples).double() for opacity in (linear, constant))
    torch.testing.assert_close(found, truth, atol=1e-4, rtol=1e-3)
