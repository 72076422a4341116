"""Each opacity against the alpha that its paper prints, in float64."""

import pytest
import torch
from torch import Tensor

from dataio.cameras import Rays
from models.opacity import DensityConfig, LogisticConfig, Opacity
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
    opacity = LogisticConfig(initial_s=s, anneal=anneal).build().double()
    sample, samples = profile()
    s = float(opacity.s.detach())  # as rounded by the parameter
    alpha = -torch.expm1(-opacity.optical_depth(sample, samples))
    truth = neus_alpha(sample, samples, s, anneal)
    sound = (sample.value * s).abs() < 30  # beyond, the printed form divides 0 by 0
    assert sound.float().mean() > 0.3
    torch.testing.assert_close(alpha[sound], truth[sound], atol=1e-6, rtol=1e-6)


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


def all_opacities() -> dict[str, Opacity]:
    density = {f"density {a}": DensityConfig(activation=a).build() for a in (*ACTIVATIONS, "rrelu")}
    return {"logistic": LogisticConfig().build(), **density}


@pytest.mark.parametrize("name", all_opacities())
def test_optical_depth_is_never_negative_and_zero_for_nothing(name: str) -> None:
    opacity = all_opacities()[name].double()
    sample, samples = profile()
    assert (opacity.optical_depth(sample, samples) >= 0).all()
    empty = DenseSamples.from_edges(samples.rays, torch.ones(len(samples.rays), 33).double())
    assert opacity.optical_depth(sample, empty).abs().max() == 0


@pytest.mark.parametrize("name", all_opacities())
def test_gradients(name: str) -> None:
    opacity = all_opacities()[name].double().eval()
    sample, samples = profile(count=3, seed=4)

    def tau(value: Tensor, gradient: Tensor) -> Tensor:
        return opacity.optical_depth(FieldSample(value, sample.color, gradient), samples)

    assert sample.gradient is not None
    leaves = (sample.value.clone().requires_grad_(), sample.gradient.clone().requires_grad_())
    assert torch.autograd.gradcheck(tau, leaves, atol=1e-4)


@pytest.mark.parametrize("degrees", [0, 20, 40, 60, 80])
def test_neus_weights_peak_at_a_plane(degrees: float) -> None:
    """Unbiased: along a ray that meets a plane at a slope, the weight is largest where the sdf is zero."""
    cosine = torch.cos(torch.deg2rad(torch.tensor(degrees, dtype=torch.float64)))
    hit = 0.6180339
    edges = torch.linspace(0, 1, 2001, dtype=torch.float64)[None]
    normal = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    direction = torch.stack([torch.sqrt(1 - cosine**2), torch.zeros_like(cosine), cosine])[None]
    rays = Rays(torch.zeros(1, 3).double(), direction, torch.zeros(1), torch.ones(1), torch.zeros(1).long())
    samples = DenseSamples.from_edges(rays, edges)
    sdf = (hit - samples.t) * cosine
    opacity = LogisticConfig(initial_s=200.0).build().double()
    gradient = normal.expand(1, 2000, 3)
    tau = opacity.optical_depth(FieldSample(sdf, gradient, gradient), samples)
    weight = torch.exp(-samples.exclusive_sum(tau)) * -torch.expm1(-tau)
    assert abs(samples.t[0, weight.argmax()].item() - hit) < 1e-3
    assert weight.sum().item() == pytest.approx(1.0, abs=1e-3)


def test_what_the_grid_leaves_out_is_negligible() -> None:
    """A ray through all that is not `occupied` loses less than a percent of its light."""
    opacity = LogisticConfig(initial_s=100.0).build().double()
    sdf = torch.linspace(0.5, -0.5, 4001, dtype=torch.float64)
    left_out = ~opacity.occupied(sdf, 0.0) & (sdf > 0)
    light = torch.nn.functional.logsigmoid(opacity.s * sdf)
    lost = torch.relu(light[:-1] - light[1:])[left_out[:-1]].sum()
    assert lost < 0.01


def test_probe_sees_what_the_samples_see() -> None:
    """On a plane met head-on the estimate from values alone is the optical depth from mid-point to mid-point."""
    edges = torch.linspace(0, 1, 401, dtype=torch.float64)[None]
    rays = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0, 1]]), torch.zeros(1), torch.ones(1), torch.zeros(1).long())
    samples = DenseSamples.from_edges(rays, edges)
    opacity = LogisticConfig(initial_s=50.0).build().double()
    sdf = 0.5 - samples.t
    through = torch.exp(-opacity.probe(sdf, samples).sum())
    truth = torch.sigmoid(opacity.s * sdf[0, -1]) / torch.sigmoid(opacity.s * sdf[0, 0])
    torch.testing.assert_close(through, truth, atol=1e-9, rtol=1e-6)
